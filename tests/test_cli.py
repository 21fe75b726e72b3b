"""The command line: every command, in the order of the work, and what it says to bad input."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
import os
import re
import shutil
import signal
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest

from path_data import make_dataset, part_files
from results_files import read_results
from tipl import __version__
from tipl.cli import COMMANDS, given_command, main
from tipl.collection.collect import collect
from tipl.collection.config import CollectConfig
from tipl.core import storage
from tipl.core.engines.config import EngineConfig
from tipl.evaluation.behaviour import best_checkpoint
from tipl.evaluation.forecast_sets import ForecastReturns, ForecastSet
from tipl.evaluation.returns import evaluate
from tipl.experiments.config import AccelerationConfig, BenchmarkConfig, DemoConfig
from tipl.experiments.forecasts import forecast_held_out
from tipl.experiments.scaling.config import ScalingConfig
from tipl.experiments.worlds.config import WorldsConfig
from tipl.forecast import hub as shipped
from tipl.forecast.base import Forecaster
from tipl.forecast.extrapolation import StandingStill
from tipl.jumps.config import JumpConfig, PPTBConfig
from tipl.models.path_transformer import PathTrainConfig
from tipl.models.train import train
from tipl.paths import PathDataset
from tipl.policies.policy import Policy
from tipl.ppo.config import PPOConfig
from tipl.ppo.ppo import PPO

COLLECTION = CollectConfig(
    num_trials=6,
    total_steps=6 * 64,
    hidden_sizes=(8, 6),
    ppo=PPOConfig(num_steps=64, num_minibatches=2, update_epochs=2),
)
COLLECT = (
    "collect InvertedPendulum-v4 --num-trials 6 --total-steps 384 --hidden-sizes 8 6 "
    "--ppo.num-steps 64 --ppo.num-minibatches 2 --ppo.update-epochs 2"
)
TRAINING = PathTrainConfig(rank=4, width=8, depth=1, heads=2, num_steps=3)
TRAIN = "train paths --rank 4 --width 8 --depth 1 --heads 2 --num-steps 3"
CHAIN = {
    "collect": f"{COLLECT} --out paths --threads 1",
    "show": "paths show paths",
    "verify": "paths verify paths",
    "train": f"{TRAIN} --out models/joint",
    "forecast": "forecast models/joint --paths paths --out forecasts --starts 0 0.5 --horizons 1 2",
    "evaluate forecasts": "evaluate forecasts --episodes 1 --threads 1",
    "optimize": "optimize models/joint --out policies/better",
    "optimize on": "optimize models/joint --out further --policy policies/better --horizon 2",
    "train neuron": "train paths --model neuron --width 8 --heads 2 --rounds 1 --num-steps 2 "
    "--batch-size 2 --fresh-widths 8 --threads 1 --out models/neuron",
    "optimize wide": "optimize models/neuron --out wide --hidden 12 5 7 --seed 3 --among 1",
    "optimize own": "optimize models/neuron --out own --target own --horizon 4 --steps 2",
    "evaluate policy": "evaluate policies/better --episodes 3 --seed 5",
}


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


def tipl(command: str) -> Outcome:
    """Runs a command in this process."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(command.split())
        except SystemExit as stop:
            code = int(stop.code or 0)
    return Outcome(code, out.getvalue(), err.getvalue())


def content(directory: Path) -> dict[str, bytes | None]:
    """Every file and folder."""
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None
        for path in directory.rglob("*")
    }


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Outcome]]:
    """What the commands of the chain said; the working directory holds what they made."""
    directory = tmp_path_factory.mktemp("chain")
    with contextlib.chdir(directory):
        yield {name: tipl(command) for name, command in CHAIN.items()}


# --- the chain of commands -------------------------------------------------------------------


@pytest.mark.parametrize("name", CHAIN)
def test_the_chain_works(chain: dict[str, Outcome], name: str) -> None:
    code, out, err = chain[name]
    assert code == 0
    assert out != ""
    assert "tipl: " not in err


def test_collect_does_what_its_arguments_say(chain: dict[str, Outcome], tmp_path: Path) -> None:
    collect("InvertedPendulum-v4", out=tmp_path / "paths", progress=False, config=COLLECTION)
    assert content(Path("paths")) == content(tmp_path / "paths")
    assert "collect 6 trials" in chain["collect"].err


def test_show_sums_a_dataset_up(chain: dict[str, Outcome]) -> None:
    assert chain["collect"].out == chain["show"].out
    for text in ("InvertedPendulum-v4", "6 from independent", "384 each, 2,304 in all", "2 of 2",
                 "hidden layers of 8, 6", "num_minibatches 2"):  # fmt: skip
        assert text in chain["show"].out


def test_verify_says_that_all_is_well(chain: dict[str, Outcome]) -> None:
    assert chain["verify"].out == "paths is intact: every byte is as it was written\n"


def test_train_does_what_its_arguments_say(chain: dict[str, Outcome], tmp_path: Path) -> None:
    split = PathDataset.open("paths").split(0.25)
    model = train(split.train, held_out=split.held_out, config=TRAINING, progress=False)
    model.save_pretrained(tmp_path / "model")
    assert content(Path("models/joint")) == content(tmp_path / "model")
    out = chain["train"].out
    assert "models/joint: PathTransformer, 4 training and 2 held-out trials\n" in out
    assert "  PathTransformer (joint basis): held-out loss" in out


def test_forecast_and_evaluate_leave_results(chain: dict[str, Outcome]) -> None:
    forecasts = ForecastSet.load("forecasts")
    assert {(case.start, case.horizon) for case in forecasts.cases} == {
        (0, 1), (0, 2), (0, 6), (3, 1), (3, 2), (3, 3),
    }  # fmt: skip
    assert forecasts.paths.num_trials == 2
    assert f"{len(forecasts.cases)} forecasts of each of 2 trials" in chain["forecast"].out
    returns, _ = ForecastReturns.load("forecasts")
    assert returns.checkpoints.shape == (2, 7, 1)
    results = read_results("forecasts/results.jsonl")
    assert {r.command for r in results} == {"tipl evaluate forecasts --episodes 1 --seed 0"}
    out = chain["evaluate forecasts"].out
    assert out.count("standing still") == 2
    assert "results.jsonl" in out


def test_optimize_makes_the_policy_of_the_model(chain: dict[str, Outcome]) -> None:
    model, start = Forecaster.from_pretrained("models/joint"), Policy.load("policies/better")
    fresh = Policy.initial("InvertedPendulum-v4", 1, (8, 6))
    np.testing.assert_array_equal(start.params, model.optimize(fresh).params)
    further = model.optimize(start, 2)
    np.testing.assert_array_equal(Policy.load("further").params, further.params)
    assert "run `tipl evaluate policies/better`" in chain["optimize"].out


def test_a_neuron_transformer_takes_networks_that_it_was_not_trained_on(
    chain: dict[str, Outcome],
) -> None:
    model = Forecaster.from_pretrained("models/neuron")
    wide = Policy.initial("InvertedPendulum-v4", 3, (12, 5, 7))
    made = Policy.load("wide")
    assert made.layout.hidden_sizes == (12, 5, 7)
    np.testing.assert_array_equal(made.params, model.optimize(wide).params)
    fresh = Policy.initial("InvertedPendulum-v4", 1, (8, 6))  # as the paths' networks
    own = model.optimize(fresh, 4, target="own", steps=2)
    np.testing.assert_array_equal(Policy.load("own").params, own.params)
    for name in ("NeuronTransformer (elite)", "NeuronTransformer (own)"):
        assert f"  {name}: held-out loss" in chain["train neuron"].out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("models/joint --target elite", "target 'elite' was given, but this PathTransformer was"),
        ("models/neuron --wished-return 9", "return of 9.0 is wished for"),
        ("models/neuron --steps 9", "9 steps were given for a horizon of 6"),
        ("models/neuron --hidden 4 4 4 4", "4 hidden layers"),
    ],
)
def test_optimize_says_what_cannot_be(
    chain: dict[str, Outcome], options: str, message: str, tmp_path: Path
) -> None:
    code, _, err = tipl(f"optimize {options} --out {tmp_path}/none")
    assert code == 2
    assert message in err
    assert not (tmp_path / "none").exists()


def test_a_model_that_ships_with_tipl_is_given_by_name(
    chain: dict[str, Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped, "SHIPPED", tmp_path / "pretrained")
    shutil.copytree("models/joint", tmp_path / "pretrained/ours")
    assert tipl(f"optimize ours --out {tmp_path}/better").code == 0
    expected = Policy.load("policies/better").params
    np.testing.assert_array_equal(Policy.load(tmp_path / "better").params, expected)
    options = CHAIN["forecast"].split(" --paths")[1].replace("forecasts", f"{tmp_path}/forecasts")
    assert tipl(f"forecast ours --paths{options}").code == 0
    made = ForecastSet.load(tmp_path / "forecasts").params
    np.testing.assert_array_equal(made, ForecastSet.load("forecasts").params)
    code, _, err = tipl(f"optimize theirs --out {tmp_path}/other")
    assert code == 2
    assert "'theirs' is not one of the models that ship with tipl (ours)" in err


def test_evaluate_prints_the_return_of_a_policy(chain: dict[str, Outcome]) -> None:
    expected = evaluate(Policy.load("policies/better"), 3, seed=5)
    assert chain["evaluate policy"].out == f"{expected}\n"


def test_collecting_again_reuses(
    chain: dict[str, Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_rollout(self: PPO) -> None:
        raise AssertionError("PPO was run")

    monkeypatch.setattr(PPO, "rollout", no_rollout)
    assert tipl(CHAIN["collect"]) == Outcome(0, chain["show"].out, "")


def test_best_finds_the_elite_of_a_seed(chain: dict[str, Outcome], tmp_path: Path) -> None:
    training = PathDataset.open("paths").split()[0]
    for seed in (0, 3):
        elite = best_checkpoint(training, 2, seed)
        code, out, _ = tipl(f"paths best paths --out {tmp_path}/{seed} --episodes 2 --seed {seed}")
        assert code == 0
        assert f"checkpoint {elite.checkpoint} of trial {elite.trial}, mean return " in out
        assert f"{elite.mean_return:,.1f} over 2 episodes" in out
        found = Policy.load(tmp_path / str(seed))
        np.testing.assert_array_equal(found.params, elite.policy.params)


def test_verify_names_what_is_damaged(chain: dict[str, Outcome], tmp_path: Path) -> None:
    damaged = shutil.copytree("paths", tmp_path / "damaged")
    part = part_files(damaged)[0]
    data = bytearray(part.read_bytes())
    data[-30] ^= 1
    part.write_bytes(bytes(data))
    (damaged / "notes.txt").write_text("mine")
    code, out, err = tipl(f"paths verify {damaged}")
    assert (code, err) == (1, "")
    assert len(out.splitlines()) == 2
    assert f"{part} is damaged" in out
    assert "notes.txt does not belong" in out


def test_report_and_demo_pass_their_arguments_on(
    chain: dict[str, Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[object, ...]] = []
    for module, function in (("run", "load_run"), ("run_report", "report_run"), ("demo", "demo")):
        monkeypatch.setattr(
            importlib.import_module(f"tipl.experiments.{module}"),
            function,
            lambda *args, **kwargs: calls.append((*args, kwargs)) or [1, 2, 3],
        )
    code, out, _ = tipl("report somewhere")
    assert (code, calls.pop()) == (0, (Path("somewhere"), [1, 2, 3], {}))
    assert "somewhere/report.html" in out
    assert "3 numbers" in out
    assert tipl("demo --out there --fresh --threads 3 --num-trials 9").code == 0
    config = dataclasses.replace(DemoConfig(), num_trials=9)
    assert calls.pop() == (Path("there"), config, {"fresh": True, "threads": 3})
    assert tipl("demo").code == 0
    assert calls.pop() == (Path("runs/demo"), DemoConfig(), {"fresh": False, "threads": None})


@pytest.mark.parametrize("part", ["shared", "pptb"])
def test_no_report_is_written_over_that_of_an_older_benchmark(part: str, tmp_path: Path) -> None:
    (tmp_path / part).mkdir()
    (tmp_path / "results.jsonl").write_text("1,633 rows")
    code, _, err = tipl(f"report {tmp_path}")
    assert code == 2
    assert "make its report by `tipl benchmark TASK" in err
    assert (tmp_path / "results.jsonl").read_text() == "1,633 rows"


@pytest.mark.parametrize(
    "words",
    [
        "HalfCheetah-v4 --quick --seed 3",
        "--quick --seed 3 HalfCheetah-v4",
        "--seed 3 HalfCheetah-v4 --quick",
    ],
)
def test_the_task_of_a_benchmark_stands_anywhere(
    words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = []

    def benchmark(config: BenchmarkConfig, out: None, **options: Any) -> SimpleNamespace:
        configs.append(config)
        return SimpleNamespace(directory=Path("somewhere"), results=[])

    monkeypatch.setattr("tipl.experiments.benchmark.benchmark", benchmark)
    assert tipl(f"benchmark {words}").code == 0
    assert configs == [BenchmarkConfig.for_task("HalfCheetah-v4", quick=True, seed=3)]


# --- help ------------------------------------------------------------------------------------

EXPERIMENT = ["out", "quick", "fresh", "threads"]
ARGUMENTS = {
    "demo": [*dataclasses.fields(DemoConfig), "out", "fresh", "threads"],
    "collect": [
        *(*dataclasses.fields(CollectConfig), *dataclasses.fields(EngineConfig)),
        *("a Gymnasium id", "out", "from_sb3", "shard"),
    ],
    "worlds make": [
        *("a Gymnasium id", "out", "vary", "splits", "corner", "beyond", "preset", "seed"),
    ],
    "worlds show": ["the worlds", "split"],
    "worlds check": ["a file of worlds", "split", "world", "physics"],
    "worlds benchmark": [*dataclasses.fields(WorldsConfig)[1:], "a Gymnasium id", *EXPERIMENT],
    "paths show": ["the dataset"],
    "paths verify": ["the dataset"],
    "paths evaluate": ["the dataset", "episodes", "every", "seed", "threads"],
    "paths best": ["the dataset", "out", "held_out", "episodes", "seed"],
    "paths copy": ["the dataset: a directory", "where the copy is to be"],
    "train": [*dataclasses.fields(PathTrainConfig), "the dataset of paths", "out", "held_out"],
    "forecast": ["directories of trained models", "paths", "out", "starts", "horizons"],
    "optimize": [
        *("directory of a trained model", "out", "policy", "seed", "horizon", "among", "check"),
    ],
    "adapt": [
        *(
            "directory of a model of worlds",
            "out",
            "physics",
            "unknown",
            "experience",
            "env",
            "env-physics",
            "steps",
            "episodes",
            "policy",
            "hidden",
            "seed",
        ),
    ],
    "evaluate": ["directory of a policy", "episodes", "physics", "seed", "threads"],
    "film": ["directories of policies", "out", "labels", "seed"],
    "models": [],
    "completion": ["that the script is for"],
    "report": ["the run's directory"],
    "costs": ["the run's directory"],
    "benchmark": [*dataclasses.fields(BenchmarkConfig)[1:], "a Gymnasium id", *EXPERIMENT],
    "accelerate": [*dataclasses.fields(AccelerationConfig)[1:], "a Gymnasium id", *EXPERIMENT],
    "scaling": [*dataclasses.fields(ScalingConfig)[1:], "a Gymnasium id", *EXPERIMENT],
}


GROUPS = {"ppo": PPOConfig, "pptb": PPTBConfig, "jumps": JumpConfig}
"""Options whose names start with the name of an argument."""


def is_group(argument: Any) -> bool:
    """Whether an argument is a configuration of its own."""
    return getattr(argument, "default_factory", None) in GROUPS.values()


@pytest.mark.parametrize("words", ["paths", "paths --help", "worlds -h"])
def test_a_group_says_which_commands_it_has(words: str) -> None:
    code, out, _ = tipl(words)
    group = words.split()[0]
    assert code == 0
    assert f"Usage: tipl {group} COMMAND" in out
    for name in COMMANDS:
        assert (f"  {name}  " in out) == name.startswith(f"{group} ")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_explains_every_argument(command: str) -> None:
    code, out, err = tipl(f"{command} --help")
    assert (code, err) == (0, "")
    words = " ".join(out.replace("│", " ").split())
    assert words.startswith(f"usage: tipl {command} ")
    for argument in ARGUMENTS[command]:
        name = argument if isinstance(argument, str) else argument.name
        if " " in name:
            assert name in words
        elif is_group(argument):
            for field in dataclasses.fields(GROUPS[name]):
                assert f" --{name}.{field.name.replace('_', '-')}" in words
        else:
            assert f" --{name.replace('_', '-')}" in words
    for field in ARGUMENTS[command]:
        if not isinstance(field, str) and not is_group(field):
            default = " ".join(re.findall(r"[^(),' ]+", f"{field.default}"))
            assert field.default in (None, ()) or default in words
    assert "default: None" not in words
    assert "{None}" not in words
    assert "(default: )" not in words
    assert not re.search(r"\(default[^()]*\) \(default", words)  # once is enough


@pytest.mark.parametrize("arguments", ["", "--help", "-h"])
def test_the_list_of_commands(arguments: str) -> None:
    code, out, err = tipl(arguments)
    assert (code, err) == (0, "")
    for name, (_, purpose) in COMMANDS.items():
        assert name in out
        assert purpose.split()[0] in out


@pytest.mark.parametrize("words", ["", "paths", "paths show", "film"])
def test_help_is_a_word_as_well(words: str) -> None:
    assert tipl(f"help {words}") == tipl(f"{words} --help")


def test_the_options_of_a_model_stand_together() -> None:
    _, out, _ = tipl("train --model neuron --help")
    order = [
        *("positional arguments", "PATHS", " options ", "--held-out ", "model options"),
        *("--fresh-widths", "common options", "--json"),
    ]
    places = [out.index(word, out.index("positional arguments")) for word in order]
    assert places == sorted(places)


@pytest.mark.parametrize("option", ["--version", "-V", "version"])
def test_the_version(option: str) -> None:
    assert tipl(option) == Outcome(0, f"tipl {__version__}\n", "")


# --- bad input -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bad(chain: dict[str, Outcome]) -> Path:
    """The chain's directory, with things in it that are of no use."""
    here = Path.cwd()
    (here / "a-file").write_text("mine")
    (here / "empty").mkdir()
    make_dataset(here / "other-architecture")
    make_dataset(here / "running", normaliser="running")
    standing = forecast_held_out([StandingStill()], PathDataset.open("running"), (0.5,), (1,))
    standing.save("running-forecasts")
    for name in ("paths", "forecasts"):
        shutil.copytree(name, here / "no-models" / name)
    part = part_files(shutil.copytree("paths", here / "truncated"))[0]
    part.write_bytes(part.read_bytes()[:-1000])
    broken = shutil.copytree("policies/better", here / "nan-policy") / "policy.safetensors"
    tensors, header = storage.read_tensors(broken)
    tensors["params"][3] = np.nan
    storage.write_tensors(broken, tensors, header)
    for name in ("model.safetensors", "config.json"):
        damaged = shutil.copytree("models/joint", here / f"damaged-{name}") / name
        damaged.write_bytes(damaged.read_bytes()[:-9])
    return here


BAD_INPUT = {
    f"{COLLECT.replace('Pendulum', 'Pendulm')} --out new": "did you mean InvertedPendulum-v4",
    f"{COLLECT.replace('InvertedPendulum-v4', 'Blackjack-v1')} --out new": "Tuple",
    f"{COLLECT} --num-trials 0": "num_trials is 0",
    f"{COLLECT} --total-steps 5": "total_steps is 5",
    f"{COLLECT} --checkpoint-interval 4": "choose a divisor",
    f"{COLLECT} --seed -1": "seed is -1",
    f"{COLLECT} --seed 1 --out paths": "its seed is 0, but 1 was given",
    f"{COLLECT} --hidden-sizes 0": "hidden sizes (0,)",
    f"{COLLECT} --threads -1": "threads is -1",
    f"{COLLECT} --ppo.num-steps 0": "num_steps is 0",
    f"{COLLECT} --ppo.learning-rate nan": "learning_rate is nan",
    f"{COLLECT} --pptb.rank 0": "a rank of 0",
    f"{COLLECT} --pptb.boost 0.5": "given boost but no rank",
    f"{COLLECT} --jumps.every 3": "given every but no forecaster",
    f"{COLLECT} --jumps.forecaster nothing --out new": "jumps take a model, the directory of a",
    f"{COLLECT} --jumps.forecaster HalfCheetah-v4 --out new": "was trained on HalfCheetah-v4",
    "paths best nowhere --out new": "nowhere",
    "paths copy nowhere new": "there is no nowhere/metadata.json",
    "accelerate NoSuch-v0": "NoSuch",
    "accelerate InvertedPendulum-v4 --widths 64 64": "expected each one once",
    "scaling NoSuch-v0": "NoSuch",
    "scaling InvertedPendulum-v4 --trials 8 4": "expected positive numbers that rise",
    "scaling InvertedPendulum-v4 --base-trials 512": "expected a base below the largest",
    "scaling InvertedPendulum-v4 --paths missing": "there is no missing/metadata.json",
    "scaling InvertedPendulum-v4 --paths paths": "512 trials were to be learned from",
    "scaling HalfCheetah-v4 --paths paths": "were given for 'HalfCheetah-v4'",
    "worlds benchmark NoSuch-v0": "NoSuch",
    "worlds benchmark Hopper-v4": "no model ships for 'Hopper-v4'; give --elite and --carrier",
    "worlds benchmark InvertedPendulum-v4 --worlds missing": "there is no missing",
    "worlds benchmark InvertedPendulum-v4 --elite missing": "there is no missing/policy.json",
    "worlds benchmark InvertedPendulum-v4 --splits training": "expected each held-out split once",
    "worlds benchmark InvertedPendulum-v4 --splits ../x": "expected letters and digits",
    "worlds benchmark InvertedPendulum-v4 --redrawn-steps 0": "redrawn_steps is 0",
    "train paths --first-trials 0 --out new": "first_trials is 0",
    "train paths --first-trials 99 --out new": "first_trials is 99, but paths has",
    "train paths --first-trials 2 --order -1 --out new": "order is -1",
    "train paths --order 1 --out new": "an order of trials was given without how many",
    f"{COLLECT} --out a-file": "a-file",
    f"{COLLECT} --out a-file/new": "a-file/new",
    f"{COLLECT} --out empty/../models": "holds joint but no metadata.json",
    "paths list": "there is no command 'paths list'; expected one of: paths show, paths verify",
    "paths veryfi": "each of which --help explains; did you mean verify?",
    "tarin paths": "there is no command 'tarin'; expected one of: demo, collect",
    "wolrds make": "each of which --help explains; did you mean worlds?",
    "tarin": "each of which --help explains; did you mean train?",
    "--verbose": "there is no command '--verbose'",
    "paths show missing": "there is no missing/metadata.json",
    "paths show a-file": "there is no a-file/metadata.json",
    "paths show truncated": "truncated/parts/trials-00000-00002",
    "paths verify missing": "there is no directory missing",
    "paths verify a-file": "there is no directory a-file",
    "train missing --out new": "there is no missing/metadata.json",
    "train truncated --out new": "truncated/parts/trials-00000-00002",
    "train paths --held-out 1.5 --out new": "1.5 was given as the share",
    "train paths --held-out nan --out new": "nan was given as the share",
    "train paths --num-steps 0 --out new": "num_steps is 0",
    "train paths --seed -1 --out new": "seed is -1; expected from 0",
    "train paths --seed 9223372036854775808 --out new": "expected from 0 to 2^63 - 1",
    "train paths --heads 3 --out new": "a width of 64 was given with 3 heads",
    "forecast --paths paths --out new": "no model was given",
    "evaluate forecasts --physics gravity=2": "were given for the set of forecasts in forecasts",
    "forecast missing --paths paths --out new": "there is no missing/config.json",
    "forecast paths --paths paths --out new": "there is no paths/config.json",
    "forecast damaged-model.safetensors --paths paths --out new": "model.safetensors is damaged",
    "forecast damaged-config.json --paths paths --out new": "config.json is damaged",
    "forecast models/joint --paths missing --out new": "there is no missing/metadata.json",
    "forecast models/joint --paths truncated --out new": "truncated/parts/trials-00000-00002",
    "forecast models/joint --paths other-architecture --out new": "train a model on paths of",
    "forecast models/joint --paths paths --out new --horizons 0": "expected 1 or more",
    "forecast models/joint --paths paths --out new --horizons": "expected 1 or more",
    "forecast models/joint --paths paths --out new --starts 1": "below 1",
    "forecast models/joint --paths paths --out new --starts": "no starts were given",
    "forecast models/joint --paths paths --out a-file": "a-file is a file",
    "forecast models/joint --paths paths --out a-file/new": "a-file/new",
    "forecast models/joint --paths paths --out paths": "paths holds other files",
    "optimize missing --out new": "there is no missing/config.json",
    "optimize models/joint --out new --horizon 0": "horizon is 0; expected at least 1",
    "optimize models/joint --out new --horizon 99999999": "a horizon of 99999999 was given",
    "optimize models/joint --out new --seed -1": "seed is -1",
    "optimize models/joint --out new --policy missing": "there is no missing/policy.json",
    "optimize models/joint --out new --policy nan-policy": "NaN or infinite",
    "optimize models/joint --out a-file": "a-file is a file",
    "optimize models/joint --out a-file/new": "a-file/new",
    "optimize models/joint --out paths": "paths holds other files",
    "evaluate missing": "no policy and no set of forecasts in missing",
    "evaluate empty": "no policy and no set of forecasts in empty",
    "evaluate a-file": "no policy and no set of forecasts in a-file",
    "evaluate paths": "no policy and no set of forecasts in paths",
    "evaluate nan-policy": "1 of 102 parameters of the policy are NaN or infinite",
    "evaluate policies/better --episodes 0": "episodes is 0",
    "evaluate policies/better --seed -1": "seed is -1",
    "evaluate policies/better --threads 0": "threads is 0",
    "evaluate forecasts --episodes 0": "episodes is 0",
    "evaluate running-forecasts": "normaliser='running'",
    "film policies/better --out film.png": "expected a name that ends in .gif",
    "film --out film.gif": "0 policies and 0 labels were given",
    "film policies/better --out film.gif --labels a b": "1 policies and 2 labels were given",
    "film no-models --out film.gif": "no model of the run has forecast untrained networks",
    "film missing --out film.gif": "there is no missing/policy.json",
    "film policies/better --out film.gif --seed -1": "seed is -1",
    "report missing": "there is no missing/forecasts/forecasts.json",
    "report a-file": "there is no a-file/forecasts/forecasts.json",
    "demo --out paths": "paths holds other files",
    "demo --out paths --fresh": "paths holds other files",
    "demo --out a-file": "a-file",
    "demo --out new --num-trials 0": "num_trials is 0",
    "demo --out new --episodes 0": "episodes is 0",
    "demo --out new --env-id Walker-v1": "unknown environment id 'Walker-v1'",
}


@pytest.mark.parametrize("command", BAD_INPUT)
def test_bad_input_gets_one_sentence(bad: Path, command: str) -> None:
    before = content(bad)
    code, out, err = tipl(command)
    assert (code, out) == (2, "")
    assert err.startswith("tipl: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1
    assert BAD_INPUT[command] in err
    assert content(bad) == before


@pytest.mark.parametrize("out", ["a-file", "a-file/new", "paths"])
def test_a_model_replaces_nothing_else(bad: Path, out: str) -> None:
    before = content(bad)
    code, _, err = tipl(f"{TRAIN} --out {out}")
    assert code == 2
    assert err.splitlines()[-1].startswith("tipl: ")  # below the progress of the training
    assert out in err.splitlines()[-1]
    assert content(bad) == before


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("paths show paths --verbose", "--verbose"),
        ("paths show", "DIRECTORY"),
        ("train paths", "--out"),
        ("train paths --out new --basis both", "both"),
        ("train paths --out new --num-steps many", "many"),
        (f"{COLLECT} --normaliser none", "none"),
        (f"{COLLECT} --num-trails 4", "--num-trials"),
        ("evaluate", "TARGET"),
        ("demo extra", "extra"),
    ],
)
def test_usage_errors(bad: Path, command: str, message: str) -> None:
    before = content(bad)
    code, out, err = tipl(command)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err
    assert content(bad) == before


# --- interruptions, and the process itself ---------------------------------------------------


def test_an_interruption_exits_with_130(
    chain: dict[str, Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    module = importlib.import_module("tipl.cli.paths")
    monkeypatch.setattr(module, "verify", interrupted)
    assert tipl("paths verify paths") == Outcome(130, "", "tipl: interrupted\n")


def test_an_interrupted_collection_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: PPO) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(PPO, "rollout", interrupted)
    code, _, err = tipl(f"{COLLECT} --out {tmp_path / 'paths'}")
    assert code == 130
    assert "run the same command again to go on" in err.splitlines()[-1]


def script(*arguments: str) -> list[str]:
    return [str(Path(sysconfig.get_path("scripts")) / "tipl"), *arguments]


def test_the_console_script(tmp_path: Path) -> None:
    def run(*arguments: str) -> Outcome:
        done = subprocess.run(script(*arguments), capture_output=True, text=True, cwd=tmp_path)
        return Outcome(done.returncode, done.stdout, done.stderr)

    assert run("--version") == Outcome(0, f"tipl {__version__}\n", "")
    code, out, err = run("paths", "verify", "missing")
    assert (code, out) == (2, "")
    assert err.startswith("tipl: there is no directory missing")
    assert list(tmp_path.iterdir()) == []


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_control_c(tmp_path: Path) -> None:
    command = script("collect", "InvertedPendulum-v4", "--num-trials", "2", "--out", "paths",
                     "--total-steps", "10000000", "--ppo.num-steps", "64",
                     "--ppo.num-minibatches", "2", "--ppo.update-epochs", "1")  # fmt: skip
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        # tests that a shell runs in the background ignore it, and so would their children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    with process:
        wait_for(lambda: any(tmp_path.glob("paths/parts/*.safetensors")), process)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    last = err.splitlines()[-1]
    assert last == (
        "tipl: interrupted; finished checkpoints are safe in paths: run the same command again "
        "to go on"
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_gone(unbuffered: str) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        script("--version"),
        stdout=write,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_output_that_cannot_be_written() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(script("--version"), stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("tipl: [Errno 28] No space left on device; see to it")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("error", [OSError("the disk is gone"), MemoryError("40 TiB")])
def test_what_the_machine_lacks_is_said(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Path) -> None:
        raise error

    monkeypatch.setattr(importlib.import_module("tipl.cli.paths"), "verify", fail)
    code, out, err = tipl("paths verify somewhere")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("tipl: ")
    assert str(error) in err


# --- starting up -----------------------------------------------------------------------------


def test_the_command_as_it_was_given_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []
    module = importlib.import_module("tipl.cli.paths")
    monkeypatch.setattr(module, "verify", lambda _: given.append(given_command()) or [])
    assert tipl("paths verify somewhere").code == 0
    with contextlib.redirect_stdout(io.StringIO()):
        main(["paths", "verify", "some where"])  # not what this process was started with
        main(["paths verify", "somewhere"])
    assert given[:2] == ["tipl paths verify somewhere", "tipl paths verify 'some where'"]
    assert len(given) == 3
