"""Temporal SVD: the same as `numpy.linalg.svd`, exact both ways, and blind to what it should be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tipl.errors import TiplError
from tipl.paths.svd import (
    Center,
    PathSVD,
    TemporalSVD,
    information,
    make_tokenizer,
    singular_vectors,
)

Array = np.ndarray[Any, np.dtype[Any]]

CENTERS: tuple[Center, ...] = ("none", "initial", "mean")
SHAPES = {"wide": (10, 40), "tall": (60, 12), "square": (12, 12)}  # rows and parameters
WIDE_AND_TALL_PATHS = {"rows < P": (3, 5, 40), "rows > P": (9, 5, 12)}

wide_tall_square = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
wide_and_tall_paths = pytest.mark.parametrize(
    "shape", WIDE_AND_TALL_PATHS.values(), ids=WIDE_AND_TALL_PATHS
)


def matrix(shape: tuple[int, int], singular_values: Array, seed: int = 0) -> Array:
    """A matrix `[R, P]` with random singular vectors."""
    rng = np.random.default_rng(seed)
    left, right = (
        np.linalg.qr(rng.standard_normal((size, len(singular_values))))[0] for size in shape
    )
    return np.asarray((left * singular_values) @ right.T)


def random_paths(shape: tuple[int, int, int], seed: int = 0) -> Array:
    """Random walks `[N, T, P]` from random places."""
    return np.random.default_rng(seed).standard_normal(shape).cumsum(axis=1)


def relative_error(found: Array, true: Array) -> float:
    return float(np.linalg.norm(found - true) / np.linalg.norm(true))


def gram(basis: Array) -> Array:
    return np.asarray(basis @ basis.T)


# --- singular_vectors -----------------------------------------------------------------------------


@wide_tall_square
@pytest.mark.parametrize("rank", [1, 3, 100])
def test_singular_vectors_are_those_of_numpy(shape: tuple[int, int], rank: int) -> None:
    rows = matrix(shape, np.geomspace(5.0, 0.01, min(shape)))
    found = singular_vectors(rows, rank)
    left, values, right = np.linalg.svd(rows, full_matrices=False)
    count = min(rank, *shape)
    assert found.basis.shape == (count, shape[1])
    np.testing.assert_allclose(found.singular_values, values, rtol=1e-9)
    np.testing.assert_allclose(gram(found.basis), np.eye(count), atol=1e-13)
    signs = np.sign(np.sum(found.basis * right[:count], axis=1))
    np.testing.assert_allclose(found.basis, signs[:, None] * right[:count], atol=1e-11)
    coordinates = (left * values)[:, :count] * signs
    np.testing.assert_allclose(rows @ found.basis.T, coordinates, atol=1e-11)


@wide_tall_square
def test_the_last_row_has_no_negative_coordinate(shape: tuple[int, int]) -> None:
    for seed in range(5):
        rows = matrix(shape, np.geomspace(5.0, 0.1, min(shape)), seed)
        basis = singular_vectors(rows, 8).basis
        assert (basis @ rows[-1] > 0).all()
        np.testing.assert_allclose(singular_vectors(-rows, 8).basis, -basis, atol=1e-12)


@wide_tall_square
def test_tiny_singular_values_are_as_good_as_those_of_numpy(shape: tuple[int, int]) -> None:
    """Below 1e-8 of the largest, a Gram matrix alone knows nothing of them."""
    values = 10.0 ** -np.arange(0.0, 10.5, 1.25)
    rows = matrix(shape, values)
    found = singular_vectors(rows, min(shape))
    np.testing.assert_allclose(found.singular_values[:9], values, rtol=0, atol=1e-14)
    np.testing.assert_allclose(gram(found.basis), np.eye(9), atol=1e-13)
    assert relative_error(rows @ found.basis.T @ found.basis, rows) < 1e-13
    cosines = np.abs(np.sum(found.basis * np.linalg.svd(rows)[2][:9], axis=1))
    np.testing.assert_allclose(cosines, 1, atol=1e-9)


@wide_tall_square
@pytest.mark.parametrize("rank", [2, 5, 100])
def test_a_matrix_of_rank_three_has_three_directions(shape: tuple[int, int], rank: int) -> None:
    rows = matrix(shape, np.array([3.0, 1.0, 0.2]))
    found = singular_vectors(rows, rank)
    assert len(found.basis) == min(rank, 3)
    assert len(found.singular_values) == min(shape)
    np.testing.assert_allclose(found.singular_values[:3], [3.0, 1.0, 0.2], rtol=1e-12)
    np.testing.assert_allclose(found.singular_values[3:], 0, atol=1e-14)
    assert (np.diff(found.singular_values) <= 0).all()
    if rank >= 3:
        assert relative_error(rows @ gram(found.basis.T), rows) < 1e-13


def test_repeated_rows_add_no_direction() -> None:
    rows = np.repeat(matrix((3, 40), np.array([3.0, 1.0, 0.2])), 4, axis=0)
    rows[:4] = 0  # rows such as the displacement of a first checkpoint
    assert len(singular_vectors(rows, 100).basis) == 2


@wide_tall_square
def test_rows_of_zeros_have_no_direction(shape: tuple[int, int]) -> None:
    found = singular_vectors(np.zeros(shape), 5)
    assert found.basis.shape == (0, shape[1])
    assert not found.singular_values.any()


def test_the_scale_of_the_rows_does_not_matter() -> None:
    rows = matrix((10, 40), np.array([3.0, 1.0, 0.2]))
    basis = singular_vectors(rows, 5).basis
    for scale in (1e-12, 1e12):
        np.testing.assert_allclose(singular_vectors(scale * rows, 5).basis, basis, atol=1e-12)


def test_float32_rows_are_taken_as_float64() -> None:
    rows = matrix((10, 40), np.geomspace(5.0, 0.01, 10)).astype(np.float32)
    found = singular_vectors(rows, 10)
    assert found.basis.dtype == np.float64
    np.testing.assert_array_equal(found.basis, singular_vectors(rows.astype(np.float64), 10).basis)


# --- information ----------------------------------------------------------------------------------


def test_information_sums_the_singular_values_not_their_squares() -> None:
    np.testing.assert_allclose(information(np.array([6.0, 3.0, 1.0])), [0.6, 0.9, 1.0], rtol=1e-15)
    np.testing.assert_array_equal(information(np.zeros(3)), 1)


@pytest.mark.parametrize(
    ("beta", "expected"), [(0.1, 1), (0.6, 1), (0.61, 2), (0.9, 2), (0.91, 3), (1.0, 3)]
)
def test_dimension_is_the_first_to_reach_a_share(beta: float, expected: int) -> None:
    rows = matrix((7, 20), np.array([6.0, 3.0, 1.0]))
    svd = TemporalSVD(rank=1, center="none").fit(rows[None])  # the rank does not matter
    assert svd.dimension(beta) == expected


# --- TemporalSVD ----------------------------------------------------------------------------------


@wide_and_tall_paths
@pytest.mark.parametrize("center", CENTERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_round_trip_is_exact_at_full_rank(
    shape: tuple[int, int, int], center: Center, dtype: type[np.floating[Any]]
) -> None:
    params = random_paths(shape).astype(dtype)
    svd = TemporalSVD(rank=1000, center=center).fit(params)
    tokens = svd.encode(params, svd.center(params))
    decoded = svd.decode(tokens, svd.center(params))
    assert tokens.dtype == decoded.dtype == np.float64
    assert tokens.shape == (*shape[:2], svd.num_coordinates)
    assert relative_error(decoded, params.astype(np.float64)) <= 1e-10
    np.testing.assert_allclose(gram(svd.basis), np.eye(svd.num_coordinates), atol=1e-12)


@pytest.mark.parametrize("center", CENTERS)
def test_round_trip_of_paths_that_move_by_very_different_amounts(center: Center) -> None:
    params = random_paths((6, 4, 40)) * np.geomspace(1e4, 1e-6, 6)[:, None, None]
    svd = TemporalSVD(rank=1000, center=center).fit(params)
    decoded = svd.decode(svd.encode(params, svd.center(params)), svd.center(params))
    assert relative_error(decoded, params) <= 1e-10


@wide_and_tall_paths
@pytest.mark.parametrize("center", CENTERS)
def test_basis_and_tokens_are_the_svd_of_centred_checkpoints(
    shape: tuple[int, int, int], center: Center
) -> None:
    params = random_paths(shape)
    subtracted = {
        "none": np.zeros_like(params),
        "initial": np.repeat(params[:, :1], shape[1], axis=1),
        "mean": np.broadcast_to(params.reshape(-1, shape[2]).mean(axis=0), params.shape),
    }[center]
    rows = (params - subtracted).reshape(-1, shape[2])
    left, values, right = np.linalg.svd(rows, full_matrices=False)
    svd = TemporalSVD(rank=4, center=center).fit(params)
    np.testing.assert_allclose(svd.singular_values, values, rtol=0, atol=1e-6 * values[0])
    np.testing.assert_allclose(np.abs(svd.basis @ right[:4].T), np.eye(4), atol=1e-10)
    tokens = svd.encode(params, svd.center(params)).reshape(-1, 4)
    np.testing.assert_allclose(np.abs(tokens), np.abs(left * values)[:, :4], atol=1e-9)
    assert (tokens[-1] >= 0).all()


def test_a_lower_rank_loses_exactly_the_other_singular_values() -> None:
    params = random_paths((4, 5, 40))
    svd = TemporalSVD(rank=3, center="initial").fit(params)
    decoded = svd.decode(svd.encode(params, svd.center(params)), svd.center(params))
    lost = np.sqrt(np.sum(svd.singular_values[3:] ** 2))
    np.testing.assert_allclose(np.linalg.norm(decoded - params), lost, rtol=1e-10)


def test_an_initial_centre_is_each_path_s_own() -> None:
    svd = TemporalSVD(rank=3, center="initial").fit(random_paths((4, 5, 20)))
    others = random_paths((2, 6, 20), seed=1)
    tokens = svd.encode_history(others).tokens
    assert not tokens[:, 0].any()
    np.testing.assert_allclose(tokens, (others - others[:, :1]) @ svd.basis.T, atol=1e-12)
    alone = svd.encode(others[1], svd.center(others[1]))  # [T, P], without a batch
    np.testing.assert_allclose(alone, tokens[1], atol=1e-12)


def test_a_mean_centre_is_the_one_of_the_fitted_paths() -> None:
    fitted = random_paths((4, 5, 20))
    svd = TemporalSVD(rank=3, center="mean").fit(fitted)
    others = random_paths((2, 6, 20), seed=1)
    expected = (others - fitted.mean(axis=(0, 1))) @ svd.basis.T
    np.testing.assert_allclose(svd.encode_history(others).tokens, expected, atol=1e-12)


def test_a_change_of_tokens_times_directions_is_a_change_of_weights() -> None:
    params = random_paths((2, 5, 12))
    tokens, directions = TemporalSVD(rank=12, center="mean").fit(params).encode_history(params)
    assert directions.shape == (1, tokens.shape[-1], 12)
    np.testing.assert_allclose(
        np.diff(tokens, axis=1) @ directions, np.diff(params, axis=1), atol=1e-12
    )


@pytest.mark.parametrize("center", CENTERS)
def test_the_state_is_all_that_was_fitted(center: Center) -> None:
    params = random_paths((4, 5, 20))
    svd = TemporalSVD(rank=3, center=center).fit(params)
    copy = TemporalSVD(rank=3, center=center)
    copy.set_state(svd.state())
    assert copy.num_coordinates == 3
    assert copy.dimension(0.9) == svd.dimension(0.9)
    np.testing.assert_array_equal(
        copy.encode_history(params).tokens, svd.encode_history(params).tokens
    )


@pytest.mark.parametrize("rank", [0, -1])
@pytest.mark.parametrize("kind", [TemporalSVD, PathSVD])
def test_a_rank_below_one_is_refused(kind: type[TemporalSVD | PathSVD], rank: int) -> None:
    with pytest.raises(TiplError, match=f"rank is {rank}; expected at least 1"):
        kind(rank)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(value: float) -> None:
    params = random_paths((2, 3, 4))
    params[1, 2, 3] = value
    with pytest.raises(TiplError, match=r"NaN or infinite; leave diverged trials out"):
        TemporalSVD(rank=2).fit(params)


@pytest.mark.parametrize("center", CENTERS)
def test_checkpoints_that_do_not_differ_are_refused(center: Center) -> None:
    params = np.zeros((2, 3, 4)) if center == "none" else np.ones((2, 3, 4))
    with pytest.raises(TiplError, match=rf"6 checkpoints .* \({center}\); give paths of at least"):
        TemporalSVD(rank=2, center=center).fit(params)


@pytest.mark.parametrize("center", CENTERS)
def test_checkpoints_of_another_architecture_are_refused(center: Center) -> None:
    svd = TemporalSVD(rank=2, center=center).fit(random_paths((2, 3, 4)))
    message = r"5 parameters were given, .* fitted to 4; use paths of the same architecture"
    with pytest.raises(TiplError, match=message):
        svd.encode_history(random_paths((2, 3, 5)))
    with pytest.raises(TiplError, match=message):
        svd.encode(random_paths((2, 3, 5)), np.zeros((2, 1, 5)))


# --- PathSVD --------------------------------------------------------------------------------------


def test_path_tokens_are_the_svd_of_each_history_in_units_of_its_last_displacement() -> None:
    histories = random_paths((3, 6, 40))
    tokens, directions = PathSVD(rank=3).encode_history(histories)
    for n, history in enumerate(histories):
        rows = history - history[0]
        right = np.linalg.svd(rows)[2][:3]
        right *= np.sign(right @ rows[-1])[:, None]
        size = np.linalg.norm(rows[-1])
        np.testing.assert_allclose(tokens[n], rows @ right.T / size, atol=1e-12)
        np.testing.assert_allclose(directions[n], right * size, atol=1e-11)


@pytest.mark.parametrize("rank", [5, 9])
def test_path_tokens_say_all_of_a_history_if_the_rank_suffices(rank: int) -> None:
    histories = random_paths((3, 6, 40)).astype(np.float32)
    tokens, directions = PathSVD(rank).encode_history(histories)
    assert tokens.shape == (3, 6, rank)
    assert directions.shape == (3, rank, 40)
    displacements = histories - histories[:, :1].astype(np.float64)
    np.testing.assert_allclose(tokens @ directions, displacements, atol=1e-12)
    assert not tokens[:, 0].any()
    np.testing.assert_allclose(np.linalg.norm(tokens[:, -1], axis=1), 1, rtol=1e-12)


def test_directions_that_a_history_lacks_are_zeros() -> None:
    histories = random_paths((2, 3, 40))  # two displacements, so two directions
    path_svd = PathSVD(rank=5)
    encoded = path_svd.encode_history(histories)
    assert encoded.tokens[..., :2].any(axis=1).all()
    assert encoded.directions[:, :2].any(axis=2).all()
    assert not encoded.tokens[..., 2:].any()
    assert not encoded.directions[:, 2:].any()
    assert not path_svd.encode_next(encoded, random_paths((2, 4, 40), seed=1))[..., 2:].any()


def test_a_checkpoint_that_repeats_adds_no_direction() -> None:
    history = random_paths((1, 4, 40))
    repeated = np.repeat(history, 3, axis=1)
    tokens, directions = PathSVD(rank=8).encode_history(repeated)
    assert not directions[:, 3:].any()
    np.testing.assert_allclose(tokens[:, ::3], tokens[:, 2::3], atol=1e-12)


@pytest.mark.parametrize(
    "change",
    [
        lambda histories: 1e-3 * histories,
        lambda histories: histories + np.linspace(-2.0, 2.0, histories.shape[-1]),
        lambda histories: histories @ np.linalg.qr(np.random.default_rng(5).normal(size=(9, 9)))[0],
    ],
    ids=["scaled", "shifted", "rotated"],
)
def test_path_tokens_do_not_change_when_the_whole_path_is(change: Any) -> None:
    path_svd, paths = PathSVD(rank=4), random_paths((3, 7, 9))
    encoded = path_svd.encode_history(paths[:, :5])
    changed = change(paths)
    encoded_changed = path_svd.encode_history(changed[:, :5])
    assert relative_error(changed, paths) > 0.1
    np.testing.assert_allclose(encoded_changed.tokens, encoded.tokens, atol=1e-10)
    np.testing.assert_allclose(
        path_svd.encode_next(encoded_changed, changed - changed[:, :1]),
        path_svd.encode_next(encoded, paths - paths[:, :1]),
        atol=1e-10,
    )


def test_encode_next_goes_on_in_the_basis_of_the_history() -> None:
    path_svd, paths = PathSVD(rank=3), random_paths((2, 8, 40))
    encoded = path_svd.encode_history(paths[:, :5])
    displacements = paths - paths[:, :1]
    tokens = path_svd.encode_next(encoded, displacements)
    np.testing.assert_allclose(tokens[:, :5], encoded.tokens, atol=1e-13)
    for n in range(2):
        solved = np.linalg.lstsq(encoded.directions[n].T, displacements[n].T)[0].T
        np.testing.assert_allclose(tokens[n], solved, atol=1e-12)


@pytest.mark.parametrize("length", [1, 2, 5])
def test_a_history_that_does_not_move_has_tokens_of_zeros(length: int) -> None:
    moving = random_paths((1, length, 40))
    still = np.repeat(moving[:, :1], length, axis=1) + 1
    path_svd = PathSVD(rank=3)
    encoded = path_svd.encode_history(np.concatenate([still, moving]))
    assert not encoded.tokens[0].any()
    assert not encoded.directions[0].any()
    np.testing.assert_array_equal(encoded.tokens[1], path_svd.encode_history(moving).tokens[0])
    assert np.isfinite(path_svd.encode_next(encoded, random_paths((2, 4, 40)))).all()


def test_a_history_that_comes_back_to_its_start_has_finite_tokens() -> None:
    history = random_paths((1, 4, 40))
    history[:, -1] = history[:, 0]
    encoded = PathSVD(rank=3).encode_history(history)
    assert np.isfinite(encoded.tokens).all()
    assert np.isfinite(encoded.directions).all()


def test_nothing_is_fitted_to_paths() -> None:
    path_svd = PathSVD(rank=3)
    assert path_svd.num_coordinates == 3
    assert path_svd.state() == {}
    path_svd.set_state({})


# --- make_tokenizer -------------------------------------------------------------------------------


def test_make_tokenizer() -> None:
    joint, path = make_tokenizer("joint", 3, "mean"), make_tokenizer("path", 4, "initial")
    assert isinstance(joint, TemporalSVD)
    assert (joint.rank, joint.center_kind, joint.min_history) == (3, "mean", 1)
    assert isinstance(path, PathSVD)
    assert (path.rank, path.min_history) == (4, 2)


@pytest.mark.parametrize("center", ["none", "mean"])
def test_a_path_basis_has_no_other_centre_than_its_start(center: Center) -> None:
    with pytest.raises(TiplError, match=rf"center='{center}' .* basis='path'.* center='initial'"):
        make_tokenizer("path", 3, center)
