"""What policies do: the best one that a dataset holds, and the states that policies visit."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Float64
from threadpoolctl import threadpool_limits

from tipl.core.arrays import Array
from tipl.envs import make_vec
from tipl.errors import TiplError
from tipl.evaluation.returns import evaluate_stack
from tipl.paths import PathDataset
from tipl.policies.actions import (
    OBSERVATION_CLIP,
    Statistics,
    best_actions,
    executable,
    normalise_observations,
    unsquashed,
)
from tipl.policies.layout import ParamLayout
from tipl.policies.policy import Policy
from tipl.policies.tasks import TaskSpec
from tipl.ppo.networks import stacked_actors

NUM_CANDIDATES = 24
"""Stored checkpoints, by their training return, among which the best one is looked for."""


@dataclasses.dataclass(frozen=True)
class Elite:
    """The best policy that a dataset of paths knows."""

    policy: Policy
    trial: int  # its number
    checkpoint: int  # its index
    mean_return: float  # of its mean actions, over other episodes than those it was chosen by
    episodes: int  # the number of these episodes
    env_steps: int  # that it took to find it


def best_checkpoint(paths: PathDataset, episodes: int = 8, seed: int = 0) -> Elite:
    """The stored policy with the highest return, acting by its mean.

    The checkpoints with the highest returns in training, at most one in ten of a trial's, are run
    for some episodes each; the best of them is the elite, and is run for as many again. The seed is
    of the episodes' starts.

    Raises:
        TiplError: no episode of any trial ended, the normaliser is a running one, or each trial
            has its own physics.
    """
    if paths.metadata.normaliser != "frozen":
        raise TiplError(
            f"the paths in {paths.directory} were collected with normaliser="
            f"{paths.metadata.normaliser!r}, so that no two policies see the same observations; "
            "collect with normaliser='frozen'"
        )
    if own := paths.metadata.own_physics:
        raise TiplError(
            f"each trial in {paths.directory} has its own {', '.join(own)}, so "
            "that no policy is the best of all; collect without varied physics"
        )
    chosen = _candidates(paths)
    policies = [paths.policy(trial, checkpoint) for trial, checkpoint in chosen]
    params = np.stack([policy.params for policy in policies])
    run = partial(
        evaluate_stack, layout=policies[0].layout, task=paths.task, episodes=episodes,
        clip=policies[0].observation_clip,
    )  # fmt: skip
    found = run(params, seed=seed)
    best = int(found.returns.mean(axis=1).argmax())
    again = run(params[[best]], seed=seed + 1)  # the best of many by some episodes had luck in them
    trial, checkpoint = int(paths.trials[chosen[best][0]]), chosen[best][1]
    env_steps = int(found.lengths.sum() + again.lengths.sum())
    mean_return = float(again.returns.mean())
    return Elite(policies[best], trial, checkpoint, mean_return, episodes, env_steps)


def _candidates(paths: PathDataset) -> list[tuple[int, int]]:
    """Trial and checkpoint of those with the highest returns in training, few of each trial."""
    returns = np.nan_to_num(paths.episodic_return().astype(np.float64), nan=-np.inf)
    returns[paths.diverged()] = -np.inf
    limit, of_each = max(1, paths.num_checkpoints // 10), Counter[int]()
    chosen: list[tuple[int, int]] = []
    for flat in np.argsort(-returns, axis=None, kind="stable"):
        trial, checkpoint = divmod(int(flat), paths.num_checkpoints)
        if np.isfinite(returns[trial, checkpoint]) and of_each[trial] < limit:
            chosen.append((trial, checkpoint))
            of_each[trial] += 1
    if not chosen:
        raise TiplError(
            f"no episode of any trial in {paths.directory} has ended, so no policy is known to be "
            "good; collect more steps"
        )
    return chosen[:NUM_CANDIDATES]


NUM_ROLLOUTS, STEPS_OF_ROLLOUT = 64, 300
"""Rollouts of one policy, with action noise from none to `MAX_NOISE`."""
MAX_NOISE = 0.4
"""In units of half the action range."""
NUM_ENVS = 256
"""Environments that are stepped together."""


def observations_around(policy: Policy, seed: int) -> Float64[np.ndarray, "M S O"]:
    """Observations where a policy goes, by itself and pushed off by action noise.

    These are `NUM_ROLLOUTS` rollouts of `STEPS_OF_ROLLOUT` environment steps each, as the
    environment gives them: whoever looks at them has a normaliser of its own.
    """
    params = np.repeat(policy.params[None], NUM_ROLLOUTS, 0)
    noise = np.linspace(0, MAX_NOISE, NUM_ROLLOUTS)
    return raw_observations(
        params, policy.layout, policy.task, STEPS_OF_ROLLOUT, noise=noise, seed=seed,
        statistics=(policy.observation_mean, policy.observation_std), clip=policy.observation_clip,
    )  # fmt: skip


def visited_observations(
    params: Float32[np.ndarray, "M P"],
    layout: ParamLayout,
    task: TaskSpec,
    num_steps: int,
    *,
    noise: Float[np.ndarray, " M"] | float = 0.0,
    seed: int = 0,
    clip: float = OBSERVATION_CLIP,
) -> Float32[np.ndarray, "M S O"]:
    """The `raw_observations` of policies under their task's frozen normaliser, normalised by it."""
    seen = raw_observations(params, layout, task, num_steps, noise=noise, seed=seed, clip=clip)
    return normalise_observations(seen, *task.observation_statistics, clip=clip)


def raw_observations(
    params: Float32[np.ndarray, "M P"],
    layout: ParamLayout,
    task: TaskSpec,
    num_steps: int,
    *,
    noise: Float[np.ndarray, " M"] | float = 0.0,
    seed: int = 0,
    statistics: Statistics | None = None,
    clip: float = OBSERVATION_CLIP,
    physics: Mapping[str, Float[np.ndarray, " M"]] | None = None,
) -> Float64[np.ndarray, "M S O"]:
    """Observations of M policies in `num_steps` steps each, episode after episode.

    Each may act in `physics` of its own, factors by name (see `tipl.envs.physics`).
    All normalise them by the same `statistics`, by default the task's, and clip to +- `clip`. The
    noise is the standard deviation of what is added to each policy's mean actions, in units of
    half the action range (of 1 where actions have no bounds); for a task with discrete actions the
    share of actions that are drawn at random.
    """
    visited = np.empty((len(params), num_steps, task.observation_size))
    steps = _steps(params, layout, task, num_steps, noise, seed, statistics, clip, physics)
    for block, step, observations, _, _ in steps:
        visited[block, step] = observations
    return visited


class Transitions(NamedTuple):
    """What M policies saw, did, and saw then, in S steps each."""

    observations: Float64[np.ndarray, "M S O"]
    actions: Float64[np.ndarray, "M S A"]
    next_observations: Float64[np.ndarray, "M S O"]
    """of the same episode, of which one may be the last"""


def transitions(
    params: Float32[np.ndarray, "M P"],
    layout: ParamLayout,
    task: TaskSpec,
    num_steps: int,
    *,
    noise: Float[np.ndarray, " M"] | float = 0.0,
    seed: int = 0,
    physics: Mapping[str, Float[np.ndarray, " M"]] | None = None,
) -> Transitions:
    """The steps of policies that act as in `raw_observations`, in a task of continuous actions."""
    sizes = task.observation_size, task.action_size, task.observation_size
    made = Transitions(*(np.empty((len(params), num_steps, size)) for size in sizes))
    for block, step, *row in _steps(params, layout, task, num_steps, noise, seed, physics=physics):
        for values, those in zip(made, row, strict=True):
            values[block, step] = those
    return made


def _steps(
    params: Float32[np.ndarray, "M P"],
    layout: ParamLayout,
    task: TaskSpec,
    num_steps: int,
    noise: Float[np.ndarray, " M"] | float,
    seed: int,
    statistics: Statistics | None = None,
    clip: float = OBSERVATION_CLIP,
    physics: Mapping[str, Float[np.ndarray, " M"]] | None = None,
) -> Iterator[tuple[slice, int, Array, Array, Array]]:
    """Policies that act: which, the number of the step, observations, actions, and what follows."""
    mean, std = statistics or task.observation_statistics
    spread = np.broadcast_to(np.asarray(noise, np.float64), (len(params),))
    for start in range(0, len(params), NUM_ENVS):
        block = slice(start, start + NUM_ENVS)
        rng = np.random.default_rng((seed, start))
        actor = stacked_actors(np.ascontiguousarray(params[block]), layout)
        factors = {name: values[block] for name, values in (physics or {}).items()}
        envs = make_vec(task, len(params[block]), physics=factors)
        with threadpool_limits(1, "blas"), closing(envs):
            observations, _ = envs.reset(seed=int(rng.integers(2**31)))
            for step in range(num_steps):
                inputs = normalise_observations(observations, mean, std, clip=clip)[:, None]
                means = actor.forward(inputs)[:, 0]  # [M, 1, O] -> [M, A]
                if layout.squashed:
                    means = unsquashed(task, means)
                actions = _noisy_actions(task, means, spread[block], rng)
                following, _, _, _, info = envs.step(actions)
                last = following
                if (over := info.get("_final_obs")) is not None and over.any():
                    last = following.copy()
                    last[over] = np.stack(list(info["final_obs"][over]))
                yield block, step, observations, actions, last
                observations = following


def _noisy_actions(task: TaskSpec, means: Array, noise: Array, rng: np.random.Generator) -> Array:
    if task.discrete:
        actions = best_actions(task, means)
        others = executable(task, rng.integers(task.action_size, size=(len(means), 1)))
        return np.where(rng.random(len(means)) < noise, others, actions)
    drawn = rng.standard_normal(means.shape)
    return executable(task, means + noise[:, None] * action_unit(task) * drawn)


def action_unit(task: TaskSpec) -> Float32[np.ndarray, " A"]:
    """Half the range of each continuous action; 1 where it has no bounds."""
    low, high = task.action_bounds
    half = (high.astype(np.float64) - low) / 2
    unit: Float32[np.ndarray, " A"] = np.where(np.isfinite(half), half, 1.0).astype(np.float32)
    return unit
