"""Critics after a jump: they knew another policy, so they are refitted before the actor moves."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

from tipl.core.arrays import Array
from tipl.jumps.config import CRITIC_LEARNING_RATE, EPOCHS_OF_TARGETS
from tipl.policies.layout import ParamLayout
from tipl.ppo import kernels
from tipl.ppo.learner import StackedAdam
from tipl.ppo.mlp import stacked_mlp
from tipl.ppo.ppo import PPO
from tipl.ppo.rollout import Rollout

__all__ = ["refit_critics"]


def refit_critics(
    ppo: PPO, rollout: Rollout, trials: Int[np.ndarray, " n"], epochs: int, seed: int
) -> None:
    """Fits some trials' critics to a rollout, and tells the rollout what they say now.

    The targets are the critics' own lambda-returns, made anew every few passes. Of the trials,
    `rollout.values` and `rollout.next_values` are those of the new critics; their actors and
    Adam's moments stay as they are.

    Args:
        ppo: the trials; weights of the critics are changed.
        rollout: what all trials saw; changed.
        trials: indices of those whose critics are fitted.
        epochs: passes over the rollout.
        seed: of the minibatches.
    """
    config, start = ppo.config, ppo.actor_layout.size
    layout = ParamLayout.critic(ppo.task.observation_size, ppo.layout.hidden_sizes)
    params = ppo.params[trials, start:]
    adam = StackedAdam(params, np.zeros_like(params), config.adam_eps, config.max_grad_norm)
    # [T, N, O] -> [n, T, O]
    observations = np.ascontiguousarray(rollout.observations[:, trials].swapaxes(0, 1))
    for first in range(0, epochs, EPOCHS_OF_TARGETS):
        _, returns = ppo.advantages_and_returns(rollout)
        targets = np.ascontiguousarray(returns[:, trials].T)  # [T, N] -> [n, T]
        for epoch in range(first, min(first + EPOCHS_OF_TARGETS, epochs)):
            order = np.random.default_rng((seed, epoch)).permutation(config.num_steps)
            for indices in np.array_split(order, config.num_minibatches):
                _write_gradient(adam, layout, observations, targets, indices)
                adam.step(CRITIC_LEARNING_RATE)
        ppo.params[trials, start:] = params
        values, next_values = ppo.values_of(rollout)
        rollout.values[:, trials] = values[:, trials]
        rollout.next_values[:, trials] = next_values[:, trials]


@np.errstate(all="ignore")  # a trial about to diverge may overflow; PPO labels it
def _write_gradient(
    adam: StackedAdam, layout: ParamLayout, observations: Array, targets: Array, indices: Array
) -> None:
    """Writes the gradient of half the mean squared error on a minibatch."""
    critic = stacked_mlp(layout.unflatten(adam.params), "critic")
    gradients = stacked_mlp(layout.unflatten(adam.gradients), "critic")
    values = critic.forward(observations[:, indices])
    d_values = np.empty_like(values)
    scalar = values.dtype.type
    kernels.value_gradient(values, indices, targets, targets, scalar(np.inf), scalar(1.0), d_values)
    critic.backward(d_values, gradients.weights, gradients.biases)
