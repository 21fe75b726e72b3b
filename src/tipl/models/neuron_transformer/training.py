"""Training a NeuronTransformer, one for each target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tipl.core.options import thread_count
from tipl.core.seeds import HELD_OUT_SEED
from tipl.errors import TiplError
from tipl.evaluation.behaviour import Elite, best_checkpoint
from tipl.forecast.base import Target
from tipl.models.learning_paths import (
    NUM_ANCHORS,
    change_scales,
    learning_paths,
    return_scale,
    usable,
)
from tipl.models.loop import fit, mean_of_batches, torch_threads
from tipl.models.neuron_transformer import NeuronTrainConfig
from tipl.models.neuron_transformer.forecaster import NeuronTransformerForecaster
from tipl.models.neuron_transformer.losses import EliteLoss, OwnLoss
from tipl.models.neuron_transformer.net import NeuronTransformer, NeuronTransformerConfig
from tipl.paths import PathDataset


def train_neuron_transformer(
    datasets: Sequence[PathDataset],
    held_out: Sequence[PathDataset],
    config: NeuronTrainConfig,
    *,
    threads: int | None = None,
    progress: bool = True,
) -> NeuronTransformerForecaster:
    """Trains a model for each target of the configuration.

    The loss of `own` is the error of weights and, if it weighs anything, that of actions, each in
    units of standing still's; that of `elite` is the mean squared difference of the actions from
    the elite policy's.
    """
    _check([*datasets, *held_out])
    first = datasets[0]
    scale = return_scale(usable(first).episodic_return())
    # policies have to be run where their actions count
    anchors = NUM_ANCHORS if "own" in config.targets and config.behaviour_weight else 0
    read = partial(learning_paths, scale=scale, anchors=anchors)
    paths = [read(dataset, seed=config.seed) for dataset in datasets]
    others = [read(dataset, seed=HELD_OUT_SEED) for dataset in held_out if "own" in config.targets]
    env_steps = sum(data.env_steps for data in [*paths, *others])
    scales = change_scales(datasets)
    models: dict[Target, NeuronTransformer] = {}
    settings: dict[str, Any] = {"curves": {}}
    with torch_threads(thread_count(threads)):
        for target in dict.fromkeys(config.targets):
            models[target] = model = _initial_model(target, config, first, scales)
            loss: OwnLoss | EliteLoss
            unseen: Callable[..., float] | None = None
            if target == "elite":
                elites = [best_checkpoint(dataset, seed=config.seed) for dataset in datasets]
                best = max(range(len(elites)), key=lambda n: elites[n].mean_return)
                settings["elite"] = _record(elites[best], datasets[best])
                loss = EliteLoss(elites[best], paths, config)
                unseen = partial(loss.of_unseen, model)
                env_steps += sum(elite.env_steps for elite in elites)
            else:
                loss, of_others = (OwnLoss(data, config, first.task) for data in (paths, others))
                unseen = partial(mean_of_batches, of_others, model) if others else None
            batch_loss, label = partial(loss, model), f"train ({target})"
            curve = fit(model, config, batch_loss, unseen, label=label, progress=progress)
            settings["curves"][target] = curve
            env_steps += loss.env_steps
    settings["env_steps"] = env_steps
    return NeuronTransformerForecaster(
        models, first.task, first.layout.hidden_sizes, first.num_checkpoints, scale, settings
    )


def _check(datasets: Sequence[PathDataset]) -> None:
    first = datasets[0]
    for dataset in datasets:
        metadata = dataset.metadata
        if metadata.networks != "actor" or metadata.normaliser != "frozen" or metadata.vary:
            raise TiplError(
                f"the paths in {dataset.directory} have networks={metadata.networks!r}, "
                f"normaliser={metadata.normaliser!r} and {len(metadata.vary)} varied physics; a "
                "NeuronTransformer learns from actors with the frozen normaliser in one physics: "
                "collect such paths"
            )
        if dataset.num_checkpoints != first.num_checkpoints:
            raise TiplError(
                f"the paths in {dataset.directory} have {dataset.num_checkpoints} checkpoints and "
                f"those in {first.directory} {first.num_checkpoints}; collect both alike"
            )


def _record(elite: Elite, dataset: PathDataset) -> dict[str, Any]:
    """Which stored policy the elite is, for the settings of a model."""
    names = ("trial", "checkpoint", "mean_return", "episodes")
    return {"dataset": dataset.metadata.digest} | {name: getattr(elite, name) for name in names}


def _initial_model(
    target: Target, config: NeuronTrainConfig, first: PathDataset, scales: tuple[Tensor, Tensor]
) -> NeuronTransformer:
    torch.manual_seed(config.seed)
    context, memory = (1, config.memory) if target == "elite" else (config.context, 0)
    ends, T = (first.task.observation_size, first.task.action_size), first.num_checkpoints
    sizes = NeuronTransformerConfig(
        *ends, T, config.width, config.rounds, context, config.heads, memory
    )
    return NeuronTransformer(sizes, *scales)
