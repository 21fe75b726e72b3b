"""Training a NeuronTransformer, one for each target."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor

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
from tipl.models.loop import Curve, fit, mean_of_batches, torch_threads
from tipl.models.network import ActionError
from tipl.models.neuron_transformer import NeuronTrainConfig
from tipl.models.neuron_transformer.forecaster import NeuronTransformerForecaster
from tipl.models.neuron_transformer.losses import STATES, EliteLoss, OwnLoss, fresh_networks
from tipl.models.neuron_transformer.net import NeuronTransformer, NeuronTransformerConfig
from tipl.paths import PathDataset

HeldOutLoss: TypeAlias = Callable[..., float]


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
    tested_on = held_out if "own" in config.targets else []
    others = [read(dataset, seed=HELD_OUT_SEED) for dataset in tested_on]
    job = _Job(datasets, paths, others, config, change_scales(datasets))
    job.env_steps = sum(data.env_steps for data in [*paths, *others])
    models: dict[Target, NeuronTransformer] = {}
    curves: dict[str, Curve] = {}
    with torch_threads(thread_count(threads)):
        for target in dict.fromkeys(config.targets):
            model, loss, unseen = job.elite() if target == "elite" else job.own()
            batch_loss, label = partial(loss, model), f"train ({target})"
            curves[target] = fit(model, config, batch_loss, unseen, label=label, progress=progress)
            models[target] = model
            job.env_steps += loss.env_steps
    settings = {"curves": curves, "env_steps": job.env_steps, **job.record}
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


@dataclasses.dataclass
class _Job:
    """The training of each target on the same data, and what it leaves for the record."""

    datasets: Sequence[PathDataset]
    paths: Sequence[LearningPaths]
    held_out: Sequence[LearningPaths]
    config: NeuronTrainConfig
    scales: tuple[Tensor, Tensor]
    record: dict[str, Any] = dataclasses.field(default_factory=dict)
    env_steps: int = 0

    def own(self) -> tuple[NeuronTransformer, OwnLoss, HeldOutLoss | None]:
        """A model of what PPO does with a network, its loss, and that on what is held out."""
        model = self._initial_model(self.config.context)
        action_error = ActionError(self.datasets[0].task)
        loss, held_out_loss = (
            OwnLoss(paths, self.config, action_error) for paths in (self.paths, self.held_out)
        )
        held_out = partial(mean_of_batches, held_out_loss, model) if self.held_out else None
        return model, loss, held_out

    def elite(self) -> tuple[NeuronTransformer, EliteLoss, HeldOutLoss]:
        """A model that carries networks to the behaviour of the datasets' best policy, likewise."""
        elites = [best_checkpoint(dataset, seed=self.config.seed) for dataset in self.datasets]
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
        model = self._initial_model(context=1, memory=self.config.memory)
        loss = EliteLoss(elite, self.paths, self.config)
        rng = torch.Generator().manual_seed(HELD_OUT_SEED)
        networks = fresh_networks(16, elite.policy.layout, rng)
        seen = loss.draw_seen((16, 1, STATES), rng)

        @torch.inference_mode()
        def unseen(*, still: bool = False) -> float:
            carried = networks if still else networks + model(networks, loss.asked(networks))
            return float(loss.error(carried, seen))

        return model, loss, unseen

    def _initial_model(self, context: int, memory: int = 0) -> NeuronTransformer:
        task, config = self.datasets[0].task, self.config
        torch.manual_seed(config.seed)
        ends, T = (task.observation_size, task.action_size), self.datasets[0].num_checkpoints
        sizes = NeuronTransformerConfig(
            *ends, T, config.width, config.rounds, context, config.heads, memory
        )
        return NeuronTransformer(sizes, *self.scales)
