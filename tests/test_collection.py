"""Collecting paths: what is stored, the same bytes however it is collected, and refusals."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Box

from tipl.collection import groups as trial_groups
from tipl.collection.collect import collect
from tipl.collection.config import CollectConfig
from tipl.collection.groups import TrialGroup
from tipl.collection.physics import draw_physics
from tipl.core import storage
from tipl.core.progress import CollectionProgress
from tipl.envs import make_task, make_vec
from tipl.errors import TiplError
from tipl.evaluation.returns import evaluate
from tipl.paths import PathDataset, verify
from tipl.policies.tasks import get_task
from tipl.ppo.config import PPOConfig
from tipl.ppo.ppo import PPO, Rollout

PENDULUM = "InvertedPendulum-v4"
STEPS = 16  # between two updates
FAST_PPO = PPOConfig(num_steps=STEPS, num_minibatches=2, update_epochs=2)
# Trials 0 and 1 are a group, 2 alone is another; parts hold 8 checkpoints and 3.
N, ITERATIONS = 3, 10
OPTIONS: dict[str, Any] = {
    "num_trials": N,
    "trials_per_group": 2,
    "total_steps": ITERATIONS * STEPS,
    "hidden_sizes": (8, 6),
    "seed": 3,
    "ppo": FAST_PPO,
}
EVERYTHING = {
    "checkpoint_interval": 2,
    "total_steps": 2 * ITERATIONS * STEPS,
    "normaliser": "running",
    "networks": "actor+critic",
    "initial": "shared",
}
VARIANTS: dict[str, dict[str, Any]] = {"plain": {}, "everything": EVERYTHING}


class KilledError(BaseException):
    """What stops a collection in these tests."""


def run(out: Path, env_id: str = PENDULUM, threads: int = 1, **changes: Any) -> PathDataset:
    return collect(env_id, out=out, threads=threads, progress=False, **(OPTIONS | changes))


def content(directory: Path) -> dict[str, bytes | None]:
    """Every file and folder of a directory."""
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None
        for path in directory.rglob("*")
    }


@pytest.fixture(scope="module", autouse=True)
def _measured_once() -> Iterator[None]:
    """Random episodes tell what is observed in Gymnasium's environments: once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tipl.collection.collect.make_task", functools.cache(make_task))
        yield


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> dict[str, Any]:
    return VARIANTS[request.param]


@pytest.fixture(scope="module")
def undisturbed(variant: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> PathDataset:
    """A dataset that was collected in one go, in one thread."""
    return run(tmp_path_factory.mktemp("undisturbed") / "paths", **variant)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> PathDataset:
    return run(tmp_path_factory.mktemp("plain") / "paths")


def interrupt(
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    trial: int,
    iteration: int,
    error: type[BaseException] = KilledError,
) -> None:
    """Makes a method of PPO fail in the group that starts with a trial, at an iteration."""
    original: Callable[..., Any] = getattr(PPO, method)

    def failing(self: PPO, *args: Any) -> Any:
        if self.trials[0] == trial and self.iteration == iteration:
            raise error
        return original(self, *args)

    monkeypatch.setattr(PPO, method, failing)


def count_updates(monkeypatch: pytest.MonkeyPatch) -> dict[int, int]:
    """Counts the updates of each group by its first trial, from now on."""
    original, counts = PPO.update, dict[int, int]()

    def counting(self: PPO, rollout: Rollout) -> None:
        counts[self.trials[0]] = counts.get(self.trials[0], 0) + 1
        original(self, rollout)

    monkeypatch.setattr(PPO, "update", counting)
    return counts


# --- what is stored --------------------------------------------------------------------------


def drive_by_hand(trials: list[int], config: CollectConfig) -> dict[str, np.ndarray]:
    """The arrays of a group of trials, from a PPO that is called step by step."""
    ppo = PPO(
        make_vec(PENDULUM, len(trials)),
        get_task(PENDULUM),
        trials,
        config.num_iterations,
        config.ppo,
        config.hidden_sizes,
        config.normaliser,
        config.initial,
        config.seed,
    )
    columns: dict[str, list[np.ndarray]] = {
        name: [] for name in ("params", "episodic_return", "num_episodes", "mean", "std")
    }
    for iteration in range(config.num_iterations + 1):
        mean, std = ppo.observation_statistics()
        before = {"params": ppo.params.copy(), "mean": mean.copy(), "std": std.copy()}
        rollout = ppo.rollout()
        if iteration % config.checkpoint_interval == 0:
            for name, array in before.items():
                columns[name].append(array)
            columns["episodic_return"].append(rollout.episodic_return)
            columns["num_episodes"].append(rollout.num_episodes)
        if iteration < config.num_iterations:
            ppo.update(rollout)
    return {name: np.stack(arrays, axis=1) for name, arrays in columns.items()}


def test_a_dataset_holds_what_ppo_did(variant: dict[str, Any], undisturbed: PathDataset) -> None:
    config = CollectConfig(**(OPTIONS | variant))
    interval = config.checkpoint_interval
    assert undisturbed.num_checkpoints == ITERATIONS + 1
    iterations = np.arange(ITERATIONS + 1) * interval
    np.testing.assert_array_equal(undisturbed.iteration, iterations)
    np.testing.assert_array_equal(undisturbed.global_step, iterations * STEPS)
    mean, std = undisturbed.observation_statistics()
    for trials in ([0, 1], [2]):
        expected = drive_by_hand(trials, config)
        params = expected["params"][:, :, : undisturbed.layout.size]
        np.testing.assert_array_equal(undisturbed.params()[trials], params)
        np.testing.assert_array_equal(
            undisturbed.episodic_return()[trials], expected["episodic_return"].astype(np.float32)
        )
        np.testing.assert_array_equal(undisturbed.num_episodes()[trials], expected["num_episodes"])
        np.testing.assert_array_equal(mean[trials], expected["mean"])
        np.testing.assert_array_equal(std[trials], expected["std"])
    assert not undisturbed.diverged().any()
    assert verify(undisturbed.directory) == []


def test_checkpoint_0_is_the_initial_network(
    variant: dict[str, Any], undisturbed: PathDataset
) -> None:
    first, second = undisturbed.params()[:, 0], undisturbed.params()[:, 1]
    distinct = 1 if variant.get("initial") == "shared" else N
    assert len(np.unique(first, axis=0)) == distinct
    assert len(np.unique(second, axis=0)) == N
    arrays = undisturbed.layout.unflatten(first)
    assert (arrays["log_std"] == 0).all()
    assert (arrays["actor.1.bias"] == 0).all()


def test_what_is_stored_of_the_networks(variant: dict[str, Any], undisturbed: PathDataset) -> None:
    names = undisturbed.layout.names
    assert any(name.startswith("critic") for name in names) == ("networks" in variant)
    assert names[: len(undisturbed.metadata.actor_layout.names)][-1] == "log_std"


def test_the_metadata_tell_how_the_paths_were_made(plain: PathDataset) -> None:
    metadata = plain.metadata
    assert metadata.task == get_task(PENDULUM)
    assert (metadata.seed, metadata.num_trials, metadata.trials_per_part) == (3, N, 2)
    assert metadata.steps_per_checkpoint == STEPS
    assert metadata.ppo["update_epochs"] == 2
    assert metadata.ppo["learning_rate"] == 3e-4
    assert {"tipl", "numpy", "mujoco", "gymnasium"} <= set(metadata.versions)


def test_a_group_larger_than_the_trials(tmp_path: Path) -> None:
    paths = run(tmp_path / "paths", num_trials=2, trials_per_group=64, total_steps=STEPS)
    assert paths.num_trials == 2
    assert [path.name for path in sorted((tmp_path / "paths" / "parts").iterdir())] == [
        "trials-00000-00001.checkpoints-00000-00001.safetensors"
    ]


def test_the_default_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths = collect(PENDULUM, config=CollectConfig(1, 43, 5, (4,), ppo=FAST_PPO), progress=False)
    assert paths.directory == Path("runs/paths/InvertedPendulum-v4-1x43-seed5")
    assert paths.num_checkpoints == 3  # whole iterations of 16 steps


# --- the same bytes --------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
def test_equal_collections_are_equal_bytes(
    undisturbed: PathDataset, variant: dict[str, Any], threads: int, tmp_path: Path
) -> None:
    run(tmp_path / "again", threads=threads, **variant)
    assert content(tmp_path / "again") == content(undisturbed.directory)
    assert "resume" not in content(tmp_path / "again")


@pytest.mark.parametrize(("method", "iteration"), [("rollout", 6), ("update", 9), ("rollout", 10)])
def test_a_stopped_collection_ends_in_the_same_bytes(
    undisturbed: PathDataset,
    variant: dict[str, Any],
    method: str,
    iteration: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, iteration = tmp_path / "paths", iteration * variant.get("checkpoint_interval", 1)
    with monkeypatch.context() as patch:
        interrupt(patch, method, 2, iteration)
        with pytest.raises(KilledError):
            run(out, **variant)
    kept = {name: data for name, data in content(out).items() if name.startswith("parts/")}
    complete = content(undisturbed.directory)
    assert {name: complete[name] for name in kept} == kept
    interval = variant.get("checkpoint_interval", 1)
    assert len(kept) == 2 + (iteration >= 8 * interval)  # of the first group, and of the second
    assert [path.name for path in (out / "resume").iterdir()] == ["trials-00002.safetensors"]
    with pytest.raises(TiplError, match="incomplete"):
        PathDataset.open(out)

    updates = count_updates(monkeypatch)
    advanced: list[int] = []
    monkeypatch.setattr(
        CollectionProgress, "advance", lambda self, steps, *args, **kwargs: advanced.append(steps)
    )
    run(out, **variant)
    assert content(out) == complete
    iterations = CollectConfig(**(OPTIONS | variant)).num_iterations
    assert updates == ({2: iterations - iteration} if iteration < iterations else {})
    assert sum(advanced) == N * STEPS * (iterations + 1)


def test_an_interruption_says_how_to_go_on(
    plain: PathDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "paths"
    with monkeypatch.context() as patch:
        interrupt(patch, "rollout", 2, 9, KeyboardInterrupt)
        with pytest.raises(TiplError, match=r"safe in .*paths: run the same command again"):
            run(out)
    run(out)
    assert content(out) == content(plain.directory)


def test_an_interruption_in_one_group_stops_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(monkeypatch, "rollout", 0, 1)
    updates = count_updates(monkeypatch)
    original = TrialGroup._checkpoint

    def waiting(self: TrialGroup, ppo: PPO) -> dict[str, np.ndarray]:
        if self.trials[0] == 2 and ppo.iteration == 0:
            assert ppo.stop.wait(timeout=60)
        return original(self, ppo)

    monkeypatch.setattr(TrialGroup, "_checkpoint", waiting)
    with pytest.raises(KilledError):
        run(tmp_path / "paths", threads=2)
    assert updates == {0: 1}


ONE_GROUP = {"num_trials": 2, "total_steps": 17 * STEPS}  # parts of 8, 8 and 2


@pytest.fixture(scope="module")
def of_one_group(tmp_path_factory: pytest.TempPathFactory) -> PathDataset:
    return run(tmp_path_factory.mktemp("whole") / "paths", **ONE_GROUP)


@pytest.mark.parametrize("save", [1, 7, 8, 9, 16, 17])
def test_a_collection_stopped_before_its_state_is_saved(
    save: int, of_one_group: PathDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        original = TrialGroup._save

        def failing(self: TrialGroup, ppo: PPO, *args: Any) -> None:
            if ppo.iteration == save:
                raise KilledError
            original(self, ppo, *args)

        patch.setattr(TrialGroup, "_save", failing)
        with pytest.raises(KilledError):
            run(tmp_path / "paths", **ONE_GROUP)
    run(tmp_path / "paths", **ONE_GROUP)
    assert content(tmp_path / "paths") == content(of_one_group.directory)


def _garbage(path: Path) -> None:
    path.write_bytes(b"not safetensors")


def _cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-50] ^= 1
    path.write_bytes(bytes(data))


def _of_another_dataset(path: Path) -> None:
    tensors, header = storage.read_tensors(path)
    tensors["ppo.params"] += 1
    storage.write_tensors(path, tensors, header | {"dataset": "0" * 64})


def _of_an_impossible_generator(path: Path) -> None:
    tensors, header = storage.read_tensors(path)
    tensors["envs.rng"][:] = 2**64 - 1
    storage.write_tensors(path, tensors, header)


@pytest.mark.parametrize(
    "damage",
    [_garbage, _cut_off, _flip_a_bit, _of_another_dataset, _of_an_impossible_generator],
)
def test_a_damaged_resume_file_does_no_harm(
    plain: PathDataset,
    damage: Callable[[Path], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "paths"
    with monkeypatch.context() as patch:
        interrupt(patch, "update", 2, 9)
        with pytest.raises(KilledError):
            run(out)
    damage(out / "resume" / "trials-00002.safetensors")
    run(out)
    assert content(out) == content(plain.directory)


def test_a_damaged_part_is_named_and_made_again(
    plain: PathDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "paths"
    with monkeypatch.context() as patch:
        interrupt(patch, "update", 2, 9)
        with pytest.raises(KilledError):
            run(out)
    for trials in ("00002-00002", "00000-00001"):  # of the stopped group, and of a finished one
        part = out / "parts" / f"trials-{trials}.checkpoints-00000-00007.safetensors"
        _cut_off(part)
        before = content(out)
        with pytest.raises(TiplError, match=f"{part.name} is damaged.*delete it"):
            run(out)
        assert content(out) == before
        part.unlink()
        run(out)
        assert content(out) == content(plain.directory)


def test_what_a_killed_process_left_half_written_goes(plain: PathDataset, tmp_path: Path) -> None:
    out = tmp_path / "paths"
    run(out)
    (out / "resume").mkdir()
    for name in ("metadata.json", "parts/trials-00000-00001.x", "resume/trials-00002.safetensors"):
        path = out / name
        path.with_name(f".{path.name}.0123abcd.unfinished").write_bytes(b"half")
    run(out)
    assert content(out) == content(plain.directory)


# --- collecting again ------------------------------------------------------------------------


def test_a_complete_dataset_is_opened(
    undisturbed: PathDataset, variant: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def times() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in undisturbed.directory.rglob("*")}

    def no_ppo(*args: object, **kwargs: object) -> PPO:
        raise AssertionError("PPO was run")

    monkeypatch.setattr(trial_groups, "PPO", no_ppo)
    before = times()
    again = run(undisturbed.directory, threads=2, **variant)
    np.testing.assert_array_equal(again.params(), undisturbed.params())
    assert times() == before


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"seed": 4}, "seed is 3, but 4"),
        ({"num_trials": 4}, "num_trials is 3, but 4"),
        ({"total_steps": 12 * STEPS}, "num_checkpoints is 11, but 13"),
        ({"checkpoint_interval": 2}, "checkpoint_interval is 1, but 2"),
        ({"hidden_sizes": (8, 7)}, r"hidden_sizes is \[8, 6\], but \[8, 7\]"),
        ({"initial": "shared"}, 'initial is "independent", but "shared"'),
        ({"normaliser": "running"}, 'normaliser is "frozen", but "running"'),
        ({"trials_per_group": 1}, "trials_per_part is 2, but 1"),
        ({"ppo": PPOConfig(num_steps=STEPS, num_minibatches=2)}, "update_epochs is 2, but 10"),
        ({"env_id": "InvertedPendulum-v5"}, "task.env_id is .*v4.* but .*v5"),
    ],
)
def test_another_collection_in_the_same_directory(
    plain: PathDataset, changes: dict[str, Any], field: str
) -> None:
    before = content(plain.directory)
    with pytest.raises(TiplError, match=f"{field}.* was given; choose another directory"):
        run(plain.directory, **changes)
    assert content(plain.directory) == before


# --- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_trials": 0}, "num_trials is 0; expected at least 1"),
        ({"trials_per_group": 0}, "trials_per_group is 0"),
        ({"checkpoint_interval": 0}, "checkpoint_interval is 0"),
        ({"checkpoint_interval": 3}, "10 iterations, which a checkpoint_interval of 3"),
        ({"total_steps": 15}, "total_steps is 15, but one checkpoint takes 16 steps"),
        ({"total_steps": 0}, "total_steps is 0"),
        ({"total_steps": 80, "checkpoint_interval": 6}, "one checkpoint takes 96 steps"),
        ({"seed": -1}, "seed is -1; expected at least 0"),
        ({"hidden_sizes": ()}, "hidden sizes"),
        ({"hidden_sizes": (8, 0)}, "hidden sizes"),
        ({"num_trials": 10**12}, "num_trials is 1e.12; expected at most 100,000"),
        ({"total_steps": 10**15}, "total_steps is 1e.15; expected at most"),
        ({"total_steps": 10**9}, "3 trials of 62,500,001 checkpoints.*expected at most"),
        ({"num_trials": 10**5, "total_steps": 16 * 10**5}, "parts, was given; expected at most"),
        ({"hidden_sizes": (10**9,)}, "hidden sizes"),
        ({"num_trials": 10**5, "hidden_sizes": (1024, 1024)}, "weights take .* GB are free where"),
        ({"ppo": PPOConfig(num_steps=2**40), "total_steps": 2**41 // 4}, "total_steps"),
        ({"ppo": PPOConfig(num_steps=10**11), "total_steps": 10**11}, "of memory, but this mach"),
        ({"num_trails": 4}, "no option 'num_trails'; expected one of num_trials"),
        ({"config": CollectConfig()}, "both config and the options"),
        ({"threads": 0}, "threads is 0"),
        ({"threads": -1}, "threads is -1"),
        ({"env_id": "InvertedPendulm-v4"}, "unknown .*'InvertedPendulm-v4'.* did you mean Inv"),
        ({"env_id": "Blackjack-v1"}, "'Blackjack-v1' has the observations Tuple"),
        ({"evaluation_episodes": -1}, "evaluation_episodes is -1"),
        ({"vary": ("gravity=0..2",)}, "'gravity=0..2' was given as what varies"),
        ({"vary": ("gravty=1..2",)}, "no physics 'gravty'.*did you mean gravity"),
        ({"env_id": "Pendulum-v1", "vary": ("gravity=1..2",)}, "does not run on mujoco.batch"),
    ],
)
def test_impossible_collections_write_nothing(
    changes: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for out in (None, tmp_path / "paths"):
        with pytest.raises(TiplError, match=message):
            run(out, **changes)  # type: ignore[arg-type]
    assert content(tmp_path) == {}


@pytest.mark.parametrize("place", ["file", "folder", "file/paths"])
def test_a_place_that_is_taken(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").write_text("mine")
    before = content(tmp_path)
    with pytest.raises(TiplError, match=place):
        run(tmp_path / place)
    assert content(tmp_path) == before


# --- divergence, and other environments ------------------------------------------------------


def test_a_diverged_trial_is_labelled(
    plain: PathDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = PPO.rollout

    def rollout(self: PPO) -> Rollout:
        result = original(self)
        if self.iteration == 4 and 1 in self.trials:
            result.rewards[:, self.trials.index(1)] = np.nan
        return result

    monkeypatch.setattr(PPO, "rollout", rollout)
    paths = run(tmp_path / "paths")
    np.testing.assert_array_equal(paths.trials[paths.diverged()], [1])
    path = paths[1]
    np.testing.assert_array_equal(path.diverged, np.arange(ITERATIONS + 1) > 4)
    np.testing.assert_array_equal(path.params[:5], plain[1].params[:5])
    np.testing.assert_array_equal(path.params[4:], np.repeat(path.params[4:5], 7, axis=0))
    others = [0, 2]
    np.testing.assert_array_equal(paths.params()[others], plain.params()[others])
    assert verify(paths.directory) == []
    train, held_out = paths.split(0.5)
    assert sorted([*train.trials, *held_out.trials]) == others


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "CartPole-v1"])
def test_gymnasiums_environments_are_resumed_in_the_middle_of_an_episode(
    env_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: dict[str, Any] = {"num_trials": 2, "trials_per_group": 1, "total_steps": 14 * STEPS}
    run(tmp_path / "whole", env_id, **changes)
    with monkeypatch.context() as patch:
        interrupt(patch, "rollout", 1, 12)
        with pytest.raises(KilledError):
            run(tmp_path / "paths", env_id, **changes)
    updates = count_updates(monkeypatch)
    paths = run(tmp_path / "paths", env_id, **changes)
    assert updates == {1: 2}
    assert content(tmp_path / "paths") == content(tmp_path / "whole")
    assert paths.task.env_id == env_id
    assert paths.task.discrete == (env_id == "CartPole-v1")
    assert ("log_std" in paths.layout.names) == (env_id == "Pendulum-v1")
    assert np.isfinite(paths.episodic_return()).any()


class Forgetful(gymnasium.Env[np.ndarray, np.ndarray]):
    """Counts all steps of its process in its observation, which no seed brings back."""

    observation_space = Box(-np.inf, np.inf, (2,), np.float32)
    action_space = Box(-1, 1, (1,), np.float32)
    count = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        return self.observation(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        type(self).count += 1
        return self.observation(), 1.0, False, False, {}

    def observation(self) -> np.ndarray:
        return np.array([self.count, 1], np.float32)


def test_an_environment_that_does_not_repeat_itself_starts_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = EnvSpec("Forgetful-v0", f"{__name__}:Forgetful", max_episode_steps=50)
    monkeypatch.setitem(gymnasium.registry, "Forgetful-v0", spec)
    changes: dict[str, Any] = {"num_trials": 1, "total_steps": 9 * STEPS}
    with monkeypatch.context() as patch:
        interrupt(patch, "rollout", 0, 7)
        with pytest.raises(KilledError):
            run(tmp_path / "paths", "Forgetful-v0", **changes)
    updates = count_updates(monkeypatch)
    run(tmp_path / "paths", "Forgetful-v0", **changes)
    assert updates == {0: 9}


def test_each_trial_may_have_its_own_physics(plain: PathDataset, tmp_path: Path) -> None:
    ranges = ("gravity=0.7..1.4", "body_mass:pole=0.5..2")
    paths = run(tmp_path / "paths", vary=ranges)
    assert paths.metadata.vary == {"body_mass:pole": [0.5, 2.0], "gravity": [0.7, 1.4]}
    draws = [draw_physics(paths.metadata.vary, 3, trial) for trial in range(N)]
    physics = paths.physics()
    assert {name: factors.tolist() for name, factors in physics.items()} == {
        name: [draw[name] for draw in draws] for name in ("body_mass:pole", "gravity")
    }
    assert paths.policy(2, -1).task.physics == tuple(draws[2].items())
    assert paths.policy(2, -1).task != paths.policy(1, -1).task
    # The same networks and noise, in other worlds.
    np.testing.assert_array_equal(paths.params()[:, 0], plain.params()[:, 0])
    assert (paths.params()[:, 1] != plain.params()[:, 1]).any(axis=1).all()
    run(tmp_path / "ones", vary=("gravity=1..1",))
    ones = PathDataset.open(tmp_path / "ones")
    np.testing.assert_array_equal(ones.params(), plain.params())
    assert plain.physics() == {}
    assert verify(paths.directory) == []


def test_checkpoints_may_be_evaluated_at_once(plain: PathDataset, tmp_path: Path) -> None:
    paths = run(tmp_path / "paths", evaluation_episodes=2, evaluate_every=4)
    returns = paths.deterministic_return()
    assert returns.shape == (N, ITERATIONS + 1, 2)
    evaluated = np.isfinite(returns).all(axis=(0, 2))
    assert np.flatnonzero(evaluated).tolist() == [0, 4, 8, 10]
    own = evaluate(paths.policy(1, 4), 2)
    np.testing.assert_array_equal(returns[1, 4], own.episodic_return)
    np.testing.assert_array_equal(paths.params(), plain.params())


def test_varied_physics_are_evaluated_in_their_own_world(tmp_path: Path) -> None:
    ranges = ("gravity=0.01..3",)
    paths = run(tmp_path / "paths", vary=ranges, initial="shared", evaluation_episodes=3)
    returns = paths.deterministic_return()
    assert len(np.unique(returns[:, 0], axis=0)) == N  # one network, N worlds
    for i in range(N):
        np.testing.assert_array_equal(
            returns[i, 0], evaluate(paths.policy(i, 0), 3).episodic_return
        )


def test_varied_physics_are_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes: dict[str, Any] = {"vary": ("gravity=0.7..1.4",)}
    run(tmp_path / "whole", **changes)
    with monkeypatch.context() as patch:
        interrupt(patch, "update", 0, 5)
        with pytest.raises(KilledError):
            run(tmp_path / "paths", **changes)
    run(tmp_path / "paths", **changes)
    assert content(tmp_path / "paths") == content(tmp_path / "whole")


def test_threads_end_with_the_collection(tmp_path: Path) -> None:
    before = threading.active_count()
    run(tmp_path / "paths", threads=2, total_steps=STEPS)
    assert threading.active_count() == before
