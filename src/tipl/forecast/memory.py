"""Rivals of the models that remember training paths.

They tell whether a model that was trained on these paths has learned more than they hold. Partial
least squares needs scikit-learn, which tipl installs only as an extra: `pip install tipl[pls]`.
"""

from __future__ import annotations

import abc
import dataclasses
import warnings
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Float32, Float64, Int

from tipl.core.lazy import check_installed
from tipl.core.options import at_least
from tipl.errors import TiplError
from tipl.forecast.base import Forecaster, Forecasts, Histories, Layout, Networks
from tipl.policies.layout import ParamLayout
from tipl.policies.policy import Policy
from tipl.policies.tasks import TaskSpec

Moves: TypeAlias = Float[np.ndarray, "_ P"]
"""The changes of B networks, or one for all."""


def _nearest(
    params: Float[np.ndarray, "N P"], others: Float[np.ndarray, "M P"]
) -> Int[np.ndarray, " N"]:
    """Which of others each network is nearest to, by the Euclidean distance."""
    one, many = params.astype(np.float64), others.astype(np.float64)
    squares = (one**2).sum(axis=1)[:, None] - 2 * one @ many.T + (many**2).sum(axis=1)
    # rounding may leave less than none
    return np.asarray(np.maximum(squares, 0).argmin(axis=1))


def nearest_distances(
    params: Float32[np.ndarray, "N P"], others: Float32[np.ndarray, "M P"]
) -> Float64[np.ndarray, " N"]:
    """The Euclidean distance of each network from the nearest of others."""
    # from the weights themselves: a copy is at no distance at all
    apart = params.astype(np.float64) - others[_nearest(params, others)]
    return np.asarray(np.linalg.norm(apart, axis=1))


class BestStoredPolicy(Forecaster):
    """Forecasts one and the same policy, whatever the history: what a practical person would do."""

    name = "best stored policy, copied"
    reads_last = 1
    layout: ParamLayout

    def __init__(
        self, params: Float[np.ndarray, " P"], layout: ParamLayout, task: TaskSpec | None = None
    ) -> None:
        self.params, self.layout, self.task = params, layout, task

    @classmethod
    def of(cls, policy: Policy) -> BestStoredPolicy:
        """Copies a policy; its `task` has the policy's own observation statistics."""
        mean, std = (tuple(a.tolist()) for a in (policy.observation_mean, policy.observation_std))
        task = dataclasses.replace(policy.task, observation_mean=mean, observation_std=std)
        return cls(policy.params, policy.layout, task)

    def _forecast(self, histories: Histories, horizons: list[int], layout: Layout) -> Forecasts:
        return np.tile(self.params, (len(histories), 1, 1))


class TrainingPaths(Forecaster):
    """A rival that remembers training paths `[N, T, P]`, and moves the last checkpoint by them."""

    layout: ParamLayout

    def __init__(self, params: Histories, layout: ParamLayout) -> None:
        self.params, self.layout = params, layout

    def displacements(self, start: int, horizon: int) -> Float[np.ndarray, "N P"]:
        """How each path went on from a checkpoint; to its end where the horizon is beyond."""
        end = self.params.shape[1] - 1
        first, last = min(start, end), min(start + horizon, end)
        return np.asarray(self.params[:, last].astype(np.float64) - self.params[:, first])

    def _forecast(self, histories: Histories, horizons: list[int], layout: Layout) -> Forecasts:
        start, last = histories.shape[1] - 1, histories[:, -1]
        # H of [B, P] -> [B, H, P]
        return np.stack([last + self._move(last, start, horizon) for horizon in horizons], axis=1)

    @abc.abstractmethod
    def _move(self, params: Networks, start: int, horizon: int) -> Moves:
        """How networks that stand at a checkpoint go on, each or all alike."""


class MeanDisplacement(TrainingPaths):
    """Adds the mean of what the training paths did from the same checkpoint on."""

    name = "mean displacement"

    def _move(self, params: Networks, start: int, horizon: int) -> Moves:
        return np.asarray(self.displacements(start, horizon).mean(axis=0, keepdims=True))


class NearestPath(TrainingPaths):
    """Adds what the training path did whose same checkpoint has the least Euclidean distance."""

    name = "nearest training path"

    def nearest(self, checkpoint: int, params: Float[np.ndarray, "B P"]) -> Int[np.ndarray, " B"]:
        """For each network, the training path that is nearest to it at a checkpoint."""
        theirs = self.params[:, min(checkpoint, self.params.shape[1] - 1)]
        return _nearest(params, theirs)

    def _move(self, params: Networks, start: int, horizon: int) -> Moves:
        return np.asarray(self.displacements(start, horizon)[self.nearest(start, params)])


class MatchedNoise(TrainingPaths):
    """Goes in a random direction, each array as far as the training paths' went on average."""

    name = "matched noise"

    def _move(self, params: Networks, start: int, horizon: int) -> Moves:
        # a horizon alone and among others has the same noise
        noise = np.random.default_rng((start, horizon)).standard_normal(params.shape)
        went = self.displacements(start, horizon)
        for at in self.layout.slices.values():
            noise[:, at] *= np.sqrt(np.square(went[:, at]).mean())
        return noise


MAX_CHECKPOINTS = 2000
"""Checkpoints that a regression is fitted to, drawn where there are more: bounds its memory."""


class PartialLeastSquares(TrainingPaths):
    """Goes where the return rises the most, as far as the training paths went on average.

    The direction is the same for all networks and checkpoints: that of the coefficients of a
    regression, by partial least squares of so many components, of a training checkpoint's return
    (NaN where none is known) on its displacement from where its path starts. The length is the mean
    over training paths, from the same checkpoint and over the same horizon.

    Source: partial least squares is due to Wold; this is scikit-learn's `PLSRegression`.

    Raises:
        TiplError: scikit-learn is not installed, fewer than two returns are known, or the
            components are fewer than 1.
    """

    name = "partial least squares on return"

    def __init__(
        self,
        params: Histories,
        layout: ParamLayout,
        returns: Float[np.ndarray, "B T"],
        components: int = 2,
    ) -> None:
        super().__init__(params, layout)
        paths, checkpoints = np.nonzero(np.isfinite(returns))
        if len(paths) < 2:
            raise TiplError(
                f"{len(paths)} returns of the training paths are known; a regression needs at "
                "least 2: collect longer paths, in which episodes end"
            )
        if len(paths) > MAX_CHECKPOINTS:
            some = np.random.default_rng(0).choice(len(paths), MAX_CHECKPOINTS, replace=False)
            paths, checkpoints = paths[some], checkpoints[some]
        displacements = params[paths, checkpoints].astype(np.float64) - params[paths, 0]
        self.direction = rising_direction(displacements, returns[paths, checkpoints], components)

    def _move(self, params: Networks, start: int, horizon: int) -> Moves:
        lengths = np.linalg.norm(self.displacements(start, horizon), axis=1)
        return np.asarray(lengths.mean() * self.direction[None])


def rising_direction(
    displacements: Float[np.ndarray, "M P"], returns: Float[np.ndarray, " M"], components: int
) -> Float[np.ndarray, " P"]:
    """Of one unit's length, the direction in which a regression's prediction rises the most.

    The regression is of the returns of M networks on their displacements from where they started,
    with no more components than there are networks and weights. The direction is in float64; zeros
    where none is better than another.
    """
    check_installed("sklearn", "scikit-learn", "pls", "partial least squares")
    from sklearn.cross_decomposition import PLSRegression

    at_least(1, components=components)
    if np.ptp(returns) == 0 or not np.ptp(displacements, axis=0).any():
        return np.zeros(displacements.shape[1])
    components = min(components, len(returns) - 1, displacements.shape[1])
    # not scaled: all weights have the same unit, and some hardly move
    regression = PLSRegression(components, scale=False)
    with warnings.catch_warnings():
        # fewer components explain it all, which is no harm
        warnings.filterwarnings("ignore", "y residual is constant")
        regression.fit(displacements, returns.astype(np.float64))
    coefficients: np.ndarray = regression.coef_[0]
    length = np.linalg.norm(coefficients)
    return coefficients / length if length else coefficients
