"""Running the checkpoints of a path dataset in their environment, and keeping their returns.

A training return is that of a policy which explores, over the few episodes that happened to end;
here each checkpoint acts by its mean, for whole episodes that start alike for all of them.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from tipl.core import storage
from tipl.core.atomic import make_folder
from tipl.core.locks import locked_directory
from tipl.core.options import thread_count
from tipl.core.ownership import named_among, refuse_links
from tipl.core.progress import progress_bar
from tipl.core.system_errors import explained
from tipl.core.unfinished import is_unfinished, remove_unfinished
from tipl.envs.registry import registered_spec
from tipl.errors import TiplError
from tipl.evaluation.returns import evaluate_stack
from tipl.paths import PathDataset
from tipl.paths.grid import PartRange
from tipl.paths.metadata import first_difference, library_versions
from tipl.paths.parts import FOLDERS, PartFiles
from tipl.paths.returns import EvaluationMetadata, ReturnFiles, settings_path


def evaluate_paths(
    directory: str | Path,
    episodes: int = 5,
    *,
    every: int = 1,
    seed: int = 0,
    threads: int | None = None,
    progress: bool = False,
) -> PathDataset:
    """Runs the checkpoints of a dataset by their mean actions, and stores their returns in it.

    Checkpoints 0, `every`, 2 `every`, ... and the last are run for E episodes, where the trial has
    not diverged; `PathDataset.deterministic_return` reads what they returned. What is already there
    is kept: a complete evaluation with the same settings is not repeated, an interrupted one goes
    on where it was and ends in the same bytes as an undisturbed one.

    The seed fixes the episodes' starts: episode e starts alike for every trial and checkpoint.
    Threads are by default one for each processor.

    Raises:
        TiplError: an option is impossible, the dataset is incomplete or damaged, its environment is
            not known here, or it holds an evaluation with other settings. What was there is as it
            was.
    """
    available = thread_count(threads)
    paths = PathDataset.open(directory)
    digest, versions = paths.metadata.digest, library_versions()
    evaluation = EvaluationMetadata(digest, episodes, every, seed, versions)
    files = ReturnFiles(paths.directory, paths.metadata, evaluation)
    registered_spec(paths.task)  # before anything is written
    refuse_links(paths.directory, *FOLDERS)
    make_folder(files.folder)
    _refuse_other_files(files)
    with locked_directory(files.folder):  # a second process waits, and finds all done
        remove_unfinished(files.folder)
        missing = _begin(files)
        if missing:
            _evaluate_parts(paths, files, missing, available, progress)
    return paths


def _refuse_other_files(files: ReturnFiles) -> None:
    """Raises a TiplError if the folder is somebody's, and no evaluation."""
    with explained("read", files.folder):
        names = [path.name for path in sorted(files.folder.iterdir()) if not is_unfinished(path)]
    settings = settings_path(files.directory).name
    others = [name for name in names if name not in {files.path(p).name for p in files.parts}]
    if others and settings not in names:
        raise TiplError(
            f"{files.folder} holds other files ({named_among(others)}) but no {settings}, so it "
            "is no evaluation; move them elsewhere first"
        )


def _begin(files: ReturnFiles) -> list[PartRange]:
    """The parts still to evaluate, after making sure that what is there was asked for."""
    path, there = settings_path(files.directory), files
    missing = files.missing()
    if path.exists():
        there = ReturnFiles(files.directory, files.metadata)
        if there.evaluation.settings != files.evaluation.settings:
            raise TiplError(
                f"{files.folder} already holds an evaluation with {there.evaluation.settings}, but "
                f"{files.evaluation.settings} was given; give the same settings, or remove "
                f"{files.folder} first"
            )
        difference = first_difference(there.evaluation.versions, files.evaluation.versions)
        if missing and difference:  # returns of several versions would not be one evaluation
            name, found, installed = difference
            raise TiplError(
                f"{files.folder} holds an unfinished evaluation that was made with {name} {found}, "
                f"but {installed} is installed; install the former to go on, or remove "
                f"{files.folder} first"
            )
    for part in files.parts:
        if part not in missing:
            there.read_part(part)  # says so if it is damaged or another one
    if not path.exists():
        storage.write_json(path, files.evaluation.to_json())
    return missing


def _evaluate_parts(
    paths: PathDataset, files: ReturnFiles, missing: list[PartRange], threads: int, progress: bool
) -> None:
    """Evaluates and stores part by part."""
    counts = {part: part.num_trials * int(files.chosen(part).sum()) for part in files.parts}
    total = sum(counts.values())
    done = total - sum(counts[part] for part in missing)
    with progress_bar(progress) as bar:
        bar.speed_estimate_period = math.inf  # one part may take longer than the usual half minute
        task = bar.add_task(f"evaluate {total} policies", total=total, completed=done, note="")
        try:
            for part in missing:
                returns = _part_returns(paths, files, part, threads)
                files.write(part, {"deterministic_return": returns})
                bar.advance(task, counts[part])
        except KeyboardInterrupt as error:
            raise TiplError(
                f"interrupted; finished returns are safe in {files.folder}: "
                "run the same command again to go on"
            ) from error


def _part_returns(
    paths: PathDataset, files: ReturnFiles, part: PartRange, threads: int
) -> Float32[np.ndarray, "n t E"]:
    """Runs those of a part's checkpoints that are to be run."""
    evaluation, chosen = files.evaluation, files.chosen(part)
    shape = (part.num_trials, part.num_checkpoints, evaluation.episodes)
    returns = np.full(shape, np.nan, np.float32)
    if not chosen.any():
        return returns
    tensors = PartFiles(paths.directory, paths.metadata).read_part(part)
    running = chosen & ~tensors["diverged"]  # [n, t], of which M are true
    if running.any():
        names = ("observation_mean", "observation_std")
        own = tuple(tensors[name][running] for name in names if name in tensors)  # two [M, O]
        varied = paths.metadata.own_physics
        factors = tensors["physics"][running].T if varied else ()  # [n, t, V] -> [V, M]
        params = tensors["params"][running]  # [n, t, P] -> [M, P]
        returns[running] = evaluate_stack(
            params, paths.layout, paths.task, evaluation.episodes,
            statistics=(own[0], own[1]) if own else None, clip=paths.metadata.observation_clip,
            physics=dict(zip(varied, factors, strict=True)) if varied else None,
            seed=evaluation.seed, threads=threads,
        ).returns  # fmt: skip
    return returns
