"""Trials that all start from one policy: a plug-in of `tipl.ppo.PPO`."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

from tipl.core.arrays import Array
from tipl.jumps.config import CRITIC_EPOCHS
from tipl.jumps.plug_in import refit_critics
from tipl.ppo.ppo import PPO, PlugIn
from tipl.ppo.rollout import Rollout


class Lineage(PlugIn):
    """Gives all trials the weights of one actor, and their critics time to learn what it is worth.

    The actors are the policy to the last bit, its action noise included: with the noise that
    untrained networks start with, what it can do would be lost in the first updates. The critics
    are untrained, and are refitted to the first rollout before the actors move, as after a jump.
    From then on another plug-in may go on.

    Args:
        actor: the policy's weights under the trials' normaliser.
        others: what else changes the trials' weights.
    """

    def __init__(self, actor: Float32[np.ndarray, " P"], others: PlugIn) -> None:
        self.actor, self.others = actor, others

    def start(self, ppo: PPO) -> None:
        """Gives the trials their first weights."""
        ppo.actors[:] = self.actor
        self.others.start(ppo)

    def before_update(self, ppo: PPO, rollout: Rollout) -> None:
        """Refits the critics before the first update."""
        if ppo.iteration == 0:
            alive = np.flatnonzero(~ppo.diverged)
            refit_critics(ppo, rollout, alive, CRITIC_EPOCHS, ppo.seed)
        self.others.before_update(ppo, rollout)

    def after_update(self, ppo: PPO, rollout: Rollout) -> None:
        """Leaves the weights to the other plug-in."""
        self.others.after_update(ppo, rollout)

    def checkpoint(self) -> dict[str, Array]:
        """What the other plug-in tells."""
        return self.others.checkpoint()

    def state(self) -> dict[str, Array]:
        """That of the other plug-in: a lineage's own work is done before anything is saved."""
        return self.others.state()

    def set_state(self, ppo: PPO, state: dict[str, Array]) -> None:
        """Continues from what `state` returned."""
        self.others.set_state(ppo, state)
