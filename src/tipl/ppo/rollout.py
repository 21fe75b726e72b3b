"""What PPO trials see between two updates, and the advantages of what they did."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

__all__ = ["FinalObservations", "Rollout", "advantages_and_returns"]


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
