"""Rivals that extrapolate a history alone, with no learned model: lines, RELEX, PPTB and DMD.

Each forecast is a mixture of the history's checkpoints: of RELEX and PPTB it takes nothing but the
small matrix of their inner products. Dynamic mode decomposition needs PyDMD, which tipl installs
only as an extra: `pip install tipl[dmd]`.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
from jaxtyping import Complex, Float

from tipl.core.lazy import check_installed
from tipl.core.options import at_least
from tipl.errors import TiplError
from tipl.forecast.base import Forecaster, Forecasts, Histories, Layout
from tipl.paths.svd import singular_vectors


def slope_weights(length: int) -> Float[np.ndarray, " T"]:
    """What values at T times in a row are weighed by to give their least-squares slope."""
    times = np.arange(length) - (length - 1) / 2
    return np.asarray(times / (times**2).sum())


class StandingStill(Forecaster):
    """Forecasts that the weights stay as they are (persistence)."""

    name = "standing still"
    reads_last = 1

    def _forecast(self, histories: Histories, horizons: list[int], layout: Layout) -> Forecasts:
        return histories[:, -1:]


class LastDifferenceLine(Forecaster):
    """Goes on along the last step: `theta_t + k (theta_t - theta_{t-1})`."""

    name = "last-difference line"
    min_history = reads_last = 2

    def _forecast(self, histories: Histories, horizons: list[int], layout: Layout) -> Forecasts:
        steps = np.array(horizons)[:, None]
        last, previous = histories[:, -1:], histories[:, -2:-1]
        return np.asarray(last + steps * (last - previous))


class LeastSquaresLine(Forecaster):
    """Goes on along the least-squares slope of its last `context` checkpoints, from the last."""

    name = "least-squares line"
    min_history = 2

    def __init__(self, context: int = 5) -> None:
        at_least(2, context=context)
        self.context = self.reads_last = context

    def _forecast(self, histories: Histories, horizons: list[int], layout: Layout) -> Forecasts:
        recent = histories[:, -self.context :].astype(np.float64)
        slope = np.einsum("t,btp->bp", slope_weights(recent.shape[1]), recent)
        return np.asarray(histories[:, -1:] + np.array(horizons)[:, None] * slope[:, None])


class TwoPointLine(Forecaster):
    """Goes on along the line from the start: `theta_0 + (t + k) / t (theta_t - theta_0)`.

    Source: arXiv 2601.04537.
    """

    name = "two-point line"
    min_history = 2

    def _forecast(self, histories: Histories, horizons: list[int], layout: Layout) -> Forecasts:
        last = histories.shape[1] - 1
        ratio = (last + np.array(horizons)) / last
        start = histories[:, :1]
        return np.asarray(start + ratio[:, None] * (histories[:, -1:] - start))


class RELEX(Forecaster):
    """Straight lines in the first directions of the displacements from the start.

    Of each array of weights the displacements are cut to the first singular directions, as many as
    the rank (1 in the paper), and the coordinates in these go on along their least-squares lines
    over time. Without a layout all weights are one array.

    Source: RELEX, arXiv 2605.21468.
    """

    name = "RELEX"
    min_history = 2

    def __init__(self, rank: int = 1) -> None:
        at_least(1, rank=rank)
        self.rank = rank

    def _forecast(self, histories: Histories, horizons: list[int], layout: Layout) -> Forecasts:
        B, T, P = histories.shape
        start = histories[:, :1].astype(np.float64)
        displacements = histories - start
        ahead = (T - 1) / 2 + np.array(horizons)  # from the middle, where the mean is
        # what a least-squares line over T times makes of their values
        lines = 1 / T + ahead[:, None] * slope_weights(T)  # [H, T]
        moved = np.empty((B, len(horizons), P))
        for columns in [slice(None)] if layout is None else layout.slices.values():
            rows = displacements[:, :, columns]
            first = left_singular_vectors(rows)[:, :, : self.rank]  # [B, T, R]
            # coordinates are s u and directions u^T D / s: the singular values cancel
            moved[:, :, columns] = (lines @ first) @ first.swapaxes(1, 2) @ rows
        return start + moved


class PathTrimmingAndBoosting(Forecaster):
    """The last checkpoint in the first directions of its path, further ahead in the first two.

    The forecast is the same at every horizon: see `trimmed_and_boosted`, whose rank and boost it
    has. Within PPO the same is done every few iterations (`tipl.jumps.plug_in`).
    """

    name = "path trimming and boosting"
    min_history = 2

    def __init__(self, rank: int = 16, boost: float = 0.1) -> None:
        check_rank_and_boost(rank, boost)
        self.rank, self.boost = rank, boost

    def _forecast(self, histories: Histories, horizons: list[int], layout: Layout) -> Forecasts:
        return trimmed_and_boosted(histories, self.rank, self.boost)[:, None]


def check_rank_and_boost(rank: int, boost: float) -> None:
    """Raises a TiplError unless `trimmed_and_boosted` can do something with both."""
    if rank < 1 or not 0 <= boost < math.inf:
        raise TiplError(
            f"a rank of {rank} and a boost of {boost} were given; expected at least 1 and 0"
        )


BOOSTED = 2
"""Directions in which a path is taken further: the first ones, along which policies advance."""


def left_singular_vectors(rows: Float[np.ndarray, "B T P"]) -> Float[np.ndarray, "B T T"]:
    """Columns by falling singular value."""
    _, vectors = np.linalg.eigh(rows @ rows.swapaxes(1, 2))
    return np.asarray(vectors[:, :, ::-1])


def trimmed_and_boosted(
    histories: Float[np.ndarray, "B T P"], rank: int, boost: float
) -> Float[np.ndarray, "B P"]:
    """The last checkpoint in the first directions of its path, further ahead in the first two.

    Of the temporal SVD `U S V^T` of the raw weights, the last row is cut to `rank` directions;
    coordinates of the first two become `u_n + boost (u_n - u_1)`: a step ahead in units of the
    whole way so far. Each history is a case of its own; the weights are returned in float64.

    Source: PPTB, Tang et al., NeurIPS 2024, arXiv 2303.01391.
    """
    rows = histories.astype(np.float64)
    u = left_singular_vectors(rows)[:, :, :rank]  # [B, T, R]
    last, way = u[:, -1:].copy(), u[:, -1:] - u[:, :1]
    last[..., :BOOSTED] += boost * way[..., :BOOSTED]
    return np.asarray((last @ u.swapaxes(1, 2) @ rows)[:, 0])  # [B, 1, R] @ [B, R, T] @ [B, T, P]


TOLERANCE = 1e-6
"""Directions that are smaller than the first by this factor are rounding."""


class DynamicModeDecomposition(Forecaster):
    """Finds the linear map that leads from each checkpoint to the next, and applies it again.

    The map is found in the first directions of the history's raw weights, where the history is a
    short sequence of a few numbers; its growing modes are held at their size, as they would outgrow
    everything. What these directions do not hold of the last checkpoint is kept.

    Source: Schmid, "Dynamic mode decomposition of numerical and experimental data" (2010), by
    PyDMD.

    Raises:
        TiplError: the rank of the directions is below 1, or PyDMD is not installed.
    """

    name = "dynamic mode decomposition"
    min_history = 3

    def __init__(self, rank: int = 5) -> None:
        at_least(1, rank=rank)
        check_installed("pydmd", "PyDMD", "dmd", self.name)
        self.rank = rank

    def _forecast(self, histories: Histories, horizons: list[int], layout: Layout) -> Forecasts:
        shape = len(horizons), histories.shape[-1]
        return np.stack([np.broadcast_to(self._ahead(one, horizons), shape) for one in histories])

    def _ahead(
        self, history: Float[np.ndarray, "T P"], horizons: list[int]
    ) -> Float[np.ndarray, "_ P"]:
        """The forecasts at each horizon, or one for all."""
        rows = history.astype(np.float64)
        # the map is found from all checkpoints but the last, and has no more directions than those
        basis = singular_vectors(rows, min(self.rank, len(rows) - 1)).basis
        if not len(basis):
            return rows[-1:]  # all weights are zero
        coordinates = rows @ basis.T  # [T, R]
        modes, eigenvalues = _modes(coordinates)
        eigenvalues = eigenvalues / np.maximum(np.abs(eigenvalues), 1.0)
        amplitudes = np.linalg.lstsq(modes, coordinates[-1].astype(complex), rcond=None)[0]
        factors = eigenvalues ** np.array(horizons)[:, None] - 1  # [H, R]
        changes = ((factors * amplitudes) @ modes.T).real  # [H, R]
        return np.asarray(rows[-1] + changes @ basis)


def _modes(
    coordinates: Float[np.ndarray, "T R"],
) -> tuple[Complex[np.ndarray, "R M"], Complex[np.ndarray, " M"]]:
    """The modes of a sequence, as columns, and what each is multiplied by in a step."""
    from pydmd import DMD  # an extra, and slow to import

    sizes = np.linalg.svd(coordinates[:-1], compute_uv=False)
    decomposition = DMD(svd_rank=int((sizes > TOLERANCE * sizes[0]).sum()))
    with warnings.catch_warnings():
        # short histories are ill-conditioned by nature: the rank leaves out what is not there
        warnings.simplefilter("ignore")
        decomposition.fit(coordinates.T)
    return decomposition.modes.astype(complex), decomposition.eigs.astype(complex)
