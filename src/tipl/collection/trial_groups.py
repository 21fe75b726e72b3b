"""All groups of a dataset, as the work of an engine."""

from __future__ import annotations

import dataclasses
import os
import re
import socket
import threading
from collections.abc import Sequence
from functools import cached_property
from itertools import groupby
from pathlib import Path

from tipl.collection.config import CollectConfig
from tipl.collection.groups import TrialGroup
from tipl.collection.limits import process_memory
from tipl.core.arrays import Array
from tipl.core.engines.work import Report
from tipl.core.locks import writer_of
from tipl.core.progress import CollectionProgress
from tipl.core.system_errors import explained
from tipl.envs.worlds import World
from tipl.errors import TiplError
from tipl.paths import PathMetadata
from tipl.paths.grid import PartRange, part_ranges
from tipl.paths.metadata import first_difference, library_versions, read_metadata

_OF_TRIALS = re.compile(r"\.?trials-(\d+)")
"""How names of files begin that a group of trials leaves while it is collected."""


@dataclasses.dataclass(frozen=True)
class TrialGroups:
    """The groups of a dataset, as the `tipl.core.engines.work.Work` of any machine.

    Its metadata are there: `tipl.paths.parts.create_dataset`.
    """

    directory: Path
    config: CollectConfig
    metadata: PathMetadata
    actor: Array | None = None
    """weights `[P]` that all trials start from, if there are any"""
    worlds: tuple[World, ...] = ()
    """of all N trials, unless each draws its own factors, or those that episodes draw from"""

    @cached_property
    def _parts(self) -> list[list[PartRange]]:
        by_trials = groupby(part_ranges(self.metadata), lambda part: part.first_trial)
        return [list(parts) for _, parts in by_trials]

    def __len__(self) -> int:
        """Number of groups."""
        return len(self._parts)

    def group(self, number: int) -> TrialGroup:
        """One of them, counted from 0."""
        parts = self._parts[number]
        return TrialGroup(
            self.directory, self.config, self.metadata, parts, self.actor, self.worlds
        )

    @property
    def memory(self) -> int:
        """Bytes that a process with one group needs, estimated."""
        return process_memory(self.config, self.metadata)

    def unfinished(self) -> list[int]:
        """The groups of which parts are missing, or that were never tidied up."""
        with explained("read", self.directory):
            parts = set(os.listdir(self.directory / "parts"))
            resume = self.directory / "resume"
            left = os.listdir(resume) if resume.exists() else []
        left += [name for name in parts if name.endswith(".unfinished")]
        begun = {match[1] for name in left if (match := _OF_TRIALS.match(name))}
        return [
            number
            for number, own in enumerate(self._parts)
            if f"{own[0].first_trial:05d}" in begun or any(p.file_name not in parts for p in own)
        ]

    def name(self, piece: int) -> str:
        """The trials of a group, for messages."""
        first, last = self._parts[piece][0][:2]
        return f"trials {first} to {last}"

    def is_done(self, piece: int) -> bool:
        """Whether all parts of a group are there."""
        return all(part.path(self.directory).exists() for part in self._parts[piece])

    def extent(self, piece: int) -> int:
        """Environment steps of a group."""
        each = self.config.ppo.rollout_steps * (self.config.num_iterations + 1)
        return each * self._parts[piece][0].num_trials

    def reached(self, piece: int) -> int:
        """Environment steps of a group that are on the disk."""
        parts = self._parts[piece]
        finished = self.group(piece).saved_checkpoints()
        if finished is None:
            return self.extent(piece) if parts[-1].path(self.directory).exists() else 0
        return finished * self.metadata.steps_per_checkpoint * parts[0].num_trials

    def holder(self, piece: int) -> str | None:
        """The process that is collecting a group, as far as can be told from here."""
        return writer_of(self.group(piece).lock.path)

    def record(self, piece: int) -> Path:
        """Where a fault of the code in a group is written down."""
        return self.group(piece).record

    def bar(self, pieces: Sequence[int], shown: bool) -> CollectionProgress:
        """A bar of some groups."""
        trials = sum(self._parts[piece][0].num_trials for piece in pieces)
        return CollectionProgress(trials, sum(map(self.extent, pieces)), shown)

    def check_machine(self) -> None:
        """Raises a TiplError if this machine sees another directory or has other versions."""
        here = f"on {socket.gethostname()}"
        there = self.directory / "metadata.json"
        if not there.exists() or read_metadata(self.directory).digest != self.metadata.digest:
            raise TiplError(
                f"{self.directory.absolute()} is another directory {here}: expected one that all "
                "machines share, and by the same path; put the dataset there"
            )
        difference = first_difference(library_versions(), self.metadata.versions)
        if difference:
            name, found, expected = difference
            raise TiplError(
                f"the version of {name} {here} is {found}, but {expected} where the collection "
                "began, and parts of different versions are not mixed; install the same there"
            )

    def run(self, piece: int, stop: threading.Event, report: Report) -> str | None:
        """Collects a group, unless another process does, which is returned."""
        group = self.group(piece)
        group.stop, group.report = stop, report
        group.run()
        return group.holder
