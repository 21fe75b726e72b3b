"""Looking at a path dataset as a whole: is every byte as it was written, and what is in it?"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from tipl.core import storage
from tipl.core.addresses import is_address
from tipl.core.arrays import Array
from tipl.core.locks import writer_of
from tipl.core.progress import progress_bar
from tipl.core.regular_files import open_regular
from tipl.core.stores import exists, names_in, reading, size_of
from tipl.core.system_errors import explained
from tipl.core.unfinished import is_unfinished
from tipl.errors import TiplError
from tipl.paths.grid import PartRange
from tipl.paths.metadata import PathMetadata, read_metadata
from tipl.paths.parts import FOLDERS, PartFiles, parts_present
from tipl.paths.returns import ReturnFiles, settings_path

LONG = 1 << 29
"""Bytes of a dataset that take so long to look at that people want to see how far it is."""


def verify(directory: str | Path) -> list[str]:
    """Reads a whole dataset and checks every byte of it.

    What a process is writing now is no problem: `being_written` tells of it. What is not there yet
    is missing, with a word of who makes it.

    Returns:
        A sentence for each problem, with the file and what is wrong with it; none if all is well.

    Raises:
        TiplError: there is no such directory, or it cannot be read.
    """
    directory = Path(directory)
    evaluation = settings_path(directory).parent
    with reading(directory):
        if not is_address(directory) and not directory.is_dir():
            raise TiplError(
                f"there is no directory {directory}, but a path dataset (made by `tipl collect` or "
                "a PathRecorder) is expected there; check the spelling"
            )
        try:
            metadata = read_metadata(directory)
        except TiplError as error:
            if is_address(directory):
                raise
            return [str(error), *_broken_files(directory / "parts", evaluation)]
        files = PartFiles(directory, metadata)
        problems = [*_unexpected(files), *_broken_parts(files)]
        begun = exists(settings_path(directory)) or not writer_of(evaluation)
        if _is_there(evaluation) and begun:
            try:
                returns = ReturnFiles(directory, metadata)
            except TiplError as error:
                problems += [str(error), *_broken_files(evaluation)]
            else:
                for _ in _intact_parts(returns, problems):
                    pass
    return problems


def being_written(directory: str | Path) -> list[str]:
    """A sentence for each file or folder of a dataset that a process is writing now."""
    held = {entry: writer_of(entry) for _, entry in _entries(Path(directory)) if _is_held(entry)}
    return [f"{entry} is being written by {writer}" for entry, writer in held.items() if writer]


def _is_held(entry: Path) -> bool:
    """Whether somebody may hold a lock on what has such a name."""
    return is_unfinished(entry) or entry.suffix == ".lock" or entry.name == "evaluation"


def _entries(directory: Path) -> list[tuple[Path, Path]]:
    """What there is in a dataset, with the folder that it is in."""
    folders = [directory, *(directory / name for name in FOLDERS)]
    with reading(directory):
        return [
            (folder, folder / name)
            for folder in folders
            for name in (names_in(folder) if _is_there(folder) else ())
        ]


def _is_there(folder: Path) -> bool:
    """Whether there is such a folder; in a store, whether anything is under its address."""
    return bool(names_in(folder)) if is_address(folder) else folder.is_dir()


def _broken_files(*folders: Path) -> Iterator[str]:
    """Sentences about the files in folders, for want of a description, each by itself."""
    for folder in folders:
        yield from filter(None, map(storage.check_tensors, sorted(folder.glob("*.safetensors"))))


def _unexpected(files: PartFiles) -> Iterator[str]:
    """Sentences about what no finished write of ours has left in a dataset."""
    directory, entries = files.directory, _entries(files.directory)
    # those that may be there since, of runs that are being recorded
    parts = PartFiles(directory, files.metadata).parts
    settings = settings_path(directory)
    expected = {directory / "metadata.json", settings, *(directory / name for name in FOLDERS)}
    for grid in (directory / "parts", settings.parent):
        expected.update(grid / files.path(part).name for part in parts)
    left = _left_over(entry for _, entry in entries if is_unfinished(entry))
    for folder, entry in entries:
        in_resume = folder == directory / "resume"
        if in_resume and entry.suffix == ".lock" and entry.is_file():
            continue  # of a collection that may be under way
        if is_unfinished(entry):
            if entry in left:
                yield f"{entry} was left by a write that never finished; delete it"
        elif in_resume and entry.name.endswith(".failure.txt") and entry.is_file():
            yield f"{entry} tells of a failure: {_first_line(entry)}"
        elif in_resume:
            problem = storage.check_tensors(entry)
            if problem and not writer_of(entry.with_suffix(".lock")) and entry.exists():
                yield problem
        elif entry not in expected:
            yield f"{entry} does not belong to the dataset; move it elsewhere"


def _first_line(path: Path) -> str:
    with explained("read", path), open_regular(path, "a record of a failure") as file:
        return file.read(500).decode(errors="replace").partition("\n")[0]


def _left_over(entries: Iterable[Path]) -> list[Path]:
    """What nobody is writing; a writer takes a moment to lock what it has just made."""
    for wait in (0.0, 0.05):
        time.sleep(wait)
        entries = [one for one in entries if os.path.lexists(one) and not writer_of(one)]
        if not entries:
            break
    return list(entries)


def _makers(files: PartFiles) -> list[str]:
    """The processes that are making files of one kind."""
    folder = files.folder if isinstance(files, ReturnFiles) else files.directory / "resume"
    locks = [folder] if isinstance(files, ReturnFiles) else sorted(folder.glob("*.lock"))
    return sorted({writer for lock in locks if (writer := writer_of(lock))})


def _intact_parts(
    files: PartFiles, problems: list[str]
) -> Iterator[tuple[PartRange, dict[str, Array]]]:
    """The parts that can be read, one by one; what is wrong with the others joins `problems`."""
    makers, missing = _makers(files), files.missing()
    if missing:
        remedy = files.remedy("make them")
        if makers:
            remedy = f"they are being written by {', '.join(makers)}: wait for it to end"
        problems.append(
            f"{len(missing)} of {len(files.parts)} {files.several} are missing, the first of them "
            f"{files.path(missing[0])}; {remedy}"
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


def summarize(directory: str | Path, progress: bool = False) -> PathSummary:
    """Sums up a dataset, complete or not, after a look at every byte of what is there.

    Raises:
        TiplError: there is none in the directory, a part is damaged, or the evaluation is.
    """
    directory = Path(directory)
    metadata = read_metadata(directory)
    files = PartFiles(directory, metadata)
    present = parts_present(directory, metadata)
    trials: dict[int, _Trial] = {}
    long = sum(size_of(files.path(part)) for part in present) > LONG
    for part in _counted(present, progress and long):
        with files.open_intact(part) as file:
            every, grown = slice(part.num_trials), slice(part.num_checkpoints)
            returns = file.read("episodic_return", every, grown).astype(np.float64)
            diverged = np.asarray(file.read("diverged", every, grown).any(axis=1))
            steps = int(file.read("global_step", grown)[-1])
        for row in range(part.num_trials):
            trial = trials.setdefault(part.first_trial + row, _Trial())
            trial.go_on(returns[row], bool(diverged[row]), steps)
    steps_per_trial = max((trial.steps for trial in trials.values()), default=0)
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
        lengths=files.lengths,
        num_parameters=metadata.layout.size,
        num_parts=len(present),
        missing_parts=tuple(part.file_name for part in files.missing()),
        steps_per_trial=steps_per_trial,
        total_steps=sum(trial.steps for trial in trials.values()),
        size_on_disk=sum(map(size_of, stored)),
        diverged_trials=tuple(number for number in sorted(trials) if trials[number].diverged),
        first_return=_range(np.array([trial.first_return for trial in trials.values()])),
        last_return=_range(np.array([trial.last_return for trial in trials.values()])),
        evaluation=_summarize_evaluation(directory, metadata),
    )


def _counted(parts: Sequence[PartRange], progress: bool) -> Iterator[PartRange]:
    """The parts, with a bar that tells how many are left."""
    with progress_bar(progress) as bar:
        task = bar.add_task("read every byte", total=len(parts), note="")
        for part in parts:
            yield part
            bar.advance(task)


@dataclass
class _Trial:
    """What is known of a trial from the parts of it that are there."""

    first_return: float = math.nan
    last_return: float = math.nan
    diverged: bool = False
    steps: int = 0

    def go_on(self, returns: Float64[np.ndarray, " t"], diverged: bool, steps: int) -> None:
        """Takes its next part."""
        known = returns[np.isfinite(returns)]
        if known.size:
            if math.isnan(self.first_return):
                self.first_return = float(known[0])
            self.last_return = float(known[-1])
        self.diverged, self.steps = self.diverged or diverged, max(self.steps, steps)


def _summarize_evaluation(directory: Path, metadata: PathMetadata) -> EvaluationSummary | None:
    if not exists(settings_path(directory)):
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


def _range(values: Float64[np.ndarray, " N"]) -> ReturnRange | None:
    """Mean and range over the trials whose value is known."""
    known = values[np.isfinite(values)]
    if not known.size:
        return None
    return ReturnRange(float(known.mean()), float(known.min()), float(known.max()))
