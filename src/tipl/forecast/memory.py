"""Rivals of the models that remember training paths.

They tell whether a model that was trained on these paths has learned more than they hold.
"""

from __future__ import annotations

import abc

import numpy as np
from jaxtyping import Float, Int

from tipl.forecast.base import Forecaster, Forecasts, Histories
from tipl.policies.layout import ParamLayout

__all__ = [
    "BestStoredPolicy",
    "MatchedNoise",
    "MeanDisplacement",
    "NearestPath",
    "TrainingPaths",
    "squared_distances",
]


def squared_distances(
    params: Float[np.ndarray, "N P"], others: Float[np.ndarray, "M P"]
) -> Float[np.ndarray, "N M"]:
    """Squared Euclidean distance of each network from each of others."""
    one, many = params.astype(np.float64), others.astype(np.float64)
    squares = (one**2).sum(axis=1)[:, None] - 2 * one @ many.T + (many**2).sum(axis=1)
    return np.asarray(np.maximum(squares, 0))  # rounding may leave less than none


class BestStoredPolicy(Forecaster):
    """Forecasts one and the same policy, whatever the history: what a practical person would do.

    Args:
        params: its weights.
        layout: of the weights.
    """

    name = "best stored policy, copied"
    reads_last = 1
    layout: ParamLayout

    def __init__(self, params: Float[np.ndarray, " P"], layout: ParamLayout) -> None:
        self.params, self.layout = params, layout

    def _forecast(
        self, histories: Histories, horizons: list[int], layout: ParamLayout | None
    ) -> Forecasts:
        return np.tile(self.params, (len(histories), len(horizons), 1))


class TrainingPaths(Forecaster):
    """A rival that remembers paths, and moves the last checkpoint by what they did.

    Args:
        params: weights of the training paths, all of one architecture.
        layout: of the weights.
    """

    layout: ParamLayout

    def __init__(self, params: Float[np.ndarray, "N T P"], layout: ParamLayout) -> None:
        self.params, self.layout = params, layout

    def displacements(self, start: int, horizon: int) -> Float[np.ndarray, "N P"]:
        """How each path went on from a checkpoint; to its end where the horizon is beyond."""
        end = self.params.shape[1] - 1
        first, last = min(start, end), min(start + horizon, end)
        return np.asarray(self.params[:, last].astype(np.float64) - self.params[:, first])

    def _forecast(
        self, histories: Histories, horizons: list[int], layout: ParamLayout | None
    ) -> Forecasts:
        start, last = histories.shape[1] - 1, histories[:, -1]
        # H of [B, P] -> [B, H, P]
        return np.stack([last + self._move(last, start, horizon) for horizon in horizons], axis=1)

    @abc.abstractmethod
    def _move(
        self, params: Float[np.ndarray, "B P"], start: int, horizon: int
    ) -> Float[np.ndarray, "_ P"]:
        """How networks that stand at a checkpoint go on, each or all alike."""


class MeanDisplacement(TrainingPaths):
    """Adds the mean of what the training paths did from the same checkpoint on."""

    name = "mean displacement"

    def _move(
        self, params: Float[np.ndarray, "B P"], start: int, horizon: int
    ) -> Float[np.ndarray, "_ P"]:
        return np.asarray(self.displacements(start, horizon).mean(axis=0, keepdims=True))


class NearestPath(TrainingPaths):
    """Adds what the nearest training path did from the same checkpoint on.

    The nearest one is that whose checkpoint has the smallest Euclidean distance.
    """

    name = "nearest training path"

    def nearest(self, checkpoint: int, params: Float[np.ndarray, "B P"]) -> Int[np.ndarray, " B"]:
        """For each network, the training path that is nearest to it at a checkpoint."""
        theirs = self.params[:, min(checkpoint, self.params.shape[1] - 1)]
        return np.asarray(squared_distances(params, theirs).argmin(axis=1))

    def _move(
        self, params: Float[np.ndarray, "B P"], start: int, horizon: int
    ) -> Float[np.ndarray, "_ P"]:
        return np.asarray(self.displacements(start, horizon)[self.nearest(start, params)])


class MatchedNoise(TrainingPaths):
    """Goes in a random direction, as far as the training paths went on average.

    Each parameter array is moved as far as its own.
    """

    name = "matched noise"

    def _move(
        self, params: Float[np.ndarray, "B P"], start: int, horizon: int
    ) -> Float[np.ndarray, "_ P"]:
        # a horizon alone and among others has the same noise
        noise = np.random.default_rng((start, horizon)).standard_normal(params.shape)
        went = self.displacements(start, horizon)
        for at in self.layout.slices.values():
            noise[:, at] *= np.sqrt(np.square(went[:, at]).mean())
        return noise
