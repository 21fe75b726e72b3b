"""Baselines: exact where the truth is a straight line, and NumPy's own line where it is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tipl.errors import TiplError
from tipl.forecast.base import Forecaster
from tipl.forecast.extrapolation import LastDifferenceLine, LeastSquaresLine, StandingStill
from tipl.forecast.memory import BestStoredPolicy, MatchedNoise, MeanDisplacement, NearestPath
from tipl.policies.layout import ParamLayout

Array = np.ndarray[Any, np.dtype[Any]]

T, P = 7, 4
HORIZONS = [1, 2, 5, 40]
BASELINES: tuple[Forecaster, ...] = (
    StandingStill(),
    LastDifferenceLine(),
    LeastSquaresLine(),
    LeastSquaresLine(context=2),
    LeastSquaresLine(context=100),
)
LINES = BASELINES[1:]

all_baselines = pytest.mark.parametrize("baseline", BASELINES, ids=lambda b: type(b).__name__)
lines = pytest.mark.parametrize("baseline", LINES, ids=lambda b: type(b).__name__)


def straight_paths(num_checkpoints: int) -> Array:
    """Two paths of equal steps `[2, T, P]`, in numbers that float32 holds exactly."""
    rng = np.random.default_rng(0)
    starts, steps = rng.integers(-64, 64, (2, 2, 1, P)) / 16
    return np.asarray(starts + np.arange(num_checkpoints)[:, None] * steps, np.float32)


def noisy_paths() -> Array:
    return np.random.default_rng(1).normal(size=(3, T, P)).cumsum(axis=1).astype(np.float32)


@all_baselines
def test_shapes(baseline: Forecaster) -> None:
    histories = noisy_paths()
    forecasts = baseline.forecast(histories, HORIZONS)
    assert forecasts.shape == (3, len(HORIZONS), P)
    assert forecasts.dtype == np.float32
    for n, horizon in enumerate(HORIZONS):
        np.testing.assert_array_equal(baseline.forecast(histories, horizon), forecasts[:, n])
        np.testing.assert_allclose(
            baseline.forecast(histories[1], horizon), forecasts[1, n], rtol=1e-6
        )


@pytest.mark.parametrize("length", [1, 2, T])
def test_standing_still_is_the_last_checkpoint(length: int) -> None:
    histories = noisy_paths()[:, :length]
    for horizon in HORIZONS:
        np.testing.assert_array_equal(
            StandingStill().forecast(histories, horizon), histories[:, -1]
        )


@lines
@pytest.mark.parametrize("length", [2, 3, T])
def test_lines_are_exact_on_straight_paths(baseline: Forecaster, length: int) -> None:
    paths = straight_paths(T + max(HORIZONS))
    forecasts = baseline.forecast(paths[:, :length], HORIZONS)
    true = paths[:, [length - 1 + horizon for horizon in HORIZONS]]
    np.testing.assert_allclose(forecasts, true, rtol=1e-6, atol=1e-6)
    assert not np.isclose(true, paths[:, length - 1 : length]).all()


def test_the_last_difference_line_repeats_the_last_step() -> None:
    paths = noisy_paths().astype(np.float64)
    step = paths[:, -1] - paths[:, -2]
    for horizon in HORIZONS:
        forecast = LastDifferenceLine().forecast(paths, horizon)
        np.testing.assert_allclose(forecast, paths[:, -1] + horizon * step, rtol=1e-5)


@pytest.mark.parametrize("context", [2, 3, 5, T, 100])
def test_the_least_squares_line_has_the_slope_of_polyfit(context: int) -> None:
    paths = noisy_paths()
    recent = paths[:, -context:].astype(np.float64)
    for n, path in enumerate(recent):
        slope = np.polyfit(np.arange(len(path)), path, deg=1)[0]
        for horizon in HORIZONS:
            forecast = LeastSquaresLine(context).forecast(paths, horizon)[n]
            # from the last checkpoint, not from the line, which may lie beside it
            np.testing.assert_allclose(forecast, path[-1] + horizon * slope, rtol=1e-4, atol=1e-5)


def test_a_context_of_two_is_the_last_difference() -> None:
    paths = noisy_paths()
    np.testing.assert_allclose(
        LeastSquaresLine(context=2).forecast(paths, HORIZONS),
        LastDifferenceLine().forecast(paths, HORIZONS),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("context", [1, 0, -2])
def test_a_line_through_fewer_than_two_checkpoints_is_refused(context: int) -> None:
    with pytest.raises(TiplError, match=f"context is {context}; expected at least 2"):
        LeastSquaresLine(context)


@lines
def test_a_line_needs_two_checkpoints(baseline: Forecaster) -> None:
    message = rf"\(3, 1, {P}\) .* but {baseline.name} needs .* T = 2 checkpoints; give more"
    with pytest.raises(TiplError, match=message):
        baseline.forecast(noisy_paths()[:, :1], 1)


@all_baselines
@pytest.mark.parametrize("horizon", [0, -1])
def test_a_horizon_below_one_is_refused(baseline: Forecaster, horizon: int) -> None:
    with pytest.raises(TiplError, match=f"horizon of {horizon} was given; expected 1 or more"):
        baseline.forecast(noisy_paths(), horizon)


def test_names_differ() -> None:
    assert len({StandingStill.name, LastDifferenceLine.name, LeastSquaresLine.name}) == 3


# --- rivals that remember training paths ----------------------------------------------------------

LAYOUT = ParamLayout(("w", "b"), ((3,), (1,)))
TRAINING = np.random.default_rng(2).normal(size=(5, T, P)).cumsum(axis=1).astype(np.float32)


@pytest.mark.parametrize("kind", [MeanDisplacement, NearestPath, MatchedNoise])
def test_what_remembers_gives_a_horizon_alone_what_it_gives_among_others(
    kind: type[MeanDisplacement],
) -> None:
    rival, histories = kind(TRAINING, LAYOUT), noisy_paths()[:, :3]
    several = rival.forecast(histories, [1, 3])
    assert several.shape == (3, 2, P)
    np.testing.assert_array_equal(rival.forecast(histories, 3), several[:, 1])
    beyond = rival.displacements(2, 40)  # the paths end, and so does what is remembered
    np.testing.assert_array_equal(beyond, rival.displacements(2, T - 3))


def test_the_mean_displacement_is_that_of_the_same_checkpoints() -> None:
    histories = noisy_paths()[:, :3]
    expected = histories[:, -1] + (TRAINING[:, 5] - TRAINING[:, 2]).mean(axis=0)
    forecast = MeanDisplacement(TRAINING, LAYOUT).forecast(histories, 3)
    np.testing.assert_allclose(forecast, expected, atol=1e-5)


def test_the_nearest_path_is_the_one_beside_the_last_checkpoint() -> None:
    rival = NearestPath(TRAINING, LAYOUT)
    beside = TRAINING[[3, 1], :4] + np.float32(0.01)
    assert rival.nearest(3, beside[:, -1]).tolist() == [3, 1]
    expected = beside[:, -1] + (TRAINING[[3, 1], 6] - TRAINING[[3, 1], 3])
    np.testing.assert_allclose(rival.forecast(beside, 3), expected, atol=1e-5)


def test_matched_noise_goes_as_far_as_the_paths_went_in_each_array() -> None:
    many = np.zeros((4000, 2, P), np.float32)
    moves = MatchedNoise(TRAINING, LAYOUT).forecast(many, 4)
    went = TRAINING[:, 5] - TRAINING[:, 1]
    for at in LAYOUT.slices.values():
        assert np.square(moves[:, at]).mean() == pytest.approx(np.square(went[:, at]).mean(), 0.1)
    assert abs(moves.mean()) < 0.1


def test_the_best_stored_policy_is_copied_whatever_the_history() -> None:
    rival = BestStoredPolicy(TRAINING[0, -1], LAYOUT)
    forecasts = rival.forecast(noisy_paths(), [1, 9])
    assert (forecasts == TRAINING[0, -1]).all()
    with pytest.raises(TiplError, match="same architecture"):
        rival.forecast(noisy_paths()[..., :3], 1)
