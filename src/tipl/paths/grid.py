"""The grid of a dataset's parts: which trials and checkpoints each file holds, and its name.

In a dataset of planned trials the parts are known before any is there. One of recorded runs holds
those that there were, of whatever length: its trials have a part each for every few checkpoints,
and the last one grows. A file that grows keeps its name, which says how far it may; its header
says how far it has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tipl.core import storage
from tipl.core.stores import names_in
from tipl.errors import TiplError
from tipl.paths.metadata import PathMetadata

_NAME = re.compile(r"trials-(\d{5,})-(\d{5,})\.checkpoints-(\d{5,})-(\d{5,})\.safetensors")


class PartRange(NamedTuple):
    """The trials and checkpoints of one part; both ranges are inclusive."""

    first_trial: int
    last_trial: int
    first_checkpoint: int
    last_checkpoint: int

    @property
    def num_trials(self) -> int:
        """Number of trials in the part, n."""
        return self.last_trial - self.first_trial + 1

    @property
    def num_checkpoints(self) -> int:
        """Number of checkpoints in the part, t."""
        return self.last_checkpoint - self.first_checkpoint + 1

    @property
    def slices(self) -> tuple[slice, slice]:
        """Where the part lies in an array `[N, T, ...]` of the whole dataset."""
        return (
            slice(self.first_trial, self.last_trial + 1),
            slice(self.first_checkpoint, self.last_checkpoint + 1),
        )

    @property
    def file_name(self) -> str:
        """The name of the part's files."""
        return (
            f"trials-{self.first_trial:05d}-{self.last_trial:05d}"
            f".checkpoints-{self.first_checkpoint:05d}-{self.last_checkpoint:05d}.safetensors"
        )

    def path(self, directory: Path) -> Path:
        """Where the part lies in a dataset's directory, unless it is one that grows."""
        return directory / "parts" / self.file_name


def part_ranges(metadata: PathMetadata) -> list[PartRange]:
    """All parts of a complete dataset of planned trials, by trial and then by checkpoint."""
    return [
        PartRange(*trials, *checkpoints)
        for trials in _blocks(metadata.num_trials or 0, metadata.trials_per_part)
        for checkpoints in _blocks(metadata.num_checkpoints or 0, metadata.checkpoints_per_part)
    ]


def _blocks(total: int, size: int) -> list[tuple[int, int]]:
    """First and last number of each block of `size`, the last of which may be smaller."""
    return [(start, min(start + size, total) - 1) for start in range(0, total, size)]


# --- recorded runs ---------------------------------------------------------------------------


def recorded_parts(folder: Path, metadata: PathMetadata) -> list[PartRange]:
    """The parts of a dataset of recorded runs, by trial and then by checkpoint.

    Of each trial, those before its last one are listed whether their files are there or not, and
    the last one as far as it has grown.
    """
    size, last = metadata.checkpoints_per_part, dict[int, PartRange]()
    for part in named_parts(folder):
        trial, start = part.first_trial, part.first_checkpoint
        if part == PartRange(trial, trial, start - start % size, start + size - 1):
            last[trial] = max(part, last.get(trial, part))
    parts = []
    for trial, part in sorted(last.items()):
        before = _blocks(part.first_checkpoint, size)
        parts += [PartRange(trial, trial, *block) for block in before]
        parts.append(_as_grown(folder / part.file_name, part, metadata))
    return parts


def named_parts(folder: Path) -> list[PartRange]:
    """What the names of a folder's files say that they hold."""
    matches = filter(None, map(_NAME.fullmatch, names_in(folder)))
    return [PartRange(*map(int, match.groups())) for match in matches]


def _as_grown(path: Path, part: PartRange, metadata: PathMetadata) -> PartRange:
    """A part as far as its file goes; where that does not tell, reading it will say why."""
    try:
        with storage.open_tensors(path) as file:
            return as_stored(part, file.metadata, metadata)
    except TiplError:
        return part


def full_part(part: PartRange, metadata: PathMetadata) -> PartRange:
    """A part once it grows no more: what the name of its file says."""
    if not metadata.recorded:
        return part
    return part._replace(last_checkpoint=part.first_checkpoint + metadata.checkpoints_per_part - 1)


def as_stored(part: PartRange, header: Mapping[str, Any], metadata: PathMetadata) -> PartRange:
    """A part as far as the header of its file says that it has grown."""
    ends = header.get("checkpoints")
    possible = range(part.first_checkpoint, full_part(part, metadata).last_checkpoint + 1)
    if metadata.recorded and isinstance(ends, list) and ends and ends[-1] in possible:
        return part._replace(last_checkpoint=ends[-1])
    return part
