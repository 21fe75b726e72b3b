"""A rival that asks which direction in weight space pays: partial least squares on the return.

It needs scikit-learn, which tipl installs only as an extra: `pip install tipl[pls]`.
"""

from __future__ import annotations

import importlib.util
import warnings

import numpy as np
from jaxtyping import Float

from tipl.errors import TiplError
from tipl.forecast.memory import TrainingPaths
from tipl.policies.layout import ParamLayout

__all__ = ["PartialLeastSquares", "rising_direction", "scikit_learn_is_installed"]

MAX_CHECKPOINTS = 2000
"""Checkpoints that a regression is fitted to, drawn where there are more: bounds its memory."""


class PartialLeastSquares(TrainingPaths):
    """Goes where the return rises the most, as far as the training paths went on average.

    The direction is the same for all networks and checkpoints: that of the coefficients of a
    regression, by partial least squares, of a training checkpoint's return on its displacement from
    where its path starts. The length is the mean over training paths, from the same checkpoint and
    over the same horizon.

    Source: partial least squares is due to Wold; this is scikit-learn's `PLSRegression`.

    Args:
        params: weights of the training paths, all of one architecture.
        layout: of the weights.
        returns: episodic return of each checkpoint; NaN where none is known.
        components: directions that the regression builds its own from.

    Raises:
        TiplError: scikit-learn is not installed, fewer than two returns are known, or the
            components are fewer than 1.
    """

    name = "partial least squares on return"

    def __init__(
        self,
        params: Float[np.ndarray, "N T P"],
        layout: ParamLayout,
        returns: Float[np.ndarray, "N T"],
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

    def _move(
        self, params: Float[np.ndarray, "B P"], start: int, horizon: int
    ) -> Float[np.ndarray, "_ P"]:
        lengths = np.linalg.norm(self.displacements(start, horizon), axis=1)
        return np.asarray(lengths.mean() * self.direction[None])


def rising_direction(
    displacements: Float[np.ndarray, "M P"], returns: Float[np.ndarray, " M"], components: int
) -> Float[np.ndarray, " P"]:
    """Of one unit's length, the direction in which a regression's prediction rises the most.

    Args:
        displacements: of M networks from where they started.
        returns: of the networks.
        components: of the regression; no more than there are networks and weights are used.

    Returns:
        The direction, in float64; zeros where no direction is better than another.

    Raises:
        TiplError: scikit-learn is not installed, or the components are fewer than 1.
    """
    try:
        from sklearn.cross_decomposition import PLSRegression
    except ImportError as error:
        raise TiplError(
            "partial least squares needs scikit-learn, which is not installed; run "
            "`pip install tipl[pls]`, or `pip install scikit-learn`"
        ) from error
    if components < 1:
        raise TiplError(f"{components} components were given; expected at least 1")
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


def scikit_learn_is_installed() -> bool:
    """Whether the extra of tipl that partial least squares needs is there."""
    return importlib.util.find_spec("sklearn") is not None
