"""The policy that all trials of a lineage start from."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from tipl.collection.config import CollectConfig
from tipl.core.stores import exists
from tipl.errors import TiplError, shown
from tipl.forecast.description import MODEL
from tipl.forecast.hub import shipped_models
from tipl.policies.actions import refolded
from tipl.policies.layout import actor_layout
from tipl.policies.policy import POLICY, Policy
from tipl.policies.tasks import TaskSpec


def read_start(source: str | Path | Policy) -> Policy:
    """The policy that a directory holds, or that was given itself.

    Raises:
        TiplError: there is none, or it is damaged; or a model was given, which holds no policy.
    """
    if isinstance(source, Policy):
        return source
    directory = Path(source)
    if exists(directory / POLICY.name):
        return Policy.load(directory)
    if str(source) in shipped_models() or exists(directory / MODEL.name):
        raise TiplError(
            f"the model {source} was given as the start of trials, and knows what its elite does "
            "but not its weights; give the directory of a policy: that of `tipl paths best` from "
            f"the paths that it learned from, which is the elite, or of `tipl optimize {source}`, "
            "which acts nearly alike"
        )
    return Policy.load(directory)  # says what is missing


def start_for(policy: Policy, task: TaskSpec, config: CollectConfig) -> Policy:
    """The same policy under the task's frozen normaliser, as trials can go on with it.

    It may come from another world of the task. Where the task's policies observe their physics and
    it does not, it learns to from weights of 0, with which it acts as it did.

    Raises:
        TiplError: it is of another environment or architecture.
    """
    if task.observed and not policy.task.observed:
        policy = _observing(policy, task)
    given, layout = policy.task, policy.layout
    if not given.same_environment(task):
        raise TiplError(
            f"a policy for {given.label} was given as the start of trials in {task.label}; give "
            "one of the same environment"
        )
    if layout.activation != "tanh" or layout.squashed:
        kind = "squashed outputs" if layout.squashed else f"{layout.activation} units"
        raise TiplError(
            f"a policy of {kind} was given as the start of trials, but PPO trains tanh units whose "
            "outputs are actions as they are; give such a policy, which `tipl optimize` makes of "
            "a model with this one as its elite"
        )
    if config.hidden_sizes is not None and config.hidden != layout.hidden_sizes:
        raise TiplError(
            f"a policy with hidden layers of {shown(layout.hidden_sizes)} units was given as the "
            f"start of trials with hidden_sizes={shown(config.hidden)}; leave these "
            "out, or give another policy"
        )
    own, frozen = (policy.observation_mean, policy.observation_std), task.observation_statistics
    params = policy.params
    if any((one != other).any() for one, other in zip(own, frozen, strict=True)):
        params = refolded(params, layout, own, frozen)
    return Policy(params, layout, task)


def with_start(config: CollectConfig, policy: Policy | None) -> CollectConfig:
    """The configuration with the hidden layers of its start, unless it has others."""
    if policy is None or config.hidden_sizes is not None:
        return config
    return dataclasses.replace(config, hidden_sizes=policy.layout.hidden_sizes)


def _observing(policy: Policy, task: TaskSpec) -> Policy:
    """A policy that acts alike in a task in which more is observed."""
    added, old = len(task.observed), policy.layout
    spread = dict(zip(task.observed, task.observation_std[-added:], strict=True))
    seen = policy.task.observing(spread)
    layout = actor_layout(seen, old.hidden_sizes, old.activation, old.squashed)
    params = np.zeros(layout.size, np.float32)
    new, own = layout.unflatten(params), old.unflatten(policy.params)
    for name, array in own.items():
        new[name][..., : array.shape[-1]] = (
            array  # of the first weights [H, O] a part of [H, O + V]
        )
    mean, std = seen.observation_statistics
    mean[:-added], std[:-added] = policy.observation_mean, policy.observation_std
    return Policy(params, layout, seen, mean, std, policy.observation_clip)
