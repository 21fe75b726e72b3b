"""Running statistics of observations and rewards, for N trials at once."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from tipl.core.arrays import Array

__all__ = ["RewardScaler", "RunningMoments"]


EPSILON = 1e-8
"""Added to variances under the root, as in Gymnasium's normalising wrappers."""


class RunningMoments:
    """Mean and variance of a stream for each of N trials, as Gymnasium's `RunningMeanStd`.

    The stream brings one sample a trial at a time. The statistics start as if 1e-4 samples of
    mean 0 and variance 1 had been seen.

    Attributes:
        mean: `[N, ...]`, float64.
        var: `[N, ...]`, float64.
        count: samples seen.
    """

    def __init__(self, num_trials: int, shape: tuple[int, ...] = ()) -> None:
        self.mean = np.zeros((num_trials, *shape))
        self.var = np.ones((num_trials, *shape))
        self.count = 1e-4

    @property
    def std(self) -> Float[np.ndarray, " N *shape"]:
        """Standard deviation, never 0."""
        return np.asarray(np.sqrt(self.var + EPSILON))

    def update(self, sample: Float[np.ndarray, " N *shape"]) -> None:
        """Adds one sample a trial (Chan et al.'s update for a batch of one)."""
        total = self.count + 1.0
        delta = sample - self.mean
        self.mean += delta / total
        self.var = (self.var + delta * delta / total) * (self.count / total)
        self.count = total

    def state(self) -> dict[str, Array]:
        """Everything needed to continue, as arrays."""
        return {"mean": self.mean, "var": self.var, "count": np.array(self.count)}

    def set_state(self, state: dict[str, Array]) -> None:
        """Continues from what `state` returned."""
        self.mean = state["mean"].copy()
        self.var = state["var"].copy()
        self.count = float(state["count"])


class RewardScaler:
    """Divides rewards by the running std of the discounted return (Gymnasium's `NormalizeReward`).

    Scaled rewards are clipped to +- `clip`, as CleanRL does.
    """

    def __init__(self, num_trials: int, gamma: float, clip: float) -> None:
        self.gamma = gamma
        self.clip = clip
        self.discounted_return = np.zeros(num_trials)
        self.moments = RunningMoments(num_trials)

    def __call__(
        self, rewards: Float[np.ndarray, " N"], terminations: Bool[np.ndarray, " N"]
    ) -> Float[np.ndarray, " N"]:
        """The scaled rewards of one step, after its rewards have entered the statistics."""
        self.discounted_return *= self.gamma * (1.0 - terminations)
        self.discounted_return += rewards
        self.moments.update(self.discounted_return)
        scaled = rewards / self.moments.std
        return np.asarray(np.clip(scaled, -self.clip, self.clip))

    def state(self) -> dict[str, Array]:
        """Everything needed to continue, as arrays."""
        return {"discounted_return": self.discounted_return, **self.moments.state()}

    def set_state(self, state: dict[str, Array]) -> None:
        """Continues from what `state` returned."""
        self.discounted_return = state["discounted_return"].copy()
        self.moments.set_state(state)
