"""What is not finite, or would not stay so, is refused where it comes in, and nothing is saved."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tipl
from path_data import make_arrays, make_metadata, write_parts
from tipl.cli import main
from tipl.core import storage
from tipl.errors import TiplError
from tipl.evaluation.forecast_sets import ForecastCase, ForecastReturns, ForecastSet
from tipl.evaluation.returns import evaluate_stack
from tipl.forecast.base import Forecaster
from tipl.forecast.extrapolation import (
    RELEX,
    DynamicModeDecomposition,
    LastDifferenceLine,
    LeastSquaresLine,
    PathTrimmingAndBoosting,
    TwoPointLine,
)
from tipl.forecast.memory import MatchedNoise, MeanDisplacement, NearestPath
from tipl.forecast.trained import TrainedForecaster
from tipl.jumps.config import JumpConfig
from tipl.jumps.jumper import Jumper
from tipl.models.kinds import Kind, all_kinds
from tipl.paths import PathDataset, create_dataset

Array = np.ndarray[Any, np.dtype[Any]]

SHORT: dict[str, Any] = {"num_steps": 2, "width": 8, "batch_size": 4, "progress": False}
OWN: dict[str, Any] = {"neuron": {"targets": ("own",)}}
METADATA = make_metadata()
LAYOUT = METADATA.layout

KINDS = [kind for kind in all_kinds(registered=False) if not kind.lineages]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def dataset(directory: Path, **broken: tuple[tuple[int, ...], float]) -> PathDataset:
    """A small dataset in which one number of an array is another one."""
    arrays = make_arrays(METADATA)
    arrays["diverged"][:] = False
    arrays["params"] = np.nan_to_num(arrays["params"])
    for name, (place, value) in broken.items():
        arrays[name][place] = value
    create_dataset(directory, METADATA)
    write_parts(directory, METADATA, arrays)
    return PathDataset.open(directory)


def trained(kind: Kind, paths: PathDataset, **options: Any) -> TrainedForecaster:
    return tipl.train(paths, model=kind.name, **SHORT | OWN.get(kind.name, {}) | options)


# --- training -------------------------------------------------------------------------------------


@each_kind
def test_weights_too_large_to_learn_from_are_refused(kind: Kind, tmp_path: Path) -> None:
    paths = dataset(tmp_path / "paths", params=((2, 4, 3), 1e38))
    with pytest.raises(TiplError, match=r"trial 2 of .*paths has the weight 1e\+38 at che"):
        trained(kind, paths)


@each_kind
def test_so_are_held_out_ones(kind: Kind, tmp_path: Path) -> None:
    paths = dataset(tmp_path / "paths", params=((2, 4, 3), -1e38))
    with pytest.raises(TiplError, match=r"trial 2 of .*paths has the weight -1e\+38"):
        trained(kind, paths.select([0, 1]), held_out=paths.select([2]))


@each_kind
def test_infinite_returns_are_refused(kind: Kind, tmp_path: Path) -> None:
    with pytest.raises(TiplError, match=r"paths.* of trial 1, have an infinite return"):
        trained(kind, dataset(tmp_path / "paths", episodic_return=((1, 3), np.inf)))


def test_returns_far_from_those_of_the_first_dataset_are_refused(tmp_path: Path) -> None:
    first, second = (dataset(tmp_path / name) for name in ("first", "second"))
    few = (slice(None), slice(None)), 1.0
    first = dataset(tmp_path / "alike", episodic_return=few)
    second = dataset(tmp_path / "large", episodic_return=((1, 3), 3e38))
    with pytest.raises(TiplError, match=r"returns from .* to 3e\+38 were given where those of the"):
        tipl.train([first, second], model="neuron", targets=("own",), **SHORT)


def test_a_path_that_comes_back_is_refused_in_a_basis_of_its_own(tmp_path: Path) -> None:
    paths = dataset(tmp_path / "paths")
    params = paths.params()
    params[0, 1] = params[0, 0]
    params[0, 1, 0] = params[0, 0, 0] = 0.0
    params[0, 1, 0] = 1e-44  # a way of no length, but for one weight
    again = dataset(tmp_path / "again", params=((0,), params[0]))  # type: ignore[arg-type]
    with pytest.raises(TiplError, match="it has come back to where it started"):
        tipl.train(again, basis="path", **SHORT)


@each_kind
def test_a_training_that_diverges_leaves_the_model_that_was_there(
    kind: Kind, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths, out = dataset(tmp_path / "paths"), tmp_path / "model"
    trained(kind, paths).save_pretrained(out)
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    arguments = ["train", str(paths.directory), "--out", str(out), "--model", kind.name]
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--learning-rate", "1e30", "--num-steps", "9", "--width", "8"])
    assert stopped.value.code == 2
    assert " the training diverged at step 2 of 9 (the " in capsys.readouterr().err
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before


def test_rates_that_leave_float32_are_refused() -> None:
    for option in ("learning_rate", "weight_decay"):
        with pytest.raises(TiplError, match=f"{option} is 1e\\+38; expected at most 1"):
            tipl.TrainConfig(**{option: 1e38})


# --- models ---------------------------------------------------------------------------------------


@each_kind
def test_a_model_that_is_not_finite_is_neither_saved_nor_loaded(kind: Kind, tmp_path: Path) -> None:
    model = trained(kind, dataset(tmp_path / "paths"))
    model.save_pretrained(tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    arrays, _ = storage.read_tensors(file)
    name = next(name for name, array in arrays.items() if array.dtype.kind == "f" and array.size)
    arrays[name].flat[0] = np.nan
    storage.write_tensors(file, arrays, {"kind": "model"})
    with pytest.raises(TiplError, match=rf"safetensors has 1 of \d+ numbers of '{name}' that"):
        Forecaster.from_pretrained(tmp_path / "model")
    model._tensors()[name].flat[0] = np.nan  # a view of the model's own
    with pytest.raises(TiplError, match=r"is to be saved in .*other has 1 of \d+ numbers of"):
        model.save_pretrained(tmp_path / "other")
    assert not (tmp_path / "other").exists()


# --- forecasts ------------------------------------------------------------------------------------

FAR = np.broadcast_to(np.linspace(0, 3e38, 9, dtype=np.float32)[:, None], (3, 9, LAYOUT.size))
RIVALS = [
    LastDifferenceLine(),
    LeastSquaresLine(),
    TwoPointLine(),
    RELEX(),
    MeanDisplacement(FAR, LAYOUT),
    NearestPath(FAR, LAYOUT),
    MatchedNoise(FAR, LAYOUT),
]


@pytest.mark.parametrize("rival", RIVALS, ids=lambda rival: rival.name)
def test_rivals_whose_forecast_overflows_are_named(rival: Forecaster) -> None:
    rising = np.arange(5, dtype=np.float32)[:, None] * np.full(LAYOUT.size, 8e37, np.float32)
    message = f"{rival.name} forecasts weights that are NaN or infinite from history [12] of 2, "
    with pytest.raises(TiplError, match=message):
        rival.forecast(np.stack([0 * rising, rising]), 50, layout=LAYOUT)
    found = rival.forecast(np.stack([0 * rising, rising]), [1, 50], layout=LAYOUT, finite=False)
    assert found.shape == (2, 2, LAYOUT.size)
    assert not np.isfinite(found[1, 1]).all()


@pytest.mark.parametrize("scale", [0.0, 1e-44, 1e-30, 1e30, 1e37])
@pytest.mark.parametrize(
    "rival", [*RIVALS[:4], PathTrimmingAndBoosting(), DynamicModeDecomposition()]
)
def test_extrapolations_of_odd_histories_end_in_a_forecast_or_a_sentence(
    rival: Forecaster, scale: float
) -> None:
    walk = np.random.default_rng(1).standard_normal((6, LAYOUT.size), np.float32).cumsum(axis=0)
    for horizon in (1, 10**9):
        with contextlib.suppress(TiplError):
            assert np.isfinite(rival.forecast(walk * np.float32(scale), horizon)).all()
    with pytest.raises(TiplError, match="a horizon beyond 1,000,000,000 checkpoints"):
        rival.forecast(walk, 10**400)


class Overflowing(Forecaster):
    """Is finite in one of two horizons alone."""

    name = "overflowing"
    num_checkpoints = 9

    def _forecast(self, histories: Array, horizons: list[int], layout: object) -> Array:
        ahead = np.repeat(histories[:, -1:], len(horizons), axis=1)
        ahead[:, [horizon > 1 for horizon in horizons]] = np.inf
        return ahead


def test_policies_that_are_not_finite_are_not_made() -> None:
    policies = [tipl.Policy.initial("InvertedPendulum-v4", seed, (3,)) for seed in range(2)]
    message = "overflowing forecasts weights that are NaN or infinite from history 1 of 2, 8 check"
    with pytest.raises(TiplError, match=message):
        Overflowing().optimize(policies)


@pytest.mark.parametrize("gate", [False, True])
def test_nothing_jumps_to_a_forecast_that_is_not_finite(gate: bool) -> None:
    ran = []

    def evaluate(weights: Array, runs: Array, when: int) -> tuple[Array, Array]:
        ran.append(weights)
        return np.arange(len(weights), dtype=np.float64)[:, None], np.ones((len(weights), 1), int)

    config = JumpConfig(horizons=(2,), min_history=1, every=1, budget=9.0, gate=gate)
    jumper = Jumper(config, Overflowing(), 1, LAYOUT, evaluate, None)  # type: ignore[arg-type]
    params = np.zeros((1, LAYOUT.size), np.float32)
    jumps = jumper.before_rollout(params, np.array([9]), np.array([np.nan]))
    assert not jumps.jumped.any()
    assert all(np.isfinite(weights).all() for weights in ran)


def test_sets_of_forecasts_are_finite(tmp_path: Path) -> None:
    paths = dataset(tmp_path / "paths")
    case, shape = ForecastCase("line", 2, 3), (1, len(paths), LAYOUT.size)
    good = ForecastSet(paths, [case], np.zeros(shape, np.float32), {})
    good.save(tmp_path / "forecasts")
    params = np.zeros(shape, np.float32)
    params[0, 4, 1] = np.inf
    message = "line forecasts weights that are NaN or infinite for trial 4, 3 checkpoints after ch"
    with pytest.raises(TiplError, match=message):
        ForecastSet(paths, [case], params, {})
    file = tmp_path / "forecasts" / "forecasts.safetensors"
    storage.write_tensors(file, {"params": params}, {"kind": "forecasts"})
    with pytest.raises(TiplError, match=message):
        ForecastSet.load(tmp_path / "forecasts")


def test_so_are_their_returns(tmp_path: Path) -> None:
    returns = {"forecasts": np.zeros((1, 2, 3)), "checkpoints": np.zeros((2, 4, 3))}
    ForecastReturns(**returns).save(tmp_path, "tipl evaluate")
    returns["checkpoints"][1, 2, 0] = np.nan
    message = "the checkpoints of a set of forecasts are NaN or infinite in 1 of 24 places"
    with pytest.raises(TiplError, match=message):
        ForecastReturns(**returns)
    storage.write_tensors(
        tmp_path / "returns.safetensors", returns, {"kind": "returns", "command": "tipl evaluate"}
    )
    with pytest.raises(TiplError, match=message):
        ForecastReturns.load(tmp_path)


# --- policies and their tasks ---------------------------------------------------------------------

POLICY = tipl.Policy.initial("InvertedPendulum-v4", hidden=(3,))
STATISTICS = {
    "zero": np.array([1.0, 0.0, 1.0, 1.0]),
    "negative": np.array([1.0, -1.0, 1.0, 1.0]),
    "nan": np.array([1.0, np.nan, 1.0, 1.0]),
    "inf": np.array([1.0, np.inf, 1.0, 1.0]),
    "int": np.ones(4, np.int64),
    "bool": np.ones(4, bool),
    "complex": np.ones(4, complex),
    "object": np.ones(4, object),
    "short": np.ones(3),
    "row": np.ones((1, 4)),
}
BROKEN = [("observation_std", name) for name in STATISTICS]
BROKEN += [("observation_mean", name) for name in STATISTICS if name not in ("zero", "negative")]
PARAMS = {
    "int": np.ones(POLICY.params.size, np.int32),
    "bool": np.ones(POLICY.params.size, bool),
    "complex": np.ones(POLICY.params.size, complex),
    "object": np.ones(POLICY.params.size, object),
    "too large": np.full(POLICY.params.size, 1e300),
    "row": POLICY.params[None],
}


@pytest.mark.parametrize(("what", "how"), BROKEN)
def test_policies_of_impossible_normalisers_are_refused(
    what: str, how: str, tmp_path: Path
) -> None:
    values = {what: STATISTICS[how]}
    with pytest.raises(TiplError, match=what):
        tipl.Policy(POLICY.params, POLICY.layout, POLICY.task, **values)
    if STATISTICS[how].dtype.kind in "fib":  # of what can be stored
        with pytest.raises(TiplError, match=what):
            tipl.Policy.load(stored_policy(tmp_path, **values))


@pytest.mark.parametrize("how", PARAMS)
def test_policies_of_impossible_weights_are_refused(how: str, tmp_path: Path) -> None:
    with pytest.raises(TiplError, match="parameters"):
        tipl.Policy(PARAMS[how], POLICY.layout, POLICY.task)
    if PARAMS[how].dtype.kind in "fib":
        with pytest.raises(TiplError, match="params"):
            tipl.Policy.load(stored_policy(tmp_path, params=PARAMS[how]))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_of_any_precision_are_taken(dtype: type[np.floating[Any]]) -> None:
    policy = tipl.Policy(POLICY.params.astype(dtype), POLICY.layout, POLICY.task)
    assert policy.params.dtype == np.float32


@pytest.mark.parametrize("clip", [0.0, -1.0, np.nan])
def test_impossible_clips_are_refused(clip: float, tmp_path: Path) -> None:
    with pytest.raises(TiplError, match=r"observation clip .* expected a number above 0"):
        tipl.Policy(POLICY.params, POLICY.layout, POLICY.task, observation_clip=clip)
    if clip == clip:
        directory = stored_policy(tmp_path)
        said = storage.read_json(directory / "policy.json") | {"observation_clip": clip}
        storage.write_json(directory / "policy.json", said)
        with pytest.raises(TiplError, match="observation_clip"):
            tipl.Policy.load(directory)


def stored_policy(directory: Path, **arrays: Array) -> Path:
    """A policy whose file holds other arrays, under a valid hash."""
    POLICY.save(directory / "policy")
    file = directory / "policy" / "policy.safetensors"
    tensors, header = storage.read_tensors(file)
    storage.write_tensors(file, tensors | arrays, header)
    return directory / "policy"


@pytest.mark.parametrize("how", ["zero", "negative", "nan", "inf"])
def test_so_are_stacks_of_policies(how: str) -> None:
    std = STATISTICS[how][None]
    with pytest.raises(TiplError, match=r"a stack of policies has .* in 'observation_std'"):
        evaluate_stack(
            POLICY.params[None], POLICY.layout, POLICY.task, 1, statistics=(np.zeros((1, 4)), std)
        )
    with pytest.raises(TiplError, match="observation clip"):
        evaluate_stack(POLICY.params[None], POLICY.layout, POLICY.task, 1, clip=np.nan)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"observation_size": 10**12}, "1000000000000 in 'observation_size'"),
        ({"action_size": -1}, "-1 in 'action_size'"),
        ({"observation_size": True}, "True in 'observation_size'"),
        ({"max_episode_steps": 10**12}, "1000000000000 in 'max_episode_steps'"),
        ({"first_action": 10**30, "action_low": (), "action_high": ()}, "'first_action'"),
        ({"physics": (("gravity", 0.0),)}, "'gravity' have the factor 0.0"),
        ({"physics": (("gravity", np.nan),)}, "'gravity' have the factor nan"),
        ({"action_dtype": "int8", "action_low": (-300.0,)}, "'int8' in 'action_dtype'"),
        ({"action_dtype": "float32", "action_high": (1e300,)}, "'float32' in 'action_dtype'"),
        ({"action_dtype": "float32,float32"}, "'action_dtype'"),
    ],
)
def test_tasks_of_impossible_numbers_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(TiplError, match=message):
        dataclasses.replace(POLICY.task, **change)


@pytest.mark.parametrize(
    "spec",
    ["[" * 100_000, "{", "[]", '{"kwargs": 1}', '{"additional_wrappers": 3}', "true",
     '{"additional_wrappers": ["x"]}', '{"max_episode_steps": true}'],
)  # fmt: skip
def test_gymnasium_specs_that_say_nothing_possible_are_refused(spec: str) -> None:
    task = dataclasses.replace(POLICY.task, gymnasium_spec=spec)
    if spec != "[]":  # says nothing at all
        with pytest.raises(TiplError, match=r"Gymnasium spec of the task .* is damaged"):
            assert task.wrappers
    else:
        assert task.wrappers == []
