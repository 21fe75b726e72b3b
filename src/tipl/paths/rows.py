"""Weights of single checkpoints, read from where they lie: no more of a dataset is in memory."""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int64

from tipl.core.regular_files import open_regular
from tipl.paths.grid import PartRange
from tipl.paths.parts import PartFiles


class RowReader:
    """Reads rows of the parts of a dataset; each part is looked at whole before its first one."""

    def __init__(self, files: PartFiles) -> None:
        self._files, self._found = files, dict[PartRange, _Found]()
        self._parts = {self._place(p.first_trial, p.first_checkpoint): p for p in files.parts}

    def _place(self, trial: int, checkpoint: int) -> tuple[int, int]:
        """Where in the grid of parts a checkpoint is."""
        metadata = self._files.metadata
        return trial // metadata.trials_per_part, checkpoint // metadata.checkpoints_per_part

    def read(
        self, trials: Int64[np.ndarray, " M"], checkpoints: Int64[np.ndarray, " M"]
    ) -> Float32[np.ndarray, "M P"]:
        """The weights of checkpoints of trials, by their numbers in the dataset."""
        out = np.empty((len(trials), self._files.metadata.layout.size), "<f4")
        wanted: dict[PartRange, list[int]] = {}
        for m, place in enumerate(zip(trials.tolist(), checkpoints.tolist(), strict=True)):
            wanted.setdefault(self._parts[self._place(*place)], []).append(m)
        for part, rows in wanted.items():
            within = trials[rows] - part.first_trial, checkpoints[rows] - part.first_checkpoint
            self._read_rows(part, np.stack(within, axis=1), out, rows)
        for m in np.flatnonzero(
            ~np.isfinite(out).all(axis=1)
        ).tolist():  # says so, unless it has diverged
            at = range(int(checkpoints[m]), int(checkpoints[m]) + 1)
            out[m] = self._files.read("params", trials[m : m + 1], at)[0, 0]
        return out

    def _read_rows(
        self,
        part: PartRange,
        within: Int64[np.ndarray, "m 2"],
        out: Float32[np.ndarray, "M P"],
        rows: list[int],
    ) -> None:
        files = self._files
        with open_regular(files.path(part), files.one) as opened:
            size = os.fstat(opened.fileno()).st_size
            if part not in self._found or self._found[part].size != size:  # recorded runs grow
                with files.open_intact(part) as file:
                    length = file.arrays["params"][1][1]
                    self._found[part] = _Found(file.start_of("params"), length, size)
            start, length, _ = self._found[part]
            row_size = out[0].nbytes
            for m, (i, t) in zip(rows, within.tolist(), strict=True):
                row = os.pread(opened.fileno(), row_size, start + (i * length + t) * row_size)
                out[m] = np.frombuffer(row, "<f4")


class _Found(NamedTuple):
    """The weights `[n, t, P]` in a part's file."""

    start: int
    """of the first byte"""
    length: int
    """t"""
    size: int
    """of the file"""
