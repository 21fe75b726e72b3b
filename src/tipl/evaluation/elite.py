"""The elite: the best policy that a dataset of paths holds."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np

from tipl.errors import TiplError
from tipl.evaluation.returns import evaluate_stack
from tipl.paths import PathDataset
from tipl.policies.policy import Policy

__all__ = ["Elite", "best_checkpoint"]


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
