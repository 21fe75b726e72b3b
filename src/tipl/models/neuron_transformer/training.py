"""Training a NeuronTransformer, one for each target."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tipl.core.seeds import HELD_OUT_SEED
from tipl.errors import TiplError
from tipl.evaluation.behaviour import best_checkpoint
from tipl.evaluation.returns import evaluate
from tipl.forecast.base import Target
from tipl.models.building import outlined
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
from tipl.models.parallel import threads_each
from tipl.paths import PathDataset
from tipl.policies.activations import ACTIVATIONS
from tipl.policies.policy import Policy
from tipl.policies.tasks import TaskSpec

ELITE_EPISODES = 8
"""Episodes by which the mean return of an elite is known."""


def train_neuron_transformer(
    datasets: Sequence[PathDataset],
    held_out: Sequence[PathDataset],
    config: NeuronTrainConfig,
    *,
    threads: int | None = None,
    progress: bool = True,
    elite: Policy | None = None,
) -> NeuronTransformerForecaster:
    """Trains a model for each target of the configuration.

    The elite is the policy that networks are carried to; by default the one in the configuration's
    directory, or else the best stored one.

    The loss of `own` is the error of weights and, if it weighs anything, that of actions, each in
    units of standing still's; that of `elite` is the mean squared difference of the actions from
    the elite policy's.
    """
    first = datasets[0]
    _check([*datasets, *held_out], config)
    if elite is None and config.elite is not None:
        elite = Policy.load(config.elite)
    if elite is not None:
        _check_elite(elite, first)
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
    with torch_threads(threads_each(threads)):
        for target in dict.fromkeys(config.targets):
            activations = {dataset.layout.activation for dataset in datasets}
            if target == "elite":
                activations |= {*config.fresh_activations}
            known = tuple(name for name in ACTIVATIONS if name in activations)
            models[target] = model = _initial_model(target, config, first, scales, known)
            loss: OwnLoss | EliteLoss
            unseen: Callable[..., float] | None = None
            if target == "elite":
                policy, settings["elite"], taken = _find_elite(elite, datasets, config)
                loss = EliteLoss(policy, first.task, paths, config)
                unseen = partial(loss.of_unseen, model)
                env_steps += taken
            else:
                loss, of_others = (OwnLoss(data, config, first.task) for data in (paths, others))
                unseen = partial(mean_of_batches, of_others, model) if others else None
            batch_loss, label = partial(loss, model), f"train ({target})"
            remembers = loss if isinstance(loss, EliteLoss) else None
            curve = fit(
                model, config, batch_loss, unseen, label=label, progress=progress,
                remembers=remembers,
            )  # fmt: skip
            settings["curves"][target] = curve
            env_steps += loss.env_steps
    settings["env_steps"] = env_steps
    return NeuronTransformerForecaster(
        models, first.task, first.layout.hidden_sizes, first.num_checkpoints, scale, settings
    )


def _check(datasets: Sequence[PathDataset], config: NeuronTrainConfig) -> None:
    first = datasets[0]
    for dataset in datasets:
        if dataset.layout.squashed and "elite" in config.targets:
            raise TiplError(
                f"the paths in {dataset.directory} are of policies whose outputs are squashed by "
                "tanh, which are not carried to an elite; train with the target own alone, or "
                "on paths of PPO, with this run's agent as --elite"
            )
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


def _check_elite(elite: Policy, paths: PathDataset) -> None:
    """Raises a TiplError unless a policy acts in just the environment that paths are of."""
    given, task = elite.task, paths.task
    worlds = [_world(given), _world(task)]
    if worlds[0] != worlds[1] or not given.same_environment(task):
        raise TiplError(
            f"an elite for {given.label} with {worlds[0]} was given, but the paths in "
            f"{paths.directory} are of {task.label} with {worlds[1]}; give a policy of the same "
            "environment"
        )


def _world(task: TaskSpec) -> str:
    """What a policy meets in a task, in words."""
    low, high = (list(bound) for bound in (task.action_low, task.action_high))
    actions = f"from {low} to {high}" if low else f"from number {task.first_action} on"
    physics = f" and the physics {dict(task.physics)}" if task.physics else ""
    return f"{task.observation_size} observed values, {task.action_size} actions {actions}{physics}"


def _find_elite(
    elite: Policy | None, datasets: Sequence[PathDataset], config: NeuronTrainConfig
) -> tuple[Policy, dict[str, Any], int]:
    """The elite, what the model's settings say of it, and the environment steps that this took.

    The one that is given is run for as many episodes as the best stored one.
    """
    if elite is not None:
        run = evaluate(elite, ELITE_EPISODES, seed=config.seed)
        if not math.isfinite(run.mean.value):
            raise TiplError(
                f"the elite has a mean return of {run.mean.value}; expected a policy whose returns "
                "are finite: give another one"
            )
        env_steps = int(run.episode_length.sum())
        record = {
            "policy": config.elite,
            "digest": elite.digest,
            "mean_return": float(run.mean.value),
            "episodes": ELITE_EPISODES,
            "env_steps": env_steps,
        }
        return elite, record, env_steps
    found = [best_checkpoint(dataset, seed=config.seed) for dataset in datasets]
    best = max(range(len(found)), key=lambda n: found[n].mean_return)
    names = ("trial", "checkpoint", "mean_return", "episodes")
    record = {"dataset": datasets[best].metadata.digest}
    record |= {name: getattr(found[best], name) for name in names}
    return found[best].policy, record, sum(one.env_steps for one in found)


def model_sizes(
    target: Target, config: NeuronTrainConfig, first: PathDataset, activations: tuple[str, ...]
) -> NeuronTransformerConfig:
    """The size of the model for a target that learns from such paths, and from such networks."""
    context, memory = (1, config.memory) if target == "elite" else (config.context, 0)
    ends, T = (first.task.observation_size, first.task.action_size), first.num_checkpoints
    return NeuronTransformerConfig(
        *ends, T, config.width, config.rounds, context, config.heads, memory, activations
    )


def _initial_model(
    target: Target,
    config: NeuronTrainConfig,
    first: PathDataset,
    scales: tuple[Tensor, Tensor],
    activations: tuple[str, ...],
) -> NeuronTransformer:
    torch.manual_seed(config.seed)
    sizes = model_sizes(target, config, first, activations)
    outlined(lambda: NeuronTransformer(sizes))  # before it takes memory
    return NeuronTransformer(sizes, *scales)
