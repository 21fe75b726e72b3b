"""How a path dataset lies on disk, and how it is written and read.

A dataset is a directory::

    metadata.json                                          task, layout, hyperparameters, versions
    parts/trials-00000-00063.checkpoints-00000-00007.safetensors
    ...
    evaluation/...                                         see `tipl.paths.returns`
    resume/...safetensors                                  only while a collection is unfinished

Parts are a grid over trials and checkpoints; both ranges in a name are inclusive. A part never
changes once written, and its header repeats its ranges and the hash of its `metadata.json`. Of a
recorded run the last part grows, until it holds what its name says: see `tipl.paths.grid`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from tipl.core import storage
from tipl.core.addresses import is_address
from tipl.core.arrays import Array
from tipl.core.atomic import make_folder
from tipl.core.locks import locked_directory
from tipl.core.ownership import OwnFile, refuse_links
from tipl.core.storage import ArraySpecs
from tipl.core.stores import names_in
from tipl.core.system_errors import explained
from tipl.core.unfinished import is_unfinished, remove_unfinished
from tipl.errors import TiplError
from tipl.paths.grid import PartRange, as_stored, full_part, part_ranges, recorded_parts
from tipl.paths.metadata import PathMetadata, first_difference, read_metadata
from tipl.paths.values import JUMP_COUNTS, PER_CHECKPOINT, check_values


class PartFiles:
    """The files of one kind in a dataset, one for each part: those of its weights.

    A file's hash is checked the first time that something of it is read; after that, slices are
    read by memory map. A TiplError names a file that is missing, damaged or another one, or that
    holds impossible values, such as NaN weights of a trial that is not labelled as diverged.
    """

    # for paths, headers and messages
    folder_name = "parts"
    kind = "policy learning paths"
    one, several = "a part of the path dataset", "parts"

    def __init__(self, directory: Path, metadata: PathMetadata) -> None:
        self.directory, self.metadata = directory, metadata
        self.folder = directory / self.folder_name  # where the files lie
        self.parts = part_ranges(metadata)  # of the complete dataset
        if metadata.recorded:
            self.parts = recorded_parts(directory / "parts", metadata)
        self.subject = str(directory)
        self._intact: set[PartRange] = set()

    def path(self, part: PartRange) -> Path:
        """Where the file of a part lies."""
        return self.folder / full_part(part, self.metadata).file_name

    @cached_property
    def lengths(self) -> dict[int, int]:
        """Number of checkpoints of each trial, by the trials' numbers, in order."""
        return {
            trial: part.last_checkpoint + 1  # the trial's last part comes last
            for part in self.parts
            for trial in range(part.first_trial, part.last_trial + 1)
        }

    def remedy(self, purpose: str, before: str = "") -> str:
        """What brings back a file, for messages, as `PathMetadata.remedy` says it."""
        return self.metadata.remedy(purpose, before)

    def arrays(self, part: PartRange) -> ArraySpecs:
        """Dtype and shape of each array in the file of a part."""
        metadata, grid = self.metadata, (part.num_trials, part.num_checkpoints)
        arrays: ArraySpecs = {
            # flat weights, in the order of the layout
            "params": ("float32", (*grid, metadata.layout.size)),
            # mean undiscounted return of the training episodes that ended while the checkpoint's
            # policy acted, NaN if none did; and how many they were
            "episodic_return": ("float32", grid),
            "num_episodes": ("int32", grid),
            # whether the trial had become NaN by this checkpoint
            "diverged": ("bool", grid),
            # environment steps of one trial, and PPO iterations, before the checkpoint
            "global_step": ("int64", grid[1:]),
            "iteration": ("int64", grid[1:]),
        }
        if metadata.normaliser == "running":
            statistics = ("float64", (*grid, metadata.task.observation_size))
            arrays |= {"observation_mean": statistics, "observation_std": statistics}
        if names := metadata.own_physics:  # the same factors at all checkpoints of a trial
            arrays["physics"] = ("float64", (*grid, len(names)))
        if metadata.jumps:
            arrays |= dict.fromkeys(JUMP_COUNTS, ("int64", grid))
        return arrays

    def header(self, part: PartRange) -> dict[str, Any]:
        """What the file of a part says of itself."""
        return {
            "kind": self.kind,
            "format_version": self.metadata.format_version,
            "dataset": self.metadata.digest,
            "trials": [part.first_trial, part.last_trial],
            "checkpoints": [part.first_checkpoint, part.last_checkpoint],
        }

    def missing(self) -> list[PartRange]:
        """The parts without a file, in order."""
        there = {*names_in(self.folder)}
        return [part for part in self.parts if self.path(part).name not in there]

    def require_all(self) -> None:
        """Raises a TiplError if the file of a part is missing."""
        missing, total = len(self.missing()), len(self.parts)
        if not total:
            raise TiplError(
                f"nothing of {self.directory} is finished yet: no recorded run has come to its "
                "first checkpoint there; wait for it, or record one"
            )
        if missing:
            raise TiplError(
                f"{self.subject} is incomplete: {total - missing} of {total} {self.several} are "
                f"there; {self.remedy('go on')}"
            )

    def write(self, part: PartRange, tensors: Mapping[str, Array], sync: bool = True) -> None:
        """Writes the file of a part, unless its arrays are not those that it should have."""
        path = self.path(part)
        difference = first_difference(_array_specs(tensors), self.arrays(part))
        if difference:
            name, given, expected = difference
            raise TiplError(
                f"cannot write {path}: the array {name} is {given}, but {expected} is expected; "
                "pass arrays of the dtypes and shapes of a part"
            )
        self._check_values(part, tensors, part.first_trial, part.first_checkpoint)
        storage.write_tensors(path, tensors, self.header(part), sync, self.own_file)

    @property
    def own_file(self) -> OwnFile:
        """Files of this kind and of this dataset, which may be replaced."""
        return OwnFile(f"{self.one} of this dataset", self.is_own)

    def is_own(self, path: Path) -> bool:
        """Whether a file's header says that it is of this kind and of this dataset."""
        try:
            with storage.open_tensors(path) as file:
                found = file.metadata
        except TiplError:
            return False
        return (found.get("kind"), found.get("dataset")) == (self.kind, self.metadata.digest)

    def read_part(self, part: PartRange) -> dict[str, Array]:
        """All arrays of a part, after a look at every byte."""
        tensors, _ = storage.read_tensors(self.path(part), self.one, self._checks(part))
        self._check_values(part, tensors, part.first_trial, part.first_checkpoint)
        grown = slice(part.num_checkpoints)  # since somebody has looked how far
        return {
            name: array[grown] if name in PER_CHECKPOINT else array[:, grown]
            for name, array in tensors.items()
        }

    @contextmanager
    def open(self, part: PartRange) -> Iterator[storage.TensorFile]:
        """Opens the file of a part for reading slices, after checking its header."""
        with storage.open_tensors(self.path(part), self.one, self._checks(part)) as file:
            yield file

    @contextmanager
    def open_intact(self, part: PartRange) -> Iterator[storage.TensorFile]:
        """Opens the file of a part; the first time, after a look at every byte."""
        if part not in self._intact:
            storage.verify_tensors(self.path(part), self.one, self._checks(part))
            self._intact.add(part)
        with self.open(part) as file:
            yield file

    def _checks(self, part: PartRange) -> storage.HeaderCheck:
        """What looks at the header of a part's file before anything else is read of it."""
        return functools.partial(self._check, part)

    def _check(self, part: PartRange, header: Mapping[str, Any], arrays: ArraySpecs) -> None:
        """Raises a TiplError unless a file's header and array shapes are those of the part."""
        again = self.remedy("make it again", before="delete it and ")
        if header.get("dataset") != self.metadata.digest:
            raise TiplError(
                f"{self.path(part)} belongs to another dataset than its metadata.json; put it back "
                f"where it came from, or {again}"
            )
        now = as_stored(part, header, self.metadata)
        expected_content = {**self.header(now), **self.arrays(now)}
        difference = first_difference({**header, **arrays}, expected_content)
        if difference:
            name, found, expected = difference
            raise TiplError(
                f"{self.path(part)} holds {name} = {found}, but {expected} is expected under that "
                f"name; give the file its old name, or {again}"
            )

    def read(self, name: str, trials: Int64[np.ndarray, " N"], checkpoints: range) -> Array:
        """The array `name`, `[N, T, ...]`, of trials by number and of some checkpoints."""
        start, stop = (min(checkpoints), max(checkpoints) + 1) if checkpoints else (0, 0)
        dtype, (_, _, *rest) = self.arrays(self.parts[0])[name]
        shape, out = (len(trials), stop - start, *rest), None
        for part in self.parts:
            rows = np.flatnonzero((part.first_trial <= trials) & (trials <= part.last_trial))
            first, last = max(start, part.first_checkpoint), min(stop - 1, part.last_checkpoint)
            if len(rows) and first <= last:
                block = self._read_block(part, name, trials[rows], first, last)
                if out is None:  # not before a file has shown that there is so much
                    out = np.empty(shape, dtype)
                out[rows, first - start : last + 1 - start] = block
        found = np.empty(shape, dtype) if out is None else out  # of nothing asked for
        return found[:, :: checkpoints.step]

    def _read_block(
        self, part: PartRange, name: str, trials: Int64[np.ndarray, " n"], first: int, last: int
    ) -> Array:
        """The array `[n, t, ...]` of trials of one part, from checkpoint `first` to `last`."""
        lowest, highest = int(trials.min()), int(trials.max())
        index = (
            slice(lowest - part.first_trial, highest - part.first_trial + 1),
            slice(first - part.first_checkpoint, last - part.first_checkpoint + 1),
        )
        with self.open_intact(part) as file:
            block = {one: file.read(one, *index) for one in {name, "diverged"} & {*file.arrays}}
        self._check_values(part, block, lowest, first)
        chosen: Array = block[name][trials - lowest]
        return chosen

    def _check_values(
        self, part: PartRange, tensors: Mapping[str, Array], first_trial: int, first_checkpoint: int
    ) -> None:
        """Raises a TiplError if arrays of a part hold what is impossible; see `check_values`."""
        physics = self.metadata.own_physics
        check_values(self.path(part), tensors, first_trial, first_checkpoint, physics)

    def read_axes(self, name: str, trials: Int64[np.ndarray, " N"], stop: int) -> Array:
        """The array `name`, `[N, T]`, of trials by number, which grows, up to a checkpoint.

        One row stands for all trials unless they are of recorded runs.
        """
        own = trials if self.metadata.recorded else np.zeros(1, np.int64)
        columns: dict[int, list[Array]] = {int(trial): [] for trial in own}
        for part in self.parts:
            if part.first_trial in columns and part.first_checkpoint < stop:
                with self.open_intact(part) as file:
                    columns[part.first_trial].append(file.read(name))
        axes = np.stack([np.concatenate(columns[int(trial)])[:stop] for trial in own])
        if (np.diff(axes) <= 0).any():
            raise TiplError(
                f"{self.folder}: {name} does not grow from checkpoint to checkpoint; find the "
                "damaged part with `tipl paths verify`"
            )
        return axes


def _array_specs(tensors: Mapping[str, Array]) -> ArraySpecs:
    return {name: (array.dtype.name, array.shape) for name, array in tensors.items()}


FOLDERS = ("parts", "evaluation", "resume")
"""All folders that a dataset may have."""

_KINDS = {False: "planned trials (of `tipl collect`)", True: "recorded runs (of a PathRecorder)"}


def create_dataset(directory: str | Path, metadata: PathMetadata) -> None:
    """Makes an empty dataset, or makes sure that the one in the directory is the same.

    Of several processes that make one at once, the first decides what it is.

    Raises:
        TiplError: the directory holds another dataset or other files, or cannot be written.
    """
    directory = Path(directory)
    path, parts = directory / "metadata.json", directory / "parts"
    refuse_links(directory, *FOLDERS)
    with explained("make", directory):
        if not path.exists():
            check_new(directory)
            directory.mkdir(parents=True, exist_ok=True)
            make_folder(parts)
        with locked_directory(directory):
            remove_unfinished(directory, path.name)
            if not path.exists():
                storage.write_json(path, metadata.to_json())
            there = read_metadata(directory)
            if there.recorded != metadata.recorded:
                raise TiplError(
                    f"{directory} already holds another dataset: {_KINDS[there.recorded]}, and "
                    f"{_KINDS[metadata.recorded]} are to go there; choose another directory"
                )
            difference = first_difference(there.to_json(), metadata.to_json())
            if difference:
                name, found, given = difference
                raise TiplError(
                    f"{directory} already holds another dataset: its {name} is {found}, but "
                    f"{given} was given; choose another directory, or remove that one first"
                )
            make_folder(parts)


def check_new(directory: Path) -> None:
    """Raises a TiplError if a directory that is no dataset yet holds other files."""
    parts = directory / "parts"
    if (directory / "metadata.json").exists():
        return
    for folder in (directory, parts):
        for entry in sorted(folder.iterdir()) if folder.exists() else []:
            if entry != parts and not is_unfinished(entry):
                raise TiplError(
                    f"{directory} holds {entry.relative_to(directory)} but no metadata.json, so "
                    "it is no path dataset; choose an empty or new directory"
                )


def write_part(
    directory: str | Path,
    metadata: PathMetadata,
    first_trial: int,
    first_checkpoint: int,
    tensors: Mapping[str, Array],
) -> None:
    """Writes the part that starts at a trial and a checkpoint; `PartFiles.arrays` are its arrays.

    Raises:
        TiplError: no part starts there, an array is missing or of another dtype or shape, weights
            are not finite in a trial that is not labelled as diverged, or the disk is full.
    """
    files = PartFiles(Path(directory), metadata)
    for part in files.parts:
        if (part.first_trial, part.first_checkpoint) == (first_trial, first_checkpoint):
            return files.write(part, tensors)
    raise TiplError(
        f"no part starts at trial {first_trial} and checkpoint {first_checkpoint}; expected "
        f"multiples of {metadata.trials_per_part} below {metadata.num_trials} and of "
        f"{metadata.checkpoints_per_part} below {metadata.num_checkpoints}"
    )


def parts_present(directory: str | Path, metadata: PathMetadata) -> list[PartRange]:
    """The parts that have been written, in order; their headers are checked, not all bytes.

    Of a store, no header is looked at before something of its part is read.

    Raises:
        TiplError: a part that is there is cut off, or another one.
    """
    files = PartFiles(Path(directory), metadata)
    missing = set(files.missing())
    present = [part for part in files.parts if part not in missing]
    for part in () if is_address(files.directory) else present:
        with files.open(part):
            pass
    return present
