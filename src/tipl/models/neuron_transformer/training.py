"""Training a NeuronTransformer, one for each target."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from tipl.core.options import thread_count
from tipl.core.seeds import HELD_OUT_SEED
from tipl.errors import TiplError
from tipl.evaluation.behaviour import best_checkpoint
from tipl.forecast.base import Target
from tipl.models.learning_paths import (
    NUM_ANCHORS,
    LearningPaths,
    change_scales,
    learning_paths,
    return_scale,
    usable,
)
from tipl.models.loop import Curve, fit, mean_held_out_loss, torch_threads
from tipl.models.network import ActionError
from tipl.models.neuron_transformer import NeuronTrainConfig
from tipl.models.neuron_transformer.forecaster import NeuronTransformerForecaster
from tipl.models.neuron_transformer.losses import EliteLoss, OwnLoss, fresh_networks
from tipl.models.neuron_transformer.net import NeuronTransformer, NeuronTransformerConfig
from tipl.paths import PathDataset
from tipl.policies.layout import layer_sizes


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

    Raises:
        TiplError: no trial can be learned from, or the datasets do not go together.
    """
    _check([*datasets, *held_out])
    first = datasets[0]
    scale = return_scale(usable(first).episodic_return())
    # policies have to be run where their actions count
    anchors = NUM_ANCHORS if "own" in config.targets and config.behaviour_weight else 0
    read = partial(learning_paths, scale=scale, anchors=anchors)
    paths = [read(dataset, seed=config.seed) for dataset in datasets]
    others = []
    if "own" in config.targets:
        others = [read(dataset, seed=HELD_OUT_SEED) for dataset in held_out]
    job = _Job(datasets, paths, others, config, progress)
    models: dict[Target, NeuronTransformer] = {}
    with torch_threads(thread_count(threads)):
        for target in dict.fromkeys(config.targets):
            models[target] = job.train_elite() if target == "elite" else job.train_own()
    steps = sum(data.env_steps for data in [*paths, *others])
    return NeuronTransformerForecaster(
        models,
        first.task,
        first.layout.hidden_sizes,
        first.num_checkpoints,
        scale,
        {"curves": job.curves, "env_steps": steps + job.env_steps, **job.record},
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


class _Job:
    """The training of each target on the same data."""

    def __init__(
        self,
        datasets: Sequence[PathDataset],
        paths: Sequence[LearningPaths],
        held_out: Sequence[LearningPaths],
        config: NeuronTrainConfig,
        progress: bool,
    ) -> None:
        self.datasets, self.paths, self.held_out = datasets, paths, held_out
        self.config, self.progress = config, progress
        self.action_error = ActionError(datasets[0].task)
        self.scales = change_scales(datasets)
        self.curves: dict[str, Curve] = {}
        self.record: dict[str, Any] = {}
        self.env_steps = 0

    def train_own(self) -> NeuronTransformer:
        """A model of what PPO does with a network."""
        config = self.config
        model = self._initial_model(config.context)
        loss = OwnLoss(self.paths, config, self.action_error)
        held_out_loss = None
        if self.held_out:
            held_out_loss = OwnLoss(self.held_out, config, self.action_error)
        self.curves["own"] = fit(
            model,
            config,
            partial(loss, model),
            partial(mean_held_out_loss, held_out_loss, model),
            held_out_still=mean_held_out_loss(held_out_loss, model, still=True),
            label="train (own)",
            progress=self.progress,
        )
        return model

    def train_elite(self) -> NeuronTransformer:
        """A model that carries networks to the behaviour of the best policy of the datasets."""
        config, task = self.config, self.datasets[0].task
        elites = [best_checkpoint(dataset, seed=config.seed) for dataset in self.datasets]
        best = max(range(len(elites)), key=lambda n: elites[n].mean_return)
        elite = elites[best]
        self.env_steps += sum(found.env_steps for found in elites)
        self.record["elite"] = {
            "dataset": self.datasets[best].metadata.digest,
            "trial": elite.trial,
            "checkpoint": elite.checkpoint,
            "mean_return": elite.mean_return,
            "episodes": elite.episodes,
        }
        model = self._initial_model(context=1, memory=config.memory)
        T = self.datasets[0].num_checkpoints
        loss = EliteLoss(elite, self.paths, config, self.action_error, T)
        rng = torch.Generator().manual_seed(HELD_OUT_SEED)
        sizes = layer_sizes(task, elite.policy.layout.hidden_sizes)
        unseen_networks = fresh_networks(16, sizes, not task.discrete, rng)

        seen = loss.elite_observations(16, rng)

        @torch.inference_mode()
        def unseen() -> float:
            carried = unseen_networks + loss.change(model, unseen_networks)
            return float(loss.error(carried, seen))

        self.curves["elite"] = fit(
            model,
            config,
            partial(loss, model),
            unseen,
            held_out_still=float(loss.error(unseen_networks, seen)),
            label="train (elite)",
            progress=self.progress,
        )
        self.env_steps += loss.env_steps
        return model

    def _initial_model(self, context: int, memory: int = 0) -> NeuronTransformer:
        task, config = self.datasets[0].task, self.config
        torch.manual_seed(config.seed)
        sizes = NeuronTransformerConfig(
            observation_size=task.observation_size,
            action_size=task.action_size,
            num_checkpoints=self.datasets[0].num_checkpoints,
            width=config.width,
            rounds=config.rounds,
            context=context,
            heads=config.heads,
            memory=memory,
        )
        return NeuronTransformer(sizes, *self.scales)
