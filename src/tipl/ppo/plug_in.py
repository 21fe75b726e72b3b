"""What may change the trials' weights between iterations, beside PPO itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tipl.core.arrays import Array
from tipl.ppo.rollout import Rollout

if TYPE_CHECKING:
    from tipl.ppo.ppo import PPO

__all__ = ["PlugIn"]


class PlugIn:
    """What changes the trials' weights between iterations, beside PPO itself.

    A subclass overrides what it needs.
    """

    def start(self, ppo: PPO) -> None:
        """Is called once, before the first rollout; may write other weights into `ppo.params`."""

    def before_update(self, ppo: PPO, rollout: Rollout) -> None:
        """Is called before each update; may change what the update is told of the rollout."""

    def after_update(self, ppo: PPO, rollout: Rollout) -> None:
        """Is called after each update; may write other weights into `ppo.params`."""

    def checkpoint(self) -> dict[str, Array]:
        """What a checkpoint tells of the plug-in's work so far: arrays `[N]` by name."""
        return {}

    def state(self) -> dict[str, Array]:
        """Everything needed to continue, as arrays."""
        return {}

    def set_state(self, ppo: PPO, state: dict[str, Array]) -> None:
        """Continues, with fresh trials, from what `state` returned; instead of `start`."""
