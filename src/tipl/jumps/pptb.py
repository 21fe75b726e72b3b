"""PPO with policy path trimming and boosting (PPTB), as a plug-in of `tipl.ppo.PPO`."""

from __future__ import annotations

from collections import deque

import numpy as np

from tipl.core.arrays import Array
from tipl.errors import TiplError
from tipl.forecast.extrapolation import trimmed_and_boosted
from tipl.jumps.config import PPTBConfig
from tipl.ppo.plug_in import PlugIn
from tipl.ppo.ppo import PPO
from tipl.ppo.rollout import Rollout

__all__ = ["PathBooster"]


class PathBooster(PlugIn):
    """Replaces each trial's actor by a trimmed and boosted one every few iterations.

    A trial is replaced by what its own recent path makes of it; where that is not finite, it keeps
    its weights. The critic and Adam's moments stay as they are: PPO goes on from the new weights as
    from its own. The path is that of the weights that acted, replaced ones included.

    Source: Tang et al., NeurIPS 2024, arXiv 2303.01391, who did this within TD3 and RAD.

    Args:
        config: what to do, with a rank.

    Raises:
        TiplError: the configuration has no rank, or a setting is not possible.
    """

    def __init__(self, config: PPTBConfig) -> None:
        config.check()
        if config.rank is None:
            raise TiplError("PPTB was given no rank; give one, such as 16, or leave PPTB out")
        self.config, self.rank = config, config.rank
        self.recent: deque[Array] = deque(maxlen=config.window)  # arrays [N, P], the newest last

    def start(self, ppo: PPO) -> None:
        """Remembers the actors' weights before their first update."""
        self.recent.append(_actors(ppo).copy())
        self._forget(ppo)

    def after_update(self, ppo: PPO, rollout: Rollout) -> None:
        """Remembers the actors' weights, and replaces them when it is time."""
        actors = _actors(ppo)
        self.recent.append(actors.copy())
        if ppo.iteration % self.config.interval == 0:
            # one trial at a time: all windows in float64 would be the largest arrays by far
            for n in range(len(actors)):
                path = np.stack([weights[n] for weights in self.recent])
                ahead = trimmed_and_boosted(path[None], self.rank, self.config.boost)[0]
                with np.errstate(over="ignore"):
                    ahead = ahead.astype(actors.dtype)
                if np.isfinite(ahead).all():
                    actors[n] = ahead
            self.recent[-1] = actors.copy()
        self._forget(ppo)

    def _forget(self, ppo: PPO) -> None:
        """Leaves only those weights that the next replacement, if there is one, will read."""
        until = self.config.interval - ppo.iteration % self.config.interval
        read = self.config.window - until if ppo.iteration + until <= ppo.num_iterations else 0
        while len(self.recent) > max(read, 0):
            self.recent.popleft()

    def state(self) -> dict[str, Array]:
        """Everything needed to continue, as arrays: the recent weights `[N, T, P]`, if any."""
        return {"recent": np.stack(self.recent, axis=1)} if self.recent else {}

    def set_state(self, ppo: PPO, state: dict[str, Array]) -> None:
        """Continues from what `state` returned."""
        self.recent.clear()
        if "recent" in state:
            self.recent.extend(state["recent"].swapaxes(0, 1).copy())  # [N, T, P] -> T of [N, P]


def _actors(ppo: PPO) -> Array:
    """The actors' weights `[N, P]`, shared with the trials."""
    actors: Array = ppo.params[:, : ppo.actor_layout.size]
    return actors
