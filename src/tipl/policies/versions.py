"""Versions of tasks that the same policies serve: they observe and do the same things."""

from __future__ import annotations

import dataclasses

from tipl.policies.tasks import TaskSpec, get_task

SAME_POLICIES = tuple(
    (f"{name}-v4", f"{name}-v5")
    for name in ("HalfCheetah", "Hopper", "InvertedPendulum", "Swimmer", "Walker2d")
)
"""Ids of environments with the same observations and actions; rewards, and of Walker2d friction,
may be others. Ant, InvertedDoublePendulum and Reacher observe other things as v5."""


def other_versions(env_id: str) -> tuple[str, ...]:
    """Ids of the other versions that the policies of a task serve as they are."""
    ids = next((ids for ids in SAME_POLICIES if env_id in ids), ())
    return tuple(one for one in ids if one != env_id)


def in_version(task: TaskSpec, env_id: str) -> TaskSpec:
    """Another version of a task, under the normaliser of that one.

    Raises:
        TiplError: tipl knows no task of the id.
    """
    kept = {name: getattr(task, name) for name in ("observation_mean", "observation_std")}
    return dataclasses.replace(get_task(env_id), **kept)
