"""Published rivals that extrapolate a history alone, with no learned model.

Each forecast is a mixture of the history's checkpoints, so it takes nothing but the small matrix of
their inner products.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from jaxtyping import Float

from tipl.errors import TiplError
from tipl.forecast.base import Forecaster, Forecasts, Histories
from tipl.forecast.lines import slope_weights
from tipl.policies.layout import ParamLayout

__all__ = ["RELEX", "PathTrimmingAndBoosting", "check_rank_and_boost", "trimmed_and_boosted"]

BOOSTED = 2
"""Directions in which a path is taken further: the first ones, along which policies advance."""


class RELEX(Forecaster):
    """Straight lines in the first directions of the displacements from the start.

    Of each array of weights the displacements are cut to the first singular directions, and the
    coordinates in these go on along their least-squares lines over time. Without a layout all
    weights are one array.

    Source: RELEX, arXiv 2605.21468.

    Args:
        rank: directions of each array; 1 in the paper.

    Raises:
        TiplError: the rank is below 1.
    """

    name = "RELEX"
    min_history = 2

    def __init__(self, rank: int = 1) -> None:
        if rank < 1:
            raise TiplError(f"a rank of {rank} was given; expected at least 1")
        self.rank = rank

    def _forecast(
        self, histories: Histories, horizons: list[int], layout: ParamLayout | None
    ) -> Forecasts:
        B, T, P = histories.shape
        start = histories[:, :1].astype(np.float64)
        displacements = histories - start
        lines = _line_weights(T, horizons)  # [H, T]
        ahead = np.empty((B, len(horizons), P))
        for columns in _arrays(P, layout):
            rows = displacements[:, :, columns]
            first = left_singular_vectors(rows)[:, :, : self.rank]  # [B, T, R]
            # coordinates are s u and directions u^T D / s: the singular values cancel
            ahead[:, :, columns] = (lines @ first) @ first.swapaxes(1, 2) @ rows
        return start + ahead


class PathTrimmingAndBoosting(Forecaster):
    """The last checkpoint in the first directions of its path, further ahead in the first two.

    The forecast is the same at every horizon: see `trimmed_and_boosted`. Within PPO the same
    is done every few iterations (`tipl.jumps.pptb`).

    Source: PPTB, Tang et al., NeurIPS 2024, arXiv 2303.01391.

    Args:
        rank: directions that are kept.
        boost: step ahead, in units of the whole way so far.

    Raises:
        TiplError: the rank is below 1 or the boost negative.
    """

    name = "path trimming and boosting"
    min_history = 2

    def __init__(self, rank: int = 16, boost: float = 0.1) -> None:
        check_rank_and_boost(rank, boost)
        self.rank, self.boost = rank, boost

    def _forecast(
        self, histories: Histories, horizons: list[int], layout: ParamLayout | None
    ) -> Forecasts:
        ahead = trimmed_and_boosted(histories, self.rank, self.boost)
        # [B, P] -> [B, H, P]
        return np.repeat(ahead[:, None], len(horizons), axis=1)


def check_rank_and_boost(rank: int, boost: float) -> None:
    """Raises a TiplError unless `trimmed_and_boosted` can do something with both."""
    if rank < 1 or not 0 <= boost < math.inf:
        raise TiplError(
            f"a rank of {rank} and a boost of {boost} were given; expected at least 1 and 0"
        )


def left_singular_vectors(rows: Float[np.ndarray, "B T P"]) -> Float[np.ndarray, "B T T"]:
    """Columns by falling singular value."""
    _, vectors = np.linalg.eigh(rows @ rows.swapaxes(1, 2))
    return np.asarray(vectors[:, :, ::-1])


def trimmed_and_boosted(
    histories: Float[np.ndarray, "B T P"], rank: int, boost: float
) -> Float[np.ndarray, "B P"]:
    """The last checkpoint in the first directions of its path, further ahead in the first two.

    Of the temporal SVD `U S V^T` of the raw weights, the last row is cut to `rank` directions;
    coordinates of the first two become `u_n + boost (u_n - u_1)`. Each history is a case of its
    own.

    Source: PPTB, Tang et al., NeurIPS 2024, arXiv 2303.01391.

    Args:
        histories: weights of T checkpoints in order, the last of which is to change.
        rank: directions that are kept; all of them where the history is no longer than that.
        boost: step ahead, in units of the whole way so far.

    Returns:
        The weights that it becomes, in float64.
    """
    rows = histories.astype(np.float64)
    u = left_singular_vectors(rows)[:, :, :rank]  # [B, T, R]
    last, way = u[:, -1:].copy(), u[:, -1:] - u[:, :1]
    last[..., :BOOSTED] += boost * way[..., :BOOSTED]
    return np.asarray((last @ u.swapaxes(1, 2) @ rows)[:, 0])  # [B, 1, R] @ [B, R, T] @ [B, T, P]


def _line_weights(length: int, horizons: list[int]) -> Float[np.ndarray, "H T"]:
    """What a least-squares line over T times makes of their values, at each horizon."""
    ahead = (length - 1) / 2 + np.array(horizons)  # from the middle, where the mean is
    return np.asarray(1 / length + ahead[:, None] * slope_weights(length))


def _arrays(size: int, layout: ParamLayout | None) -> list[slice]:
    """Where each array of weights lies in the flat parameters."""
    if layout is None:
        return [slice(0, size)]
    ends = np.cumsum([0, *map(math.prod, layout.shapes)]).tolist()
    return [slice(start, end) for start, end in itertools.pairwise(ends)]
