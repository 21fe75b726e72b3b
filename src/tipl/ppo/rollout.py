"""What PPO trials see between two updates, how it is scaled, and the advantages of it."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from tipl.core.arrays import Array


class FinalObservations(NamedTuple):
    """The last observations of K episodes that were truncated, not terminated.

    Attributes:
        steps: the step with which each episode ended, `[K]`.
        trials: whose episode it was, `[K]`.
        observations: normalised, `[K, O]`.
    """

    steps: Int[np.ndarray, " K"]
    trials: Int[np.ndarray, " K"]
    observations: Float[np.ndarray, "K O"]


@dataclasses.dataclass
class Rollout:
    """What N trials saw in `num_steps` steps, time first.

    Attributes:
        observations: normalised, `[T, N, O]`.
        actions: before clipping to the action bounds, `[T, N, A]`.
        log_probs: of the actions, `[T, N]`.
        rewards: scaled, `[T, N]`.
        values: of the observations, `[T, N]`.
        next_values: of the observations that followed, `[T, N]`; 0 after a termination, the value
            of the final observation after a truncation.
        dones: whether the episode ended with this step, `[T, N]`.
        terminated: whether it ended by termination, `[T, N]`.
        next_observation: what followed the last step, normalised, `[N, O]`.
        final_observations: of the episodes that were truncated.
        episodic_return: mean undiscounted return of the episodes that ended, `[N]`; NaN if none.
        num_episodes: episodes that ended, `[N]`.
    """

    observations: Float[np.ndarray, "T N O"]
    actions: Float[np.ndarray, "T N A"]
    log_probs: Float[np.ndarray, "T N"]
    rewards: Float[np.ndarray, "T N"]
    values: Float[np.ndarray, "T N"]
    next_values: Float[np.ndarray, "T N"]
    dones: Bool[np.ndarray, "T N"]
    terminated: Bool[np.ndarray, "T N"]
    next_observation: Float[np.ndarray, "N O"]
    final_observations: FinalObservations
    episodic_return: Float[np.ndarray, " N"]
    num_episodes: Int[np.ndarray, " N"]


def advantages_and_returns(
    rewards: Float[np.ndarray, "T N"],
    values: Float[np.ndarray, "T N"],
    next_values: Float[np.ndarray, "T N"],
    dones: Bool[np.ndarray, "T N"],
    gamma: float,
    gae_lambda: float,
) -> tuple[Float[np.ndarray, "T N"], Float[np.ndarray, "T N"]]:
    """Generalised advantage estimates (Schulman et al., 2016) and the value targets.

    Args:
        rewards: reward of each step.
        values: value of the observation before the step.
        next_values: value of the observation after the step, 0 where the episode terminated.
        dones: whether the episode ended, by termination or truncation.
        gamma: discount factor.
        gae_lambda: 0 is the one-step temporal difference, 1 the Monte Carlo return.
    """
    deltas = rewards + gamma * next_values - values
    decay = (gamma * gae_lambda) * ~dones
    advantages = np.empty_like(deltas)
    running = np.zeros_like(deltas[0])
    for t in reversed(range(len(deltas))):
        running = deltas[t] + decay[t] * running
        advantages[t] = running
    return advantages, advantages + values


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
