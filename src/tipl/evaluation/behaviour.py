"""What policies do: the best one that a dataset holds, and the states that policies visit."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
from jaxtyping import Float, Float32
from threadpoolctl import threadpool_limits

from tipl.core.arrays import Array
from tipl.envs import make_vec
from tipl.errors import TiplError
from tipl.evaluation.returns import evaluate_stack
from tipl.paths import PathDataset
from tipl.policies.actions import best_actions, executable, normalise_observations
from tipl.policies.layout import ParamLayout
from tipl.policies.policy import Policy
from tipl.policies.tasks import TaskSpec
from tipl.ppo.networks import stacked_mlp

NUM_CANDIDATES = 24
"""Stored checkpoints, by their training return, among which the best one is looked for."""


@dataclasses.dataclass(frozen=True)
class Elite:
    """The best policy that a dataset of paths knows.

    Attributes:
        policy: the policy.
        trial: number of its trial.
        checkpoint: index of its checkpoint.
        mean_return: mean return of its mean actions, over other episodes than those that it was
            chosen by.
        episodes: the number of these episodes.
        env_steps: environment steps that it took to find it.
    """

    policy: Policy
    trial: int
    checkpoint: int
    mean_return: float
    episodes: int
    env_steps: int


def best_checkpoint(paths: PathDataset, episodes: int = 8, seed: int = 0) -> Elite:
    """The stored policy with the highest return, acting by its mean.

    The checkpoints with the highest returns in training, at most one in ten of a trial's, are run
    for some episodes each; the best of them is the elite, and is run again.

    Args:
        paths: a dataset with a frozen observation normaliser.
        episodes: of each candidate, and as many more of the best one.
        seed: of the episodes' starts.

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
    if paths.metadata.vary:
        raise TiplError(
            f"each trial in {paths.directory} has its own {', '.join(paths.metadata.vary)}, so "
            "that no policy is the best of all; collect without varied physics"
        )
    chosen = _candidates(paths)
    policies = [paths.policy(trial, checkpoint) for trial, checkpoint in chosen]
    params = np.stack([policy.params for policy in policies])
    layout, task = policies[0].layout, paths.task
    found = evaluate_stack(params, layout, task, episodes, seed=seed)
    best = int(found.returns.mean(axis=1).argmax())
    # the best of many by some episodes was lucky in them
    again = evaluate_stack(params[[best]], layout, task, episodes, seed=seed + 1)
    trial, checkpoint = chosen[best]
    return Elite(
        policy=policies[best],
        trial=int(paths.trials[trial]),
        checkpoint=checkpoint,
        mean_return=float(again.returns.mean()),
        episodes=episodes,
        env_steps=int(found.lengths.sum() + again.lengths.sum()),
    )


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
