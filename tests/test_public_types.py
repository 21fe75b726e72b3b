"""What a type checker sees of tipl in a user's own script."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from tipl.collection.config import CollectConfig, CollectOptions
from tipl.envs.worlds import Worlds
from tipl.jumps.config import JumpConfig, JumpOptions
from tipl.models import RunOptions, TrainConfig, TrainOptions
from tipl.models.kinds import all_kinds
from tipl.models.neuron_transformer import NeuronTrainConfig, NeuronTrainOptions
from tipl.models.nowcasters import NiNoTrainConfig, WNNTrainConfig
from tipl.models.path_transformer import PathTrainConfig, PathTrainOptions
from tipl.models.world import WorldTrainConfig, WorldTrainOptions
from tipl.policies.policy import Policy

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("options", "config"),
    [
        (CollectOptions, CollectConfig),
        (JumpOptions, JumpConfig),
        (PathTrainOptions, PathTrainConfig),
        (NeuronTrainOptions, NeuronTrainConfig),
        (WorldTrainOptions, WorldTrainConfig),
        (TrainOptions, WNNTrainConfig),
        (TrainOptions, NiNoTrainConfig),
    ],
)
def test_options_are_the_fields_of_the_configuration(options: Any, config: Any) -> None:
    names = {field.name for field in dataclasses.fields(config)} - {"model"}  # has its own argument
    types = get_type_hints(config)
    beside = get_type_hints(RunOptions) if issubclass(config, TrainConfig) else {}
    more = {"elite": Policy, "start": Policy, "worlds": Worlds}  # than text can say
    for name in more.keys() & names:
        types[name] |= Path | more[name]
    assert get_type_hints(options) == {name: types[name] for name in names} | beside
    assert options.__required_keys__ == frozenset()


def test_every_kind_of_model_has_typed_options() -> None:
    source = inspect.getsource(importlib.import_module("tipl.models.train"))
    typed = re.findall(r" model: Literal\[(.+?)\]", source)
    kinds = [kind.name for kind in all_kinds()]
    assert [name for text in typed for name in re.findall(r"\w+", text)] == kinds


RIGHT = """
from pathlib import Path

import numpy as np

import tipl
from tipl.integrations.sb3 import ForecastCallback, PathRecorder
from tipl.envs import make_task

paths: tipl.PathDataset = tipl.collect("InvertedPendulum-v4", num_trials=3, hidden_sizes=(32, 32))
train, held_out = paths.split()
model = tipl.train(train, basis="path", num_steps=20)
neuron = tipl.train([train], model="neuron", held_out=held_out, rounds=3)
mine = tipl.train(train, model="neuron", targets=("elite",), elite=held_out.policy(0, 8))
nino = tipl.train([train], model="nino", learning_rate=1e-3)
policy: tipl.Policy = held_out.policy(0, 8)
better: tipl.Policy = policy.with_params(model.forecast(held_out.params()[0, :9], horizon=22))
print(tipl.evaluate(better, episodes=20).episodic_return.mean())
pretrained: tipl.Forecaster = tipl.Forecaster.from_pretrained("InvertedPendulum-v4")
one: tipl.Policy = pretrained.optimize(tipl.Policy.initial("InvertedPendulum-v4", seed=1))
many: list[tipl.Policy] = pretrained.optimize([policy, better], target="own")
one.save(Path("runs"))
action = tipl.Policy.load("runs").act(np.zeros(4))
model.save_pretrained("runs/model")
ForecastCallback("HalfCheetah-v4", every=8)
size: int = make_task("CartPole-v1").observation_size
transformers = [tipl.PathTransformer, tipl.NeuronTransformer]
try:
    tipl.train(paths, config=tipl.TrainConfig(seed=1))
except tipl.TiplError as error:
    print(error, tipl.__version__)
"""
# Each line has one error: that of the line's comment.
WRONG = """
import tipl
from tipl.integrations.sb3 import ForecastCallback, PathRecorder
from tipl.paths import NoSuchDataset  # attr-defined: Module "tipl.paths" has no attribute "NoSuchD

policy = tipl.Policy.initial("InvertedPendulum-v4")
paths = tipl.PathDataset.open("runs")
tipl.nonexistent()  # attr-defined: Module has no attribute "nonexistent"
tipl.collect("InvertedPendulum-v4", num_trails=3)  # call-arg: Unexpected keyword argument "num_tr
tipl.collect("InvertedPendulum-v4", num_trials="3")  # arg-type: Argument "num_trials" to "collect"
policy.no_such_method()  # attr-defined: "Policy" has no attribute "no_such_method"
tipl.train(paths, basis="both")  # call-overload: No overload variant of "train" matches argument t
tipl.train(paths, model="neuron", rank=3)  # call-overload: No overload variant of "train" matches
tipl.evaluate(paths)  # arg-type: Argument 1 to "evaluate" has incompatible type "PathDataset"
tipl.Forecaster.from_pretrained("m").optimise(policy)  # attr-defined: "TrainedForecaster" has no
ForecastCallback(ever=8)  # call-arg: Unexpected keyword argument "ever" for "ForecastCallback"
"""
# What is heavy and not asked about need not be read.
SKIPPED = (
    "gymnasium matplotlib mujoco numba PIL rich safetensors scipy stable_baselines3 torch tyro"
)


@pytest.fixture(scope="module")
def complaints(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> dict[str, list[str]]:
    """What `mypy --strict` says of each script."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "right.py").write_text(RIGHT)
    (folder / "wrong.py").write_text(WRONG)
    settings = "[mypy]\nstrict = true\n[mypy-tipl.*]\nfollow_imports = silent\n"
    for name in SKIPPED.split():
        settings += f"[mypy-{name}.*]\nfollow_imports = skip\nignore_missing_imports = true\n"
    (folder / "mypy.ini").write_text(settings)
    cache = ROOT / ".mypy_cache" / "user"  # read by the next run
    result = subprocess.run(
        [sys.executable, "-m", "mypy", f"--cache-dir={cache}", "right.py", "wrong.py"],
        cwd=folder,
        env=os.environ | {"MYPYPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stderr == ""
    lines = [line for line in result.stdout.splitlines() if "error:" in line]
    return {name: [line for line in lines if line.startswith(name)] for name in ("right", "wrong")}


def test_right_calls_pass(complaints: dict[str, list[str]]) -> None:
    assert complaints["right"] == []


def test_wrong_calls_fail_each_with_its_own_error(complaints: dict[str, list[str]]) -> None:
    expected = {
        str(number): re.split(": ", line.split("  # ")[1], maxsplit=1)
        for number, line in enumerate(WRONG.splitlines(), start=1)
        if "  # " in line
    }
    found = {line.split(":")[1]: line for line in complaints["wrong"]}
    assert found.keys() == expected.keys()
    assert len(complaints["wrong"]) == len(expected)
    for number, (code, text) in expected.items():
        assert found[number].endswith(f"[{code}]")
        assert text in found[number]
