"""Adam for N networks at once, each with its own gradient norm."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jaxtyping import Float

__all__ = ["StackedAdam"]

Array = np.ndarray[Any, np.dtype[Any]]

BETA1, BETA2 = 0.9, 0.999


class StackedAdam:
    """Adam (Kingma & Ba, 2015) on stacked flat parameters, with gradient clipping by trial.

    Args:
        params: `[N, P]`, changed in place by `step`.
        gradients: `[N, P]`, read and overwritten by `step`.
        eps: added to the root of the second moment.
        max_grad_norm: each trial's gradient is scaled down to at most this Euclidean norm.
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
        self.num_steps = 0

    def step(self, learning_rate: float) -> None:
        """Moves the parameters by one step."""
        norm = np.sqrt(np.einsum("np,np->n", self.gradients, self.gradients))
        scale = np.minimum(self.max_grad_norm / (norm + 1e-6), 1.0)
        self.num_steps += 1
        correction = math.sqrt((1 - BETA2**self.num_steps) / (1 - BETA2))
        step_size = learning_rate * (1 - BETA1) / (1 - BETA1**self.num_steps) * correction
        eps = self.eps * correction
        rows = zip(self.params, self.gradients, self.first_moment, self.second_moment, strict=True)
        for n, (params, scratch, first, second) in enumerate(rows):  # a row fits the cache
            scratch *= scale[n]
            first *= BETA1
            first += scratch
            second *= BETA2
            scratch *= scratch
            second += scratch
            np.sqrt(second, out=scratch)
            scratch += eps
            np.divide(first, scratch, out=scratch)
            scratch *= step_size
            params -= scratch

    def state(self) -> dict[str, Array]:
        """Everything needed to continue, as arrays."""
        return {
            "first_moment": self.first_moment,
            "second_moment": self.second_moment,
            "num_steps": np.array(self.num_steps),
        }

    def set_state(self, state: dict[str, Array]) -> None:
        """Continues from what `state` returned."""
        self.first_moment[:] = state["first_moment"]
        self.second_moment[:] = state["second_moment"]
        self.num_steps = int(state["num_steps"])
