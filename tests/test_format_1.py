"""Files that an earlier tipl wrote, all of format 1, open and say the same.

`data/format_1/make.sh` are the commands that made them, at commit 2ed6392.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from results_files import read_results
from tipl import Forecaster, PathDataset, Policy
from tipl.cli import main
from tipl.evaluation.forecast_sets import ForecastReturns, ForecastSet
from tipl.experiments.config import COMPARISON
from tipl.experiments.stage_records import read_records

FILES = Path(__file__).parent / "data" / "format_1"
MODELS = ("path-transformer", "neuron-transformer", "wnn", "nino")


def stored(dataset: str, name: str) -> np.ndarray[Any, Any]:
    """An array `[N, T, ...]` of a dataset whose parts hold all checkpoints of some trials."""
    parts = sorted((FILES / dataset / "parts").iterdir())
    return np.concatenate([load_file(part)[name] for part in parts])


@pytest.fixture(scope="module")
def forecasts(tmp_path_factory: pytest.TempPathFactory) -> ForecastSet:
    """The set of forecasts; it names its dataset by a path from where the commands were run."""
    place = tmp_path_factory.mktemp("format-1")
    shutil.copytree(FILES / "forecasts", place / "forecasts")
    here = os.getcwd()
    os.chdir(FILES)
    try:
        return ForecastSet.load(place / "forecasts")
    finally:
        os.chdir(here)


# --- datasets --------------------------------------------------------------------------------


def test_a_dataset_opens() -> None:
    paths = PathDataset.open(FILES / "paths")
    np.testing.assert_array_equal(paths.params(), stored("paths", "params"))
    np.testing.assert_array_equal(paths.episodic_return(), stored("paths", "episodic_return"))
    assert paths.layout.hidden_sizes == (5, 4)
    assert paths.metadata.normaliser == "frozen"
    assert paths.global_step.tolist() == [128 * i for i in range(7)]


def test_a_dataset_of_varied_worlds_and_running_statistics_opens() -> None:
    paths = PathDataset.open(FILES / "varied")
    np.testing.assert_array_equal(paths.params(), stored("varied", "params"))
    assert (paths.metadata.networks, paths.metadata.normaliser) == ("actor+critic", "running")
    gravity = paths.physics()["gravity"]
    np.testing.assert_array_equal(gravity, stored("varied", "physics")[:, 0, 0])
    assert ((gravity >= 0.7) & (gravity <= 1.4)).all()


@pytest.mark.parametrize("dataset", ["paths", "varied"])
def test_every_byte_of_a_dataset_is_found_in_order(
    dataset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["paths", "verify", str(FILES / dataset)])
    main(["paths", "show", str(FILES / dataset)])
    assert "InvertedPendulum-v4" in capsys.readouterr().out


# --- models, forecasts, policies -------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_each_kind_opens_and_is_saved_as_it_was(name: str, tmp_path: Path) -> None:
    model = Forecaster.from_pretrained(FILES / name)
    model.save_pretrained(tmp_path / "again")
    before, after = (
        load_file(at / "model.safetensors") for at in (FILES / name, tmp_path / "again")
    )
    assert set(before) == set(after)
    for tensor, values in before.items():
        np.testing.assert_array_equal(after[tensor], values)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_each_kind_forecasts_what_it_forecast(name: str, forecasts: ForecastSet) -> None:
    model = Forecaster.from_pretrained(FILES / name)
    asked = {one.name: one for one in model.all_ways()}
    paths = PathDataset.open(FILES / "paths").select(forecasts.paths.trials)
    params, layout = paths.params(), paths.layout
    compared = 0
    for case, expected in zip(forecasts.cases, forecasts.params, strict=True):
        if case.method not in asked:
            continue
        history = params[:, : case.start + 1]
        found = asked[case.method].forecast(history, case.horizon, layout=layout)
        # a few hundred roundings, of weights of about 1
        np.testing.assert_allclose(found, expected, rtol=0, atol=256 * np.finfo(np.float32).eps)
        compared += 1
    assert compared >= 2


def test_forecasts_and_their_returns_open(forecasts: ForecastSet) -> None:
    tensors = load_file(FILES / "forecasts" / "forecasts.safetensors")
    np.testing.assert_array_equal(forecasts.params, tensors["params"])
    np.testing.assert_array_equal(forecasts.end_distances, tensors["end_distances"])
    returns, command = ForecastReturns.load(FILES / "forecasts")
    assert returns.forecasts.shape == (len(forecasts.cases), len(forecasts.paths), 1)
    assert command == "tipl evaluate forecasts --episodes 1 --seed 0"


def test_a_policy_opens_and_acts() -> None:
    policy = Policy.load(FILES / "policy")
    stored_policy = load_file(FILES / "policy" / "policy.safetensors")
    np.testing.assert_array_equal(policy.params, stored_policy["params"])
    np.testing.assert_array_equal(policy.observation_std, stored_policy["observation_std"])
    assert policy.act(np.zeros(4)).shape == (1,)


# --- results ---------------------------------------------------------------------------------


@pytest.mark.parametrize("directory", ["forecasts", "run"])
def test_results_open_with_their_settings_and_numbers(directory: str) -> None:
    file = FILES / directory / "results.jsonl"
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    results = read_results(file)
    assert len(results) == len(lines) > 80
    for result, line in zip(results, lines, strict=True):
        for name in ("task", "method", "setting", "metric", "n_trials", "n_episodes", "command"):
            assert getattr(result, name) == line[name]
        for name in ("value", "low", "high"):
            number = getattr(result, name)
            assert number == line[name] or (math.isnan(number) and line[name] is None)


def test_what_the_stages_of_a_run_took_opens() -> None:
    written = json.loads((FILES / "run" / "stages.json").read_text(encoding="utf-8"))["stages"]
    records = read_records(FILES / "run")
    assert list(records) == [stage["name"] for stage in written]
    for stage in written:
        record = records[stage["name"]]
        assert record.command == stage["command"]
        assert record.cpu_seconds == stage["cpu_seconds"]
        assert record.peak_rss_mb == stage["peak_rss_mb"]


def test_what_a_comparison_was_told_opens() -> None:
    record = COMPARISON.read(FILES / "run" / COMPARISON.name)
    config = record.config
    assert record.command.startswith("tipl accelerate InvertedPendulum-v4 --out run")
    assert (config.env_id, config.widths) == ("InvertedPendulum-v4", (4,))
    assert (config.num_trials, config.total_steps) == (2, 4096)
