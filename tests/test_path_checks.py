"""Damage to a path dataset is found, named and never returned as data; summaries are right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from path_data import DIVERGED, Arrays, N, make_arrays, make_dataset, make_metadata, part_files
from tipl import storage
from tipl.errors import TiplError
from tipl.paths import PathDataset, create_dataset, parts_present, summarize, verify


@pytest.fixture
def small_files(tmp_path: Path) -> list[Path]:
    """The two files of a dataset with a single part."""
    make_dataset(tmp_path / "small", num_trials=2, num_checkpoints=3)
    return [tmp_path / "small" / "metadata.json", *part_files(tmp_path / "small")]


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


def test_truncations_are_detected(small_files: list[Path]) -> None:
    directory = small_files[0].parent
    for path in small_files:
        data = path.read_bytes()
        for length in range(0, len(data), 7):
            path.write_bytes(data[:length])
            assert_detected(directory, path.name)
        path.write_bytes(data)
    assert verify(directory) == []


def test_bit_flips_are_detected(small_files: list[Path]) -> None:
    rng = np.random.default_rng(0)
    directory = small_files[0].parent
    for path in small_files * 150:
        data = path.read_bytes()
        flipped = bytearray(data)
        flipped[rng.integers(len(data))] ^= 1 << rng.integers(8)
        path.write_bytes(flipped)
        assert_detected(directory, path.name)
        path.write_bytes(data)
    assert verify(directory) == []


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
        (lambda data: data.pop("seed"), "lacks seed; restore"),
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
    lines = verify(directory)
    assert len(lines) == 2
    assert "notes.txt does not belong" in lines[0]
    assert "trials-99.safetensors does not belong" in lines[1]


def test_the_state_of_an_unfinished_collection_is_checked(directory: Path) -> None:
    (directory / "resume").mkdir()
    state = directory / "resume" / "trials-00002.safetensors"
    storage.write_tensors(state, {"x": np.zeros(2)}, {})
    leftover = directory / "resume" / ".x.1234.unfinished"
    leftover.touch()
    assert verify(directory) == [f"{leftover} was left by a write that never finished; delete it"]
    create_dataset(directory, make_metadata())
    assert verify(directory) == []
    state.write_bytes(state.read_bytes()[:-1])
    (line,) = verify(directory)
    assert f"{state} is damaged" in line


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
    assert summary.diverged_trials == (DIVERGED,)
    for found, last in ((summary.first_return, False), (summary.last_return, True)):
        known = [[x for x in trial if not np.isnan(x)] for trial in arrays["episodic_return"]]
        expected = [returns[-1 if last else 0] for returns in known]
        assert found is not None
        assert found.mean == pytest.approx(np.mean(expected))
        assert (found.lowest, found.highest) == (min(expected), max(expected))


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
