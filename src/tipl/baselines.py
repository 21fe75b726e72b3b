"""Rivals of the learned models, behind the same interface; none of them learns anything."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from tipl.errors import TiplError
from tipl.forecast import Forecaster

__all__ = ["LastDifferenceLine", "LeastSquaresLine", "StandingStill"]


class StandingStill(Forecaster):
    """Forecasts that the weights stay as they are (persistence)."""

    name = "standing still"

    def _forecast(
        self, histories: Float[np.ndarray, "B T P"], horizons: list[int]
    ) -> Float[np.ndarray, "B H P"]:
        return np.repeat(histories[:, -1:], len(horizons), axis=1)


class LastDifferenceLine(Forecaster):
    """Goes on along the last step: `theta_t + k (theta_t - theta_{t-1})`."""

    name = "last-difference line"
    min_history = 2

    def _forecast(
        self, histories: Float[np.ndarray, "B T P"], horizons: list[int]
    ) -> Float[np.ndarray, "B H P"]:
        steps = np.array(horizons)[:, None]
        last, previous = histories[:, -1:], histories[:, -2:-1]
        return np.asarray(last + steps * (last - previous))


class LeastSquaresLine(Forecaster):
    """Goes on along the least-squares slope of the last checkpoints, from the last one.

    Args:
        context: checkpoints that the line is fitted to, at most; 2 or more.

    Raises:
        TiplError: the context is below 2.
    """

    name = "least-squares line"
    min_history = 2

    def __init__(self, context: int = 5) -> None:
        if context < 2:
            raise TiplError(
                f"a context of {context} was given; a line needs at least 2 checkpoints"
            )
        self.context = context

    def _forecast(
        self, histories: Float[np.ndarray, "B T P"], horizons: list[int]
    ) -> Float[np.ndarray, "B H P"]:
        recent = histories[:, -self.context :].astype(np.float64)
        times = np.arange(recent.shape[1]) - (recent.shape[1] - 1) / 2
        slope = np.einsum("t,btp->bp", times / (times**2).sum(), recent)
        return np.asarray(histories[:, -1:] + np.array(horizons)[:, None] * slope[:, None])
