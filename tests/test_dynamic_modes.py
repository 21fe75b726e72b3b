"""Dynamic mode decomposition, against linear systems whose future is known."""

from __future__ import annotations

import numpy as np
import pytest

from tipl.core import lazy
from tipl.errors import TiplError
from tipl.forecast.extrapolation import DynamicModeDecomposition

RNG = np.random.default_rng(3)


def linear_path(eigenvalues: list[complex], length: int, size: int = 30) -> np.ndarray:
    """Checkpoints that follow a linear system: modes that grow or decay around fixed weights."""
    modes = RNG.standard_normal((len(eigenvalues), size))
    powers = np.array(eigenvalues) ** np.arange(length)[:, None]  # [T, R]
    return np.asarray(RNG.standard_normal(size) + powers.real @ modes)


@pytest.mark.parametrize("eigenvalues", [[0.8], [0.9, 0.5], [0.95, 0.7, 0.3]])
def test_a_decaying_linear_system_is_continued(eigenvalues: list[complex]) -> None:
    path = linear_path(eigenvalues, 20)
    # the fixed weights are a direction more
    forecast = DynamicModeDecomposition(rank=8).forecast(path[:10], [1, 4, 10])
    np.testing.assert_allclose(forecast, path[[10, 13, 19]], rtol=1e-3, atol=1e-3)


def test_growing_modes_are_held() -> None:
    path = linear_path([1.5], 12)
    forecast = DynamicModeDecomposition(rank=2).forecast(path, 50)
    np.testing.assert_allclose(forecast, path[-1], rtol=1e-4, atol=1e-4)


def test_what_the_directions_do_not_hold_is_kept() -> None:
    path = linear_path([0.8], 10)
    other = np.zeros((10, 30))
    other[-1] = 1e-3 * RNG.standard_normal(30)  # too small for the first direction
    method = DynamicModeDecomposition(rank=2)
    moved = method.forecast(path + other, 3) - (path + other)[-1]
    expected = method.forecast(path, 3) - path[-1]
    np.testing.assert_allclose(moved, expected, atol=1e-2)


def test_each_history_is_forecast_alone_and_short_ones_too() -> None:
    histories = np.stack([linear_path([0.9, 0.6], 5), linear_path([0.7], 5)])
    method = DynamicModeDecomposition()
    together = method.forecast(histories, [1, 7])
    assert together.shape == (2, 2, 30)
    for history, forecast in zip(histories, together, strict=True):
        np.testing.assert_array_equal(method.forecast(history, [1, 7]), forecast)
    assert np.isfinite(method.forecast(histories[:, :3], 60)).all()
    with pytest.raises(TiplError, match="at least T = 3"):
        method.forecast(histories[:, :2], 1)


def test_what_stands_still_stands_still() -> None:
    history = np.repeat(RNG.standard_normal((1, 30)), 4, axis=0).astype(np.float32)
    forecast = DynamicModeDecomposition().forecast(history, [1, 5])
    np.testing.assert_array_equal(forecast, history[:2])


def test_without_pydmd_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy, "is_installed", lambda module: module != "pydmd")
    with pytest.raises(TiplError, match=r"pip install 'tipl\[dmd\]"):
        DynamicModeDecomposition()


def test_impossible_ranks() -> None:
    with pytest.raises(TiplError, match="rank is 0; expected at least 1"):
        DynamicModeDecomposition(rank=0)
