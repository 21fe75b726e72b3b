"""What PPO trials see between two updates, how it is scaled, and the advantages of it."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from tipl.core.arrays import Array


@dataclasses.dataclass
class Rollout:
    """What N trials saw in `num_steps` steps, time first.

    Of E environments a trial there are M = N E columns: the first E are the first trial's.
    """

    observations: Float[np.ndarray, "T M O"]  # normalised
    actions: Float[np.ndarray, "T M A"]  # before clipping to the action bounds
    log_probs: Float[np.ndarray, "T M"]  # of the actions
    rewards: Float[np.ndarray, "T M"]  # scaled
    dones: Bool[np.ndarray, "T M"]  # whether the episode ended with this step
    terminated: Bool[np.ndarray, "T M"]  # whether it ended by termination
    next_observation: Float[np.ndarray, "M O"]  # what followed the last step, normalised
    # of each truncated episode the step, the column, and its last observation [O], not normalised
    final_observations: list[tuple[int, int, Array]]
    episodic_return: Float[np.ndarray, " N"]  # mean of the episodes that ended; NaN if none
    num_episodes: Int[np.ndarray, " N"]  # that ended
    # what the critics say, once they are asked: of the observations, and of those that followed;
    # that is 0 after a termination, and after a truncation it is of the final observation
    values: Float[np.ndarray, "T M"] = dataclasses.field(init=False)
    next_values: Float[np.ndarray, "T M"] = dataclasses.field(init=False)


def steps_by_trial(
    columns: Shaped[np.ndarray, "T M *shape"], num_envs: int
) -> Shaped[np.ndarray, "N S *shape"]:
    """Each trial's S = T E steps, those of its E environments side by side as CleanRL's."""
    T, M, *shape = columns.shape
    apart = columns.reshape(T, M // num_envs, num_envs, *shape)  # [T, N, E, ...]
    # -> [N, T, E, ...] -> [N, T E, ...]
    return apart.swapaxes(0, 1).reshape(M // num_envs, T * num_envs, *shape)


def steps_by_time(
    steps: Shaped[np.ndarray, "N S *shape"], num_envs: int
) -> Shaped[np.ndarray, "T M *shape"]:
    """The inverse of `steps_by_trial`."""
    N, S, *shape = steps.shape
    apart = steps.reshape(N, S // num_envs, num_envs, *shape)  # [N, T, E, ...]
    # -> [T, N, E, ...] -> [T, N E, ...]
    return apart.swapaxes(0, 1).reshape(S // num_envs, N * num_envs, *shape)


def advantages_and_returns(
    rewards: Float[np.ndarray, "T M"],
    values: Float[np.ndarray, "T M"],
    next_values: Float[np.ndarray, "T M"],
    dones: Bool[np.ndarray, "T M"],
    gamma: float,
    gae_lambda: float,
) -> tuple[Float[np.ndarray, "T M"], Float[np.ndarray, "T M"]]:
    """Generalised advantage estimates (Schulman et al., 2016) and the value targets.

    A `gae_lambda` of 0 is the one-step temporal difference, 1 the Monte Carlo return.
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


class Resumable:
    """What goes on from where it was, by the arrays that `STATE` names."""

    STATE: tuple[str, ...] = ()

    def state(self) -> dict[str, Array]:
        """Everything needed to continue: the arrays themselves."""
        return {name: getattr(self, name) for name in self.STATE}

    def set_state(self, state: dict[str, Array]) -> None:
        """Continues from what `state` returned."""
        for name in self.STATE:
            getattr(self, name)[...] = state[name]


class RunningMoments(Resumable):
    """Mean and variance of a stream for each of N trials, as Gymnasium's `RunningMeanStd`.

    The stream brings E samples a trial at a time, one of each environment. The statistics, float64,
    start as if 1e-4 samples of mean 0 and variance 1 had been seen.
    """

    STATE = ("mean", "var", "count")

    def __init__(self, num_trials: int, shape: tuple[int, ...] = ()) -> None:
        self.mean = np.zeros((num_trials, *shape))
        self.var = np.ones((num_trials, *shape))
        self.count = np.array(1e-4)

    @property
    def std(self) -> Float[np.ndarray, " N *shape"]:
        """Standard deviation, never 0."""
        return np.asarray(np.sqrt(self.var + EPSILON))

    def update(self, samples: Float[np.ndarray, "N E *shape"]) -> None:
        """Adds E samples a trial (Chan et al.'s update for a batch)."""
        added = samples.shape[1]
        total = self.count + added
        if added == 1:  # at each step of most trials: the same to the last bit, and quicker
            delta = samples[:, 0] - self.mean
            self.mean += delta / total
            self.var = (self.var + delta * delta / total) * (self.count / total)
        else:
            delta = samples.mean(axis=1) - self.mean
            self.mean += delta * added / total
            self.var = (self.var + delta * delta * added / total) * (self.count / total)
            self.var += samples.var(axis=1) * (added / total)
        self.count[...] = total


class RewardScaler(Resumable):
    """Divides rewards by the running std of the discounted return (Gymnasium's `NormalizeReward`).

    The environments of one trial are scaled alike, by the std of the returns of all of them. Scaled
    rewards are clipped to +- `clip`, as CleanRL does.
    """

    STATE = ("discounted_return",)

    def __init__(self, num_trials: int, gamma: float, clip: float, num_envs: int = 1) -> None:
        self.gamma, self.clip, self.num_envs = gamma, clip, num_envs
        self.discounted_return = np.zeros(num_trials * num_envs)
        self.moments = RunningMoments(num_trials)

    def __call__(
        self, rewards: Float[np.ndarray, " M"], terminations: Bool[np.ndarray, " M"]
    ) -> Float[np.ndarray, " M"]:
        """The scaled rewards of one step, after its rewards have entered the statistics."""
        self.discounted_return *= self.gamma * (1.0 - terminations)
        self.discounted_return += rewards
        self.moments.update(self.discounted_return.reshape(-1, self.num_envs))  # [N E] -> [N, E]
        std = self.moments.std
        scaled = rewards / (std if self.num_envs == 1 else np.repeat(std, self.num_envs))
        return np.asarray(np.clip(scaled, -self.clip, self.clip))

    def state(self) -> dict[str, Array]:
        """Everything needed to continue, as arrays."""
        return super().state() | self.moments.state()

    def set_state(self, state: dict[str, Array]) -> None:
        """Continues from what `state` returned."""
        super().set_state(state)
        self.moments.set_state(state)
