"""A training that was killed, interrupted or has diverged goes on from its last good state."""

from __future__ import annotations

import contextlib
import dataclasses
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tipl
from path_data import make_arrays, make_metadata, write_parts
from tipl.cli import main
from tipl.core import storage
from tipl.errors import TiplError
from tipl.evaluation import behaviour
from tipl.experiments import pipeline
from tipl.experiments.clearing import clear_experiment
from tipl.models import learning_paths, loop
from tipl.models.kinds import all_kinds
from tipl.models.neuron_transformer import losses
from tipl.paths import PathDataset, create_dataset

STEPS = 8
SMALL: dict[str, Any] = {
    "num_steps": STEPS, "width": 8, "batch_size": 4, "threads": 1, "progress": False,
}  # fmt: skip
NEURON: dict[str, Any] = {
    "heads": 2, "memory": 16, "fresh_widths": (8, 4), "fresh_depths": (1, 2), "rounds": 1,
    "behaviour_weight": 0.1, "condition_on_return": True,
}  # fmt: skip
KINDS = [kind.name for kind in all_kinds(registered=False) if not kind.lineages]

each_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that happens now and then happens within a few steps."""
    monkeypatch.setattr(loop, "LOG_INTERVAL", 3)
    monkeypatch.setattr(losses, "VISIT_EVERY", 2)
    monkeypatch.setattr(behaviour, "NUM_ROLLOUTS", 4)
    monkeypatch.setattr(behaviour, "STEPS_OF_ROLLOUT", 20)
    monkeypatch.setattr(learning_paths, "STEPS_OF_ANCHOR", 32)
    monkeypatch.setattr(learning_paths, "STATES_OF_ANCHOR", 16)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> PathDataset:
    directory = tmp_path_factory.mktemp("paths") / "paths"
    return make_paths(directory, seed=1)


def make_paths(directory: Path, seed: int) -> PathDataset:
    metadata = make_metadata(seed=seed)
    arrays = make_arrays(metadata)
    arrays["diverged"][:] = False
    arrays["params"] = np.nan_to_num(arrays["params"]) * np.float32(0.3)
    create_dataset(directory, metadata)
    write_parts(directory, metadata, arrays)
    return PathDataset.open(directory)


def train(kind: str, paths: PathDataset, out: Path, **options: Any) -> None:
    own = NEURON if kind == "neuron" else {}
    split = paths.split(0.34)
    held_out = options.pop("held_out", split.held_out)
    tipl.train(split.train, model=kind, held_out=held_out, out=out, **SMALL | own | options)


def state_of(out: Path) -> Path:
    return out.with_name(f"{out.name}.training.safetensors")


def bytes_of(out: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(out.iterdir())}


class Killed(BaseException):
    """Ends an experiment, too."""


@contextlib.contextmanager
def ending_after(steps: int, end: type[BaseException] = KeyboardInterrupt) -> Iterator[None]:
    """Has the next training end in the middle of a later step."""
    left = iter(range(steps))
    advance = loop._Fit.advance

    def ending(self: loop._Fit, batch_loss: Callable[..., torch.Tensor]) -> float:
        if next(left, None) is None:
            batch_loss(self.rng)  # draws, and remembers
            raise end
        return advance(self, batch_loss)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(end):  # noqa: PT012
        patch.setattr(loop._Fit, "advance", ending)
        yield


@each_kind
def test_an_interrupted_training_ends_in_the_same_bytes(
    kind: str, paths: PathDataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(kind, paths, tmp_path / "undisturbed")
    out = tmp_path / "model"
    fits = 2 if kind == "neuron" else 1
    for done in range(1, fits * STEPS, 4):  # each goes on from where the one before has stopped
        with ending_after(4 if done > 1 else 1):
            train(kind, paths, out, resume=True)
        assert not out.exists()
    assert "goes on" not in caplog.text
    assert f"{state_of(out)} keeps the training after step" in caplog.text
    train(kind, paths, out, resume=True)
    assert bytes_of(out) == bytes_of(tmp_path / "undisturbed")
    assert {path.name for path in tmp_path.iterdir()} == {"undisturbed", "model"}


def test_a_killed_training_ends_in_the_same_bytes(paths: PathDataset, tmp_path: Path) -> None:
    train("wnn", paths, tmp_path / "undisturbed")
    script = f"""
import os, signal, sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
import tipl
from tipl.models import loop, resuming
resuming.SECONDS = resuming.SHARE = 0.0
resuming.TrainingState.due = True
loop.LOG_INTERVAL = 3
advance = loop._Fit.advance
def dying(self, batch_loss):
    if self.step == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return advance(self, batch_loss)
loop._Fit.advance = dying
split = tipl.PathDataset.open({str(paths.directory)!r}).split(0.34)
tipl.train(split.train, held_out=split.held_out, model="wnn", out={str(tmp_path / "model")!r},
    **{SMALL!r})
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.returncode == -9, ended.stderr
    _, header = storage.read_tensors(state_of(tmp_path / "model"))
    assert header["steps"] == {"train (WNN)": 5}
    train("wnn", paths, tmp_path / "model", resume=True)
    assert bytes_of(tmp_path / "model") == bytes_of(tmp_path / "undisturbed")


@each_kind
def test_a_training_that_diverged_goes_on_with_a_smaller_rate(
    kind: str, paths: PathDataset, tmp_path: Path
) -> None:
    out, options = tmp_path / "model", {"targets": ("own",)} if kind == "neuron" else {}
    message = (
        r"diverged at step \d of 8 \(.*\) with a learning rate of 1e\+30, and nothing was saved; "
        r"train with a smaller one, from the start or, with --resume, from step 0"
    )
    for resume in (False, True):
        with pytest.raises(TiplError, match=message):
            train(kind, paths, out, learning_rate=1e30, resume=resume, **options)
    assert not out.exists()
    train(kind, paths, out, learning_rate=1e-3, resume=True, **options)
    assert not state_of(out).exists()
    train(kind, paths, tmp_path / "fresh", learning_rate=1e-3, **options)
    assert bytes_of(out) == bytes_of(tmp_path / "fresh")  # from step 0 it is the same


def test_of_a_diverged_training_the_state_before_the_last_is_kept(
    paths: PathDataset, tmp_path: Path
) -> None:
    advance = loop._Fit.advance

    def diverging(self: loop._Fit, batch_loss: Callable[..., torch.Tensor]) -> float:
        value = advance(self, batch_loss)
        self.check_finite(np.nan if self.step == 8 else value, "loss")
        return value

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop._Fit, "advance", diverging)
        with pytest.raises(TiplError, match=r"with --resume, from step 3"):  # not from step 6
            train("wnn", paths, tmp_path / "model")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 16}, "is of a training with width 8, but 16 was given to go on with it"),
        ({"seed": 4}, "is of a training with seed 0, but 4 was given"),
        ({"held_out": None}, "is of a training on other paths or trials"),
    ],
)
def test_another_training_does_not_go_on(
    options: dict[str, Any], message: str, paths: PathDataset, tmp_path: Path
) -> None:
    with ending_after(4):
        train("wnn", paths, tmp_path / "model")
    with pytest.raises(TiplError, match=message):
        train("wnn", paths, tmp_path / "model", resume=True, **options)


def test_nor_does_one_on_other_paths(paths: PathDataset, tmp_path: Path) -> None:
    with ending_after(4):
        train("wnn", paths, tmp_path / "model")
    others = make_paths(tmp_path / "others", seed=2)
    with pytest.raises(TiplError, match="is of a training on other paths or trials"):
        train("wnn", others, tmp_path / "model", resume=True)


def test_without_resume_a_state_is_mentioned_and_replaced(
    paths: PathDataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with ending_after(4):
        train("wnn", paths, tmp_path / "model")
    caplog.clear()
    train("wnn", paths, tmp_path / "model")
    (said,) = caplog.messages
    assert "model.training.safetensors holds 3 steps of train (WNN) of a training that was" in said
    assert not state_of(tmp_path / "model").exists()


def test_resuming_without_a_state_starts_from_the_beginning(
    paths: PathDataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train("wnn", paths, tmp_path / "model", resume=True)
    assert "to go on with: the training starts from the beginning" in caplog.text
    with pytest.raises(TiplError, match="resume was given without out"):
        tipl.train(paths, model="wnn", resume=True)


def test_a_file_that_is_no_state_is_left_alone(paths: PathDataset, tmp_path: Path) -> None:
    state_of(tmp_path / "model").write_bytes(b"my thesis")
    for resume in (False, True):
        with pytest.raises(TiplError, match=r"training.safetensors is not a file of training"):
            train("wnn", paths, tmp_path / "model", resume=resume)
    assert state_of(tmp_path / "model").read_bytes() == b"my thesis"


def broken(how: str, name: str, array: np.ndarray) -> np.ndarray:
    """Another array instead of one of a state."""
    if how == "row":
        return array[None]
    if how == "curve" and name.endswith(".curve"):
        return array[:0]
    if how == "nan" and array.dtype.kind == "f":
        return np.full_like(array, np.nan)
    return array.astype(bool) if how == "bool" else array


@pytest.mark.parametrize("how", ["row", "curve", "nan", "bool", "strides", "missing", "other"])
def test_a_state_that_does_not_fit_is_refused(how: str, paths: PathDataset, tmp_path: Path) -> None:
    file = state_of(tmp_path / "model")
    with ending_after(4):
        train("wnn", paths, tmp_path / "model")
    arrays, header = storage.read_tensors(file)
    changed = {name: broken(how, name, array) for name, array in arrays.items()}
    if how == "strides":
        header["strides"] = {name: [10**12] * array.ndim for name, array in arrays.items()}
    elif how == "missing":
        changed = {}
    elif how == "other":
        header["steps"] = {"train (WNN)": -1}
    storage.write_tensors(file, changed, header)
    with pytest.raises(TiplError, match=r"model\.training\.safetensors"):
        train("wnn", paths, tmp_path / "model", resume=True)


def test_an_experiment_that_starts_afresh_removes_states(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    state = state_of(tmp_path / "models" / "path")
    storage.write_tensors(state, {}, {"kind": "training"})
    clear_experiment(tmp_path, [], [tmp_path / "models" / "path"])
    assert not state.exists()


def test_the_command_line_goes_on(
    paths: PathDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model"
    arguments = ["train", str(paths.directory), "--model", "wnn", "--out", str(out)]
    arguments += ["--num-steps", "8", "--width", "8"]
    with pytest.raises(SystemExit):
        main([*arguments, "--learning-rate", "1e30"])
    assert "train with a smaller one, from the start or, with --resume," in capsys.readouterr().err
    assert state_of(out).exists()
    main([*arguments, "--resume"])
    assert out.is_dir()
    assert not state_of(out).exists()


def test_an_experiment_goes_on_with_a_training(
    paths: PathDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Sequence[str]] = []

    def run(words: Sequence[str], quiet: bool) -> pipeline.Ended:
        given.append(words)
        main(words)
        return pipeline.Ended(0, 1.0, 1.0, "")

    monkeypatch.setattr(pipeline, "_run_tipl", run)

    def train_in(directory: Path) -> Path:
        models = {"wnn": ("--model", "wnn", "--num-steps", STEPS, "--width", 8)}
        (made,) = pipeline.training(directory, models, 0.34, 0)
        stage = dataclasses.replace(
            made, arguments=("train", paths.directory, *made.arguments[2:]), reads=()
        )
        pipeline.prepare_directory(directory, False, "benchmark")
        pipeline.Pipeline(directory, [stage], threads=1, progress=False).run()
        return stage.directory

    undisturbed = train_in(tmp_path / "undisturbed")
    with ending_after(4, Killed):
        train_in(tmp_path / "run")
    given.clear()
    again = train_in(tmp_path / "run")
    assert given[0][-1] == "--resume"
    assert bytes_of(again) == bytes_of(undisturbed)
    assert not state_of(again).exists()
    (record,) = storage.read_json(tmp_path / "run" / "stages.json")["stages"]
    assert "--resume" not in record["command"]
