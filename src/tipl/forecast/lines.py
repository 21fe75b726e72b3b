"""Rivals of the models that look at a history alone and go straight on, or nowhere."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from tipl.errors import TiplError
from tipl.forecast.base import Forecaster, Forecasts, Histories
from tipl.policies.layout import ParamLayout

__all__ = [
    "LastDifferenceLine",
    "LeastSquaresLine",
    "StandingStill",
    "TwoPointLine",
    "slope_weights",
]


def slope_weights(length: int) -> Float[np.ndarray, " T"]:
    """What values at T times in a row are weighed by to give their least-squares slope."""
    times = np.arange(length) - (length - 1) / 2
    return np.asarray(times / (times**2).sum())


class StandingStill(Forecaster):
    """Forecasts that the weights stay as they are (persistence)."""

    name = "standing still"
    reads_last = 1

    def _forecast(
        self, histories: Histories, horizons: list[int], layout: ParamLayout | None
    ) -> Forecasts:
        return np.repeat(histories[:, -1:], len(horizons), axis=1)


class LastDifferenceLine(Forecaster):
    """Goes on along the last step: `theta_t + k (theta_t - theta_{t-1})`."""

    name = "last-difference line"
    min_history = reads_last = 2

    def _forecast(
        self, histories: Histories, horizons: list[int], layout: ParamLayout | None
    ) -> Forecasts:
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
        self.context = self.reads_last = context

    def _forecast(
        self, histories: Histories, horizons: list[int], layout: ParamLayout | None
    ) -> Forecasts:
        recent = histories[:, -self.context :].astype(np.float64)
        slope = np.einsum("t,btp->bp", slope_weights(recent.shape[1]), recent)
        return np.asarray(histories[:, -1:] + np.array(horizons)[:, None] * slope[:, None])


class TwoPointLine(Forecaster):
    """Goes on along the line from the start: `theta_0 + (t + k) / t (theta_t - theta_0)`.

    Source: arXiv 2601.04537.
    """

    name = "two-point line"
    min_history = 2

    def _forecast(
        self, histories: Histories, horizons: list[int], layout: ParamLayout | None
    ) -> Forecasts:
        last = histories.shape[1] - 1
        ratio = (last + np.array(horizons)) / last
        start = histories[:, :1]
        return np.asarray(start + ratio[:, None] * (histories[:, -1:] - start))
