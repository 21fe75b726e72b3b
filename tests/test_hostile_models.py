"""Files and options whose numbers are beyond sense are refused before anything is built."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tipl
from path_data import make_arrays, make_metadata, write_parts
from test_file_kinds import OTHERS, variants
from tipl.core import storage
from tipl.errors import TiplError
from tipl.experiments.run import Run
from tipl.experiments.run_report import training_curves
from tipl.forecast.base import Forecaster
from tipl.forecast.description import MODEL
from tipl.forecast.hub import SHIPPED, shipped_models
from tipl.forecast.trained import TrainedForecaster
from tipl.models import building
from tipl.models.kinds import make_config, recorded_config
from tipl.paths import PathDataset, create_dataset
from tipl.policies.layout import ParamLayout, actor_layout, check_hidden_sizes

TASK = tipl.Policy.initial("InvertedPendulum-v4", hidden=(3,)).task


@pytest.fixture(autouse=True)
def little_memory() -> Any:
    """Whatever is refused is refused before it takes any."""
    tracemalloc.start()
    yield
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50 << 20


# --- networks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sizes", [(), (0,), (-1,), (True,), (10**9,), (65_537,), (3,) * 65, (10**400,)]
)
def test_hidden_sizes_beyond_sense_are_refused(sizes: tuple[int, ...]) -> None:
    with pytest.raises(TiplError, match=r"hidden sizes .* were given; expected one positive"):
        check_hidden_sizes(sizes)
    with pytest.raises(TiplError, match="hidden sizes"):
        tipl.Policy.initial(TASK, hidden=sizes)


def test_so_are_networks_of_too_many_weights() -> None:
    with pytest.raises(TiplError, match="at most 100,000,000 parameters"):
        tipl.Policy.initial(TASK, hidden=(65_536, 65_536))


@pytest.mark.parametrize(
    "data",
    [
        [["a", [10**12]]],
        [["a", [10**6, 10**6]]],
        [["a", [-1]]],
        [["a", [0]]],
        [["a", [True]]],
        [["a", [2.0]]],
        [["a", ["2"]]],
        [["a", [2]], ["a", [2]]],
        [["a", [10**400]]],
        [[1, [2]]],
        [["a", 2]],
        [],
        ["ab"],
        {"a": [2]},
        {"arrays": [["a", [2]]], "squashed": 1},
        {"arrays": [["a", [2]]], "activation": 3},
        {"arrays": None},
        None,
        3,
    ],
)
def test_layouts_of_files_are_of_possible_arrays(data: Any) -> None:
    with pytest.raises(TiplError, match="parameter layout"):
        ParamLayout.from_json(data)


# --- options of trainings -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "option"),
    [
        *((kind, name) for kind in ("path", "neuron", "wnn", "nino")
          for name in ("width", "batch_size", "num_steps")),
        ("path", "rank"), ("path", "depth"), ("path", "heads"), ("neuron", "rounds"),
        ("neuron", "context"), ("neuron", "memory"), ("neuron", "heads"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", [10**12, -1])
def test_options_beyond_sense_are_refused(model: str, option: str, value: int) -> None:
    with pytest.raises(TiplError, match=f"{option}|heads"):
        make_config(model, **{option: value})


def test_so_are_widths_of_fresh_networks() -> None:
    with pytest.raises(TiplError, match="fresh_widths is"):
        make_config("neuron", fresh_widths=(10**9,))


def test_models_of_too_many_numbers_are_not_built(paths: PathDataset) -> None:
    options: dict[str, Any] = {"width": 4096, "heads": 4, "num_steps": 1, "progress": False}
    for model, deep in (("path", "depth"), ("neuron", "rounds")):
        with pytest.raises(TiplError, match=r"a model of .* numbers was asked for"):
            tipl.train(
                paths, model=model, **{deep: 64}, **options,
                **({"targets": ("own",)} if model == "neuron" else {}),
            )  # fmt: skip


# --- files of models ------------------------------------------------------------------------------

MODELS: dict[str, dict[str, Any]] = {
    "path-joint": {"model": "path", "rank": 3, "depth": 1, "condition_on_return": True},
    "path-path": {"model": "path", "rank": 2, "depth": 1, "basis": "path"},
    "neuron": {
        "model": "neuron", "targets": ("own",), "rounds": 1, "context": 2,
        "condition_on_return": True,
    },
    "wnn": {"model": "wnn"},
    "nino": {"model": "nino"},
}  # fmt: skip

each_model = pytest.mark.parametrize("name", MODELS)

EACH = 1 if os.environ.get("TIPL_ALL_VARIANTS") else 40
"""Of the files that are not refused at once, one in so many is used; all by an environment
variable, which takes minutes."""


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> PathDataset:
    directory, metadata = tmp_path_factory.mktemp("paths") / "paths", make_metadata()
    arrays = make_arrays(metadata)
    arrays["diverged"][:] = False
    arrays["params"] = np.nan_to_num(arrays["params"])
    create_dataset(directory, metadata)
    write_parts(directory, metadata, arrays)
    return PathDataset.open(directory)


@pytest.fixture(scope="module")
def models(paths: PathDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of one small model of each kind."""
    directory = tmp_path_factory.mktemp("models")
    split = paths.split(0.34)
    for name, options in MODELS.items():
        tipl.train(
            split.train, held_out=split.held_out, num_steps=1, width=4, batch_size=2, threads=1,
            progress=False, out=directory / name, **options,
        )  # fmt: skip
    return directory


def use(directory: Path) -> TrainedForecaster:
    """All that is asked of a model: forecasts, better policies, and what reports read of it."""
    model = Forecaster.from_pretrained(directory)
    layout = actor_layout(model.task, model.hidden_sizes)
    history = np.random.default_rng(0).standard_normal((3, layout.size)).astype(np.float32)
    for asked in model.all_ways():
        asked.forecast(history, [1, 2], layout=layout)
        if asked.min_history == 1:
            asked.optimize(tipl.Policy.initial(model.task, 0, model.hidden_sizes))
    run = object.__new__(Run)  # of which reports read the models alone here
    vars(run).update(stages=[], models={"it": model})
    list(run._model_rows())
    list(training_curves(run))
    recorded_config(model.settings.get("train", {}))
    return model


@each_model
def test_every_field_of_every_wrong_type(name: str, models: Path, tmp_path: Path) -> None:
    use(models / name)
    data = storage.read_json(models / name / MODEL.name)
    tried, passed = 0, list[Any]()
    for variant in variants(data):
        tried += 1
        with contextlib.suppress(TiplError):
            MODEL.schema.from_json(variant)
            passed.append(variant)
    assert len(passed) < 0.7 * tried
    place = tmp_path / "model"
    Forecaster.from_pretrained(models / name).save_pretrained(place)
    for variant in passed[::EACH]:
        with contextlib.suppress(TiplError):
            storage.write_json(place / MODEL.name, variant)
            use(place)


@each_model
def test_every_array_of_every_wrong_kind(name: str, models: Path, tmp_path: Path) -> None:
    place = tmp_path / "model"
    Forecaster.from_pretrained(models / name).save_pretrained(place)
    file = place / "model.safetensors"
    arrays, header = storage.read_tensors(file)
    chosen = list(arrays)[:: len(arrays) // 3]
    cases = [{n: arrays[n] for n in arrays if n != gone} for gone in chosen]
    cases.append(arrays | {"x": np.zeros(2)})
    for other in OTHERS.values():
        cases += [arrays | {name: other(arrays[name])} for name in chosen]
    for changed in cases:
        with contextlib.suppress(TiplError), np.errstate(all="ignore"):
            storage.write_tensors(file, changed, header)
            use(place)
            assert changed.keys() == arrays.keys()


SIZES = {
    "depth", "width", "heads", "rounds", "memory", "num_coordinates", "max_checkpoints", "context",
}  # fmt: skip


@each_model
@pytest.mark.parametrize("value", [10**12, 2**53, 0, -1, True])
def test_models_of_sizes_that_their_files_do_not_have_are_not_built(
    name: str, value: int, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = storage.read_json(models / name / MODEL.name)
    place = tmp_path / "model"
    Forecaster.from_pretrained(models / name).save_pretrained(place)
    sizes = data["models"]["own"] if name == "neuron" else data["model"]
    monkeypatch.setattr(building, "filled", None)  # nothing gets that far
    for field in SIZES & {*sizes}:
        if (field, value) == ("memory", 0):
            continue
        before = sizes[field]
        sizes[field] = value
        storage.write_json(place / MODEL.name, data)
        with pytest.raises(TiplError, match=r"config\.json"):
            Forecaster.from_pretrained(place)
        sizes[field] = before


@pytest.mark.parametrize("change", [1, -1])
@each_model
def test_sizes_are_compared_with_the_arrays_on_the_disk(
    name: str, change: int, models: Path, tmp_path: Path
) -> None:
    data = storage.read_json(models / name / MODEL.name)
    place = tmp_path / "model"
    Forecaster.from_pretrained(models / name).save_pretrained(place)
    sizes = data["models"]["own"] if name == "neuron" else data["model"]
    for field in {"depth", "rounds", "width", "memory"} & {*sizes}:
        before, sizes[field] = sizes[field], max(0, sizes[field] + 4 * change)
        storage.write_json(place / MODEL.name, data)
        if before != sizes[field]:
            with pytest.raises(TiplError, match=r"config\.json"):
                Forecaster.from_pretrained(place)
        sizes[field] = before


@pytest.mark.parametrize("name", shipped_models())
def test_shipped_models_are_as_described(name: str) -> None:
    said = MODEL.read(SHIPPED / name / MODEL.name)
    assert said.forecaster._array_types(said.config)
    assert dataclasses.is_dataclass(recorded_config(said.config["settings"]["train"]))
