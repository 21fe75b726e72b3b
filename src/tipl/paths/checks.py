"""Looking at a path dataset as a whole: is every byte as it was written, and what is in it?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from tipl import storage
from tipl.atomic import explained, is_unfinished
from tipl.errors import TiplError
from tipl.paths.metadata import PathMetadata, read_metadata
from tipl.paths.parts import (
    array_specs,
    check_finite,
    check_part,
    open_part,
    part_ranges,
    parts_present,
)

__all__ = ["PathSummary", "ReturnRange", "summarize", "verify"]

Array = np.ndarray[Any, np.dtype[Any]]


def verify(directory: str | Path) -> list[str]:
    """Reads a whole dataset and checks every byte of it.

    Returns:
        A sentence for each problem, with the file and what is wrong with it; none if all is well.

    Raises:
        TiplError: there is no such directory, or it cannot be read.
    """
    directory = Path(directory)
    with explained("read", directory):
        if not directory.is_dir():
            raise TiplError(
                f"there is no directory {directory}, but a path dataset (made by `tipl collect`) "
                "is expected there; check the spelling"
            )
        try:
            metadata = read_metadata(directory)
        except TiplError as error:
            parts = sorted((directory / "parts").glob("*.safetensors"))
            return [str(error), *filter(None, map(storage.check_tensors, parts))]
        return [
            *_missing(directory, metadata),
            *_unexpected(directory, metadata),
            *_broken(directory, metadata),
        ]


def _missing(directory: Path, metadata: PathMetadata) -> Iterator[str]:
    expected = part_ranges(metadata)
    missing = [part for part in expected if not part.path(directory).exists()]
    if missing:
        yield (
            f"{len(missing)} of {len(expected)} parts are missing, the first of them "
            f"{missing[0].path(directory)}; run `tipl collect` with the same arguments to make them"
        )


def _unexpected(directory: Path, metadata: PathMetadata) -> Iterator[str]:
    expected = {part.path(directory) for part in part_ranges(metadata)}
    parts, resume = directory / "parts", directory / "resume"
    expected |= {directory / "metadata.json", parts, resume}
    for folder in (directory, parts, resume):
        for entry in sorted(folder.iterdir()) if folder.exists() else []:
            if is_unfinished(entry):
                yield f"{entry} was left by a write that never finished; delete it"
            elif folder == resume:
                if problem := storage.check_tensors(entry):
                    yield problem
            elif entry not in expected:
                yield f"{entry} does not belong to the dataset; move it elsewhere"


def _broken(directory: Path, metadata: PathMetadata) -> Iterator[str]:
    """Sentences about the parts that are there, each read and checked by itself and together."""
    axes: dict[int, dict[str, Array]] = {}  # by first checkpoint
    for part in part_ranges(metadata):
        path = part.path(directory)
        if not path.exists():
            continue
        try:
            tensors, header = storage.read_tensors(path)
            check_part(path, metadata, part, header, array_specs(tensors))
            params, diverged = tensors["params"], tensors["diverged"]
            check_finite(path, params, diverged, part.first_trial, part.first_checkpoint)
        except TiplError as error:
            yield str(error)
            continue
        axis = {name: tensors[name] for name in ("global_step", "iteration")}
        other = axes.setdefault(part.first_checkpoint, axis)
        for name in axis:
            if not np.array_equal(axis[name], other[name]):
                yield f"{path} has another {name} than other trials at the same checkpoints"
    for name in ("global_step", "iteration"):
        values = [axes[first][name] for first in sorted(axes)]
        if values and (np.diff(np.concatenate(values)) <= 0).any():
            yield f"{directory / 'parts'}: {name} does not grow from checkpoint to checkpoint"


@dataclass(frozen=True)
class ReturnRange:
    """Episodic returns over trials."""

    mean: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class PathSummary:
    """What is in a dataset, complete or not.

    Attributes:
        directory: where it lies.
        metadata: task, architecture, hyperparameters and versions.
        num_parameters: length of a stored parameter vector, P.
        num_parts: parts that are there.
        missing_parts: file names of those that are not; `tipl collect` makes them.
        steps_per_trial: environment steps of one trial between its first and last checkpoint.
        total_steps: environment steps of all trials up to the last checkpoints that are there.
        size_on_disk: bytes of the files.
        diverged_trials: numbers of the trials that became NaN.
        first_return: each trial's first known training return, over trials; None if none is known.
        last_return: each trial's last known training return, over trials; None if none is known.
    """

    directory: Path
    metadata: PathMetadata
    num_parameters: int
    num_parts: int
    missing_parts: tuple[str, ...]
    steps_per_trial: int
    total_steps: int
    size_on_disk: int
    diverged_trials: tuple[int, ...]
    first_return: ReturnRange | None
    last_return: ReturnRange | None

    @property
    def complete(self) -> bool:
        """Whether no part is missing."""
        return not self.missing_parts


def summarize(directory: str | Path) -> PathSummary:
    """Sums up a dataset, complete or not, without reading its weights.

    Raises:
        TiplError: there is none in the directory, or the header of a file is damaged.
    """
    directory = Path(directory)
    metadata = read_metadata(directory)
    present = parts_present(directory, metadata)
    shape = (metadata.num_trials, metadata.num_checkpoints)
    returns = np.full(shape, np.nan, np.float32)
    diverged = np.zeros(shape, bool)
    steps = np.zeros(shape, np.int64)
    for part in present:
        here = (
            slice(part.first_trial, part.last_trial + 1),
            slice(part.first_checkpoint, part.last_checkpoint + 1),
        )
        with open_part(directory, metadata, part) as file:
            returns[here] = file.read("episodic_return")
            diverged[here] = file.read("diverged")
            steps[here] = file.read("global_step")  # [t] -> [n, t]
    files = [directory / "metadata.json", *(part.path(directory) for part in present)]
    return PathSummary(
        directory=directory,
        metadata=metadata,
        num_parameters=metadata.layout.size,
        num_parts=len(present),
        missing_parts=tuple(p.file_name for p in part_ranges(metadata) if p not in present),
        steps_per_trial=(metadata.num_checkpoints - 1) * metadata.steps_per_checkpoint,
        total_steps=int(steps.max(axis=1).sum()),
        size_on_disk=sum(file.stat().st_size for file in files),
        diverged_trials=tuple(np.flatnonzero(diverged.any(axis=1)).tolist()),
        first_return=_first_known(returns),
        last_return=_first_known(returns[:, ::-1]),
    )


def _first_known(returns: Float32[np.ndarray, "N T"]) -> ReturnRange | None:
    """Mean and range over trials of the first return of each that is not NaN."""
    known = np.isfinite(returns)
    first = known.argmax(axis=1)
    values = returns[np.arange(len(returns)), first].astype(np.float64)
    values = values[known.any(axis=1)]
    if not values.size:
        return None
    return ReturnRange(float(values.mean()), float(values.min()), float(values.max()))
