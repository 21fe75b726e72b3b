"""Training a model on datasets of policy learning paths."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from tipl.core.options import config_from_options
from tipl.errors import TiplError
from tipl.forecast.trained import TrainedForecaster
from tipl.models.config import Model, Target, TrainConfig
from tipl.models.neuron_transformer.training import train_neuron_transformer
from tipl.models.nowcasters.training import train_nowcaster
from tipl.models.path_transformer.training import (
    TokenSequences,
    token_sequences,
    train_path_transformer,
)
from tipl.paths import PathDataset

__all__ = ["Model", "Target", "TokenSequences", "TrainConfig", "token_sequences", "train"]


LEARNS_FROM_ONE = {"path": "PathTransformer", "wnn": "WNN", "nino": "NiNo"}
"""The models that learn from one dataset, by their names in `TrainConfig.model`."""

HIGH = 99
"""Percentile of the training paths' returns that is high, yet known well enough to be asked for."""


def train(
    paths: PathDataset | Sequence[PathDataset],
    *,
    held_out: PathDataset | Sequence[PathDataset] | None = None,
    config: TrainConfig | None = None,
    threads: int | None = None,
    progress: bool = True,
    **options: Any,
) -> TrainedForecaster:
    """Trains a PathTransformer, a NeuronTransformer, or a nowcaster as a rival of theirs.

    Args:
        paths: the training paths; diverged trials are left out. A NeuronTransformer learns from
            several datasets of one task at once, such as of networks of different widths.
        held_out: other trials, whose loss is recorded but never learned from.
        config: how to train, as an alternative to `options`.
        threads: of a NeuronTransformer's training; by default one for each processor. The
            others are too small to gain from more than one.
        progress: show a progress bar.
        **options: fields of `TrainConfig`, such as `model="neuron"` or `num_steps=2000`.

    Returns:
        A forecaster; `settings` says how it was trained and holds the training curves.

    Raises:
        TiplError: an option is unknown or impossible, no trial can be learned from, or the
            datasets do not go together.
    """
    config = config_from_options(TrainConfig, config, options, "train")
    datasets = [paths] if isinstance(paths, PathDataset) else list(paths)
    others = [held_out] if isinstance(held_out, PathDataset) else list(held_out or [])
    _check_datasets(datasets, others)
    if config.model == "neuron":
        forecaster: TrainedForecaster = train_neuron_transformer(
            datasets, others, config, threads=threads, progress=progress
        )
    else:
        _check_alone(datasets, others, LEARNS_FROM_ONE[config.model])
        train_one = train_path_transformer if config.model == "path" else train_nowcaster
        other = others[0] if others else None
        forecaster = train_one(datasets[0], other, config, progress=progress)
    returns = np.concatenate([dataset.episodic_return().ravel() for dataset in datasets])
    if np.isfinite(returns).any():
        forecaster.settings["high_return"] = float(np.nanpercentile(returns, HIGH))
    forecaster.settings["steps_per_checkpoint"] = datasets[0].metadata.steps_per_checkpoint
    forecaster.settings["train"] = dataclasses.asdict(config)
    forecaster.settings["datasets"] = {
        dataset.metadata.digest: dataset.trials.tolist() for dataset in datasets
    }
    return forecaster


def _check_alone(
    datasets: Sequence[PathDataset], held_out: Sequence[PathDataset], name: str
) -> None:
    if len(datasets) > 1:
        raise TiplError(
            f"{len(datasets)} datasets were given, but a {name} learns from one: give "
            "one, or train with model='neuron'"
        )
    if len(held_out) > 1:
        raise TiplError(
            f"{len(held_out)} held-out datasets were given, but a {name} is tested on one: "
            "give one, or train with model='neuron'"
        )


def _check_datasets(datasets: Sequence[PathDataset], held_out: Sequence[PathDataset]) -> None:
    if not datasets:
        raise TiplError("no dataset was given to train on; expected one at least")
    first = datasets[0]
    layouts = [dataset.layout for dataset in datasets]
    for dataset in [*datasets[1:], *held_out]:
        if dataset.task.env_id != first.task.env_id:
            raise TiplError(
                f"the paths in {dataset.directory} are of {dataset.task.env_id} and those in "
                f"{first.directory} of {first.task.env_id}; give datasets of one task"
            )
    for dataset in held_out:
        if dataset.layout not in layouts:
            raise TiplError(
                f"held-out paths of {dataset.layout.size} parameters were given for training "
                f"paths of {', '.join(str(layout.size) for layout in layouts)}; give paths of "
                "the same architecture"
            )
