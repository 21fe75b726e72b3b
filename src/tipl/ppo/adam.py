"""Adam for N networks at once, each with its own gradient norm."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from tipl.core.arrays import Array
from tipl.ppo.kernels import adam_step

__all__ = ["StackedAdam"]


BETA1, BETA2 = 0.9, 0.999


class StackedAdam:
    """Adam (Kingma & Ba, 2015) on stacked flat parameters, with gradient clipping by trial.

    Args:
        params: `[N, P]`, changed in place by `step`.
        gradients: `[N, P]`, read by `step`.
        eps: added to the root of the second moment.
        max_grad_norm: each trial's gradient is scaled down to at most this Euclidean norm.

    Attributes:
        num_steps: steps `[N]` that each trial has taken since its moments were last empty.
    """

    def __init__(
        self,
        params: Float[np.ndarray, "N P"],
        gradients: Float[np.ndarray, "N P"],
        eps: float,
        max_grad_norm: float,
    ) -> None:
        self.params, self.gradients = params, gradients
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
        adam_step(
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
        self.first_moment[trials] = 0
        self.second_moment[trials] = 0
        self.num_steps[trials] = 0

    def view(self, trials: slice) -> StackedAdam:
        """The optimiser of some of the trials: it shares their arrays and counts its own steps."""
        view = StackedAdam(
            self.params[trials], self.gradients[trials], self.eps, self.max_grad_norm
        )
        view.first_moment = self.first_moment[trials]
        view.second_moment = self.second_moment[trials]
        view.num_steps = self.num_steps[trials].copy()
        return view

    def state(self) -> dict[str, Array]:
        """Everything needed to continue, as arrays."""
        return {
            "first_moment": self.first_moment,
            "second_moment": self.second_moment,
            "num_steps": self.num_steps,
        }

    def set_state(self, state: dict[str, Array]) -> None:
        """Continues from what `state` returned."""
        self.first_moment[:] = state["first_moment"]
        self.second_moment[:] = state["second_moment"]
        self.num_steps[:] = state["num_steps"]
