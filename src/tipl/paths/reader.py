"""Reading a path dataset's arrays across its parts, by slices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Int64

from tipl.core import storage
from tipl.core.arrays import Array
from tipl.errors import TiplError
from tipl.paths.metadata import PathMetadata
from tipl.paths.parts import PartRange, check_finite, open_part, part_arrays, part_ranges

__all__ = ["PartReader"]


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
