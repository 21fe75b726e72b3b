"""Equal seeds make the bytes that they made before: datasets, models, forecasts, policies, runs."""

from __future__ import annotations

import numpy as np
import pytest

from equal_bytes import MODELS, TRAINING, Arrays, digest, fingerprint, load_record, made, outline

RECORD = load_record()
EPS = float(np.finfo(np.float32).eps)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Arrays]:
    return dict(made(tmp_path_factory.mktemp("equal-bytes")))


@pytest.fixture(scope="module")
def recorded_digests() -> dict[str, str]:
    digests: dict[str, str] | None = RECORD["digests"].get(fingerprint())
    if digests is None:
        pytest.skip("nothing has been recorded on a processor that computes as this one does")
    return digests


def test_all_that_is_recorded_is_made(found: dict[str, Arrays]) -> None:
    assert list(found) == list(RECORD["outlines"])
    for digests in RECORD["digests"].values():
        assert set(digests) <= set(found) - {"actions"}


@pytest.mark.parametrize("name", [name for name in RECORD["outlines"] if name != "actions"])
def test_bytes_are_as_recorded_where_processors_compute_alike(
    name: str, found: dict[str, Arrays], recorded_digests: dict[str, str]
) -> None:
    if name not in recorded_digests:
        pytest.skip("it was recorded anew, and not yet on such a processor")
    assert digest(found[name]) == recorded_digests[name]


def tolerance(name: str) -> tuple[float, float]:
    """How far rounding may lead another processor: a share of the values' size, and a distance.

    A policy meets rounding in every step, and its environment and updates pass on a multiple of
    it. Of a model, some gradients are 0 but for rounding (that of a key's bias, which softmax
    cancels), and Adam goes a whole step where they point.
    """
    if "HalfCheetah" in name:
        return 0.1, 0.0  # contacts are chaotic: 128 steps let rounding grow by five digits
    if name.startswith("model"):
        return 2**10 * EPS, 2 * TRAINING["num_steps"] * 2e-3
    if "jumping run of stable-baselines3" in name:
        return 2**10 * EPS, 60 * 1e-3  # Adam refits the critic in 30 passes of two steps
    return 2**10 * EPS, 0.0


@pytest.mark.parametrize("name", RECORD["outlines"])
def test_values_are_as_recorded_but_for_rounding(name: str, found: dict[str, Arrays]) -> None:
    values, expected = outline(found[name]), RECORD["outlines"][name]
    share, distance = tolerance(name)
    assert list(values) == list(expected)
    for array, numbers in expected.items():
        scale = np.sqrt(np.nanmean(np.square(numbers))) if np.isfinite(numbers).any() else 0.0
        np.testing.assert_allclose(
            values[array], numbers, rtol=0, atol=share * scale + distance, err_msg=array
        )


@pytest.mark.parametrize(
    ("name", "counter"),
    [
        ("dataset: jumps", "jumps"),
        ("dataset: jumps of a model", "jumps"),
        ("dataset: jumps that are not tested", "rollbacks"),
    ],
)
def test_the_recorded_collections_jump(name: str, counter: str, found: dict[str, Arrays]) -> None:
    counts = [array[:, -1] for key, array in found[name].items() if key.endswith(f": {counter}")]
    assert np.concatenate(counts).any()


def test_a_model_of_each_kind_is_recorded() -> None:
    assert {options["model"] for options in MODELS.values()} == {"path", "neuron", "wnn", "nino"}


def test_digests_tell_arrays_apart() -> None:
    one = {"a": np.arange(6.0), "b": np.zeros(2, np.int64)}
    again = dict(reversed([(name, array.copy()) for name, array in one.items()]))
    assert digest(one) == digest(again)
    for other in (
        {**one, "a": np.nextafter(one["a"], 9)},
        {**one, "a": one["a"].reshape(2, 3)},
        {**one, "b": np.zeros(2, np.int32)},
        {"a": one["a"], "c": one["b"]},
    ):
        assert digest(other) != digest(one)
