"""Trimming and boosting a policy learning path: the arithmetic, for forecasts and within PPO."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from tipl.errors import TiplError

__all__ = ["BOOSTED", "check_rank_and_boost", "left_singular_vectors", "trimmed_and_boosted"]

BOOSTED = 2
"""Directions in which a path is taken further: the first ones, along which policies advance."""


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
