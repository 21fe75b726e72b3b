"""Every kind of file, every field, every wrong type: a result or one sentence, never a traceback.

The files are real ones, of format 1, or made here; each is changed in one place and sealed again
with a right hash, as whoever wants to do harm would do it.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import importlib
import pkgutil
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tipl
from path_data import make_dataset, write_returns
from tipl.collection.collect import collect
from tipl.collection.groups import TrialGroup
from tipl.core import storage
from tipl.core.schemas import JsonFile, TensorsFile, file_kinds
from tipl.envs.worlds import Worlds
from tipl.errors import TiplError
from tipl.evaluation.experience import Experience
from tipl.evaluation.forecast_sets import FORECASTS, RETURNS, ForecastReturns, ForecastSet
from tipl.experiments.benchmark.ledger import read_costs
from tipl.experiments.config import BENCHMARK, COMPARISON, BenchmarkConfig
from tipl.experiments.films import FILM
from tipl.experiments.scaling.config import SCALING, ScalingConfig
from tipl.experiments.scaling.points import Point, Size
from tipl.experiments.scaling.predicting import PREDICTIONS, Prediction, read_predictions
from tipl.experiments.scaling.records import POINT, Measured
from tipl.experiments.stage_records import read_records
from tipl.experiments.worlds.cells import CELL, cell_file, measured_cell
from tipl.experiments.worlds.config import WORLDS_BENCHMARK, WorldsConfig
from tipl.paths import PathDataset, summarize, verify
from tipl.paths.returns import EvaluationMetadata
from tipl.policies.policy import Policy
from tipl.policies.tasks import get_task
from tipl.ppo.config import PPOConfig
from tried import tried

COUNTS: dict[str, int] = {}
ARRAY_COUNTS: dict[str, int] = {}
"""How many were tried of each kind."""

GOLDEN = Path(__file__).parent / "data" / "format_1"

WRONG: tuple[Any, ...] = (
    *(None, True, -1, 0, 7, 1.5, 2**53, 10**30, 1e308, "", "\x1b]0;x\x07"),
    *([], [1], ["x"], {}, {"x": 1}),
)
"""What is put in the place of every value in turn."""


def places(data: Any, *at: str | int) -> Iterator[tuple[str | int, ...]]:
    """The ways to all values in JSON data; of a long list to the first ones alone."""
    for key in list(data) if isinstance(data, dict) else range(min(len(data), 2)):
        yield (*at, key)
        if isinstance(data[key], dict | list):
            yield from places(data[key], *at, key)


def changed(data: Any, at: tuple[str | int, ...], value: Any) -> Any:
    """The data with another value in one place."""
    new = copy.deepcopy(data)
    owner = new
    for key in at[:-1]:
        owner = owner[key]
    owner[at[-1]] = value
    return new


def without(data: Any, at: tuple[str | int, ...]) -> Any:
    """The data without one of its values."""
    new = copy.deepcopy(data)
    owner = new
    for key in at[:-1]:
        owner = owner[key]
    del owner[at[-1]]
    return new


def variants(data: Any, values: tuple[Any, ...] = WRONG) -> Iterator[Any]:
    """The data with each value in turn left out, and replaced by each of some others."""
    for at in places(data):
        yield without(data, at)
        for value in values:
            yield changed(data, at, value)


# --- the files, and what is done with each ---------------------------------------------------


def use_dataset(directory: Path) -> None:
    """All that can be asked of a dataset."""
    for problem in verify(directory):
        assert problem
    summarize(directory)
    paths = PathDataset.open(directory)
    paths.params()
    paths.physics()
    paths.env_steps()
    paths.observation_statistics()
    paths.policy(0, 0)
    repr(paths)
    list(paths)


def use_returns(directory: Path) -> None:
    summarize(directory)
    PathDataset.open(directory).deterministic_return()


def make_paths(place: Path) -> Path:
    make_dataset(place, normaliser="running", vary={"gravity": [0.5, 2.0]})
    return place / "metadata.json"


def make_evaluation(place: Path) -> Path:
    make_dataset(place)
    metadata = PathDataset.open(place).metadata
    evaluation = EvaluationMetadata(metadata.digest, 2, 1, 0, {})
    write_returns(place, np.zeros((5, 7, 2), np.float32), evaluation)
    return place / "evaluation" / "evaluation.json"


def make_forecasts(place: Path) -> Path:
    shutil.copytree(GOLDEN / "forecasts", place)
    record = storage.read_json(place / "forecasts.json")
    storage.write_json(place / "forecasts.json", record | {"dataset": str(GOLDEN / "paths")})
    return place / "forecasts.json"


def use_forecasts(place: Path) -> None:
    forecasts = ForecastSet.load(place)
    forecasts.weight_errors()
    ForecastReturns.load(place)


def make_stages(place: Path) -> Path:
    shutil.copytree(GOLDEN / "run", place)
    return place / "stages.json"


def make_comparison(place: Path) -> Path:
    shutil.copytree(GOLDEN / "run", place)
    return place / "comparison.json"


def make_benchmark(place: Path) -> Path:
    place.mkdir()
    BenchmarkConfig.for_task("HalfCheetah-v4").write_record(place, None)
    return place / "benchmark.json"


def make_worlds_benchmark(place: Path) -> Path:
    place.mkdir()
    WorldsConfig.for_task("HalfCheetah-v4").write_record(place, None)
    return place / WORLDS_BENCHMARK.name


def make_scaling(place: Path) -> Path:
    place.mkdir()
    ScalingConfig.for_task("HalfCheetah-v4").write_record(place, None, ppo=[[1.0, 2.0]])
    return place / SCALING.name


def make_point(place: Path) -> Path:
    place.mkdir()
    point = Point("own", Size(8, 64, 100), 0)
    errors = {"weight_errors": [0.5, 0.7], "action_errors": [0.5, 0.7]}
    found = Measured("own", "0", 1000, 1e9, [[1.0, 2.0], [3.0, 4.0]], **errors)
    storage.write_json(place / f"{point.slug}{POINT.name}", dataclasses.asdict(found))
    return place / f"{point.slug}{POINT.name}"


def use_point(place: Path) -> None:
    (file,) = place.iterdir()
    found = POINT.read(file)
    assert found.by_policy.shape == (len(found.returns),)


def make_predictions(place: Path) -> Path:
    place.mkdir()
    one = Prediction("trials", "own", "weight_error", 512, 6, 0.4, 0.3, 0.5, True, "0")
    storage.write_json(place / PREDICTIONS.name, {"predictions": [dataclasses.asdict(one)]})
    return place / PREDICTIONS.name


def make_cell(place: Path) -> Path:
    place.mkdir()
    returns = np.ones((2, 3))
    measured_cell(place, "x", "elite", "0", ["a", "b"], lambda: (returns, np.zeros(2, np.int64)))
    return cell_file(place, "x", "elite")


def use_cell(place: Path) -> None:
    cell = CELL.read(cell_file(place, "x", "elite"))
    assert cell.by_world.shape == (len(cell.worlds),)
    assert cell.num_episodes


def make_costs(place: Path) -> Path:
    place.mkdir()
    numbers = {"env_steps": 1.0, "cpu_seconds": 2.0, "flops": None, "peak_rss_mb": 3.0}
    new = {"kind": "stage", "name": "evaluate", "command": "tipl", **numbers}
    old = {"work": "collect x", "command": "tipl", **numbers}
    storage.write_json(place / "costs.json", {"costs": [new, old]})
    return place / "costs.json"


def make_film(place: Path) -> Path:
    place.mkdir()
    record = {"labels": ["a", "b"], "returns": [1.0, 2.0], "model": "x"}
    storage.write_json(place / "film.json", record)
    return place / "film.json"


def make_policy(place: Path) -> Path:
    shutil.copytree(GOLDEN / "policy", place)
    return place / "policy.json"


def use_policy(place: Path) -> None:
    policy = Policy.load(place)
    policy.act(np.zeros(policy.task.observation_size))
    policy.save(place.with_name("again"))


def make_worlds(place: Path) -> Path:
    place.mkdir()
    held_out = {"interpolation": [{"gravity": 1.5, "actuator_gear": 0.5}]}
    training = [{"gravity": 0.5}, {"gravity": 2.0, "actuator_gear": -1.0}]
    Worlds.from_factors("HalfCheetah-v4", {"training": training, **held_out}).save(
        place / "worlds.json"
    )
    return place / "worlds.json"


def use_worlds(place: Path) -> None:
    worlds = Worlds.load(place / "worlds.json")
    for split in worlds.splits:
        worlds.split(split)
        worlds.distances(split, next(iter(worlds.splits)))
    worlds.save(place.with_name("again.json"))


KINDS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], object]]] = {
    "metadata.json": (make_paths, use_dataset),
    "policy.json": (make_policy, use_policy),
    "evaluation.json": (make_evaluation, use_returns),
    "forecasts.json": (make_forecasts, use_forecasts),
    "stages.json": (make_stages, read_records),
    "comparison.json": (make_comparison, lambda place: COMPARISON.read(place / COMPARISON.name)),
    "benchmark.json": (make_benchmark, lambda place: BENCHMARK.read(place / BENCHMARK.name)),
    "worlds-benchmark.json": (
        make_worlds_benchmark,
        lambda place: WORLDS_BENCHMARK.read(place / WORLDS_BENCHMARK.name),
    ),
    ".cell.json": (make_cell, use_cell),
    "scaling.json": (make_scaling, lambda place: SCALING.read(place / SCALING.name)),
    ".point.json": (make_point, use_point),
    "predictions.json": (make_predictions, read_predictions),
    "costs.json": (make_costs, lambda place: read_costs(place / "costs.json")),
    "worlds.json": (make_worlds, use_worlds),
    "film.json": (make_film, lambda place: FILM.read(place / FILM.name)),
}
"""For each kind of JSON file how one is made, and what is done with the folder that it is in."""


@pytest.fixture(scope="module")
def kinds() -> tuple[JsonFile[Any] | TensorsFile[Any], ...]:
    """All kinds of files of the whole package."""
    for module in pkgutil.walk_packages(tipl.__path__, "tipl."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    return file_kinds()


def test_every_kind_of_json_is_tried_here(
    kinds: tuple[JsonFile[Any] | TensorsFile[Any], ...],
) -> None:
    names = {kind.name for kind in kinds if isinstance(kind, JsonFile)}
    assert names == set(KINDS) | {"config.json"}  # of models: see test_hostile_models.py


@pytest.mark.parametrize("name", KINDS)
def test_every_field_of_every_wrong_type(name: str, tmp_path: Path) -> None:
    make, use = KINDS[name]
    file = make(tmp_path / "place")
    use(tmp_path / "place")
    data = storage.read_json(file)
    refused = count = longest = 0
    for variant in variants(data):
        count += 1
        try:
            storage.write_json(file, variant)
        except TiplError:  # what no JSON of ours can hold
            continue
        try:
            use(tmp_path / "place")
        except TiplError as error:
            refused += 1
            longest = max(longest, len(str(error)))
    assert refused > count / 3
    assert longest < 2000
    COUNTS[name] = count


def test_as_many_values_were_tried_as_is_said() -> None:
    if set(COUNTS) == set(KINDS):  # unless some were left out
        tried("wrong values in sealed JSON of every kind", sum(COUNTS.values()))


# --- arrays ----------------------------------------------------------------------------------

OTHERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "other dtype": lambda array: np.zeros(array.shape, "int8"),
    "no values": lambda array: array[:0] if array.ndim else array[None],
    "twice": lambda array: np.concatenate([array, array]) if array.ndim else array[None],
    "one more axis": lambda array: array[None],
    "flat": lambda array: array.reshape(-1) if array.ndim != 1 else array[:1].reshape(()),
    "NaN": lambda array: np.full_like(array, np.nan if array.dtype.kind == "f" else 0),
    "infinite": lambda array: np.full_like(array, np.inf if array.dtype.kind == "f" else 1),
    "negative": lambda array: np.full_like(array, -1 if array.dtype.kind in "fi" else 1),
    "large": lambda array: np.full_like(array, 1e38 if array.dtype.kind == "f" else 1),
}
"""What is made of every array in turn."""

FEW = ("other dtype", "twice", "negative")
"""Of a state that is resumed, which has many arrays, and takes a collection to use."""


def resumed(place: Path) -> None:
    """A collection that goes on from what is there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tipl.collection.collect.check_machine", lambda *_: None)
        collect(
            "InvertedPendulum-v4", out=place, threads=1, progress=False, num_trials=1,
            total_steps=4 * 4, hidden_sizes=(2,), ppo=TINY_PPO,
        )  # fmt: skip


TINY_PPO = PPOConfig(num_steps=4, num_minibatches=2, update_epochs=1)


def make_resume(place: Path) -> Path:
    """What a collection leaves that was stopped in its third iteration."""
    original, saves = TrialGroup._save, []

    def save(self: TrialGroup, *args: Any) -> None:
        original(self, *args)
        saves.append(args)
        if len(saves) == 3:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrialGroup, "_save", save)
        with pytest.raises(TiplError, match="interrupted"):
            resumed(place)
    return place / "resume" / "trials-00000.safetensors"


def make_experience(place: Path) -> Path:
    place.mkdir()
    Experience.of(np.ones((3, 4)), np.ones((3, 1)), np.ones((3, 4))).save(place / "experience")
    return place / "experience"


def use_experience(place: Path) -> None:
    Experience.load(place / "experience").check_task(get_task("InvertedPendulum-v4"))


ARRAYS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], object]]] = {
    "parts": (lambda place: sorted((make_paths(place).parent / "parts").iterdir())[0], use_dataset),
    "evaluation": (lambda place: sorted(make_evaluation(place).parent.iterdir())[1], use_returns),
    "forecasts": (lambda place: make_forecasts(place).parent / FORECASTS.name, use_forecasts),
    "returns": (lambda place: make_forecasts(place).parent / RETURNS.name, use_forecasts),
    "policy": (lambda place: make_policy(place).parent / "policy.safetensors", use_policy),
    "experience": (make_experience, use_experience),
    "resume": (make_resume, resumed),
}
"""Likewise for safetensors."""


@pytest.mark.parametrize("name", ARRAYS)
def test_every_array_of_every_wrong_kind(name: str, tmp_path: Path) -> None:
    make, use = ARRAYS[name]
    file = make(tmp_path / "made")
    arrays, header = storage.read_tensors(file)
    others = [make for kind, make in OTHERS.items() if name != "resume" or kind in FEW]
    cases: list[tuple[dict[str, np.ndarray], dict[str, Any]]] = [
        ({**arrays, "x": np.zeros(2)}, header),
        *(({n: a for n, a in arrays.items() if n != gone}, header) for gone in arrays),
        *(({**arrays, n: make(a)}, header) for n, a in arrays.items() for make in others),
        *((arrays, variant) for variant in variants(header, (None, 7, "x", [1]))),
    ]
    for number, (tensors, metadata) in enumerate(cases):
        place = tmp_path / str(number)
        shutil.copytree(tmp_path / "made", place)
        try:
            storage.write_tensors(place / file.relative_to(tmp_path / "made"), tensors, metadata)
        except TiplError:
            continue
        with contextlib.suppress(TiplError), np.errstate(over="ignore", invalid="ignore"):
            use(place)
        shutil.rmtree(place)
    ARRAY_COUNTS[name] = len(cases)


def test_as_many_arrays_were_tried_as_is_said() -> None:
    if set(ARRAY_COUNTS) == set(ARRAYS):
        what = "wrong arrays and headers in sealed safetensors of every kind"
        tried(what, sum(ARRAY_COUNTS.values()))
