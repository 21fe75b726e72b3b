"""Deterministic returns of stored checkpoints: what is run and kept, however often it is killed."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from path_data import DIVERGED, N, T, make_dataset, make_evaluation, part_files
from tipl.cli import main
from tipl.core import storage, unfinished
from tipl.errors import TiplError
from tipl.evaluation import checkpoints as path_evaluation
from tipl.evaluation.checkpoints import evaluate_paths
from tipl.evaluation.returns import Episodes, evaluate
from tipl.paths import PathDataset, read_metadata, summarize, verify
from tipl.paths.returns import ReturnFiles, read_evaluation

SETTINGS: dict[str, Any] = {"episodes": 2, "every": 4, "seed": 7}
EVALUATED = [0, 4, 6]  # of 7 checkpoints; parts hold 0-2, 3-5 and 6 of trials 0-1, 2-3 and 4


class KilledError(BaseException):
    """What stops an evaluation in these tests."""


def run(directory: Path, threads: int = 1, **changes: Any) -> PathDataset:
    return evaluate_paths(directory, threads=threads, **(SETTINGS | changes))


def content(directory: Path) -> dict[str, bytes | None]:
    """Every file and folder of a directory."""
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None
        for path in directory.rglob("*")
    }


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset that was evaluated in one go."""
    directory = tmp_path_factory.mktemp("evaluated") / "paths"
    make_dataset(directory)
    run(directory)
    return directory


@pytest.fixture
def copy(evaluated: Path, tmp_path: Path) -> Path:
    return shutil.copytree(evaluated, tmp_path / "paths")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    make_dataset(tmp_path / "paths")
    return tmp_path / "paths"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many policies were run at once, each time that some were."""
    original, counts = path_evaluation.evaluate_stack, list[int]()

    def counting(params: np.ndarray, *args: Any, **kwargs: Any) -> Episodes:
        counts.append(len(params))
        return original(params, *args, **kwargs)

    monkeypatch.setattr(path_evaluation, "evaluate_stack", counting)
    return counts


# --- what is run -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [{}, {"normaliser": "running"}, {"normaliser": "running", "networks": "actor+critic"}],
)
def test_each_checkpoint_returns_what_its_policy_does(
    tmp_path: Path, changes: dict[str, str]
) -> None:
    make_dataset(tmp_path, **changes)
    paths = run(tmp_path)
    returns = paths.deterministic_return()
    assert (returns.shape, returns.dtype) == ((N, T, 2), np.float32)
    for i in range(N):
        for t in range(T):
            if t in EVALUATED and not (i == DIVERGED and t >= 4):
                alone = evaluate(paths.policy(i, t), 2, seed=7).episodic_return
                np.testing.assert_array_equal(returns[i, t], alone.astype(np.float32))
            else:
                assert np.isnan(returns[i, t]).all()
    assert len(np.unique(returns[np.isfinite(returns)])) > 4
    assert verify(tmp_path) == []


@pytest.mark.parametrize(
    ("every", "expected"), [(1, [*range(T)]), (2, [0, 2, 4, 6]), (5, [0, 5, 6]), (99, [0, 6])]
)
def test_every_so_many_checkpoints_and_the_last_are_run(
    directory: Path, every: int, expected: list[int]
) -> None:
    returns = run(directory, every=every, episodes=1).deterministic_return()
    assert np.flatnonzero(np.isfinite(returns[0, :, 0])).tolist() == expected


def test_defaults_are_five_episodes_of_every_checkpoint(directory: Path) -> None:
    assert evaluate_paths(directory).deterministic_return().shape == (N, T, 5)
    evaluation = read_evaluation(directory, read_metadata(directory))
    assert (evaluation.every, evaluation.seed) == (1, 0)


def test_a_part_is_run_at_once(directory: Path, calls: list[int]) -> None:
    run(directory, every=1)
    assert calls == [6, 6, 2, 6, 4, 1, 3, 3, 1]  # without those that have diverged


def test_returns_do_not_depend_on_threads(evaluated: Path, directory: Path) -> None:
    run(directory, threads=2)
    assert content(directory) == content(evaluated)


def test_unlabelled_nan_is_not_run(directory: Path) -> None:
    path = part_files(directory)[4]
    tensors, header = storage.read_tensors(path)
    tensors["params"] = tensors["params"].copy()
    tensors["params"][0, 1, 5] = np.nan
    storage.write_tensors(path, tensors, header)
    with pytest.raises(TiplError, match="checkpoint 4 of trial 2, have NaN or infinite weights"):
        run(directory)


# --- going on --------------------------------------------------------------------------------


def kill_at(patch: pytest.MonkeyPatch, write: int, after: bool) -> None:
    """Makes a file's write fail just before or after its renaming, and leaves what is there."""
    replace, writes = os.replace, []

    def failing(source: Path, target: Path) -> None:
        writes.append(target)
        if len(writes) == write + 1 and not after:
            raise KilledError
        replace(source, target)
        if len(writes) == write + 1:
            raise KilledError

    patch.setattr(os, "replace", failing)
    patch.setattr(unfinished, "remove", lambda *_: None)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("write", [0, 1, 2, 5, 9])  # evaluation.json and nine parts
def test_a_killed_evaluation_goes_on_where_it_was(
    evaluated: Path, directory: Path, monkeypatch: pytest.MonkeyPatch, calls: list[int],
    write: int, after: bool,
) -> None:  # fmt: skip
    with monkeypatch.context() as patch:
        kill_at(patch, write, after)
        with pytest.raises(KilledError):
            run(directory)
    problems = verify(directory)
    assert (problems == []) == (write == 9 and after)
    assert sum("finished" in line for line in problems) == (not after)
    if write + after > 0 and problems:
        count = 10 - write - after
        assert f"{count} of 9 files of deterministic returns are missing" in problems[-1]
        assert "evaluate` with the same settings (episodes=2, every=4, seed=7)" in problems[-1]
    before, calls[:] = list(calls), []
    run(directory)
    assert content(directory) == content(evaluated)
    assert len(before) + len(calls) == 9 + (write > 0 and not after)  # one is run a second time


def test_nothing_is_run_twice(
    copy: Path, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    times = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    again = run(copy)
    # returns that are there are good, whatever is installed by now
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "99.0")
    run(copy, threads=2)
    assert calls == []
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == times
    assert again.deterministic_return().shape == (N, T, 2)


def test_a_removed_file_is_made_again(evaluated: Path, copy: Path, calls: list[int]) -> None:
    sorted((copy / "evaluation").glob("trials-*"))[3].unlink()
    run(copy)
    assert calls == [2]
    assert content(copy) == content(evaluated)


def test_the_settings_are_made_again(evaluated: Path, copy: Path, calls: list[int]) -> None:
    (copy / "evaluation" / "evaluation.json").unlink()
    with pytest.raises(TiplError, match=r"trials-00000-00001.* holds evaluation = .*delete it"):
        run(copy, seed=1)
    run(copy)
    assert calls == []
    assert content(copy) == content(evaluated)


def test_an_interruption_says_how_to_go_on(
    evaluated: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ReturnFiles, "write", interrupted)
        with pytest.raises(TiplError, match=r"safe in .*evaluation: run the same command again"):
            run(directory)
    run(directory)
    assert content(directory) == content(evaluated)


# --- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{"episodes": 3}, {"every": 2}, {"seed": 0}])
@pytest.mark.parametrize("complete", [True, False])
def test_other_settings_are_refused(copy: Path, changes: dict[str, int], complete: bool) -> None:
    if not complete:
        next((copy / "evaluation").glob("trials-*")).unlink()
    before, asked = content(copy), SETTINGS | changes
    given = ", ".join(f"{name}={value}" for name, value in asked.items())
    message = (
        f"{copy / 'evaluation'} already holds an evaluation with episodes=2, every=4, seed=7, but "
        f"{given} was given; give the same settings, or remove {copy / 'evaluation'} first"
    )
    with pytest.raises(TiplError, match=re.escape(message)):
        run(copy, **changes)
    assert content(copy) == before


def test_an_evaluation_is_of_one_version(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    next((copy / "evaluation").glob("trials-*")).unlink()
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "99.0")
    with pytest.raises(TiplError, match=r"made with gymnasium .* but \"99.0\" is installed"):
        run(copy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"episodes": 0}, "episodes is 0; expected at least 1"),
        ({"every": 0}, "every is 0; expected at least 1"),
        ({"seed": -1}, "seed is -1; expected at least 0"),
        ({"threads": 0}, "threads is 0; expected at least 1"),
    ],
)
def test_impossible_options(directory: Path, changes: dict[str, int], message: str) -> None:
    before = content(directory)
    with pytest.raises(TiplError, match=message):
        run(directory, **changes)
    assert content(directory) == before


def test_an_incomplete_dataset_is_refused(directory: Path) -> None:
    part_files(directory)[-1].unlink()
    with pytest.raises(TiplError, match="8 of 9 parts are there"):
        run(directory)
    assert not (directory / "evaluation").exists()


def test_damage_is_named_and_not_built_upon(evaluated: Path, copy: Path) -> None:
    for path in (copy / "evaluation" / "evaluation.json", part_files(copy)[3],
                 sorted((copy / "evaluation").glob("trials-*"))[5]):  # fmt: skip
        data = path.read_bytes()
        path.write_bytes(data[:-9])
        with pytest.raises(TiplError, match=rf"{path.name} is damaged.*make it again"):
            run(copy)
        path.write_bytes(data)
    assert content(copy) == content(evaluated)


def test_an_evaluation_of_another_dataset_is_refused(copy: Path, tmp_path: Path) -> None:
    make_dataset(tmp_path / "other", seed=2)
    shutil.copytree(copy / "evaluation", tmp_path / "other" / "evaluation")
    message = r"evaluation.json belongs to another dataset .* remove .*other/evaluation and run"
    for function in (run, summarize, lambda path: PathDataset.open(path).deterministic_return()):
        with pytest.raises(TiplError, match=message):
            function(tmp_path / "other")
    (line,) = verify(tmp_path / "other")
    assert re.search(message, line)


# --- the command -----------------------------------------------------------------------------

COMMAND = "paths evaluate {} --episodes 2 --every 4 --seed 7 --threads 1"


def tipl(command: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command, run in this process."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(command.split())
        except SystemExit as stop:
            code = int(stop.code or 0)
    return code, out.getvalue(), err.getvalue()


def test_the_command_does_what_its_arguments_say(evaluated: Path, directory: Path) -> None:
    code, out, err = tipl(COMMAND.format(directory))
    assert code == 0
    assert content(directory) == content(evaluated)
    assert (0, out, "") == tipl(f"paths show {directory}")
    assert re.findall(r"evaluate \d+ policies.*%", err)[-1].startswith("evaluate 15 policies")
    assert "100%" in err


def test_progress_counts_what_is_there(
    copy: Path, monkeypatch: pytest.MonkeyPatch, calls: list[int]
) -> None:
    files = sorted((copy / "evaluation").glob("trials-*"))
    for path in files[3:]:
        path.unlink()
    bars: list[Any] = []
    original = path_evaluation.progress_bar

    def recording(shown: bool) -> Any:
        bars.append((original(shown), shown))
        return bars[-1][0]

    monkeypatch.setattr(path_evaluation, "progress_bar", recording)
    advanced: list[tuple[int, float]] = []
    monkeypatch.setattr(ReturnFiles, "write", lambda *args: advanced.append(
        (len(advanced), bars[-1][0].tasks[0].completed)))  # fmt: skip
    run(copy)
    [(bar, shown)] = bars
    assert not shown
    assert [done for _, done in advanced] == [6, 8, 10, 12, 13, 14]
    assert (bar.tasks[0].total, bar.tasks[0].completed) == (15, 15)


def shown_row(directory: Path) -> str:
    code, out, err = tipl(f"paths show {directory}")
    assert (code, err) == (0, "")
    rows = " ".join(out.split())  # a narrow terminal breaks lines
    found = re.search(r"deterministic return at the end (.*) diverged trials", rows)
    return found[1] if found else ""


@pytest.mark.parametrize("episodes", [1, 2])
def test_show_sums_the_returns_up(directory: Path, episodes: int) -> None:
    assert shown_row(directory) == ""
    make_evaluation(directory, episodes=episodes)
    last = PathDataset.open(directory).deterministic_return()[:, -1].astype(np.float64)
    means = np.delete(last, DIVERGED, axis=0).mean(axis=1)
    expected = (
        f"mean {means.mean():,.1f}, from {means.min():,.1f} to {means.max():,.1f} over trials "
        f"({episodes} episode{'s' if episodes > 1 else ''} each)"
    )
    assert shown_row(directory) == expected
    (directory / "evaluation" / part_files(directory)[0].name).unlink()
    assert shown_row(directory) == (
        f"{expected}; 8 of 9 files are there (run `tipl paths evaluate` again to make the rest)"
    )


def test_show_of_hardly_anything(directory: Path) -> None:
    make_evaluation(directory)
    for path in part_files(directory)[2::3]:
        (directory / "evaluation" / path.name).unlink()
    assert shown_row(directory).startswith("unknown (2 episodes each); 6 of 9 files")


BAD_INPUT = {
    "paths evaluate {}/missing": "missing/metadata.json",
    "paths evaluate {} --episodes 0": "episodes is 0",
    "paths evaluate {} --every 0": "every is 0",
    "paths evaluate {} --seed -1": "seed is -1",
    "paths evaluate {} --threads 0": "threads is 0",
    "paths evaluate {}": "but episodes=5, every=1, seed=0 was given",
}


@pytest.mark.parametrize("command", BAD_INPUT)
def test_bad_input_gets_one_sentence(evaluated: Path, command: str) -> None:
    before = content(evaluated)
    code, out, err = tipl(command.format(evaluated))
    assert (code, out) == (2, "")
    assert err.startswith("tipl: ")
    assert err.count("\n") == 1
    assert BAD_INPUT[command] in err
    assert content(evaluated) == before


def test_control_c_exits_with_130(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(path_evaluation, "evaluate_stack", interrupted)
    code, _, err = tipl(COMMAND.format(directory))
    assert code == 130
    assert "run the same command again to go on" in err.splitlines()[-1]
