"""The states that policies visit."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32
from threadpoolctl import threadpool_limits

from tipl.core.arrays import Array
from tipl.envs import make_vec
from tipl.policies.actions import best_actions, executable
from tipl.policies.frames import normalise_observations
from tipl.policies.layout import ParamLayout
from tipl.policies.policy import Policy
from tipl.policies.tasks import TaskSpec
from tipl.ppo.mlp import stacked_mlp

__all__ = ["action_unit", "observations_around", "visited_observations"]

NUM_ROLLOUTS, STEPS_OF_ROLLOUT = 64, 300
"""Rollouts of one policy, with action noise from none to `MAX_NOISE`."""
MAX_NOISE = 0.4
"""In units of half the action range."""
NUM_ENVS = 256
"""Environments that are stepped together."""


def observations_around(policy: Policy, seed: int) -> Float32[np.ndarray, "M S O"]:
    """Normalised observations where a policy goes, by itself and pushed off by action noise.

    Args:
        policy: with the frozen normaliser of its task.
        seed: of the environments and the noise.

    Returns:
        `NUM_ROLLOUTS` rollouts of `STEPS_OF_ROLLOUT` environment steps each.
    """
    return visited_observations(
        np.repeat(policy.params[None], NUM_ROLLOUTS, axis=0),
        policy.layout,
        policy.task,
        STEPS_OF_ROLLOUT,
        noise=np.linspace(0, MAX_NOISE, NUM_ROLLOUTS),
        seed=seed,
    )


def visited_observations(
    params: Float32[np.ndarray, "M P"],
    layout: ParamLayout,
    task: TaskSpec,
    num_steps: int,
    *,
    noise: Float[np.ndarray, " M"] | float = 0.0,
    seed: int = 0,
) -> Float32[np.ndarray, "M S O"]:
    """Normalised observations of M policies in `num_steps` steps each, episode after episode.

    Args:
        params: flat weights of the policies.
        layout: of the weights.
        task: the environment, whose frozen normaliser is used.
        num_steps: steps S of each policy.
        noise: standard deviation of what is added to each policy's mean actions, in units of half
            the action range (of 1 where actions have no bounds); for a task with discrete actions
            the share of actions that are drawn at random.
        seed: of the environments and the noise.
    """
    spread = np.broadcast_to(np.asarray(noise, np.float64), (len(params),))
    blocks = [slice(start, start + NUM_ENVS) for start in range(0, len(params), NUM_ENVS)]
    return np.concatenate(
        [
            _visited(params[block], layout, task, num_steps, spread[block], (seed, block.start))
            for block in blocks
        ]
    )


def _visited(
    params: Array,
    layout: ParamLayout,
    task: TaskSpec,
    num_steps: int,
    noise: Array,
    seed: tuple[int, int],
) -> Array:
    rng = np.random.default_rng(seed)
    actor = stacked_mlp(layout.unflatten(np.ascontiguousarray(params)), "actor")
    mean, std = np.array(task.observation_mean), np.array(task.observation_std)
    visited = np.empty((len(params), num_steps, task.observation_size), np.float32)
    envs = make_vec(task.env_id, len(params))
    with threadpool_limits(1, "blas"):
        observations, _ = envs.reset(seed=int(rng.integers(2**31)))
        for step in range(num_steps):
            visited[:, step] = normalise_observations(observations, mean, std)
            outputs = actor.forward(visited[:, step][:, None])[:, 0]  # [M, 1, O] -> [M, A]
            observations = envs.step(_noisy_actions(task, outputs, noise, rng))[0]
    envs.close()
    return visited


def _noisy_actions(task: TaskSpec, outputs: Array, noise: Array, rng: np.random.Generator) -> Array:
    if task.discrete:
        actions = best_actions(task, outputs)
        others = executable(task, rng.integers(task.action_size, size=(len(outputs), 1)))
        return np.where(rng.random(len(outputs)) < noise, others, actions)
    drawn = rng.standard_normal(outputs.shape)
    return executable(task, outputs + noise[:, None] * action_unit(task) * drawn)


def action_unit(task: TaskSpec) -> Float32[np.ndarray, " A"]:
    """Half the range of each continuous action; 1 where it has no bounds."""
    low, high = task.action_bounds
    half = (high.astype(np.float64) - low) / 2
    unit: Float32[np.ndarray, " A"] = np.where(np.isfinite(half), half, 1.0).astype(np.float32)
    return unit
