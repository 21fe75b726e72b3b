"""Small path datasets for tests: built from known arrays, cut into several parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tipl.core import storage
from tipl.paths import PathMetadata, create_dataset, part_ranges, read_metadata, write_part
from tipl.paths.parts import JUMP_COUNTS
from tipl.paths.returns import EvaluationMetadata, ReturnFiles, settings_path
from tipl.policies.layout import ParamLayout
from tipl.policies.tasks import get_task

N, T = 5, 7  # trials and checkpoints; parts of 2 and 3, so the last ones are smaller
DIVERGED = 3  # this trial is NaN from checkpoint 4 on
Arrays = dict[str, np.ndarray]


def make_metadata(**changes: Any) -> PathMetadata:
    task = get_task("InvertedPendulum-v4")
    layout = ParamLayout.actor(4, 1, (3,))
    if changes.get("networks") == "actor+critic":
        layout += ParamLayout.critic(4, (3,))
    fields: dict[str, Any] = {
        "task": task,
        "layout": layout,
        "hidden_sizes": (3,),
        "networks": "actor",
        "initial": "independent",
        "normaliser": "frozen",
        "num_trials": N,
        "num_checkpoints": T,
        "trials_per_part": 2,
        "checkpoints_per_part": 3,
        "checkpoint_interval": 2,
        "steps_per_checkpoint": 4096,
        "seed": 1,
        "ppo": {"learning_rate": 3e-4, "num_minibatches": 32},
        "versions": {"tipl": "0.1.0", "numpy": "2.4.6"},
    }
    return PathMetadata(**(fields | changes))


def make_arrays(metadata: PathMetadata) -> Arrays:
    """The arrays of a whole dataset; trial DIVERGED has diverged."""
    rng = np.random.default_rng(0)
    shape = (metadata.num_trials, metadata.num_checkpoints)
    arrays = {
        "params": rng.standard_normal((*shape, metadata.layout.size), np.float32),
        "episodic_return": rng.uniform(0, 100, shape).astype(np.float32),
        "num_episodes": rng.integers(0, 9, shape, np.int32),
        "diverged": np.zeros(shape, bool),
        "global_step": np.arange(shape[1]) * metadata.steps_per_checkpoint,
        "iteration": np.arange(shape[1]) * metadata.checkpoint_interval,
    }
    if metadata.normaliser == "running":
        statistics = (*shape, metadata.task.observation_size)
        arrays["observation_mean"] = rng.standard_normal(statistics)
        arrays["observation_std"] = rng.uniform(0.5, 2, statistics)
    if metadata.vary:
        arrays["physics"] = np.ones((*shape, len(metadata.vary)))
    if metadata.jumps:
        arrays |= {name: np.zeros(shape, np.int64) for name in JUMP_COUNTS}
    arrays["episodic_return"][:, [0, -1]] = np.nan  # no episode ended there
    arrays["episodic_return"][1, :3] = np.nan
    arrays["diverged"][DIVERGED : DIVERGED + 1, 4:] = True
    arrays["params"][arrays["diverged"], 7] = np.nan
    return arrays


def write_parts(directory: Path, metadata: PathMetadata, arrays: Arrays) -> None:
    for part in part_ranges(metadata):
        tensors = {
            name: array[part.slices[1] if array.ndim == 1 else part.slices]
            for name, array in arrays.items()
        }
        write_part(directory, metadata, part.first_trial, part.first_checkpoint, tensors)


def write_returns(directory: Path, returns: np.ndarray, evaluation: EvaluationMetadata) -> None:
    """The files of an evaluation, with the returns `[N, T, E]`."""
    settings_path(directory).parent.mkdir()
    storage.write_json(settings_path(directory), evaluation.to_json())
    files = ReturnFiles(directory, read_metadata(directory), evaluation)
    for part in files.parts:
        files.write(part, {"deterministic_return": returns[part.slices]})


def make_dataset(directory: Path, **changes: Any) -> Arrays:
    metadata = make_metadata(**changes)
    arrays = make_arrays(metadata)
    create_dataset(directory, metadata)
    write_parts(directory, metadata, arrays)
    return arrays


def make_evaluation(directory: Path, **changes: Any) -> np.ndarray:
    """Deterministic returns `[N, T, E]` of a dataset: NaN where they should be, else at random."""
    metadata = read_metadata(directory)
    fields: dict[str, Any] = {"episodes": 2, "every": 4, "seed": 0, "versions": {"tipl": "0.1.0"}}
    evaluation = EvaluationMetadata(dataset=metadata.digest, **(fields | changes))
    shape = (metadata.num_trials, metadata.num_checkpoints, evaluation.episodes)
    returns = np.random.default_rng(1).uniform(0, 100, shape).astype(np.float32)
    returns[:, ~evaluation.chosen(metadata.num_checkpoints)] = np.nan
    returns[DIVERGED : DIVERGED + 1, 4:] = np.nan
    write_returns(directory, returns, evaluation)
    return returns


def part_files(directory: Path) -> list[Path]:
    return sorted((directory / "parts").iterdir())
