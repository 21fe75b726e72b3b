"""All that reads files of tipl, each over tiny real files, and what users do with what they read.

A reader gives a result with which one can go on, or raises a TiplError: of whatever is read, within
a second of processor time and 100 MB.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import json
import shutil
import signal
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

import tipl
from fuzz_damage import (
    Damage,
    Files,
    opened_tensors,
    sealed_json,
    sealed_tensors,
)
from path_data import make_dataset, make_evaluation
from test_recorded_paths import record
from tiny_worlds import tiny_world_model
from tipl import Forecaster, PathDataset, Policy
from tipl.cli import main
from tipl.collection.collect import collect, dataset_metadata
from tipl.collection.config import CollectConfig
from tipl.collection.trial_groups import TrialGroups
from tipl.core import storage
from tipl.errors import TiplError
from tipl.evaluation.experience import Experience
from tipl.evaluation.forecast_sets import ForecastReturns, ForecastSet
from tipl.experiments.acceleration.outcome import model_cost
from tipl.experiments.benchmark.ledger import Cost, read_costs, write_costs
from tipl.experiments.config import BENCHMARK, COMPARISON, AccelerationConfig, BenchmarkConfig
from tipl.experiments.films import film_files, film_section
from tipl.experiments.run import load_run
from tipl.experiments.scaling.config import SCALING, ScalingConfig
from tipl.experiments.scaling.predicting import PREDICTIONS, Prediction, read_predictions
from tipl.experiments.scaling.records import POINT, Measured
from tipl.experiments.stage_records import read_records
from tipl.experiments.worlds.cells import CELL, cell_file, measured_cell
from tipl.experiments.worlds.config import WORLDS_BENCHMARK, WorldsConfig
from tipl.forecast.extrapolation import LastDifferenceLine
from tipl.jumps.config import JumpConfig
from tipl.jumps.forecasters import jump_forecaster
from tipl.jumps.jumper import JUMPS, Jumper
from tipl.models.resuming import TrainingState
from tipl.models.train import train
from tipl.models.world.forecaster import WorldForecaster
from tipl.paths import create_dataset, summarize, verify
from tipl.paths.metadata import METADATA
from tipl.paths.returns import EVALUATION
from tipl.policies.layout import ParamLayout, actor_layout
from tipl.policies.tasks import get_task
from tipl.ppo.config import PPOConfig

GOLDEN = Path(__file__).parent / "data" / "format_1"
SECONDS, MEGABYTES = 20.0, 100.0
"""Of processor time, which no reader takes that will end, however busy the computer is
(`benchmarks/refusals.py` measures how long refusals take); and of memory."""

LONGEST = 2000
"""Characters of a message."""


def attempt(*steps: Callable[[], object]) -> None:
    """Does all that users do next: each works, or refuses; the first refusal is raised."""
    refusals = []
    for step in steps:
        try:
            step()
        except TiplError as error:
            refusals.append(error)
    if refusals:
        raise refusals[0]


# --- datasets --------------------------------------------------------------------------------


def use_dataset(directory: Path) -> None:
    paths = PathDataset.open(directory)
    observation = np.zeros(paths.task.observation_size)
    evaluated = (directory / "evaluation").exists()
    attempt(
        lambda: (repr(paths), paths.lengths, paths.layout.hidden_units, paths.windows(1, 1)),
        lambda: LastDifferenceLine().forecast(paths.params(), 2, layout=paths.layout),
        lambda: (paths.episodic_return(), paths.env_steps(), paths.iteration),
        lambda: paths.deterministic_return() if evaluated else None,
        lambda: (paths.physics(), paths.observation_statistics()),
        lambda: paths.policy(-1, 0).act(observation),
        lambda: paths.split(0.5, seed=1),
    )


def command(*words: object) -> None:
    """A command line, which ends in a sentence if it is not done."""
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        try:
            main(list(map(str, words)))
        except SystemExit as end:
            if end.code:
                raise TiplError(
                    said.getvalue().strip() or "it says on stdout what is wrong"
                ) from None


def check_dataset(directory: Path) -> None:
    if problems := verify(directory):
        raise TiplError(max(problems, key=len))


# --- models, policies, forecasts -------------------------------------------------------------


def use_policy(directory: Path) -> None:
    policy = Policy.load(directory)
    observation, rng = np.zeros((2, policy.task.observation_size)), np.random.default_rng(0)
    attempt(
        lambda: (repr(policy), policy.digest, policy.task.label, policy.layout.hidden_units),
        lambda: (policy.act(observation[0]), policy.act(observation), policy.task.wrappers),
        lambda: None if policy.layout.squashed else policy.act(observation, rng),
    )


def run_policy(directory: Path) -> None:
    tipl.evaluate(Policy.load(directory), episodes=1, threads=1)


@functools.cache
def _history() -> tuple[Any, Any, Policy]:
    """A few checkpoints `[N, T, P]` of the paths that the models learned from."""
    paths = PathDataset.open(GOLDEN / "paths")
    return paths.params(slice(0, 3))[:2], paths.layout, paths.policy(0, 0)


def use_model(directory: Path) -> None:
    model = Forecaster.from_pretrained(directory)
    history, layout, policy = _history()
    attempt(
        lambda: (model.training_trials, model.steps_per_checkpoint, repr(model), model.name),
        lambda: [asked.forecast(history, [1, 2], layout=layout) for asked in model.all_ways()],
        lambda: model.joint_basis,
        lambda: model.optimize(policy, horizon=2) if model.min_history == 1 else None,
    )


def make_world_model(directory: Path) -> None:
    """Of random weights: what they make is nothing to those who read them."""
    tiny_world_model().save_pretrained(directory)


def make_experience(directory: Path) -> None:
    rng = np.random.default_rng(1)
    made = Experience.of(*(rng.standard_normal((6, size)) for size in (4, 1, 4)))
    directory.mkdir()
    made.save(directory / "experience.safetensors")


def use_experience(directory: Path) -> None:
    found = Experience.load(directory / "experience.safetensors")
    attempt(
        lambda: found.check_task(get_task("InvertedPendulum-v4")),
        lambda: tipl.adapt("InvertedPendulum-v4", experience=found, model=_world_model()),
        lambda: len(found + found),
    )


@functools.cache
def _world_model() -> WorldForecaster:
    return tiny_world_model()


def use_world_model(directory: Path) -> None:
    model = WorldForecaster.from_pretrained(directory)
    given, log = Policy.initial(model.task, 1, (3,)), (np.ones((2, 4)), [[0], [1]], np.ones((2, 4)))
    attempt(
        lambda: (model.curves, repr(model), str(model.in_world({"gravity": 1.2}).belief)),
        lambda: tipl.adapt(model.task.env_id, physics={"gravity": 1.2}, model=model),
        lambda: tipl.adapt(given, physics={"gravity": None}, model=model),
        lambda: tipl.adapt(model.task.env_id, experience=log, model=model),
    )


def use_forecasts(directory: Path) -> None:
    returns, _ = ForecastReturns.load(directory / "forecasts")
    forecasts = ForecastSet.load(directory / "forecasts")
    attempt(lambda: repr(returns), forecasts.weight_errors)


def use_run(directory: Path) -> None:
    run = load_run(directory)
    attempt(lambda: (run.methods, run.commands, run.shared_network, run.ways, run.held_out))


# --- experiments -----------------------------------------------------------------------------


def use_experiment(directory: Path) -> None:
    attempt(
        lambda: [(one.note, one.to_json()) for one in read_records(directory).values()],
        lambda: [cost.work for cost in read_costs(directory / "costs.json")],
        lambda: film_section(directory / "film.gif"),
        lambda: BENCHMARK.read(directory / BENCHMARK.name).config.num_checkpoints,
        lambda: COMPARISON.read(directory / COMPARISON.name).config.forecaster,
        lambda: WORLDS_BENCHMARK.read(directory / WORLDS_BENCHMARK.name).config.splits,
        lambda: CELL.read(cell_file(directory, "x", "elite")).by_world,
        lambda: SCALING.read(directory / SCALING.name).config.base,
        lambda: read_predictions(directory),
        lambda: POINT.read(directory / POINT.name).by_policy,
        lambda: model_cost(AccelerationConfig("InvertedPendulum-v4", paths=f"{directory}/paths")),
    )


def make_experiment(directory: Path) -> None:
    shutil.copytree(GOLDEN / "run", directory)
    (directory / "results.jsonl").unlink()
    costs = [Cost("train", "NeuronTransformer (elite)", 1.0, 2.0, np.nan, 3.0, "tipl train")]
    write_costs(directory / "costs.json", costs)
    BenchmarkConfig("HalfCheetah-v4").write_record(directory, "tipl benchmark")
    WorldsConfig("HalfCheetah-v4").write_record(directory, "tipl worlds benchmark")
    ScalingConfig("HalfCheetah-v4").write_record(directory, "tipl scaling", ppo=[[1.0, 2.0]])
    one = Prediction("trials", "own", "weight_error", 512, 6, 0.4, 0.3, 0.5, True, "0")
    storage.write_json(directory / PREDICTIONS.name, {"predictions": [dataclasses.asdict(one)]})
    measured = np.ones((2, 3)), np.zeros(2, np.int64)
    measured_cell(directory, "x", "elite", "0", ["a", "b"], lambda: measured)
    point = Measured("own", "0", 10, 1.0, [[1.0, 2.0], [3.0, 4.0]], [0.5, 0.4], [0.3, 0.2])
    storage.write_json(directory / POINT.name, dataclasses.asdict(point))
    film = {"labels": ["untrained", "PPO"], "returns": [1.0, 2.0], "model": "NeuronTransformer"}
    *pictures, record = film_files(directory / "film.gif")
    storage.write_json(record, film)
    for picture in pictures:
        picture.write_bytes(b"GIF89a")


def make_run(directory: Path) -> None:
    directory.mkdir()
    shutil.copytree(GOLDEN / "paths", directory / "paths")
    shutil.copytree(GOLDEN / "forecasts", directory / "forecasts")
    (directory / "forecasts" / "results.jsonl").unlink()
    for model in _MODELS[::2]:
        shutil.copytree(GOLDEN / model, directory / "models" / model)
    shutil.copy(GOLDEN / "run" / "stages.json", directory)
    record = storage.read_json(directory / "forecasts" / "forecasts.json")
    record["dataset"] = str(directory / "paths")
    storage.write_json(directory / "forecasts" / "forecasts.json", record)


def make_worlds(directory: Path) -> None:
    directory.mkdir()
    splits = {"training": [{"gravity": 0.5}, {"actuator_gear": -1.0}], "test": [{"gravity": 2.0}]}
    tipl.Worlds.from_factors("InvertedPendulum-v4", splits).save(directory / "worlds.json")


def use_worlds(directory: Path) -> None:
    worlds = tipl.Worlds.load(directory / "worlds.json")
    splits = list(worlds.splits)
    attempt(
        lambda: (repr(worlds), worlds.digest, [worlds.split(split) for split in splits]),
        lambda: worlds.distances(splits[-1], splits[0]),
    )


# --- runs that go on -------------------------------------------------------------------------

LITTLE = PPOConfig(num_steps=4, num_minibatches=1, update_epochs=1)
COLLECTIONS = {
    "running": ("InvertedPendulum-v4", {"normaliser": "running", "vary": ("gravity=0.9..1.1",)}),
    "gymnasium": ("CartPole-v1", {}),
    "jumps": ("InvertedPendulum-v4", {"jumps": JumpConfig(forecaster="relex", every=1)}),
}  # fmt: skip


def _collection(name: str) -> tuple[str, CollectConfig]:
    env_id, options = COLLECTIONS[name]
    config = CollectConfig(num_trials=1, total_steps=40, hidden_sizes=(2,), ppo=LITTLE)
    return env_id, dataclasses.replace(config, **options)


class _StopError(Exception):
    pass


def make_collection(name: str, directory: Path) -> None:
    """A collection that was left in the middle of its second part."""
    env_id, config = _collection(name)
    metadata = dataset_metadata(env_id, config)
    create_dataset(directory, metadata)
    group = TrialGroups(directory, config, metadata).group(0)
    calls = iter(range(40))

    def stop(*given: object, **named: object) -> None:
        if next(calls) == 10:
            raise _StopError

    group.report = stop
    with contextlib.suppress(_StopError):
        group.run()


def go_on_collecting(name: str, directory: Path) -> None:
    env_id, config = _collection(name)
    collect(env_id, out=directory, config=config, threads=1, progress=False)


def make_training(directory: Path) -> None:
    """A training that was done, and whose state was not removed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainingState, "remove", TrainingState.write)
        go_on_training(directory)
    shutil.rmtree(directory / "model")


def go_on_training(directory: Path) -> None:
    paths = PathDataset.open(GOLDEN / "paths")
    small: dict[str, Any] = {"num_steps": 2, "batch_size": 2, "width": 4, "rank": 2, "depth": 1}
    train(paths, out=directory / "model", resume=True, threads=1, progress=False, heads=1, **small)


def _jumper() -> Jumper:
    layout = ParamLayout.actor(4, 1, (2,))
    config = JumpConfig(forecaster="relex", gate=False)
    forecaster = jump_forecaster("relex", None)
    return Jumper(config, forecaster, 1, layout, lambda *_: None, None)  # type: ignore[arg-type]


def _before_rollout(jumper: Jumper) -> None:
    weights = np.zeros((1, ParamLayout.actor(4, 1, (2,)).size), np.float32)
    jumper.before_rollout(weights, np.array([4]), np.zeros(1))
    jumper.judge(np.zeros(1))


def make_jumps(directory: Path) -> None:
    directory.mkdir()
    jumper = _jumper()
    for _ in range(3):
        _before_rollout(jumper)
    storage.write_tensors(directory / "jumps.safetensors", jumper.state(), {"kind": "jumps"})


def go_on_jumping(directory: Path) -> None:
    jumper = _jumper()
    jumper.set_state(JUMPS.read(directory / "jumps.safetensors")[0])
    _before_rollout(jumper)


# --- all of them -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Reader:
    """Something that reads files of one kind or of several, and what is done next."""

    name: str
    make: Callable[[Path], object]
    """writes the files as they should be"""
    read: Callable[[Path], object]
    share: int
    """of all inputs"""
    writes: bool = False
    """whether it changes the directory"""


def _golden(name: str) -> Callable[[Path], object]:
    return lambda directory: shutil.copytree(GOLDEN / name, directory)


FEW_PARTS = {"num_trials": 4, "num_checkpoints": 4, "trials_per_part": 4}


def _planned(directory: Path) -> None:
    make_dataset(directory, **FEW_PARTS)
    make_evaluation(directory)


def _rich(directory: Path) -> None:
    """A dataset that has all that one can have."""
    varied = {"vary": {"gravity": [0.7, 1.4]}, "jumps": {"forecaster": "relex"}}
    make_dataset(directory, normaliser="running", networks="actor+critic", **varied, **FEW_PARTS)


def _units(directory: Path) -> None:
    """A policy of another kind of units."""
    task = get_task("InvertedPendulum-v4")
    layout = actor_layout(task, (3,), "relu", squashed=True)
    Policy(np.ones(layout.size, np.float32), layout, task, observation_clip=np.inf).save(directory)


def _recorded(directory: Path) -> None:
    record(directory, 4, 2)


_MODELS = ("path-transformer", "neuron-transformer", "wnn", "nino")

READERS = (
    Reader("PathDataset.open", _planned, use_dataset, 6),
    Reader("PathDataset.open, all that there can be", _rich, use_dataset, 5),
    Reader("PathDataset.open, recorded", _recorded, use_dataset, 8),
    Reader("summarize", _planned, summarize, 5),
    Reader("verify", _planned, check_dataset, 5),
    Reader("verify, recorded", _recorded, check_dataset, 5),
    Reader("tipl paths show", _planned, lambda d: command("paths", "show", d), 2),
    Reader("tipl paths verify", _rich, lambda d: command("paths", "verify", d), 2),
    Reader("Policy.load", _golden("policy"), use_policy, 16),
    Reader("Policy.load, version 2", _units, use_policy, 12),
    Reader("evaluate(Policy.load)", _golden("policy"), run_policy, 4),
    *(Reader(f"from_pretrained, {name}", _golden(name), use_model, 6) for name in _MODELS),
    Reader("from_pretrained, world-model", make_world_model, use_world_model, 4),
    Reader("Experience.load", make_experience, use_experience, 2),
    Reader("ForecastSet.load", make_run, use_forecasts, 5),
    Reader("load_run", make_run, use_run, 2),
    Reader("records of experiments", make_experiment, use_experiment, 14),
    Reader("Worlds.load", make_worlds, use_worlds, 3),
    Reader("jumps that go on", make_jumps, go_on_jumping, 5),
    Reader("training that goes on", make_training, go_on_training, 1, writes=True),
    *(
        Reader(f"collect that goes on, {name}", *both, share=1, writes=True)
        for name in COLLECTIONS
        for both in [[functools.partial(one, name) for one in (make_collection, go_on_collecting)]]
    ),
)


def content_of(directory: Path) -> Files:
    """All files below a directory."""
    files = [path for path in sorted(directory.rglob("*")) if path.is_file()]
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}


def consistent(files: Files, damage: Damage) -> Damage:
    """The damage with the hashes right that other files repeat of one that says other things."""
    changed = dict(damage.files)
    for kind in (METADATA, EVALUATION):
        for name in [name for name in changed if Path(name).name == kind.name]:
            try:
                content = json.loads(changed[name])  # type: ignore[arg-type]
                del content["sha256"]
                digest = kind.schema.from_json(content).digest  # type: ignore[attr-defined]
            except Exception:
                continue  # what reads it will say why
            folder = name.removesuffix(kind.name)
            for other in files:
                if other.startswith(folder) and other.endswith(".safetensors"):
                    arrays, header = opened_tensors(files[other])
                    header["dataset" if kind is METADATA else "evaluation"] = digest
                    changed.setdefault(other, sealed_tensors(arrays, header))
                entry = {"evaluation.json": "dataset", "forecasts.json": "dataset_digest"}
                if kind is METADATA and Path(other).name in entry:
                    said = json.loads(files[other])
                    del said["sha256"]
                    said[entry[Path(other).name]] = digest
                    changed[other] = sealed_json(said)
    return Damage(changed, damage.what)


# --- limits ----------------------------------------------------------------------------------


class _TooLongError(BaseException):
    """Passes all that catches exceptions."""


def _too_long(number: int, frame: FrameType | None) -> None:
    raise _TooLongError


def is_read(reader: Reader, directory: Path) -> bool:
    """Whether what is in the directory can be read; an AssertionError if one cannot tell."""
    refused: TiplError | None = None
    before = signal.signal(signal.SIGPROF, _too_long), signal.signal(signal.SIGALRM, _too_long)
    memory = _memory()
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.setitimer(signal.ITIMER_REAL, 6 * SECONDS)  # waiting for a pipe takes no processor
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of arithmetic; users may have them
            reader.read(directory)
    except TiplError as error:
        refused = error
    except _TooLongError as error:
        raise AssertionError(f"{reader.name} takes more than {SECONDS} s") from error
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGPROF, before[0])
        signal.signal(signal.SIGALRM, before[1])
    taken = _memory("VmHWM") - memory
    assert taken <= MEGABYTES, f"{reader.name} takes {taken:.0f} MB"
    assert len(str(refused)) <= LONGEST, f"a message of {len(str(refused)):,} characters"
    return refused is None


def _memory(which: str = "VmRSS") -> float:
    """Megabytes of memory of this process: now, or (`VmHWM`) at most since it was asked for now."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0.0
    if which == "VmRSS":
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    found = next(line for line in status.read_text().splitlines() if line.startswith(which))
    return int(found.split()[1]) / 1e3
