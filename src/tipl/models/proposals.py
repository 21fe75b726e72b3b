"""Proposals: policies that are run for an episode each, of which the best is taken."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from tipl.core.system_errors import explained
from tipl.errors import TiplError, shown
from tipl.policies.policy import POLICY, Policy


@dataclasses.dataclass(frozen=True, eq=False)
class Proposal:
    """A policy that may be the one to take, and what it returned."""

    name: str
    policy: Policy
    episodic_return: float = math.nan
    """NaN before it was run"""

    def having_returned(self, episodic_return: float) -> Proposal:
        """The same with its return."""
        return dataclasses.replace(self, episodic_return=episodic_return)


def best_of(tried: Sequence[Proposal]) -> Proposal:
    """The proposal that returned most, the first of equals; one whose return is NaN never."""
    return max(
        tried, key=lambda one: -math.inf if math.isnan(one.episodic_return) else one.episodic_return
    )


def refuse_hidden(hidden: Sequence[int] | None) -> None:
    """Raises a TiplError if hidden units were given beside a policy to start from."""
    if hidden is not None:
        raise TiplError(
            f"the hidden units {shown(hidden)} were given with a policy, which has its own; give "
            "one of them"
        )


def task_or_policy(given: str | Path | Policy) -> str | Policy:
    """The id of a task, or a policy that is given as such or by its directory.

    Raises:
        TiplError: it is a path without a policy, or the policy is damaged.
    """
    if isinstance(given, Policy):
        return given
    directory = Path(given)
    with explained("read", directory):
        named = isinstance(given, Path) or (directory / POLICY.name).exists()
    return Policy.load(directory) if named else str(given)


TriedT = TypeVar("TriedT", bound="TriedPolicy")


class TriedPolicy(Policy):
    """A policy that inference made, and what was spent on choosing it."""

    env_steps: int
    """of the environment that were spent to make it"""
    tried: tuple[Proposal, ...]
    """proposals that were run for an episode each, in order; none if no episodes were allowed"""

    @classmethod
    def taken(
        cls: type[TriedT], policy: Policy, env_steps: int, tried: Sequence[Proposal]
    ) -> TriedT:
        """The same policy, with how it was chosen."""
        normaliser = policy.observation_mean, policy.observation_std, policy.observation_clip
        made = cls(policy.params, policy.layout, policy.task, *normaliser)
        made.env_steps, made.tried = env_steps, tuple(tried)
        return made
