"""PPO with policy path trimming and boosting (PPTB), as a plug-in of `tipl.ppo.PPO`."""

from __future__ import annotations

import dataclasses
from collections import deque

import numpy as np

from tipl.core.arrays import Array
from tipl.errors import TiplError
from tipl.forecast.trimming import check_rank_and_boost, trimmed_and_boosted
from tipl.ppo.plug_in import PlugIn
from tipl.ppo.ppo import PPO
from tipl.ppo.rollout import Rollout

__all__ = ["PPTBConfig", "PathBooster"]


@dataclasses.dataclass(frozen=True)
class PPTBConfig:
    """How the actors' weights are trimmed and boosted while PPO goes on; by default not at all."""

    rank: int | None = None
    """directions of the recent path that are kept; by default PPO is left alone"""
    boost: float = 0.1
    """step ahead in the first two directions, in units of the way along the recent path"""
    interval: int = 10
    """PPO iterations between two replacements of the weights"""
    window: int = 64
    """weights that make up the recent path: those after each of the last PPO iterations"""

    def check(self) -> None:
        """Raises a TiplError unless the settings are possible, together and each."""
        if self.rank is None:
            fields = dataclasses.fields(self)
            given = [field.name for field in fields if getattr(self, field.name) != field.default]
            if given:
                raise TiplError(
                    f"PPTB was given {' and '.join(given)} but no rank, so weights would stay as "
                    "PPO makes them; give a rank, such as 16"
                )
            return
        check_rank_and_boost(self.rank, self.boost)
        if self.interval < 1:
            raise TiplError(f"an interval of {self.interval} was given; expected at least 1")
        if self.window < 2:
            raise TiplError(f"a window of {self.window} was given; a path has at least 2 weights")


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
        # arrays [N, P], the oldest of which falls out once there are as many as the window takes
        self.recent: deque[Array] = deque(maxlen=config.window)

    def start(self, ppo: PPO) -> None:
        """Remembers the actors' weights before their first update."""
        self.recent.append(_actors(ppo).copy())

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

    def state(self) -> dict[str, Array]:
        """Everything needed to continue, as arrays: the recent weights `[N, T, P]`."""
        return {"recent": np.stack(self.recent, axis=1)}

    def set_state(self, ppo: PPO, state: dict[str, Array]) -> None:
        """Continues from what `state` returned."""
        self.recent.clear()
        self.recent.extend(state["recent"].swapaxes(0, 1).copy())  # [N, T, P] -> T of [N, P]


def _actors(ppo: PPO) -> Array:
    """The actors' weights `[N, P]`, shared with the trials."""
    actors: Array = ppo.params[:, : ppo.actor_layout.size]
    return actors
