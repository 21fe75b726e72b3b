"""How a few trials learn from what they saw, while all of it stays in the cache; and Adam."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from tipl.core.arrays import Array
from tipl.policies.layout import ParamLayout
from tipl.policies.tasks import TaskSpec
from tipl.ppo import kernels
from tipl.ppo.config import PPOConfig
from tipl.ppo.networks import (
    ActionHead,
    CategoricalHead,
    GaussianHead,
    Minibatch,
    StackedMLP,
    stacked_mlp,
)
from tipl.ppo.rollout import Resumable, Rollout, steps_by_trial

BETA1, BETA2 = 0.9, 0.999


class StackedAdam(Resumable):
    """Adam (Kingma & Ba, 2015) on stacked flat parameters, with gradient clipping by trial.

    Args:
        params: `[N, P]`, changed in place by `step`.
        eps: added to the root of the second moment.
        max_grad_norm: each trial's gradient is scaled down to at most this Euclidean norm.

    Attributes:
        gradients: `[N, P]`, read by `step`.
        num_steps: steps `[N]` that each trial has taken since its moments were last empty.
    """

    STATE = ("first_moment", "second_moment", "num_steps")

    def __init__(self, params: Float[np.ndarray, "N P"], eps: float, max_grad_norm: float) -> None:
        self.params, self.gradients = params, np.zeros_like(params)
        self.eps, self.max_grad_norm = eps, max_grad_norm
        # The moments are stored without their factors (1 - beta): `step` folds those in.
        self.first_moment = np.zeros_like(params)
        self.second_moment = np.zeros_like(params)
        self.num_steps = np.zeros(len(params), np.int64)

    def step(self, learning_rate: float) -> None:
        """Moves the parameters by one step."""
        self.num_steps += 1
        correction = np.sqrt((1 - BETA2**self.num_steps) / (1 - BETA2))
        step_size = learning_rate * (1 - BETA1) / (1 - BETA1**self.num_steps) * correction
        dtype = self.params.dtype  # a float64 would make all of float32's arithmetic float64
        kernels.adam_step(
            self.params,
            self.gradients,
            (self.first_moment, self.second_moment),
            (dtype.type(BETA1), dtype.type(BETA2)),
            dtype.type(self.max_grad_norm),
            step_size.astype(dtype),
            (self.eps * correction).astype(dtype),
        )

    def reset(self, trials: Bool[np.ndarray, " N"] | Int[np.ndarray, " n"]) -> None:
        """Forgets the moments of some trials, whose next step is like a first one."""
        for name in self.STATE:
            getattr(self, name)[trials] = 0

    def view(self, trials: slice) -> StackedAdam:
        """The optimiser of some of the trials, which shares their arrays."""
        view = copy.copy(self)
        for name in ("params", "gradients", *self.STATE):
            setattr(view, name, getattr(self, name)[trials])
        return view


@np.errstate(all="ignore")  # a trial about to diverge may overflow; PPO labels it
def write_value_gradient(
    critic: StackedMLP,
    gradients: StackedMLP,
    observations: Float[np.ndarray, "n B O"],
    indices: Int[np.ndarray, " B"],
    returns: Float[np.ndarray, "n T"],
    old_values: Float[np.ndarray, "n T"],
    clip: float = np.inf,
    weight: float = 1.0,
) -> None:
    """Writes the gradient of PPO's value loss on a minibatch, see `kernels.value_gradient`."""
    values = critic.forward(observations)
    d_values, scalar = np.empty_like(values), values.dtype.type
    kernels.value_gradient(
        values, indices, returns, old_values, scalar(clip), scalar(weight), d_values
    )
    critic.backward(d_values, gradients)


class Learner:
    """Actors and critics of n trials: how they act, and how they learn from what they saw.

    Of the arrays of `adam`, the optimiser of all N trials, the `rows` are used and changed.
    """

    def __init__(
        self, rows: slice, task: TaskSpec, layout: ParamLayout, adam: StackedAdam, config: PPOConfig
    ) -> None:
        self.rows, self.adam, self.config = rows, adam.view(rows), config
        arrays = layout.unflatten(self.adam.params)
        gradients = layout.unflatten(self.adam.gradients)
        self.actor, self.critic = (
            stacked_mlp(arrays, name, layout.activation) for name in ("actor", "critic")
        )
        self.actor_gradients = stacked_mlp(gradients, "actor")
        self.critic_gradients = stacked_mlp(gradients, "critic")
        coefficients = config.clip_coef, config.ent_coef
        self.head: ActionHead
        if task.discrete:
            self.head = CategoricalHead(task.action_size, *coefficients)
        else:
            self.head = GaussianHead(arrays["log_std"], gradients["log_std"], *coefficients)

    def update(
        self,
        rollout: Rollout,
        advantages: Float[np.ndarray, "T M"],
        returns: Float[np.ndarray, "T M"],
        orders: Sequence[Int[np.ndarray, " S"]],
        learning_rate: float,
        check_stop: Callable[[], None],
    ) -> None:
        """Improves the weights on the rows' part of a rollout of all trials.

        The `returns` are the values' targets; each of the `orders` is that of one epoch's steps, of
        all environments of a trial. `check_stop` is called before each minibatch and may raise.
        """
        acted = rollout.observations, rollout.actions, rollout.log_probs
        of_all_trials = *acted, advantages, returns, rollout.values
        E = self.config.num_envs
        columns = slice(self.rows.start * E, self.rows.stop * E)
        # [T, n E, ...] -> [n, T E, ...]
        steps = [np.ascontiguousarray(steps_by_trial(a[:, columns], E)) for a in of_all_trials]
        for order in orders:
            for indices in np.array_split(order, self.config.num_minibatches):
                check_stop()
                self._write_gradients(indices, steps)
                self.adam.step(learning_rate)

    @np.errstate(all="ignore")  # a diverging trial overflows; `update` labels it
    def _write_gradients(self, indices: Array, steps: Sequence[Array]) -> None:
        """Writes the gradient of the PPO loss on the minibatch at `indices [B]`, by hand.

        The arrays hold all steps of the rollout, `[n, T E, ...]`, as `update` puts them together.
        """
        observations, actions, old_log_probs, advantages, returns, old_values = steps
        config = self.config
        inputs = observations[:, indices]  # [n, B, O]
        outputs = self.actor.forward(inputs)
        if config.norm_adv:
            minibatch_advantages = np.empty(inputs.shape[:2], outputs.dtype)
            kernels.normalised_advantages(advantages, indices, minibatch_advantages)
        else:
            minibatch_advantages = advantages[:, indices]
        minibatch = Minibatch(indices, actions, old_log_probs, minibatch_advantages)
        self.actor.backward(self.head.gradient(outputs, minibatch), self.actor_gradients)
        critic = self.critic, self.critic_gradients
        clip = config.clip_coef if config.clip_vloss else np.inf
        write_value_gradient(*critic, inputs, indices, returns, old_values, clip, config.vf_coef)
