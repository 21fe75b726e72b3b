"""Policies that observe their physics, as plain networks for one world each.

What such a policy observes of its world stays the same from step to step, so that the first layer
only ever adds the same vector for it: a part of its biases.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float32

from tipl.errors import TiplError
from tipl.policies.actions import normalise_observations
from tipl.policies.layout import actor_layout
from tipl.policies.policy import Policy


def folded(policy: Policy, physics: Mapping[str, float] | None = None) -> Policy:
    """The policy for one world of one that observes its physics.

    It acts as the other one does there, observes what the environment alone shows, and is in that
    world.

    Args:
        policy: one that observes its physics (`tipl collect --observe physics`).
        physics: the world: factors by name, of which those that are left out are 1; by default all
            are.

    Raises:
        TiplError: the policy does not observe its physics, or a factor is none.
    """
    _check(policy)
    count, world = len(policy.task.observed), dict(physics or {})
    mean, std = policy.observation_mean, policy.observation_std
    seen = normalise_observations(
        policy.task.observed_values(world), mean[-count:], std[-count:], np.float64,
        policy.observation_clip,
    )  # fmt: skip
    task, old = policy.task.without_observing(), policy.layout
    layout = actor_layout(task, old.hidden_sizes, old.activation, old.squashed)
    params = np.zeros(layout.size, np.float32)
    new, own = layout.unflatten(params), old.unflatten(policy.params)
    for name, array in own.items():
        new[name][...] = array[:, :-count] if name == "actor.0.weight" else array
    new["actor.0.bias"][:] += own["actor.0.weight"][:, -count:] @ seen
    plain = Policy(params, layout, task, mean[:-count], std[:-count], policy.observation_clip)
    return plain.with_physics(world)


def folding_slopes(policy: Policy) -> Float32[np.ndarray, "V P"]:
    """By how much the weights of `folded` policies grow with each value observed of the physics.

    The values are those of `TaskSpec.observed_values`, V of them, which are not clipped here.

    Raises:
        TiplError: the policy does not observe its physics.
    """
    _check(policy)
    count, layout = len(policy.task.observed), folded(policy).layout
    weight = policy.layout.unflatten(policy.params)["actor.0.weight"]
    slopes = np.zeros((count, layout.size), np.float32)
    for value in range(count):
        column = value - count
        biases = layout.unflatten(slopes[value])["actor.0.bias"]
        biases[:] = weight[:, column] / policy.observation_std[column]
    return slopes


def _check(policy: Policy) -> None:
    if not policy.task.observed:
        raise TiplError(
            f"a policy for {policy.task.label} was given, which does not observe its physics and "
            "is a plain network already; give one that PPO has trained with observe='physics'"
        )
