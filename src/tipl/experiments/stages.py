"""The stages that experiments are made of: commands of tipl with what they read and make."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tipl.experiments.pipeline import Stage
from tipl.forecast.hub import model_directory, shipped_models

__all__ = [
    "collect_stage",
    "evaluate_stage",
    "forecast_stage",
    "model_files",
    "optimize_stage",
    "paths_evaluate_stage",
    "train_stage",
]


def _words(*words: object) -> tuple[str, ...]:
    """Words of a command line; numbers as short as they are."""
    return tuple(f"{word:g}" if isinstance(word, float) else str(word) for word in words)


def collect_stage(
    name: str, env_id: str, paths: Path, *options: object, reads: Sequence[Path] = ()
) -> Stage:
    """PPO trials to policy learning paths.

    Args:
        name: of the stage.
        env_id: the task.
        paths: directory of the dataset that is made.
        options: of `tipl collect`.
        reads: files of what the weights jump to, if they do.
    """
    words = _words("collect", env_id, *options, "--out", paths)
    return Stage(name, words, paths / "metadata.json", tuple(reads), threads=True, resumes=paths)


def paths_evaluate_stage(name: str, paths: Path, episodes: int, *options: object) -> Stage:
    """Checkpoints of a dataset to their returns in the environment."""
    kept = paths / "evaluation"
    words = _words("paths", "evaluate", paths, "--episodes", episodes, *options)
    return Stage(
        name,
        words,
        kept / "evaluation.json",
        (paths / "metadata.json",),
        threads=True,
        resumes=kept,
    )


def train_stage(
    name: str, paths: Path, model: Path, held_out: float, options: Sequence[object], seed: int
) -> Stage:
    """Paths to a trained model.

    Args:
        name: of the stage.
        paths: directory of the dataset.
        model: directory of the model that is made.
        held_out: share of the trials that the model does not see.
        options: of `tipl train`.
        seed: of the training.
    """
    words = _words("train", paths, "--held-out", held_out, *options, "--seed", seed, "--out", model)
    return Stage(name, words, model / "config.json", (paths / "metadata.json",), threads=True)


def optimize_stage(name: str, model: Path, policy: Path, seed: int) -> Stage:
    """One fresh random network to a policy, by inference alone."""
    words = _words("optimize", model, "--seed", seed, "--out", policy)
    return Stage(name, words, policy / "policy.json", (model / "config.json",))


def forecast_stage(
    name: str, models: Sequence[Path], paths: Path, out: Path, *options: object
) -> Stage:
    """Histories of the held-out trials to forecasts, by models and their rivals."""
    words = _words("forecast", *models, "--paths", paths, "--out", out, *options)
    return Stage(
        name, words, out / "forecasts.json", tuple(model / "config.json" for model in models)
    )


def evaluate_stage(name: str, forecasts: Path, episodes: int) -> Stage:
    """Forecasts and true checkpoints to returns, in the environment."""
    return Stage(
        name,
        _words("evaluate", forecasts, "--episodes", episodes),
        forecasts / "returns.safetensors",
        (forecasts / "forecasts.json",),
        threads=True,
    )


def model_files(model: str) -> tuple[Path, ...]:
    """The files of a model that is given as a directory or by the name of one that ships."""
    directory = model_directory(model) if model in shipped_models() else Path(model)
    return directory / "config.json", directory / "model.safetensors"
