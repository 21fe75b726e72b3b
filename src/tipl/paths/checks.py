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
from tipl.paths.grid import PartRange
from tipl.paths.metadata import PathMetadata, read_metadata
from tipl.paths.parts import PartFiles, parts_present
from tipl.paths.returns import ReturnFiles, settings_path


def verify(directory: str | Path) -> list[str]:
    """Reads a whole dataset and checks every byte of it.

    Returns:
        A sentence for each problem, with the file and what is wrong with it; none if all is well.

    Raises:
        TiplError: there is no such directory, or it cannot be read.
    """
    directory = Path(directory)
    evaluation = settings_path(directory).parent
    with explained("read", directory):
        if not directory.is_dir():
            raise TiplError(
                f"there is no directory {directory}, but a path dataset (made by `tipl collect` or "
                "a PathRecorder) is expected there; check the spelling"
            )
        try:
            metadata = read_metadata(directory)
        except TiplError as error:
            return [str(error), *_broken_files(directory / "parts", evaluation)]
        files = PartFiles(directory, metadata)
        problems = [*_unexpected(files), *_broken_parts(files)]
        if evaluation.exists():
            try:
                returns = ReturnFiles(directory, metadata)
            except TiplError as error:
                problems += [str(error), *_broken_files(evaluation)]
            else:
                for _ in _intact_parts(returns, problems):
                    pass
    return problems


def _broken_files(*folders: Path) -> Iterator[str]:
    """Sentences about the files in folders, for want of a description, each by itself."""
    for folder in folders:
        yield from filter(None, map(storage.check_tensors, sorted(folder.glob("*.safetensors"))))


def _unexpected(files: PartFiles) -> Iterator[str]:
    """Sentences about what no finished write of ours has left in a dataset."""
    directory, names = files.directory, [files.path(part).name for part in files.parts]
    resume, settings = directory / "resume", settings_path(directory)
    grids = [directory / "parts", settings.parent]
    folders = [directory, *grids, resume]
    expected = {directory / "metadata.json", settings, *folders}
    expected.update(grid / name for grid in grids for name in names)
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


def _intact_parts(
    files: PartFiles, problems: list[str]
) -> Iterator[tuple[PartRange, dict[str, Array]]]:
    """The parts that can be read, one by one; what is wrong with the others joins `problems`."""
    missing = files.missing()
    if missing:
        problems.append(
            f"{len(missing)} of {len(files.parts)} {files.several} are missing, the first of them "
            f"{files.path(missing[0])}; {files.remedy('make them')}"
        )
    for part in files.parts:
        if part not in missing:
            try:
                tensors = files.read_part(part)
            except TiplError as error:
                problems.append(str(error))
            else:
                yield part, tensors


def _broken_parts(files: PartFiles) -> list[str]:
    """Sentences about the files of weights, each by itself and together."""
    problems: list[str] = []
    names = ("global_step", "iteration")
    axes: dict[tuple[int, int], dict[str, Array]] = {}  # by first checkpoint, of each recorded run
    for part, tensors in _intact_parts(files, problems):
        axis = {name: tensors[name] for name in names}
        run = part.first_trial if files.metadata.recorded else 0
        other = axes.setdefault((run, part.first_checkpoint), axis)
        problems += [
            f"{files.path(part)} has another {name} than other trials at the same checkpoints"
            for name in names
            if not np.array_equal(axis[name], other[name])
        ]
    for name in names:
        for run in sorted({run for run, _ in axes}):
            values = [axes[key][name] for key in sorted(axes) if key[0] == run]
            if (np.diff(np.concatenate(values)) <= 0).any():
                problems.append(
                    f"{files.folder}: {name} does not grow from checkpoint to checkpoint"
                )
    return problems


@dataclass(frozen=True)
class ReturnRange:
    """Episodic returns over trials."""

    mean: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class EvaluationSummary:
    """What `tipl paths evaluate` has found so far."""

    episodes: int
    """of each checkpoint that was run"""
    num_files: int
    """files of returns that are there"""
    missing_files: tuple[str, ...]
    """names of those that are not; `tipl paths evaluate` makes them"""
    last_return: ReturnRange | None
    """deterministic, at the last checkpoint; None if none is known"""


@dataclass(frozen=True)
class PathSummary:
    """What is in a dataset, complete or not."""

    directory: Path
    metadata: PathMetadata
    lengths: dict[int, int]
    """checkpoints of each trial, by the trial's number: of recorded runs those that are there, of
    planned ones those that there shall be"""
    num_parameters: int
    """length of a stored parameter vector, P"""
    num_parts: int
    """parts that are there"""
    missing_parts: tuple[str, ...]
    """file names of those that are not; `PathMetadata.remedy` tells how to have them"""
    steps_per_trial: int
    """environment steps of one trial between its first and last checkpoint; of recorded runs, of
    the longest"""
    total_steps: int
    """of all trials up to the last checkpoints that are there"""
    size_on_disk: int
    """bytes of the files"""
    diverged_trials: tuple[int, ...]
    """numbers of the trials that became NaN"""
    first_return: ReturnRange | None
    """each trial's first known training return; None if none is"""
    last_return: ReturnRange | None
    """likewise each one's last"""
    evaluation: EvaluationSummary | None
    """None if the checkpoints have not been evaluated"""

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
    files = PartFiles(directory, metadata)
    present = parts_present(directory, metadata)
    lengths = files.lengths
    row = {trial: row for row, trial in enumerate(lengths)}
    shape = (len(row), max(lengths.values(), default=0))
    returns = np.full(shape, np.nan, np.float32)
    diverged = np.zeros(shape, bool)
    steps = np.zeros(shape, np.int64)
    for part in present:
        first = row[part.first_trial]
        place = slice(first, first + part.num_trials), part.slices[1]
        with files.open(part) as file:
            grown = slice(part.num_checkpoints)
            every = slice(part.num_trials), grown
            returns[place] = file.read("episodic_return", *every)
            diverged[place] = file.read("diverged", *every)
            steps[place] = file.read("global_step", grown)  # [t] -> [n, t]
    last_steps = steps.max(axis=1, initial=0)
    steps_per_trial = int(last_steps.max(initial=0))
    if metadata.num_checkpoints is not None:
        steps_per_trial = (metadata.num_checkpoints - 1) * metadata.steps_per_checkpoint
    settings = settings_path(directory)
    stored = [directory / "metadata.json", settings]
    stored += [
        folder / files.path(part).name
        for folder in (files.folder, settings.parent)
        for part in files.parts
    ]
    return PathSummary(
        directory=directory,
        metadata=metadata,
        lengths=lengths,
        num_parameters=metadata.layout.size,
        num_parts=len(present),
        missing_parts=tuple(part.file_name for part in files.missing()),
        steps_per_trial=steps_per_trial,
        total_steps=int(last_steps.sum()),
        size_on_disk=sum(path.stat().st_size for path in stored if path.exists()),
        diverged_trials=tuple(trial for trial in lengths if diverged[row[trial]].any()),
        first_return=_first_known(returns),
        last_return=_first_known(returns[:, ::-1]),
        evaluation=_summarize_evaluation(directory, metadata),
    )


def _summarize_evaluation(directory: Path, metadata: PathMetadata) -> EvaluationSummary | None:
    if not settings_path(directory).exists():
        return None
    files = ReturnFiles(directory, metadata)
    missing = files.missing()
    last = [
        files.read_part(part)["deterministic_return"][:, -1].mean(axis=-1, dtype=np.float64)
        for part in files.parts
        if part not in missing and part.last_checkpoint == files.lengths[part.first_trial] - 1
    ]  # of each block of trials, [n, E] -> [n]
    return EvaluationSummary(
        episodes=files.evaluation.episodes,
        num_files=len(files.parts) - len(missing),
        missing_files=tuple(part.file_name for part in missing),
        last_return=_range(np.concatenate(last)) if last else None,
    )


def _first_known(returns: Float32[np.ndarray, "N T"]) -> ReturnRange | None:
    """Mean and range over trials of the first return of each that is not NaN."""
    if not returns.size:
        return None
    known = np.isfinite(returns)
    first = known.argmax(axis=1)
    return _range(returns[np.arange(len(returns)), first].astype(np.float64))


def _range(values: Float64[np.ndarray, " N"]) -> ReturnRange | None:
    """Mean and range over the trials whose value is known."""
    known = values[np.isfinite(values)]
    if not known.size:
        return None
    return ReturnRange(float(known.mean()), float(known.min()), float(known.max()))
