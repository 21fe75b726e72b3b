"""Looking at a path dataset as a whole: is every byte as it was written, and what is in it?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64

from tipl.core import storage
from tipl.core.arrays import Array
from tipl.core.atomic import explained, is_unfinished
from tipl.errors import TiplError
from tipl.paths.metadata import PathMetadata, read_metadata
from tipl.paths.parts import (
    PartRange,
    array_specs,
    check_finite,
    check_part,
    open_part,
    part_ranges,
    parts_present,
)
from tipl.paths.returns import (
    evaluation_folder,
    missing_returns,
    read_evaluation,
    read_part_returns,
    returns_path,
    settings_path,
)


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
            return [str(error), *_broken_files(directory / "parts", evaluation_folder(directory))]
        parts = part_ranges(metadata)
        return [
            *_missing(directory, parts),
            *_unexpected(directory, parts),
            *_broken(directory, metadata, parts),
            *_broken_evaluation(directory, metadata, parts),
        ]


def _broken_files(*folders: Path) -> Iterator[str]:
    """Sentences about the files in folders, for want of a description, each by itself."""
    for folder in folders:
        yield from filter(None, map(storage.check_tensors, sorted(folder.glob("*.safetensors"))))


def _missing(directory: Path, parts: list[PartRange]) -> Iterator[str]:
    missing = [part for part in parts if not part.path(directory).exists()]
    if missing:
        yield (
            f"{len(missing)} of {len(parts)} parts are missing, the first of them "
            f"{missing[0].path(directory)}; run `tipl collect` with the same arguments to make them"
        )


def _unexpected(directory: Path, parts: list[PartRange]) -> Iterator[str]:
    resume = directory / "resume"
    folders = (directory, directory / "parts", resume, evaluation_folder(directory))
    expected = {directory / "metadata.json", *folders, settings_path(directory)}
    for part in parts:
        expected |= {part.path(directory), returns_path(directory, part)}
    for folder in folders:
        for entry in sorted(folder.iterdir()) if folder.exists() else []:
            if folder == resume and entry.suffix == ".lock":
                continue  # of a collection that may be under way
            if is_unfinished(entry):
                yield f"{entry} was left by a write that never finished; delete it"
            elif folder == resume:
                if problem := storage.check_tensors(entry):
                    yield problem
            elif entry not in expected:
                yield f"{entry} does not belong to the dataset; move it elsewhere"


def _broken(directory: Path, metadata: PathMetadata, parts: list[PartRange]) -> Iterator[str]:
    """Sentences about the parts that are there, each read and checked by itself and together."""
    axes: dict[int, dict[str, Array]] = {}  # by first checkpoint
    for part in parts:
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


def _broken_evaluation(
    directory: Path, metadata: PathMetadata, parts: list[PartRange]
) -> Iterator[str]:
    """Sentences about the deterministic returns, if the dataset has been evaluated."""
    folder = evaluation_folder(directory)
    if not folder.exists():
        return
    try:
        evaluation = read_evaluation(directory, metadata)
    except TiplError as error:
        yield str(error)
        yield from _broken_files(folder)
        return
    missing = missing_returns(directory, parts)
    if missing:
        yield (
            f"{len(missing)} of {len(parts)} files of deterministic returns are missing, the "
            f"first of them {returns_path(directory, missing[0])}; run `tipl paths evaluate` with "
            f"the same settings ({evaluation.settings}) to make them"
        )
    for part in parts:
        if part not in missing:
            try:
                read_part_returns(directory, evaluation, part)
            except TiplError as error:
                yield str(error)


@dataclass(frozen=True)
class ReturnRange:
    """Episodic returns over trials."""

    mean: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class EvaluationSummary:
    """What `tipl paths evaluate` has found so far.

    Attributes:
        episodes: episodes of each checkpoint that was run.
        num_files: files of returns that are there.
        missing_files: names of those that are not; `tipl paths evaluate` makes them.
        last_return: each trial's mean deterministic return at the last checkpoint, over the trials
            that have it; None if none has.
    """

    episodes: int
    num_files: int
    missing_files: tuple[str, ...]
    last_return: ReturnRange | None


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
        evaluation: deterministic returns; None if the checkpoints have not been evaluated.
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
    evaluation: EvaluationSummary | None

    @property
    def complete(self) -> bool:
        """Whether no part is missing."""
        return not self.missing_parts


def summarize(directory: str | Path) -> PathSummary:
    """Sums up a dataset, complete or not, without reading its weights.

    Raises:
        TiplError: there is none in the directory, the header of a part is damaged, or the
            evaluation is.
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
    parts = part_ranges(metadata)
    files = [directory / "metadata.json", settings_path(directory)]
    files += [part.path(directory) for part in parts]
    files += [returns_path(directory, part) for part in parts]
    return PathSummary(
        directory=directory,
        metadata=metadata,
        num_parameters=metadata.layout.size,
        num_parts=len(present),
        missing_parts=tuple(p.file_name for p in parts if p not in present),
        steps_per_trial=(metadata.num_checkpoints - 1) * metadata.steps_per_checkpoint,
        total_steps=int(steps.max(axis=1).sum()),
        size_on_disk=sum(file.stat().st_size for file in files if file.exists()),
        diverged_trials=tuple(np.flatnonzero(diverged.any(axis=1)).tolist()),
        first_return=_first_known(returns),
        last_return=_first_known(returns[:, ::-1]),
        evaluation=_summarize_evaluation(directory, metadata, parts),
    )


def _summarize_evaluation(
    directory: Path, metadata: PathMetadata, parts: list[PartRange]
) -> EvaluationSummary | None:
    if not settings_path(directory).exists():
        return None
    evaluation = read_evaluation(directory, metadata)
    missing = missing_returns(directory, parts)
    last = [
        read_part_returns(directory, evaluation, part)[:, -1].mean(axis=-1, dtype=np.float64)
        for part in parts
        if part not in missing and part.last_checkpoint == metadata.num_checkpoints - 1
    ]  # of each block of trials, [n, E] -> [n]
    return EvaluationSummary(
        episodes=evaluation.episodes,
        num_files=len(parts) - len(missing),
        missing_files=tuple(part.file_name for part in missing),
        last_return=_range(np.concatenate(last)) if last else None,
    )


def _first_known(returns: Float32[np.ndarray, "N T"]) -> ReturnRange | None:
    """Mean and range over trials of the first return of each that is not NaN."""
    known = np.isfinite(returns)
    first = known.argmax(axis=1)
    return _range(returns[np.arange(len(returns)), first].astype(np.float64))


def _range(values: Float64[np.ndarray, " N"]) -> ReturnRange | None:
    """Mean and range over the trials whose value is known."""
    known = values[np.isfinite(values)]
    if not known.size:
        return None
    return ReturnRange(float(known.mean()), float(known.min()), float(known.max()))
