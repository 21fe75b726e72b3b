"""Gaussian and categorical actions: how PPO draws them, and the gradients of its losses."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Int

from tipl.core.arrays import Array
from tipl.ppo import kernels

__all__ = ["ActionHead", "CategoricalHead", "GaussianHead"]


class GaussianHead:
    """Outputs are the means of independent normal distributions with learned deviations.

    As every head it has its `size`, the values that an action is stored as, `noise` for one trial's
    steps, `draw`, and `write_gradient` of PPO's policy loss, entropy bonus included, at the steps
    `indices` of the stored `actions` and `old_log_probs`.

    Args:
        log_std: logarithms of the standard deviations `[N, A]`, read at each call.
        log_std_gradient: `[N, A]`, written by `write_gradient`.
        clip_coef: range of the probability ratio.
        ent_coef: weight of the entropy bonus.
    """

    def __init__(
        self, log_std: Array, log_std_gradient: Array, clip_coef: float, ent_coef: float
    ) -> None:
        self.log_std, self.log_std_gradient = log_std, log_std_gradient
        self.size = log_std.shape[1]
        self.clip_coef, self.ent_coef = clip_coef, ent_coef

    def noise(self, rng: np.random.Generator, num_steps: int) -> Float[np.ndarray, "T A"]:
        """Standard normal numbers."""
        return rng.standard_normal((num_steps, self.size))

    def draw(
        self, outputs: Float[np.ndarray, "N A"], noise: Float[np.ndarray, "N A"]
    ) -> tuple[Float[np.ndarray, "N A"], Float[np.ndarray, " N"]]:
        """Actions, not clipped to any bounds, and the logarithms of their densities."""
        log_probs = -0.5 * noise**2 - (self.log_std + kernels.HALF_LOG_TWO_PI)
        return outputs + np.exp(self.log_std) * noise, log_probs.sum(axis=1)

    def write_gradient(
        self,
        outputs: Float[np.ndarray, "N B A"],
        indices: Int[np.ndarray, " B"],
        actions: Float[np.ndarray, "N T A"],
        old_log_probs: Float[np.ndarray, "N T"],
        advantages: Float[np.ndarray, "N B"],
        d_outputs: Float[np.ndarray, "N B A"],
    ) -> None:
        """Writes the gradients with respect to the means and to `log_std`."""
        kernels.gaussian_gradient(
            outputs,
            self.log_std,
            indices,
            actions,
            old_log_probs,
            advantages,
            outputs.dtype.type(self.clip_coef),
            d_outputs,
            self.log_std_gradient,
        )
        self.log_std_gradient -= self.ent_coef  # the entropy is sum(log_std) + constant


class CategoricalHead:
    """Outputs are the logits of discrete actions; an action is stored as its number from 0.

    Args:
        num_actions: A.
        clip_coef: range of the probability ratio.
        ent_coef: weight of the entropy bonus.
    """

    size = 1

    def __init__(self, num_actions: int, clip_coef: float, ent_coef: float) -> None:
        self.num_actions = num_actions
        self.clip_coef, self.ent_coef = clip_coef, ent_coef

    def noise(self, rng: np.random.Generator, num_steps: int) -> Float[np.ndarray, "T A"]:
        """Standard Gumbel numbers: the largest of logits + noise is a draw from the softmax."""
        return rng.gumbel(size=(num_steps, self.num_actions))

    def draw(
        self, outputs: Float[np.ndarray, "N A"], noise: Float[np.ndarray, "N A"]
    ) -> tuple[Float[np.ndarray, "N 1"], Float[np.ndarray, " N"]]:
        """Numbers of the actions and the logarithms of their probabilities."""
        chosen = (outputs + noise).argmax(axis=1)[:, None]
        shifted = outputs - outputs.max(axis=1, keepdims=True)
        log_probs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        drawn = np.take_along_axis(log_probs, chosen, axis=1)[:, 0]
        return chosen.astype(outputs.dtype), drawn

    def write_gradient(
        self,
        outputs: Float[np.ndarray, "N B A"],
        indices: Int[np.ndarray, " B"],
        actions: Float[np.ndarray, "N T 1"],
        old_log_probs: Float[np.ndarray, "N T"],
        advantages: Float[np.ndarray, "N B"],
        d_outputs: Float[np.ndarray, "N B A"],
    ) -> None:
        """Writes the gradient with respect to the logits."""
        scalar = outputs.dtype.type
        kernels.categorical_gradient(
            outputs,
            indices,
            actions,
            old_log_probs,
            advantages,
            scalar(self.clip_coef),
            scalar(self.ent_coef),
            d_outputs,
        )


ActionHead: TypeAlias = GaussianHead | CategoricalHead
"""How PPO draws actions from an actor's outputs, and the gradient of its policy loss."""
