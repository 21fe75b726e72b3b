"""Datasets of recorded runs: trials of whatever length, that grow, and that nobody overwrites."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from path_data import make_dataset, make_metadata
from tipl import TiplError
from tipl.cli import main
from tipl.evaluation.checkpoints import evaluate_paths
from tipl.models.learning_paths import usable
from tipl.paths import PathDataset, PathMetadata, create_dataset, read_metadata, summarize, verify
from tipl.paths.writing import Checkpoint, TrialWriter
from tipl.policies.layout import actor_layout
from tipl.policies.tasks import get_task

STEPS = 64


def recorded(**changes: Any) -> PathMetadata:
    runs = {"num_trials": None, "num_checkpoints": None, "trials_per_part": 1}
    return make_metadata(**(runs | changes))


def checkpoint(metadata: PathMetadata, trial: int, t: int, late: int = 0) -> Checkpoint:
    rng = np.random.default_rng((trial, t))
    return {
        "params": rng.standard_normal((1, metadata.layout.size), np.float32),
        "diverged": np.zeros(1, bool),
        "iteration": np.array(t, np.int64),
        "global_step": np.array(t * STEPS + late, np.int64),
        "episodic_return": np.full(1, np.nan, np.float32),
        "num_episodes": np.zeros(1, np.int32),
    }


def record(
    directory: Path, *lengths: int, late: tuple[int, ...] = (0, 0, 0), **changes: Any
) -> PathMetadata:
    """A dataset of recorded runs of some lengths, each of which is `late` by some steps."""
    metadata = recorded(**changes)
    create_dataset(directory, metadata)
    for trial, length in enumerate(lengths):
        writer = TrialWriter(directory, metadata)
        for t in range(length):
            writer.append(checkpoint(metadata, trial, t, late[trial]))
        writer.sync()
    return metadata


def part_bytes(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((directory / "parts").iterdir())}


def test_runs_of_several_lengths_are_read_up_to_the_end_of_the_shortest(tmp_path: Path) -> None:
    metadata = record(tmp_path, 5, 3, 7, late=(0, 2, 10))
    paths = PathDataset.open(tmp_path)
    assert (paths.num_trials, paths.num_checkpoints) == (3, 3)
    assert paths.lengths.tolist() == [5, 3, 7]
    assert "3 checkpoints (of up to 7)" in repr(paths)
    assert paths.params().shape == (3, 3, metadata.layout.size)
    assert paths.env_steps().tolist() == [[0, 64, 128], [2, 66, 130], [10, 74, 138]]
    assert paths.global_step.tolist() == [4, 68, 132]  # the mean
    assert paths[2].global_step.tolist() == [10, 74, 138]
    long = PathDataset.open(tmp_path, trials=[2, 0])
    assert (long.trials.tolist(), long.num_checkpoints) == ([2, 0], 5)
    np.testing.assert_array_equal(long.params()[:, :3], paths.params()[[2, 0]])
    expected = [checkpoint(metadata, 2, t)["params"][0] for t in range(5)]
    np.testing.assert_array_equal(long.params()[0], expected)
    assert long.select([0]).num_checkpoints == 5
    assert paths.split(0.4)[0].num_checkpoints == 3
    TrialWriter(tmp_path, metadata).append(checkpoint(metadata, 3, 0))
    with pytest.raises(TiplError, match="have 1 checkpoints; expected at least 3: record longer"):
        usable(PathDataset.open(tmp_path))
    assert usable(PathDataset.open(tmp_path, [0, 1, 2])).num_checkpoints == 3
    assert verify(tmp_path) == []
    with pytest.raises(TiplError, match="trial 4 is not among the 4 trials"):
        PathDataset.open(tmp_path, trials=[4])


def test_a_trial_is_readable_at_every_moment_while_it_grows(tmp_path: Path) -> None:
    metadata = record(tmp_path, 1)
    early = PathDataset.open(tmp_path)
    writer = TrialWriter.resume(tmp_path, metadata, 0)
    returns = []
    for t in range(1, 8):
        writer.amend({"episodic_return": np.array([t], np.float32)})
        returns.append(t)
        writer.append(checkpoint(metadata, 0, t))
        paths = PathDataset.open(tmp_path)
        assert paths.num_checkpoints == t + 1
        assert paths.episodic_return()[0, :t].tolist() == returns
        assert paths.global_step.tolist() == [STEPS * i for i in range(t + 1)]
        assert verify(tmp_path) == []
        np.testing.assert_array_equal(early.params(), paths.params(slice(0, 1)))
    assert len(part_bytes(tmp_path)) == 3  # of 3 checkpoints each


def test_a_trial_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    metadata = record(tmp_path, 2, 2)
    before = part_bytes(tmp_path)
    with pytest.raises(TiplError, match="holds a trial 1 already, and nothing is written over it"):
        TrialWriter(tmp_path, metadata, 1)
    at_once = [TrialWriter(tmp_path, metadata, 4) for _ in range(2)]
    at_once[0].append(checkpoint(metadata, 4, 0))
    with pytest.raises(TiplError, match="holds a trial 4 already"):
        at_once[1].append(checkpoint(metadata, 5, 0))
    free = [TrialWriter(tmp_path, metadata) for _ in range(2)]
    for writer in free:
        writer.append(checkpoint(metadata, 6, 0))
    assert [writer.trial for writer in free] == [5, 6]
    assert PathDataset.open(tmp_path).trials.tolist() == [0, 1, 4, 5, 6]
    assert {name: part_bytes(tmp_path)[name] for name in before} == before


@pytest.mark.parametrize("length", [2, 3])  # a part is full at 3
def test_of_two_runs_that_go_on_with_a_trial_one_does(tmp_path: Path, length: int) -> None:
    metadata = record(tmp_path, length)
    writers = [TrialWriter.resume(tmp_path, metadata, 0) for _ in range(2)]
    writers[0].append(checkpoint(metadata, 0, length))
    for write in (writers[1].append, writers[1].amend):
        with pytest.raises(TiplError, match="another one goes on with trial 0, or somebody"):
            write(checkpoint(metadata, 9, length))
    writers[0].amend({"num_episodes": np.array([3], np.int32)})
    paths = PathDataset.open(tmp_path)
    expected = checkpoint(metadata, 0, length)["params"][0]
    np.testing.assert_array_equal(paths.params()[0, length], expected)
    assert paths.num_episodes()[0, length] == 3


def test_where_nothing_is_finished_one_sentence_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    create_dataset(tmp_path, recorded())
    with pytest.raises(TiplError, match=r"nothing of .* is finished yet: no recorded run has come"):
        PathDataset.open(tmp_path)
    assert verify(tmp_path) == []
    main(["paths", "show", str(tmp_path)])
    assert "0 recorded" in capsys.readouterr().out


def test_nobody_is_told_to_collect_what_was_recorded(tmp_path: Path) -> None:
    record(tmp_path, 7, 7)
    parts = sorted((tmp_path / "parts").iterdir())
    parts[0].unlink()
    parts[-1].write_bytes(parts[-2].read_bytes())
    said = [*verify(tmp_path)]
    with pytest.raises(TiplError) as error:
        PathDataset.open(tmp_path)
    said.append(str(error.value))
    parts[-1].unlink()
    with pytest.raises(TiplError, match=r"is incomplete: 4 of 5 parts are there; restore") as error:
        PathDataset.open(tmp_path)
    said.append(str(error.value))
    assert len(said) == 4
    for sentence in said:
        assert "restore it from a copy, or remove all files of its trial" in sentence
        assert "tipl collect" not in sentence
    for part in parts[:3]:
        part.unlink(missing_ok=True)  # all files of trial 0
    assert PathDataset.open(tmp_path).lengths.tolist() == [6]


def test_planned_trials_and_recorded_runs_do_not_go_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record(tmp_path / "recorded", 2)
    make_dataset(tmp_path / "planned")
    with pytest.raises(TiplError, match=r"another dataset: planned trials.*choose another"):
        create_dataset(tmp_path / "planned", recorded())
    little = "--num-trials 1 --total-steps 64 --ppo.num-steps 64 --ppo.num-minibatches 2"
    for options in ("", " --from-sb3"):
        with pytest.raises(SystemExit):
            main(f"collect InvertedPendulum-v4 {little}{options} --out {tmp_path}/recorded".split())
        assert "another dataset: recorded runs (of a PathRecorder)" in capsys.readouterr().err


def test_an_evaluation_goes_on_when_runs_have(tmp_path: Path) -> None:
    metadata = record(tmp_path, 2, 4)
    evaluate_paths(tmp_path, episodes=1, every=2)
    long = PathDataset.open(tmp_path, trials=[1])
    assert np.isfinite(long.deterministic_return()[0, :, 0]).tolist() == [True, False, True, True]
    kept = (tmp_path / "evaluation").glob("trials-00001*00000*")
    times = {path: path.stat().st_mtime_ns for path in kept}
    writer = TrialWriter.resume(tmp_path, metadata, 0)
    writer.append(checkpoint(metadata, 0, 2))
    with pytest.raises(TiplError, match=r"is incomplete.* run `tipl paths evaluate`"):
        PathDataset.open(tmp_path).deterministic_return()
    returns = evaluate_paths(tmp_path, episodes=1, every=2).deterministic_return()
    assert np.isfinite(returns[0, :, 0]).tolist() == [True, False, True]
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    assert verify(tmp_path) == []
    summary = summarize(tmp_path)
    assert summary.evaluation is not None
    assert (summary.evaluation.num_files, summary.lengths) == (3, {0: 3, 1: 4})
    (tmp_path / "parts" / os.fspath(writer.files.path(writer.files.parts[0]).name)).unlink()
    again = TrialWriter(tmp_path, metadata)
    again.append(checkpoint(metadata, 7, 0))
    assert again.trial == 2  # there are still returns of trial 0


@pytest.mark.parametrize("clip", [10.0, 1.5, math.inf])
def test_policies_have_the_clip_of_their_dataset(tmp_path: Path, clip: float) -> None:
    metadata = record(tmp_path, 1, observation_clip=clip)
    assert read_metadata(tmp_path) == metadata
    stored = metadata.to_json()
    assert ("observation_clip" in stored) == (clip != 10)
    assert stored.get("observation_clip") == {1.5: 1.5}.get(clip)
    paths = PathDataset.open(tmp_path)
    policy = paths.policy(0, 0)
    assert policy.observation_clip == clip
    far = policy.observation_mean + 40 * policy.observation_std * np.array([1, -1, 1, -1])
    inputs = np.clip([40, -40, 40, -40], -clip, clip)
    near = policy.observation_mean + policy.observation_std * inputs
    np.testing.assert_allclose(policy.act(far), policy.act(near), rtol=1e-4)


@pytest.mark.parametrize("squashed", [False, True])
def test_layouts_of_other_units_are_stored(tmp_path: Path, squashed: bool) -> None:
    layout = actor_layout(get_task("InvertedPendulum-v4"), (3,), "relu", squashed)
    metadata = record(tmp_path, 2, layout=layout, algorithm="SAC")
    assert read_metadata(tmp_path) == metadata
    policy = PathDataset.open(tmp_path).policy(0, 1)
    assert policy.layout == metadata.actor_layout == layout
    assert metadata.to_json()["algorithm"] == "SAC"
    assert "algorithm" not in recorded().to_json()
