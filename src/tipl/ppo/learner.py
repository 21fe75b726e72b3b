"""The update of PPO for a few trials, whose weights and data stay in the processor's cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from tipl.core.arrays import Array
from tipl.policies.layout import ParamLayout
from tipl.policies.tasks import TaskSpec
from tipl.ppo import kernels
from tipl.ppo.adam import StackedAdam
from tipl.ppo.config import PPOConfig
from tipl.ppo.heads import ActionHead, CategoricalHead, GaussianHead
from tipl.ppo.mlp import stacked_mlp
from tipl.ppo.rollout import Rollout

__all__ = ["Learner", "make_head"]


def make_head(
    task: TaskSpec, arrays: Mapping[str, Array], gradients: Mapping[str, Array], config: PPOConfig
) -> ActionHead:
    """How the policies with these named arrays act, with the gradients to write."""
    if task.discrete:
        return CategoricalHead(task.action_size, config.clip_coef, config.ent_coef)
    return GaussianHead(arrays["log_std"], gradients["log_std"], config.clip_coef, config.ent_coef)


class Learner:
    """Actors and critics of n trials, and how they learn from what they saw.

    Args:
        rows: which of the N trials.
        task: of the trials.
        layout: of their parameters.
        adam: the optimiser of all N trials; of its arrays the rows are used and changed.
        config: hyperparameters.
    """

    def __init__(
        self,
        rows: slice,
        task: TaskSpec,
        layout: ParamLayout,
        adam: StackedAdam,
        config: PPOConfig,
    ) -> None:
        self.rows, self.all_trials_adam, self.config = rows, adam, config
        arrays = layout.unflatten(adam.params[rows])
        gradients = layout.unflatten(adam.gradients[rows])
        self.actor, self.critic = stacked_mlp(arrays, "actor"), stacked_mlp(arrays, "critic")
        self.actor_gradients = stacked_mlp(gradients, "actor")
        self.critic_gradients = stacked_mlp(gradients, "critic")
        self.head = make_head(task, arrays, gradients, config)
        self.scalar = adam.params.dtype.type

    def update(
        self,
        rollout: Rollout,
        advantages: Float[np.ndarray, "T N"],
        returns: Float[np.ndarray, "T N"],
        orders: Sequence[Int[np.ndarray, " T"]],
        learning_rate: float,
        check_stop: Callable[[], None],
    ) -> None:
        """Improves the weights on the rows' part of a rollout of all trials.

        Args:
            rollout: what all trials saw.
            advantages: of its steps.
            returns: targets of the values.
            orders: for each epoch, the order in which it sees the steps.
            learning_rate: of Adam.
            check_stop: called before each minibatch; may raise.
        """
        adam = self.all_trials_adam.view(self.rows)
        steps = [
            # [T, n, ...] -> [n, T, ...]
            np.ascontiguousarray(array[:, self.rows].swapaxes(0, 1))
            for array in (
                rollout.observations,
                rollout.actions,
                rollout.log_probs,
                advantages,
                returns,
                rollout.values,
            )
        ]
        for order in orders:
            for indices in np.array_split(order, self.config.num_minibatches):
                check_stop()
                self._write_gradients(indices, *steps)
                adam.step(learning_rate)

    @np.errstate(all="ignore")  # a diverging trial overflows; `update` labels it
    def _write_gradients(
        self,
        indices: Array,
        observations: Array,
        actions: Array,
        old_log_probs: Array,
        advantages: Array,
        returns: Array,
        old_values: Array,
    ) -> None:
        """Writes the gradient of the PPO loss on the minibatch at `indices [B]`, by hand.

        The other arrays hold all steps of the rollout, `[n, T, ...]`.
        """
        config, scalar = self.config, self.scalar
        inputs = observations[:, indices]  # [n, B, O]
        outputs = self.actor.forward(inputs)
        if config.norm_adv:
            minibatch_advantages = np.empty(inputs.shape[:2], scalar)
            kernels.normalised_advantages(advantages, indices, minibatch_advantages)
        else:
            minibatch_advantages = advantages[:, indices]
        d_outputs = np.empty_like(outputs)
        self.head.write_gradient(
            outputs, indices, actions, old_log_probs, minibatch_advantages, d_outputs
        )
        self.actor.backward(d_outputs, self.actor_gradients.weights, self.actor_gradients.biases)
        values = self.critic.forward(inputs)
        d_values = np.empty_like(values)
        kernels.value_gradient(
            values,
            indices,
            returns,
            old_values,
            scalar(config.clip_coef if config.clip_vloss else np.inf),
            scalar(config.vf_coef),
            d_values,
        )
        self.critic.backward(d_values, self.critic_gradients.weights, self.critic_gradients.biases)
