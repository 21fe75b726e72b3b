"""Rivals that extrapolate a history: against the formulas of their papers, written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tipl import TiplError
from tipl.forecast.base import Forecaster
from tipl.forecast.extrapolation import RELEX, PathTrimmingAndBoosting, TwoPointLine
from tipl.policies.layout import ParamLayout

Array = np.ndarray[Any, np.dtype[Any]]

LAYOUT = ParamLayout.actor(3, 2, (5,))
T = 6
HORIZONS = [1, 4, 9]


def random_histories(count: int = 2, length: int = T) -> Array:
    """Random walks `[N, T, P]`."""
    rng = np.random.default_rng(0)
    walks = rng.normal(size=(count, length, LAYOUT.size)).cumsum(axis=1)
    return np.asarray(walks, np.float32)


def straight_histories() -> tuple[Array, Array]:
    """Histories `[2, T, P]` on straight lines, and where these lead to `[2, H, P]`."""
    rng = np.random.default_rng(0)
    start, step = rng.normal(size=(2, 2, 1, LAYOUT.size))
    times, ahead = np.arange(T)[:, None], T - 1 + np.array(HORIZONS)[:, None]
    return np.float32(start + times * step), np.float32(start + ahead * step)


@pytest.mark.parametrize(
    "forecaster", [TwoPointLine(), RELEX(), RELEX(3)], ids=["two points", "RELEX", "RELEX, rank 3"]
)
@pytest.mark.parametrize("layout", [None, LAYOUT])
def test_straight_paths_go_straight_on(forecaster: Forecaster, layout: ParamLayout | None) -> None:
    histories, ahead = straight_histories()
    found = forecaster.forecast(histories, HORIZONS, layout=layout)
    np.testing.assert_allclose(found, ahead, atol=1e-4)


def test_two_points_are_the_first_and_the_last() -> None:
    histories = random_histories()
    first, last = histories[:, 0], histories[:, -1]
    found = TwoPointLine().forecast(histories, 4)
    np.testing.assert_allclose(found, first + (T - 1 + 4) / (T - 1) * (last - first), atol=1e-4)


@pytest.mark.parametrize("rank", [1, 2])
def test_relex_continues_lines_in_each_array(rank: int) -> None:
    (history,) = random_histories(1)
    start, arrays = history[0], LAYOUT.unflatten(history - history[0])
    expected = []
    for array in arrays.values():
        rows = array.reshape(T, -1).astype(np.float64)  # [T, *shape] -> [T, P]
        u, s, directions = np.linalg.svd(rows, full_matrices=False)
        coordinates = (u * s)[:, :rank]
        slopes, offsets = np.polyfit(np.arange(T), coordinates, 1)
        expected.append((offsets + slopes * (T - 1 + 7)) @ directions[:rank])
    found = RELEX(rank).forecast(history, 7, layout=LAYOUT)
    np.testing.assert_allclose(found, start + np.concatenate(expected), rtol=1e-4, atol=1e-4)
    together = RELEX(rank).forecast(history, 7)  # one basis for all weights
    assert np.abs(together - found).max() > 0.1


@pytest.mark.parametrize("rank", [1, 3, 16])
@pytest.mark.parametrize("boost", [0.0, 0.5])
def test_paths_are_trimmed_and_boosted(rank: int, boost: float) -> None:
    (history,) = random_histories(1)
    u, s, directions = np.linalg.svd(history.astype(np.float64), full_matrices=False)
    row = u[-1].copy()
    row[:2] += boost * (u[-1, :2] - u[0, :2])
    expected = (row * s)[:rank] @ directions[:rank]
    found = PathTrimmingAndBoosting(rank, boost).forecast(history, [1, 5])
    np.testing.assert_allclose(found, [expected, expected], rtol=1e-4, atol=1e-4)
    if rank >= T and boost == 0:
        np.testing.assert_allclose(found[0], history[-1], atol=1e-4)


@pytest.mark.parametrize("forecaster", [TwoPointLine(), RELEX(), PathTrimmingAndBoosting()])
def test_histories_are_forecast_each_by_itself(forecaster: Forecaster) -> None:
    histories = random_histories(3)
    together = forecaster.forecast(histories, HORIZONS, layout=LAYOUT)
    alone = [forecaster.forecast(history, HORIZONS, layout=LAYOUT) for history in histories]
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-5)
    assert forecaster.forecast(histories[:, :2], 1, layout=LAYOUT).shape == (3, LAYOUT.size)
    with pytest.raises(TiplError, match="2"):
        forecaster.forecast(histories[:, :1], 1, layout=LAYOUT)


@pytest.mark.parametrize("forecaster", [RELEX(), PathTrimmingAndBoosting(boost=0.0)])
def test_a_path_that_does_not_move_stays(forecaster: Forecaster) -> None:
    still = np.repeat(random_histories()[:, :1], T, axis=1)
    found = forecaster.forecast(still, 3, layout=LAYOUT)
    np.testing.assert_allclose(found, still[:, 0], atol=1e-5)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(TiplError, match="rank is 0; expected at least 1"):
        RELEX(0)
    with pytest.raises(TiplError, match="rank of 0"):
        PathTrimmingAndBoosting(0)
    with pytest.raises(TiplError, match=r"boost of -0\.1"):
        PathTrimmingAndBoosting(boost=-0.1)
    with pytest.raises(TiplError, match="boost of nan"):
        PathTrimmingAndBoosting(boost=float("nan"))
