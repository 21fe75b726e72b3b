"""Partial least squares on the return: its direction, its length, and where it cannot be had."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from path_data import make_dataset
from tipl import TiplError
from tipl.experiments.rivals import rivals
from tipl.forecast.extrapolation import StandingStill
from tipl.forecast.memory import PartialLeastSquares, rising_direction
from tipl.models.train import train
from tipl.paths import PathDataset
from tipl.policies.layout import ParamLayout

Array = np.ndarray[Any, np.dtype[Any]]

N, T, P = 40, 12, 6
LAYOUT = ParamLayout(("w", "b"), ((4,), (2,)))
UPHILL = np.array([3.0, 0, -4, 0, 12, 0]) / 13
NAME = "partial least squares on return"


def random_paths() -> Array:
    """Walks `[N, T, P]` whose steps have no direction, from different starts."""
    rng = np.random.default_rng(0)
    steps = rng.normal(size=(N, T, P))
    return np.asarray(steps.cumsum(axis=1) + 9 * rng.normal(size=(N, 1, P)), np.float32)


def returns_of(paths: Array) -> Array:
    """What grows with the displacement along a direction, and with nothing else."""
    return np.asarray(20 + 5 * (paths - paths[:, :1]) @ UPHILL, np.float32)


PATHS = random_paths()
RETURNS = returns_of(PATHS)


@pytest.mark.parametrize("components", [2, 100])
def test_it_goes_where_the_return_rises(components: int) -> None:
    rival = PartialLeastSquares(PATHS, LAYOUT, RETURNS, components)
    histories = PATHS[:3, :4]
    moves = rival.forecast(histories, [1, 5]) - histories[:, -1:]
    directions = moves / np.linalg.norm(moves, axis=-1, keepdims=True)
    np.testing.assert_allclose(directions @ UPHILL, np.ones((3, 2)), atol=0.02)


def test_one_component_is_the_covariance_with_the_return() -> None:
    displacements = (PATHS - PATHS[:, :1]).reshape(N * T, P).astype(np.float64)  # [N, T, P]
    returns = RETURNS.reshape(-1).astype(np.float64)
    covariance = (displacements - displacements.mean(axis=0)).T @ (returns - returns.mean())
    expected = covariance / np.linalg.norm(covariance)
    np.testing.assert_allclose(rising_direction(displacements, returns, 1), expected, atol=1e-6)
    # all components together are the least-squares fit, whose slope is known here
    np.testing.assert_allclose(rising_direction(displacements, returns, P), UPHILL, atol=1e-5)


@pytest.mark.parametrize(("start", "horizon"), [(0, 1), (3, 5), (3, 100)])
def test_it_goes_as_far_as_the_training_paths_went_on_average(start: int, horizon: int) -> None:
    rival = PartialLeastSquares(PATHS, LAYOUT, RETURNS)
    history = PATHS[0, : start + 1]
    went = PATHS[:, min(start + horizon, T - 1)] - PATHS[:, start]
    moved = rival.forecast(history, horizon) - history[-1]
    assert np.linalg.norm(moved) == pytest.approx(np.linalg.norm(went, axis=1).mean(), rel=1e-5)


def test_checkpoints_without_a_return_teach_nothing() -> None:
    gone, paths = RETURNS.copy(), PATHS.copy()
    gone[::2, 1:] = np.nan
    paths[::2, 1:] += 1e4
    known = PartialLeastSquares(PATHS, LAYOUT, gone).direction
    np.testing.assert_array_equal(PartialLeastSquares(paths, LAYOUT, gone).direction, known)


def test_of_many_checkpoints_some_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = PartialLeastSquares(PATHS, LAYOUT, RETURNS).direction
    monkeypatch.setattr("tipl.forecast.memory.MAX_CHECKPOINTS", 100)
    drawn = [PartialLeastSquares(PATHS, LAYOUT, RETURNS).direction for _ in range(2)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], whole)
    assert drawn[0] @ UPHILL > 0.9


@pytest.mark.parametrize(
    ("paths", "returns"),
    [(PATHS, np.full((N, T), 7.0, np.float32)), (np.repeat(PATHS[:, :1], T, axis=1), RETURNS)],
    ids=["returns", "weights"],
)
def test_it_stays_where_nothing_tells_where_to_go(paths: Array, returns: Array) -> None:
    rival = PartialLeastSquares(paths, LAYOUT, returns)
    np.testing.assert_array_equal(
        rival.forecast(PATHS[:2, :3], 2), StandingStill().forecast(PATHS[:2, :3], 2)
    )


# --- where it cannot be had ------------------------------------------------------------------


@pytest.fixture
def no_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sklearn", "sklearn.cross_decomposition"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> PathDataset:
    directory = tmp_path_factory.mktemp("dataset") / "paths"
    make_dataset(directory, vary={"gravity": [0.5, 2.0]})  # no policy is run in many worlds
    return PathDataset.open(directory)


def names_of_rivals(dataset: PathDataset) -> list[str]:
    """The rivals of a model that was trained on two trials."""
    model = train(
        dataset.select([0, 1]), rank=2, width=4, depth=1, heads=1, num_steps=1, batch_size=2,
        progress=False,
    )  # fmt: skip
    return [rival.name for rival in rivals([model], dataset)]


@pytest.mark.usefixtures("no_scikit_learn")
def test_without_scikit_learn_it_says_what_to_install() -> None:
    with pytest.raises(TiplError, match=r"needs scikit-learn.*pip install 'tipl\[pls\]"):
        PartialLeastSquares(PATHS, LAYOUT, RETURNS)


@pytest.mark.usefixtures("no_scikit_learn")
def test_without_scikit_learn_it_is_no_rival(dataset: PathDataset) -> None:
    assert NAME not in names_of_rivals(dataset)


def test_it_is_a_rival_where_paths_and_returns_are_known(
    dataset: PathDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert NAME not in [rival.name for rival in rivals([], dataset)]
    assert NAME in names_of_rivals(dataset)
    unknown = np.full((2, dataset.num_checkpoints), np.nan, np.float32)
    monkeypatch.setattr(PathDataset, "episodic_return", lambda self: unknown)
    assert NAME not in names_of_rivals(dataset)


@pytest.mark.parametrize(
    ("returns", "components", "message"),
    [
        (np.full_like(RETURNS, np.nan), 2, "0 returns of the training paths are known"),
        (RETURNS, 0, "components is 0; expected at least 1"),
    ],
)
def test_what_cannot_be_fitted_is_refused(returns: Array, components: int, message: str) -> None:
    with pytest.raises(TiplError, match=message):
        PartialLeastSquares(PATHS, LAYOUT, returns, components)


def test_another_architecture_is_refused() -> None:
    with pytest.raises(TiplError, match="same architecture"):
        PartialLeastSquares(PATHS, LAYOUT, RETURNS).forecast(PATHS[:, :3, :5], 1)
