"""Damage to a path dataset is found, named and never returned as data; summaries are right."""

from __future__ import annotations

import math
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest

from path_data import (
    DIVERGED,
    Arrays,
    N,
    make_arrays,
    make_dataset,
    make_evaluation,
    make_metadata,
    part_files,
)
from tipl.cli import main
from tipl.core import storage
from tipl.core.locks import FileLock, locked_directory
from tipl.core.unfinished import held, new_file
from tipl.errors import TiplError
from tipl.paths import PathDataset, ReturnRange, parts_present, summarize, verify
from tipl.paths.checks import being_written


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    make_dataset(tmp_path / "paths")
    return tmp_path / "paths"


def read_everything(directory: Path) -> None:
    paths = PathDataset.open(directory)
    paths.params()
    _ = paths.global_step


def assert_detected(directory: Path, *names: str) -> None:
    """Reading raises, and each line of verify names a file that is meant."""
    with pytest.raises(TiplError) as error:
        read_everything(directory)
    lines = verify(directory)
    assert lines
    for line in [*lines, str(error.value)]:
        assert any(name in line for name in names), line


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dataset of one part, which has been evaluated: four files, of some hundred bytes each."""
    # Thousands of readings as in earnest: without the checks of shapes, which are slow, and might
    # stop damage that nothing else does.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    make_dataset(tmp_path / "small", num_trials=2, num_checkpoints=1)
    make_evaluation(tmp_path / "small")
    return tmp_path / "small"


def read_returns(directory: Path) -> None:
    PathDataset.open(directory).deterministic_return()


def files_of(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def assert_damaged(directory: Path, path: Path) -> None:
    """`verify` names the damaged file and no other, and nothing is read from it."""
    lines = verify(directory)
    assert lines
    for line in lines:
        assert str(path) in line
    read = read_returns if path.parent.name == "evaluation" else read_everything
    with pytest.raises(TiplError, match=re.escape(str(path))):
        read(directory)


def test_every_truncation_is_detected(small: Path) -> None:
    files = files_of(small)
    assert len(files) == 4
    for path in files:
        data = path.read_bytes()
        # test_storage.py tries all lengths of both formats
        for length in range(0, len(data), 7):
            path.write_bytes(data[:length])
            assert_damaged(small, path)
        path.write_bytes(data)
    assert verify(small) == []


def test_bit_flips_are_detected(small: Path) -> None:
    rng = np.random.default_rng(0)
    for path in files_of(small) * 80:
        data = path.read_bytes()
        flipped = bytearray(data)
        flipped[rng.integers(len(data))] ^= 1 << rng.integers(8)
        path.write_bytes(flipped)
        assert_damaged(small, path)
        path.write_bytes(data)
    assert verify(small) == []


def test_swapped_parts_are_detected(directory: Path) -> None:
    first, second = part_files(directory)[:2]
    first.rename(directory / "x")
    second.rename(first)
    (directory / "x").rename(second)
    assert_detected(directory, first.name, second.name)
    assert "checkpoints = [3, 5], but [0, 2] is expected" in verify(directory)[0]


def test_a_part_of_another_dataset_is_detected(directory: Path, tmp_path: Path) -> None:
    make_dataset(tmp_path / "other", seed=2)
    ours, theirs = part_files(directory)[4], part_files(tmp_path / "other")[4]
    ours.write_bytes(theirs.read_bytes())
    assert_detected(directory, ours.name)
    assert "belongs to another dataset" in verify(directory)[0]


def rewrite(path: Path, change: Callable[[Arrays], object]) -> None:
    """Changes a part's arrays, hash included, as only a program can."""
    tensors, header = storage.read_tensors(path)
    tensors = {name: array.copy() for name, array in tensors.items()}
    change(tensors)
    storage.write_tensors(path, tensors, header)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.update(format_version=2), "has format version 2, but this tipl reads"),
        (lambda data: data.pop("format_version"), "has format version None"),
        (lambda data: data.pop("seed"), "missing required field `seed`; restore"),
        (lambda data: data["task"].pop("env_id"), "env_id"),
        (lambda data: data.update(hidden_sizes=3), "metadata.json: "),
        (lambda data: data.update(layout=[["x"]]), "a parameter layout must be"),
    ],
)
def test_metadata_of_another_version_is_refused(
    directory: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    data = storage.read_json(directory / "metadata.json")
    change(data)
    storage.write_json(directory / "metadata.json", data)
    for function in (PathDataset.open, summarize):
        with pytest.raises(TiplError, match=message) as error:
            function(directory)
        assert str(directory / "metadata.json") in str(error.value)
    assert len(verify(directory)) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_unlabelled_nan_is_detected(directory: Path, value: float) -> None:
    path = part_files(directory)[4]
    rewrite(path, lambda tensors: tensors["params"].__setitem__((1, 0, 5), value))
    assert_detected(directory, path.name)
    assert "checkpoint 3 of trial 3, have NaN or infinite weights" in verify(directory)[0]
    paths = PathDataset.open(directory)
    assert np.isfinite(paths.select([2]).params()).all()  # the neighbours can be read
    with pytest.raises(TiplError, match="checkpoint 3 of trial 3"):
        paths.select([3]).params(slice(3, 4))


def test_steps_that_contradict_each_other_are_detected(directory: Path) -> None:
    files = part_files(directory)
    rewrite(files[3], lambda tensors: tensors["global_step"].__iadd__(1))
    assert verify(directory) == [
        f"{files[3]} has another global_step than other trials at the same checkpoints"
    ]
    for path in files[0::3]:
        rewrite(path, lambda tensors: tensors["iteration"].__imul__(-1))
    assert f"{directory / 'parts'}: iteration does not grow" in verify(directory)[1]


def test_strange_files_are_detected(directory: Path) -> None:
    (directory / "notes.txt").touch()
    (directory / "parts" / "trials-99.safetensors").touch()
    (directory / "parts" / "trials-00000.lock").touch()
    lines = verify(directory)
    assert len(lines) == 3
    assert "notes.txt does not belong" in lines[0]
    assert "trials-00000.lock does not belong" in lines[1]
    assert "trials-99.safetensors does not belong" in lines[2]


def test_what_is_being_written_is_no_problem(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_evaluation(directory)
    (directory / "resume").mkdir()
    lock = FileLock(directory / "resume" / "trials-00002.lock")
    assert lock.acquire()
    state = lock.path.with_suffix(".safetensors")
    state.write_bytes(b"replaced while it is read")
    part = part_files(directory)[0]
    me = f"process {os.getpid()} on {socket.gethostname()}"
    with (
        held(part, new_file) as (temporary, _),
        locked_directory(directory / "evaluation"),
    ):
        assert verify(directory) == []
        assert being_written(directory) == [
            f"{directory / 'evaluation'} is being written by {me}",
            f"{temporary} is being written by {me}",
            f"{lock.path} is being written by {me}",
        ]
        main(["paths", "verify", str(directory)])
        said = capsys.readouterr().out.splitlines()
        assert said[:3] == being_written(directory)
        assert said[3].endswith("is intact so far: every byte is as it was written")
        for missing in (part, directory / "evaluation" / part.name):
            missing.unlink()
        problems = verify(directory)
        assert len(problems) == 2
        for problem in problems:
            assert f"are missing, the first of them {directory}" in problem
            assert problem.endswith(f"; they are being written by {me}: wait for it to end")
        (directory / "evaluation" / "evaluation.json").unlink()
        assert len(verify(directory)) == 1  # it may be about to be written
    lock.release()
    assert being_written(directory) == []
    assert "tipl collect" in verify(directory)[1]
    assert verify(directory)[0].startswith(f"{state} is damaged")


def test_who_writes_is_told_where_the_system_says_it(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "what another system says\n")
    with held(part_files(directory)[0], new_file) as (temporary, _):
        assert being_written(directory) == [f"{temporary} is being written by another process"]


def test_the_state_of_an_unfinished_collection_is_checked(directory: Path) -> None:
    (directory / "resume").mkdir()
    state = directory / "resume" / "trials-00002.safetensors"
    storage.write_tensors(state, {"x": np.zeros(2)}, {})
    (directory / "resume" / "trials-00002.lock").write_text("process 1")  # may still be held
    leftover = directory / "resume" / ".x.1234.unfinished"
    leftover.touch()
    assert verify(directory) == [f"{leftover} was left by a write that never finished; delete it"]
    leftover.unlink()
    assert verify(directory) == []
    state.write_bytes(state.read_bytes()[:-1])
    (line,) = verify(directory)
    assert f"{state} is damaged" in line


def returns_files(directory: Path) -> list[Path]:
    return sorted((directory / "evaluation").glob("*.safetensors"))


def test_missing_returns_are_told_from_damaged_ones(directory: Path) -> None:
    make_evaluation(directory)
    assert verify(directory) == []
    files = returns_files(directory)
    for path in (files[1], files[8]):
        path.unlink()
    _cut_off(files[4])
    missing, damaged = verify(directory)
    assert missing == (
        f"2 of 9 files of deterministic returns are missing, the first of them {files[1]}; run "
        "`tipl paths evaluate` with the same settings (episodes=2, every=4, seed=0) to make them"
    )
    assert f"{files[4]} is damaged" in damaged
    paths = PathDataset.open(directory)
    paths.params()  # the weights are none the worse
    with pytest.raises(
        TiplError, match=r"incomplete: 7 of 9 files of .* are there; run `tipl paths ev"
    ):
        paths.deterministic_return()


def _cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def test_damaged_returns_are_no_trouble_to_other_trials(directory: Path) -> None:
    returns = make_evaluation(directory)
    _cut_off(returns_files(directory)[4])
    paths = PathDataset.open(directory)
    np.testing.assert_array_equal(paths.select([4, 0]).deterministic_return(), returns[[4, 0]])
    with pytest.raises(TiplError, match="is damaged"):
        paths.select([3]).deterministic_return()


def test_swapped_returns_are_detected(directory: Path) -> None:
    make_evaluation(directory)
    first, second = returns_files(directory)[:2]
    first.rename(directory / "x")
    second.rename(first)
    (directory / "x").rename(second)
    lines = verify(directory)
    assert len(lines) == 2
    assert f"{first} holds checkpoints = [3, 5], but [0, 2] is expected" in lines[0]
    with pytest.raises(TiplError, match=re.escape(lines[0])):
        read_returns(directory)


def test_returns_of_another_evaluation_are_detected(directory: Path, tmp_path: Path) -> None:
    make_evaluation(directory)
    make_dataset(tmp_path / "other")
    make_evaluation(tmp_path / "other", seed=1)
    ours, theirs = returns_files(directory)[4], returns_files(tmp_path / "other")[4]
    ours.write_bytes(theirs.read_bytes())
    (line,) = verify(directory)
    assert f"{ours} holds evaluation = " in line
    assert "delete it and run `tipl paths evaluate`" in line


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.update(format_version=2), "has format version 2, but this tipl reads"),
        (lambda data: data.pop("every"), "missing required field `every`; restore"),
        (lambda data: data.update(episodes=0), "Expected `int` >= 1 - at `$.episodes`"),
        (lambda data: data.update(episodes=2 * 10**12), "episodes is 2e+12; expected at most"),
        (lambda data: data.update(every="2"), "evaluation.json: "),
        (lambda data: data.update(dataset="0"), "belongs to another dataset"),
    ],
)
def test_an_evaluation_of_another_version_is_refused(
    directory: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    make_evaluation(directory)
    path = directory / "evaluation" / "evaluation.json"
    data = storage.read_json(path)
    change(data)
    storage.write_json(path, data)
    (line,) = verify(directory)
    assert line.startswith(str(path))
    assert message in line
    for function in (summarize, read_returns):
        with pytest.raises(TiplError, match=re.escape(line)):
            function(directory)


def test_what_an_evaluation_claims_takes_no_memory(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_evaluation(directory)
    path = directory / "evaluation" / "evaluation.json"
    storage.write_json(path, storage.read_json(path) | {"episodes": 9_000_000})
    paths = PathDataset.open(directory)
    asked = list[int]()
    empty = np.empty

    def counted(shape: Any, *more: Any, **others: Any) -> Any:
        asked.append(math.prod(np.atleast_1d(shape)))
        return empty(shape, *more, **others)

    monkeypatch.setattr(np, "empty", counted)
    with pytest.raises(TiplError, match=r"holds deterministic_return = .*9000000"):
        paths.deterministic_return()
    assert max(asked, default=0) < 9_000_000


def test_what_does_not_belong_to_an_evaluation_is_detected(directory: Path) -> None:
    make_evaluation(directory)
    leftover = directory / "evaluation" / ".x.1234.unfinished"
    for path in (leftover, directory / "evaluation" / "trials.lock"):
        path.touch()
    assert verify(directory) == [
        f"{leftover} was left by a write that never finished; delete it",
        f"{directory / 'evaluation' / 'trials.lock'} does not belong to the dataset; move it "
        "elsewhere",
    ]


def test_returns_are_checked_without_a_description(directory: Path) -> None:
    make_evaluation(directory)
    damaged = returns_files(directory)[2]
    _cut_off(damaged)
    for name in ("evaluation/evaluation.json", "metadata.json"):
        (directory / name).unlink()
        lines = verify(directory)
        assert len(lines) == 2
        assert str(directory / name) in lines[0]
        assert f"{damaged} is damaged" in lines[1]


def test_missing_parts_are_told_from_damaged_ones(directory: Path) -> None:
    files = part_files(directory)
    for path in (files[1], files[8]):
        path.unlink()
    message = f"{directory} is incomplete: 7 of 9 parts are there; run `tipl collect` with the same"
    with pytest.raises(TiplError, match=message):
        PathDataset.open(directory)
    (line,) = verify(directory)
    assert line.startswith(f"2 of 9 parts are missing, the first of them {files[1]}; run `tipl")
    present = parts_present(directory, make_metadata())
    assert [part.path(directory) for part in present] == [files[0], *files[2:8]]
    summary = summarize(directory)
    assert summary.missing_parts == (files[1].name, files[8].name)


def test_no_dataset(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        for function in (PathDataset.open, summarize):
            with pytest.raises(TiplError, match=r"made by `tipl collect`.*check the spelling"):
                function(path)
    with pytest.raises(TiplError, match=r"no directory .*absent.*check the spelling"):
        verify(tmp_path / "absent")
    assert "there is no" in verify(tmp_path)[0]


def test_a_summary(directory: Path) -> None:
    arrays = make_arrays(make_metadata())
    summary = summarize(directory)
    assert summary.complete
    assert summary.metadata == make_metadata()
    assert (summary.num_parameters, summary.num_parts) == (20, 9)
    assert (summary.steps_per_trial, summary.total_steps) == (6 * 4096, N * 6 * 4096)
    assert summary.size_on_disk == sum(
        path.stat().st_size for path in directory.rglob("*") if path.is_file()
    )
    assert summary.evaluation is None
    assert summary.diverged_trials == (DIVERGED,)
    for found, last in ((summary.first_return, False), (summary.last_return, True)):
        known = [[x for x in trial if not np.isnan(x)] for trial in arrays["episodic_return"]]
        expected = [returns[-1 if last else 0] for returns in known]
        assert found is not None
        assert found.mean == pytest.approx(np.mean(expected))
        assert (found.lowest, found.highest) == (min(expected), max(expected))


@pytest.mark.parametrize("length", [6, 7])  # the last part holds 3 checkpoints, or only one
def test_a_summary_of_an_evaluation(tmp_path: Path, length: int) -> None:
    directory = tmp_path / "paths"
    make_dataset(directory, num_checkpoints=length)
    last = make_evaluation(directory)[:, -1].mean(axis=1, dtype=np.float64)
    known = np.delete(last, DIVERGED)
    summary = summarize(directory)
    files = (path for path in directory.rglob("*") if path.is_file())
    assert summary.size_on_disk == sum(path.stat().st_size for path in files)
    found = summary.evaluation
    assert found is not None
    columns = -(-length // 3)
    assert (found.episodes, found.num_files, found.missing_files) == (2, 3 * columns, ())
    assert found.last_return == ReturnRange(known.mean(), known.min(), known.max())
    for path in returns_files(directory)[columns - 1 :: columns]:  # of the last checkpoint
        path.unlink()
    found = summarize(directory).evaluation
    assert found is not None
    assert (found.num_files, len(found.missing_files)) == (3 * columns - 3, 3)
    assert found.last_return is None


def test_a_summary_of_hardly_anything(directory: Path) -> None:
    for path in part_files(directory)[1:]:
        path.unlink()
    summary = summarize(directory)
    assert not summary.complete
    assert (summary.num_parts, len(summary.missing_parts)) == (1, 8)
    assert (summary.steps_per_trial, summary.total_steps) == (6 * 4096, 2 * 2 * 4096)
    part_files(directory)[0].unlink()
    summary = summarize(directory)
    assert (summary.num_parts, summary.total_steps) == (0, 0)
    assert summary.first_return is None
    assert summary.last_return is None
