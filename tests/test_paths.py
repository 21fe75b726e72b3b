"""Path datasets: what is written is read back, in whole or in slices, and nothing else is."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from path_data import (
    DIVERGED,
    N,
    T,
    make_arrays,
    make_dataset,
    make_evaluation,
    make_metadata,
    part_files,
)
from tipl.core import storage
from tipl.errors import TiplError
from tipl.paths import PathDataset, create_dataset, read_metadata, verify, write_part
from tipl.policies.layout import ParamLayout
from tipl.policies.tasks import get_task


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    make_dataset(tmp_path / "paths")
    return tmp_path / "paths"


def test_metadata_is_read_back(directory: Path) -> None:
    assert read_metadata(directory) == make_metadata()
    text = (directory / "metadata.json").read_text()
    assert '\n    "learning_rate": 0.0003,\n' in text
    assert make_metadata().digest in text


def test_a_directory_is_what_the_documentation_says(directory: Path) -> None:
    assert sorted(path.name for path in directory.iterdir()) == ["metadata.json", "parts"]
    names = [path.name for path in part_files(directory)]
    assert len(names) == 9
    assert names[0] == "trials-00000-00001.checkpoints-00000-00002.safetensors"
    assert names[-1] == "trials-00004-00004.checkpoints-00006-00006.safetensors"


def test_equal_content_has_equal_bytes(directory: Path, tmp_path: Path) -> None:
    task = dataclasses.replace(get_task("InvertedPendulum-v4"))
    object.__setattr__(task, "action_low", (-3,))  # a file's task has floats, its maker's integers
    make_dataset(tmp_path / "again", task=task)
    for path in [directory / "metadata.json", *part_files(directory)]:
        again = tmp_path / "again" / path.relative_to(directory)
        assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_trials": 0}, "num_trials of a path dataset is 0; expected a positive integer"),
        ({"checkpoints_per_part": 2.0}, "checkpoints_per_part of a path dataset is 2.0"),
        ({"networks": "critic"}, "is 'critic'; expected one of actor, actor\\+critic"),
        ({"initial": ""}, "expected one of independent, shared"),
        ({"normaliser": None}, "is None; expected one of frozen, running"),
        ({"layout": ParamLayout.actor(4, 2, (3,))}, "is not the one of actor with hidden sizes"),
    ],
)
def test_impossible_metadata_is_refused(changes: dict[str, Any], message: str) -> None:
    metadata = make_metadata()
    for name, value in changes.items():  # not by `replace`: the tests' type checker is as strict
        object.__setattr__(metadata, name, value)
    with pytest.raises(TiplError, match=message):
        metadata.__post_init__()


def test_an_equal_dataset_is_resumed_and_another_one_refused(directory: Path) -> None:
    before = {path: path.read_bytes() for path in part_files(directory)}
    create_dataset(directory, make_metadata())
    for changes, message in (
        ({"seed": 2}, "its seed is 1, but 2 was given; choose another directory"),
        ({"ppo": {"learning_rate": 1e-3, "num_minibatches": 32}}, "ppo.learning_rate is 0.0003"),
        ({"ppo": {"learning_rate": 3e-4}}, "ppo.num_minibatches is 32, but absent was given"),
        ({"task": get_task("InvertedPendulum-v5")}, "task.env_id is .*v4.*v5"),
    ):
        with pytest.raises(TiplError, match=message) as error:
            create_dataset(directory, make_metadata(**changes))
        assert str(directory) in str(error.value)
    assert {path: path.read_bytes() for path in part_files(directory)} == before
    assert verify(directory) == []


def test_other_directories_are_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(TiplError, match=r"holds thesis.tex but no metadata.json.*choose an empty"):
        create_dataset(tmp_path, make_metadata())
    with pytest.raises(TiplError, match=r"cannot .*thesis.tex"):
        create_dataset(tmp_path / "thesis.tex", make_metadata())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_dataset_without_metadata_is_not_made_another(directory: Path) -> None:
    (directory / "metadata.json").unlink()
    with pytest.raises(TiplError, match=r"holds parts/trials-.* but no metadata.json"):
        create_dataset(directory, make_metadata(seed=2))


def test_an_unfinished_description_is_cleaned_up_on_resumption(directory: Path) -> None:
    leftover = directory / ".metadata.json.1234.unfinished"
    leftover.touch()
    assert verify(directory) == [f"{leftover} was left by a write that never finished; delete it"]
    create_dataset(directory, make_metadata())
    assert verify(directory) == []


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("params", np.zeros((2, 3, 20), np.float64), "params is .*float64.*float32"),
        ("params", np.zeros((2, 3, 19), np.float32), "params is .*19.*20"),
        ("diverged", None, "diverged is absent, but .*bool"),
        ("extra", np.zeros(2), "extra is .* but absent is expected"),
        ("global_step", np.zeros(2, np.int64), "global_step is"),
        ("params", np.full((2, 3, 20), np.nan, np.float32), "6 checkpoints, the first of them "
         "checkpoint 3 of trial 2, have NaN .*label such trials"),
    ],
)  # fmt: skip
def test_wrong_arrays_are_not_written(
    tmp_path: Path, name: str, value: np.ndarray | None, message: str
) -> None:
    metadata = make_metadata()
    arrays = make_arrays(metadata)
    part = {key: a[3:6] if a.ndim == 1 else a[0:2, 3:6] for key, a in arrays.items()}
    if value is None:
        del part[name]
    else:
        part[name] = value
    create_dataset(tmp_path, metadata)
    with pytest.raises(TiplError, match=message) as error:
        write_part(tmp_path, metadata, 2, 3, part)
    assert "trials-00002-00003.checkpoints-00003-00005" in str(error.value)
    assert part_files(tmp_path) == []


def test_parts_start_where_the_grid_says(tmp_path: Path) -> None:
    for start in ((1, 0), (0, 2), (6, 0), (0, 9)):
        with pytest.raises(TiplError, match=r"no part starts at .*multiples of 2 below 5"):
            write_part(tmp_path, make_metadata(), *start, {})


@pytest.mark.parametrize("normaliser", ["frozen", "running"])
def test_everything_is_read_back(tmp_path: Path, normaliser: str) -> None:
    arrays = make_dataset(tmp_path, normaliser=normaliser)
    paths = PathDataset.open(tmp_path)
    assert (len(paths), paths.num_trials, paths.num_checkpoints) == (N, N, T)
    assert (paths.directory, paths.metadata) == (tmp_path, make_metadata(normaliser=normaliser))
    assert paths.task == get_task("InvertedPendulum-v4")
    assert paths.layout == ParamLayout.actor(4, 1, (3,))
    assert "InvertedPendulum-v4: 5 trials, 7 checkpoints, 20 parameters" in repr(paths)
    for name in ("params", "episodic_return", "num_episodes"):
        np.testing.assert_array_equal(getattr(paths, name)(), arrays[name], strict=True)
    for name in ("global_step", "iteration", "trials"):
        expected = np.arange(N) if name == "trials" else arrays[name]
        np.testing.assert_array_equal(getattr(paths, name), expected, strict=True)
    assert paths.diverged().tolist() == [False, False, False, True, False]
    assert paths.usable_trials().tolist() == paths.trials[[0, 1, 2, 4]].tolist()
    mean, std = paths.observation_statistics()
    if normaliser == "running":
        np.testing.assert_array_equal(mean, arrays["observation_mean"], strict=True)
        np.testing.assert_array_equal(std, arrays["observation_std"], strict=True)
    else:
        np.testing.assert_array_equal(mean, np.tile(paths.task.observation_mean, (N, T, 1)))
        np.testing.assert_array_equal(std, np.tile(paths.task.observation_std, (N, T, 1)))


def test_steps_are_read_without_the_weights_beside_them(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = PathDataset.open(directory)
    monkeypatch.setattr(storage, "read_tensors", None)  # reads and hashes a whole part
    assert paths.global_step.tolist() == [t * paths.metadata.steps_per_checkpoint for t in range(T)]
    assert len(paths.iteration) == T


def test_steps_that_do_not_grow_are_refused(directory: Path) -> None:
    for path in sorted((directory / "parts").iterdir()):
        tensors, header = storage.read_tensors(path)
        tensors["global_step"][:] = 5
        storage.write_tensors(path, tensors, header)
    with pytest.raises(TiplError, match=r"global_step does not grow .* `tipl paths verify`"):
        _ = PathDataset.open(directory).global_step


def test_deterministic_returns(directory: Path) -> None:
    paths = PathDataset.open(directory)
    message = (
        rf"no {directory}/evaluation/evaluation.json, .* run `tipl paths evaluate {directory}`"
    )
    with pytest.raises(TiplError, match=message):
        paths.deterministic_return()
    returns = make_evaluation(directory)
    assert np.isfinite(returns).any(axis=(0, 2)).tolist() == [1, 0, 0, 0, 1, 0, 1]
    np.testing.assert_array_equal(paths.deterministic_return(), returns, strict=True)
    for trials in ([4, 0, 3], [1]):
        view = paths.select(trials)
        np.testing.assert_array_equal(view.deterministic_return(), returns[trials], strict=True)


def test_paths_are_read_one_by_one(directory: Path) -> None:
    arrays = make_arrays(make_metadata())
    view = PathDataset.open(directory).select([4, 0, 3])
    assert [path.trial for path in view] == [4, 0, 3]
    for path in [*view, view[-1]]:
        for name, array in arrays.items():
            if name != "num_episodes":
                expected = array if array.ndim == 1 else array[path.trial]
                np.testing.assert_array_equal(getattr(path, name), expected, strict=True)


@pytest.mark.parametrize("trials", [[0, 1, 2, 3, 4], [4, 1, 2], [3], [1, 0, 3]])
@pytest.mark.parametrize(
    "checkpoints",
    [None, slice(0, 3), slice(2, 4), slice(1, 7), slice(6, None), slice(-2, None), slice(4, 4),
     slice(0, None, 2), slice(1, 6, 4), slice(None, None, -1), slice(5, 0, -2)],
)  # fmt: skip
def test_slices_across_parts(directory: Path, trials: list[int], checkpoints: slice | None) -> None:
    params = make_arrays(make_metadata())["params"]
    view = PathDataset.open(directory).select(trials)
    expected = params[trials][:, checkpoints or slice(None)]
    np.testing.assert_array_equal(view.params(checkpoints), expected, strict=True)


def test_each_part_is_hashed_once(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[Path] = []
    verify_tensors = storage.verify_tensors

    def record(path: Path, *args: Any) -> None:
        hashed.append(path)
        verify_tensors(path, *args)

    monkeypatch.setattr(storage, "verify_tensors", record)
    paths = PathDataset.open(directory)
    paths.select([0]).params(slice(0, 4))
    assert hashed == part_files(directory)[:2]
    paths.params()
    paths.select([1]).params()
    assert sorted(hashed) == part_files(directory)


@pytest.mark.parametrize("networks", ["actor", "actor+critic"])
@pytest.mark.parametrize("normaliser", ["frozen", "running"])
def test_policies(tmp_path: Path, networks: str, normaliser: str) -> None:
    arrays = make_dataset(tmp_path, networks=networks, normaliser=normaliser)
    paths = PathDataset.open(tmp_path)
    view = paths.select([4, 1])
    for i, checkpoint, trial, t in ((0, 0, 4, 0), (1, 5, 1, 5), (-1, -1, 1, 6), (0, -7, 4, 0)):
        policy = view.policy(i, checkpoint)
        np.testing.assert_array_equal(policy.params, arrays["params"][trial, t, :20])
        assert policy.layout == ParamLayout.actor(4, 1, (3,))
        assert policy.task == paths.task
        statistics = [array[i, t] for array in view.observation_statistics()]
        np.testing.assert_array_equal(policy.observation_mean, statistics[0])
        np.testing.assert_array_equal(policy.observation_std, statistics[1])
    for i, checkpoint, name in ((2, 0, "trial 2"), (-3, 0, "trial -3"), (0, 7, "checkpoint 7")):
        with pytest.raises(TiplError, match=f"there is no {name}: expected one from -"):
            view.policy(i, checkpoint)
    with pytest.raises(TiplError, match="NaN"):
        paths.policy(DIVERGED, -1)


def test_a_view_has_only_its_trials(directory: Path) -> None:
    view = PathDataset.open(directory).select(np.array([1, 3]))
    with pytest.raises(TiplError, match="trial 2 is not among the 2 trials of this view"):
        view.select([1, 2])
    with pytest.raises(TiplError, match="no trial was given"):
        view.select([])


def test_a_split_is_by_trial(tmp_path: Path) -> None:
    make_dataset(tmp_path, num_trials=23, trials_per_part=10, num_checkpoints=5)
    paths = PathDataset.open(tmp_path)
    splits = [paths.split(seed=seed) for seed in range(40)]
    for train, held_out in splits:
        assert len(held_out) == round(0.25 * 22)
        assert sorted([*train.trials, *held_out.trials]) == sorted({*range(23)} - {DIVERGED})
        assert (np.diff(train.trials) > 0).all()
        assert (np.diff(held_out.trials) > 0).all()
    again = PathDataset.open(tmp_path).split(seed=3)
    assert again.held_out.trials.tolist() == splits[3].held_out.trials.tolist()
    assert len({tuple(split.held_out.trials) for split in splits}) == len(splits)
    assert len({*np.concatenate([split.held_out.trials for split in splits])}) == 22


@pytest.mark.parametrize(("share", "expected"), [(1e-9, 1), (0.5, 2), (0.99, 3)])
def test_each_side_of_a_split_has_a_trial(directory: Path, share: float, expected: int) -> None:
    train, held_out = PathDataset.open(directory).split(share)
    assert (len(train), len(held_out)) == (4 - expected, expected)


def test_an_impossible_split_is_refused(directory: Path) -> None:
    paths = PathDataset.open(directory)
    for share in (0.0, 1.0, -0.5, float("nan")):
        with pytest.raises(TiplError, match="expected a number between 0 and 1"):
            paths.split(share)
    with pytest.raises(TiplError, match=r"1 of 2 trials .* can be used .*collect more"):
        paths.select([0, DIVERGED]).split()


def test_windows_are_all_there_are(directory: Path) -> None:
    view = PathDataset.open(directory).select([2, 0, 4])
    for context in range(1, T):
        for horizon in range(1, T - context + 1):
            naive = [
                (i, start)
                for i in range(3)
                for start in range(T)
                if start + context + horizon - 1 < T
            ]
            assert [tuple(pair) for pair in view.windows(context, horizon)] == naive


def test_impossible_windows_are_refused(directory: Path) -> None:
    paths = PathDataset.open(directory)
    with pytest.raises(TiplError, match="a context of 0 was given; expected 1 or more"):
        paths.windows(0, 1)
    with pytest.raises(TiplError, match="a horizon of -1 was given; expected 1 or more"):
        paths.windows(1, -1)
    with pytest.raises(TiplError, match=r"need 8 checkpoints, but the paths in .* have 7; choose"):
        paths.windows(5, 3)


def test_single_checkpoints_are_read_where_they_lie(directory: Path) -> None:
    view = PathDataset.open(directory).select([4, 0, 2])
    rng = np.random.default_rng(0)
    i, at = rng.integers(-3, 3, (6, 5)), rng.integers(-T, T, (6, 5))
    np.testing.assert_array_equal(view.checkpoints(i, at), view.params()[i, at])
    one = view.checkpoints(np.array([[1]]), np.arange(T))  # shapes are broadcast
    np.testing.assert_array_equal(one, view.params()[1:2])
    for wrong in ((3, 0), (0, T), (-4, 0), (0, -T - 1)):
        with pytest.raises(TiplError, match=r"there is no (trial|checkpoint) -?\d"):
            view.checkpoints(*map(np.array, wrong))


def test_single_checkpoints_of_damaged_parts_are_refused(directory: Path) -> None:
    path = part_files(directory)[1]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    paths = PathDataset.open(directory)
    assert np.isfinite(paths.checkpoints(np.array(0), np.array(2))).all()
    with pytest.raises(TiplError, match=r"00003-00005\.safetensors is damaged"):
        paths.checkpoints(np.array(0), np.array(4))


def test_single_checkpoints_may_have_diverged_but_not_unlabelled(tmp_path: Path) -> None:
    make_dataset(tmp_path / "paths")
    paths = PathDataset.open(tmp_path / "paths")
    assert np.isnan(paths.checkpoints(np.array(DIVERGED), np.array(4))).any()
