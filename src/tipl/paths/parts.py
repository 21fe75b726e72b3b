"""How a path dataset lies on disk, and how it is written.

A dataset is a directory::

    metadata.json                                          task, layout, hyperparameters, versions
    parts/trials-00000-00063.checkpoints-00000-00007.safetensors
    ...
    resume/...safetensors                                  only while a collection is unfinished

Parts are a grid over trials and checkpoints; both ranges in a name are inclusive. A part never
changes once written, and its header repeats its ranges and the hash of its `metadata.json`. With n
trials, t checkpoints, P parameters and O observed values, the arrays of a part are:

=====================  ==================  =======================================================
`params`               `[n, t, P]` f32     flat weights, in the order of the layout
`episodic_return`      `[n, t]` f32        mean undiscounted return of the training episodes that
                                           ended while the checkpoint's policy acted; NaN if none
`num_episodes`         `[n, t]` i32        how many such episodes there were
`diverged`             `[n, t]` bool       whether the trial had become NaN by this checkpoint
`global_step`          `[t]` i64           environment steps of one trial before the checkpoint
`iteration`            `[t]` i64           PPO iterations before the checkpoint
`observation_mean`     `[n, t, O]` f64     the running normaliser (only if that is the normaliser)
`observation_std`      `[n, t, O]` f64     likewise
`physics`              `[n, t, V]` f64     factors of the V names in `vary`, sorted; the same at all
                                           checkpoints of a trial (only if the physics vary)
`jump_steps`           `[n, t]` i64        environment steps that tests of forecasts have taken
                                           before the checkpoint (only if trials jump)
`jumps`                `[n, t]` i64        jumps to forecasts so far, likewise
`rollbacks`            `[n, t]` i64        jumps that were undone so far, likewise
=====================  ==================  =======================================================
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int64

from tipl.core import storage
from tipl.core.arrays import Array
from tipl.core.atomic import explained, is_unfinished, locked_directory, remove_unfinished
from tipl.errors import TiplError
from tipl.paths.metadata import PathMetadata, first_difference, read_metadata

JUMP_COUNTS = ("jump_steps", "jumps", "rollbacks")
"""What is counted of trials that jump; see above."""

ArraySpecs = dict[str, tuple[str, tuple[int, ...]]]

_AGAIN = "delete it and run `tipl collect` with the same arguments to make it again"


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
    def file_name(self) -> str:
        """The name of the part's file in `parts/`."""
        return (
            f"trials-{self.first_trial:05d}-{self.last_trial:05d}"
            f".checkpoints-{self.first_checkpoint:05d}-{self.last_checkpoint:05d}.safetensors"
        )

    def path(self, directory: Path) -> Path:
        """Where the part lies in a dataset's directory."""
        return directory / "parts" / self.file_name


def part_ranges(metadata: PathMetadata) -> list[PartRange]:
    """All parts of a complete dataset, by trial and then by checkpoint."""
    return [
        PartRange(*trials, *checkpoints)
        for trials in _blocks(metadata.num_trials, metadata.trials_per_part)
        for checkpoints in _blocks(metadata.num_checkpoints, metadata.checkpoints_per_part)
    ]


def _blocks(total: int, size: int) -> list[tuple[int, int]]:
    """First and last number of each block of `size`, the last of which may be smaller."""
    return [(start, min(start + size, total) - 1) for start in range(0, total, size)]


def part_arrays(metadata: PathMetadata, part: PartRange) -> ArraySpecs:
    """Dtype and shape of each array that a part holds."""
    n, t = part.num_trials, part.num_checkpoints
    arrays: ArraySpecs = {
        "params": ("float32", (n, t, metadata.layout.size)),
        "episodic_return": ("float32", (n, t)),
        "num_episodes": ("int32", (n, t)),
        "diverged": ("bool", (n, t)),
        "global_step": ("int64", (t,)),
        "iteration": ("int64", (t,)),
    }
    if metadata.normaliser == "running":
        statistics = ("float64", (n, t, metadata.task.observation_size))
        arrays |= {"observation_mean": statistics, "observation_std": statistics}
    if metadata.vary:
        arrays["physics"] = ("float64", (n, t, len(metadata.vary)))
    if metadata.jumps:
        arrays |= dict.fromkeys(JUMP_COUNTS, ("int64", (n, t)))
    return arrays


def _part_header(metadata: PathMetadata, part: PartRange) -> dict[str, Any]:
    return {
        "kind": "policy learning paths",
        "format_version": metadata.format_version,
        "dataset": metadata.digest,
        "trials": [part.first_trial, part.last_trial],
        "checkpoints": [part.first_checkpoint, part.last_checkpoint],
    }


def check_part(
    path: Path,
    metadata: PathMetadata,
    part: PartRange,
    header: Mapping[str, Any],
    arrays: ArraySpecs,
) -> None:
    """Raises a TiplError unless a file's header and array shapes are those of the part."""
    expected_header, expected_arrays = _part_header(metadata, part), part_arrays(metadata, part)
    if header.get("dataset") != expected_header["dataset"]:
        raise TiplError(
            f"{path} belongs to another dataset than its metadata.json; put it back where it came "
            f"from, or {_AGAIN}"
        )
    difference = first_difference({**header, **arrays}, {**expected_header, **expected_arrays})
    if difference:
        name, found, expected = difference
        raise TiplError(
            f"{path} holds {name} = {found}, but {expected} is expected under that name; give the "
            f"file its old name, or {_AGAIN}"
        )


def check_finite(
    path: Path,
    params: Float32[np.ndarray, "n t P"],
    diverged: Bool[np.ndarray, "n t"],
    first_trial: int,
    first_checkpoint: int,
) -> None:
    """Raises a TiplError if weights are NaN or infinite in a trial not labelled as diverged."""
    unlabelled = ~np.isfinite(params).all(axis=-1) & ~diverged
    if unlabelled.any():
        trial, checkpoint = np.argwhere(unlabelled)[0]
        raise TiplError(
            f"{path}: {np.count_nonzero(unlabelled)} checkpoints, the first of them checkpoint "
            f"{first_checkpoint + checkpoint} of trial {first_trial + trial}, have NaN or infinite "
            "weights without being labelled `diverged`; label such trials, or collect them again"
        )


def create_dataset(directory: str | Path, metadata: PathMetadata) -> None:
    """Makes an empty dataset, or makes sure that the one in the directory is the same.

    Of several processes that make one at once, the first decides what it is.

    Raises:
        TiplError: the directory holds another dataset or other files, or cannot be written.
    """
    directory = Path(directory)
    path, parts = directory / "metadata.json", directory / "parts"
    with explained("make", directory):
        if not path.exists():
            _refuse_other_files(directory)
            parts.mkdir(parents=True, exist_ok=True)
        with locked_directory(directory):
            remove_unfinished(directory, path.name)
            if path.exists():
                _refuse_another(directory, metadata)
            else:
                storage.write_json(path, metadata.to_json())
            parts.mkdir(exist_ok=True)


def _refuse_another(directory: Path, metadata: PathMetadata) -> None:
    difference = first_difference(read_metadata(directory).to_json(), metadata.to_json())
    if difference:
        name, there, here = difference
        raise TiplError(
            f"{directory} already holds another dataset: its {name} is {there}, but {here} was "
            "given; choose another directory, or remove that one first"
        )


def _refuse_other_files(directory: Path) -> None:
    parts = directory / "parts"
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
    """Writes the part that starts at a trial and a checkpoint; see the module for its arrays.

    Raises:
        TiplError: no part starts there, an array is missing or of another dtype or shape, weights
            are not finite in a trial that is not labelled as diverged, or the disk is full.
    """
    starts = {(part.first_trial, part.first_checkpoint): part for part in part_ranges(metadata)}
    part = starts.get((first_trial, first_checkpoint))
    if part is None:
        raise TiplError(
            f"no part starts at trial {first_trial} and checkpoint {first_checkpoint}; expected "
            f"multiples of {metadata.trials_per_part} below {metadata.num_trials} and of "
            f"{metadata.checkpoints_per_part} below {metadata.num_checkpoints}"
        )
    path = part.path(Path(directory))
    difference = first_difference(array_specs(tensors), part_arrays(metadata, part))
    if difference:
        name, given, expected = difference
        raise TiplError(
            f"cannot write {path}: the array {name} is {given}, but {expected} is expected; pass "
            "arrays of the dtypes and shapes of a part"
        )
    check_finite(path, tensors["params"], tensors["diverged"], first_trial, first_checkpoint)
    storage.write_tensors(path, tensors, _part_header(metadata, part))


def array_specs(tensors: Mapping[str, Array]) -> ArraySpecs:
    """Dtype and shape of each array."""
    return {name: (array.dtype.name, array.shape) for name, array in tensors.items()}


@contextmanager
def open_part(
    directory: Path, metadata: PathMetadata, part: PartRange
) -> Iterator[storage.TensorFile]:
    """Opens a part for reading slices, after checking that its header is the right one.

    Raises:
        TiplError: the part is missing, cut off, or another one.
    """
    path = part.path(directory)
    with storage.open_tensors(path, "a part of the path dataset") as file:
        check_part(path, metadata, part, file.metadata, file.arrays)
        yield file


def parts_present(directory: str | Path, metadata: PathMetadata) -> list[PartRange]:
    """The parts that have been written, in order; their headers are checked, not all bytes.

    Raises:
        TiplError: a part that is there is cut off, or another one.
    """
    directory = Path(directory)
    with explained("read", directory):
        present = [part for part in part_ranges(metadata) if part.path(directory).exists()]
    for part in present:
        with open_part(directory, metadata, part):
            pass
    return present


class PartReader:
    """Puts arrays together from the parts of a dataset.

    A part's hash is checked the first time that something of its trials is read; after that, slices
    are read by memory map.

    Attributes:
        directory: where the dataset lies.
        metadata: what all its paths have in common.
    """

    def __init__(self, directory: Path, metadata: PathMetadata) -> None:
        self.directory = directory
        self.metadata = metadata
        self._parts = part_ranges(metadata)
        self._intact: set[PartRange] = set()

    def read(self, name: str, trials: Int64[np.ndarray, " N"], checkpoints: slice) -> Array:
        """The array `name`, `[N, T, ...]`, of trials by number and a slice of checkpoints.

        Raises:
            TiplError: a part is damaged, or holds NaN weights that are not labelled as diverged.
        """
        chosen = range(self.metadata.num_checkpoints)[checkpoints]
        start, stop = (min(chosen), max(chosen) + 1) if chosen else (0, 0)
        dtype, (_, _, *rest) = part_arrays(self.metadata, self._parts[0])[name]
        out = np.empty((len(trials), stop - start, *rest), dtype)
        for part in self._parts:
            rows = np.flatnonzero((part.first_trial <= trials) & (trials <= part.last_trial))
            first, last = max(start, part.first_checkpoint), min(stop - 1, part.last_checkpoint)
            if len(rows) and first <= last:
                block = self._read_part(part, name, trials[rows], first, last)
                out[rows, first - start : last + 1 - start] = block
        return out[:, :: chosen.step]

    def read_axis(self, name: str) -> Array:
        """The array `name`, `[T]`, which is the same for all trials and grows.

        A few numbers are read for it, and of a part's bytes only those are looked at.

        Raises:
            TiplError: the header of a part is damaged, or the numbers do not grow.
        """
        columns = []
        for part in self._parts:
            if part.first_trial == 0:
                with open_part(self.directory, self.metadata, part) as file:
                    columns.append(file.read(name))
        axis = np.concatenate(columns)
        if (np.diff(axis) <= 0).any():
            raise TiplError(
                f"{self.directory / 'parts'}: {name} does not grow from checkpoint to checkpoint; "
                "find the damaged part with `tipl paths verify`"
            )
        return axis

    def _read_part(
        self, part: PartRange, name: str, trials: Int64[np.ndarray, " n"], first: int, last: int
    ) -> Array:
        """The array `[n, t, ...]` of trials of one part, from checkpoint `first` to `last`."""
        self._check_intact(part)
        lowest, highest = int(trials.min()), int(trials.max())
        index = (
            slice(lowest - part.first_trial, highest - part.first_trial + 1),
            slice(first - part.first_checkpoint, last - part.first_checkpoint + 1),
        )
        with open_part(self.directory, self.metadata, part) as file:
            block = file.read(name, *index)
            if name == "params":
                diverged = file.read("diverged", *index)
                check_finite(part.path(self.directory), block, diverged, lowest, first)
        chosen: Array = block[trials - lowest]
        return chosen

    def _check_intact(self, part: PartRange) -> None:
        """Raises a TiplError if a byte of the part has changed; reads the part once."""
        if part not in self._intact:
            storage.read_tensors(part.path(self.directory), "a part of the path dataset")
            self._intact.add(part)
