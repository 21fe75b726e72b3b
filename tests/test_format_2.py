"""Files of policies of other units, recorded runs, trainings under way and forecasts stay readable.

What is in `data/format_2` was written by `python tests/test_format_2.py DIRECTORY`, which writes
the same kinds of files as today's code has them. It is not to be written anew: a file that no
longer opens here is one that users can no longer open.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import tipl
from path_data import make_metadata
from tipl.core import storage
from tipl.core.arrays import Array
from tipl.evaluation.forecast_sets import ForecastCase, ForecastReturns, ForecastSet
from tipl.models import loop
from tipl.models.resuming import STATE
from tipl.paths import PathDataset, PathMetadata, create_dataset, summarize, verify
from tipl.paths.writing import Checkpoint, TrialWriter
from tipl.policies.layout import actor_layout
from tipl.policies.policy import Policy
from tipl.policies.tasks import get_task

FILES = Path(__file__).parent / "data" / "format_2"
LENGTHS = (5, 4)
"""Checkpoints of each recorded run."""
CASES = [ForecastCase("standing still", 0, 2), ForecastCase("some model", 1, 2)]
OBSERVATION = np.array([0.3, -0.1, 20.0, 0.5])
STEPS, DONE = 4, 2
"""Of the training, and how many of them its state has seen."""
STATE_FILE = "model.training.safetensors"

# --- what was written ----------------------------------------------------------------------------


def some(seed: int, *shape: int, dtype: type = np.float32) -> Array:
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(dtype)


def the_policy() -> Policy:
    task = get_task("InvertedPendulum-v4")
    layout = actor_layout(task, (3, 2), "relu", squashed=True)
    mean, std = some(1, 4, dtype=np.float64), 2 + some(2, 4, dtype=np.float64)
    return Policy(some(3, layout.size), layout, task, mean, std, math.inf)


def the_metadata() -> PathMetadata:
    layout = actor_layout(get_task("InvertedPendulum-v4"), (2,), "elu")
    return make_metadata(
        num_trials=None, num_checkpoints=None, trials_per_part=1, layout=layout, hidden_sizes=(2,),
        algorithm="A2C", observation_clip=1.5,
    )  # fmt: skip


def the_checkpoint(trial: int, t: int) -> Checkpoint:
    return {
        "params": some(10 * trial + t, 1, the_metadata().layout.size),
        "diverged": np.zeros(1, bool),
        "iteration": np.array(t, np.int64),
        "global_step": np.array(64 * t + trial, np.int64),
        "episodic_return": np.full(1, 7.5 * t, np.float32),
        "num_episodes": np.full(1, t, np.int32),
    }


def the_forecasts(paths: PathDataset) -> ForecastSet:
    return ForecastSet(
        paths, CASES, some(4, len(CASES), 2, paths.layout.size), {"held_out": 0.5},
        end_distances=some(5, len(CASES), 2),
    )  # fmt: skip


def the_returns() -> ForecastReturns:
    returns, checkpoints = some(6, len(CASES), 2, 3, dtype=float), some(7, 2, 4, 3, dtype=float)
    return ForecastReturns(returns, checkpoints, some(8, len(CASES), 2, dtype=float))


def train(paths: PathDataset, out: Path, *, resume: bool = False) -> tipl.Forecaster:
    return tipl.train(
        paths, model="wnn", num_steps=STEPS, width=2, batch_size=2, out=out, resume=resume,
        threads=1, progress=False,
    )  # fmt: skip


@contextlib.contextmanager
def ending(steps: int) -> Iterator[None]:
    """A training that is interrupted after some steps, of which all could be the last."""
    advance = loop._Fit.advance

    def until(self: loop._Fit, *arguments: Any) -> float:
        if self.step == steps:
            raise KeyboardInterrupt
        return advance(self, *arguments)

    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(loop, "LOG_INTERVAL", 1)
        patch.setattr(loop._Fit, "advance", until)
        yield


def write(directory: Path) -> None:
    """Writes all files into a new directory."""
    directory.mkdir()
    os.chdir(directory)
    the_policy().save("policy")
    create_dataset("paths", the_metadata())
    for trial, length in enumerate(LENGTHS):
        writer = TrialWriter(Path("paths"), the_metadata())
        for t in range(length):
            writer.append(the_checkpoint(trial, t))
        writer.sync()
    paths = PathDataset.open("paths")
    the_forecasts(paths).save("forecasts")
    record = storage.read_json("forecasts/forecasts.json")
    storage.write_json("forecasts/forecasts.json", record | {"dataset": "paths"})  # wherever it is
    the_returns().save("forecasts", "tipl evaluate forecasts")
    with ending(DONE):
        train(paths, Path("model"))


# --- what is read --------------------------------------------------------------------------------


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The forecasts name their dataset by a path from its folder."""
    monkeypatch.chdir(FILES)


def test_a_policy_of_other_units_acts_as_it_did() -> None:
    policy, expected = Policy.load(FILES / "policy"), the_policy()
    assert storage.read_json(FILES / "policy" / "policy.json")["format_version"] == 2
    assert (policy.layout, policy.task) == (expected.layout, expected.task)
    assert policy.observation_clip == math.inf
    for name in ("params", "observation_mean", "observation_std"):
        np.testing.assert_array_equal(getattr(policy, name), getattr(expected, name))
    units = (OBSERVATION - policy.observation_mean) / policy.observation_std
    w = policy.layout.unflatten(policy.params.astype(float))
    for layer in (0, 1):
        units = np.maximum(w[f"actor.{layer}.weight"] @ units + w[f"actor.{layer}.bias"], 0)
    assert units.any()
    output = np.tanh(w["actor.2.weight"] @ units + w["actor.2.bias"])
    assert abs(output) < 0.999  # what is not squashed would show
    np.testing.assert_allclose(policy.act(OBSERVATION), 3 * output, rtol=1e-5)


def test_recorded_runs_open() -> None:
    paths = PathDataset.open(FILES / "paths")
    assert paths.metadata == the_metadata()
    assert summarize(FILES / "paths").lengths == {0: 5, 1: 4}
    assert verify(FILES / "paths") == []
    for trial in range(2):
        for t in range(paths.num_checkpoints):
            expected = the_checkpoint(trial, t)
            policy = paths.policy(trial, t)
            np.testing.assert_array_equal(policy.params, expected["params"][0])
            assert policy.observation_clip == 1.5
            assert paths.episodic_return()[trial, t] == expected["episodic_return"]
    assert paths.num_checkpoints == min(LENGTHS)


@pytest.mark.usefixtures("here")
def test_forecasts_of_recorded_runs_and_their_returns_open() -> None:
    forecasts = ForecastSet.load("forecasts")
    expected = the_forecasts(forecasts.paths)
    assert (forecasts.cases, forecasts.settings) == (expected.cases, expected.settings)
    np.testing.assert_array_equal(forecasts.params, expected.params)
    np.testing.assert_array_equal(forecasts.end_distances, expected.end_distances)
    returns, command = ForecastReturns.load("forecasts")
    assert command == "tipl evaluate forecasts"
    for name, array in vars(the_returns()).items():
        np.testing.assert_array_equal(getattr(returns, name), array)


def test_a_training_that_was_under_way_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    arrays, header = STATE.read(FILES / STATE_FILE)
    assert header.steps == {"train (WNN)": DONE}
    for name, array in load_file(FILES / STATE_FILE).items():
        np.testing.assert_array_equal(arrays[name], array)
    shutil.copy(FILES / STATE_FILE, tmp_path)
    monkeypatch.setattr(loop, "LOG_INTERVAL", 1)
    advance, taken = loop._Fit.advance, list[int]()

    def counted(self: loop._Fit, *arguments: Any) -> float:
        taken.append(self.step)
        return advance(self, *arguments)

    monkeypatch.setattr(loop._Fit, "advance", counted)
    train(PathDataset.open(FILES / "paths"), tmp_path / "model", resume=True)
    assert taken == list(range(DONE, STEPS))
    assert not caplog.messages
    assert not (tmp_path / STATE_FILE).exists()


if __name__ == "__main__":
    write(Path(sys.argv[1]))
