"""Paths of stable-baselines3's runs: what is recorded is what acted, as a dataset like any."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import math
import multiprocessing
import shutil
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from tipl import CollectConfig, PathDataset, Policy, PPOConfig, TiplError, train
from tipl.cli import main
from tipl.integrations.sb3.recorder import PathRecorder
from tipl.integrations.sb3.trials import collect_with_sb3
from tipl.paths import read_metadata, verify
from tipl.policies.actions import refolded

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*is out of date:DeprecationWarning"),
]

Array = np.ndarray[Any, np.dtype[Any]]

PENDULUM = "InvertedPendulum-v4"
STEPS = 64
ROLLOUTS = 9


def model(seed: int, normalise: bool = False, **options: Any) -> PPO:
    envs: Any = DummyVecEnv([lambda: Monitor(gym.make(PENDULUM))])
    if normalise:
        envs = VecNormalize(envs)
    network = {"net_arch": [8, 6]} | options
    return PPO(
        "MlpPolicy",
        envs,
        n_steps=STEPS,
        batch_size=32,
        n_epochs=2,
        seed=seed,
        device="cpu",
        policy_kwargs=network,
    )


def under_the_frozen(policy: Policy) -> Policy:
    """A policy as it is under its task's frozen observation normaliser."""
    own = policy.observation_mean, policy.observation_std
    frozen = policy.task.observation_statistics
    return Policy(refolded(policy.params, policy.layout, own, frozen), policy.layout, policy.task)


class Witness(BaseCallback):
    """Knows what acts in each rollout, and what it returns."""

    def __init__(self) -> None:
        super().__init__()
        self.policies: list[Policy] = []
        self.statistics: list[Array] = []
        self.returns: list[list[float]] = []

    def _on_rollout_start(self) -> None:
        self.policies.append(under_the_frozen(Policy.from_sb3(self.model)))
        envs = self.training_env
        if isinstance(envs, VecNormalize):
            self.statistics.append(envs.obs_rms.mean.copy())
        self.returns.append([])

    def _on_step(self) -> bool:
        infos = self.locals["infos"]
        self.returns[-1] += [info["episode"]["r"] for info in infos if "episode" in info]
        return True


@pytest.mark.parametrize("every", [1, 2])
def test_what_is_recorded_is_what_acted(tmp_path: Path, every: int) -> None:
    witnesses = []
    for trial in (1, 0):  # in any order
        witness, run = Witness(), model(trial)
        recorder = PathRecorder(tmp_path / "paths", every=every, trial=trial, num_trials=2)
        run.learn(ROLLOUTS * STEPS, callback=[recorder, witness])
        witnesses.insert(0, witness)
        witness.policies.append(under_the_frozen(Policy.from_sb3(run)))
    paths = PathDataset.open(tmp_path / "paths")
    assert verify(paths.directory) == []
    assert (paths.num_trials, paths.num_checkpoints) == (2, ROLLOUTS // every + 1)
    for trial, witness in enumerate(witnesses):
        acted = np.stack([policy.params for policy in witness.policies[::every]])
        np.testing.assert_array_equal(paths.params()[trial], acted)
        ended = witness.returns[::every] + [[]] * (ROLLOUTS % every == 0)
        expected = [np.mean(returns) if returns else np.nan for returns in ended]
        np.testing.assert_allclose(paths.episodic_return()[trial], expected, rtol=1e-6)
        assert paths.num_episodes()[trial].tolist() == [len(returns) for returns in ended]
    assert paths.global_step.tolist() == [i * every * STEPS for i in range(len(paths.global_step))]
    assert paths.metadata.ppo["update_epochs"] == 2
    assert not paths.diverged().any()


def test_statistics_of_a_run_that_normalises_are_stored(tmp_path: Path) -> None:
    witness, run = Witness(), model(3, normalise=True)
    run.learn(4 * STEPS, callback=[PathRecorder(tmp_path / "paths"), witness])
    paths = PathDataset.open(tmp_path / "paths")
    assert paths.metadata.normaliser == "running"
    mean, _ = paths.observation_statistics()
    np.testing.assert_allclose(mean[0, :4], np.stack(witness.statistics))
    recorded = paths.policy(0, 4)
    env = run.get_vec_normalize_env()
    assert isinstance(env, VecNormalize)
    observations = np.random.default_rng(0).normal(0, 0.05, (9, 4))
    np.testing.assert_allclose(
        recorded.act(observations),
        run.predict(env.normalize_obs(observations), deterministic=True)[0],
        atol=1e-5,
    )


def test_a_model_learns_from_recorded_paths(tmp_path: Path) -> None:
    for trial in range(3):
        recorder = PathRecorder(tmp_path / "paths", trial=trial, num_trials=3)
        model(trial).learn(3 * STEPS, callback=recorder)
    paths = PathDataset.open(tmp_path / "paths")
    forecaster = train(paths, num_steps=2, progress=False)
    assert forecaster.forecast(paths.params()[0, :2], 1).shape == (paths.layout.size,)
    assert forecaster.steps_per_checkpoint == STEPS


def test_what_cannot_be_recorded_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TiplError, match="trial 2 of 2; expected"):
        PathRecorder(tmp_path / "paths", trial=2, num_trials=2)
    with pytest.raises(TiplError, match="every=2 and every_steps=100 were given; give one"):
        PathRecorder(tmp_path / "paths", every=2, every_steps=100)
    softplus = model(0, activation_fn=torch.nn.Softplus)
    with pytest.raises(TiplError, match="not a multi-layer perceptron of tanh, relu"):
        softplus.learn(STEPS, callback=PathRecorder(tmp_path / "paths", strict=True))
    assert not (tmp_path / "paths").exists()
    run = model(0)
    run.learn(STEPS, callback=PathRecorder(tmp_path / "paths"))
    more = PathRecorder(tmp_path / "more", strict=True)
    with pytest.raises(TiplError, match="has done 64 steps already"):
        run.learn(STEPS, callback=more, reset_num_timesteps=False)


# --- runs that end, and that go on -----------------------------------------------------------


class Ending(BaseCallback):
    """Ends a run in the middle of a rollout, by an exception if it is given one."""

    def __init__(self, rollouts: int, error: BaseException | None = None) -> None:
        super().__init__()
        self.rollouts, self.error = rollouts, error

    def _on_step(self) -> bool:
        go_on = self.num_timesteps < self.rollouts * STEPS + 30
        if self.error is not None and not go_on:
            raise self.error
        return go_on


@pytest.mark.parametrize("error", [None, KeyboardInterrupt(), RuntimeError("of the environment")])
@pytest.mark.parametrize("rollouts", [0, 9])  # a part holds 8 checkpoints
def test_a_run_that_ends_early_is_readable_and_the_next_one_is_another_trial(
    tmp_path: Path, rollouts: int, error: BaseException | None
) -> None:
    recorder, witness = PathRecorder(tmp_path / "paths"), Witness()
    callbacks = [recorder, witness, Ending(rollouts, error)]
    with contextlib.suppress(KeyboardInterrupt, RuntimeError):
        model(0).learn(20 * STEPS, callback=callbacks)
    paths = PathDataset.open(tmp_path / "paths")
    assert verify(paths.directory) == []
    assert paths.iteration.tolist() == list(range(rollouts + 1))
    acted = np.stack([policy.params for policy in witness.policies])
    np.testing.assert_array_equal(paths.params()[0], acted)
    counts = [len(returns) for returns in witness.returns]
    known = slice(None, None if error is None else -1)
    assert paths.num_episodes()[0, known].tolist() == counts[known]
    model(1).learn((rollouts + 1) * STEPS, callback=recorder)
    paths = PathDataset.open(tmp_path / "paths")
    assert (paths.trials.tolist(), recorder.trial) == ([0, 1], 1)
    assert paths.lengths.tolist() == [rollouts + 1, rollouts + 2]
    np.testing.assert_array_equal(paths.params()[0], acted)
    assert not np.array_equal(paths.params()[1], acted)


def recorded(directory: Path) -> dict[str, Any]:
    """What is known of the only trial of a dataset."""
    paths = PathDataset.open(directory)
    return {
        "params": paths.params(),
        "return": paths.episodic_return(),
        "episodes": paths.num_episodes(),
        "step": paths.global_step,
        "iteration": paths.iteration,
    }


@pytest.mark.parametrize(("how", "every"), [("same", 1), ("new", 1), ("given", 1), ("given", 2)])
@pytest.mark.parametrize("ending", [None, Ending(4), Ending(4, KeyboardInterrupt())])
def test_a_run_that_goes_on_goes_on_with_its_trial(
    tmp_path: Path, how: str, every: int, ending: Ending | None
) -> None:
    witness, run = Witness(), model(0)
    recorder = PathRecorder(tmp_path / "paths", every=every)
    with contextlib.suppress(KeyboardInterrupt):
        run.learn(5 * STEPS, callback=CallbackList([recorder, witness, *filter(None, [ending])]))
    steps = run.num_timesteps
    if how != "same":
        run.save(tmp_path / "model.zip")
        trial = 0 if how == "given" else None
        run = PPO.load(tmp_path / "model.zip", model(0).get_env())
        recorder = PathRecorder(tmp_path / "paths", every=every, trial=trial)
    run.learn(4 * STEPS, callback=[recorder, witness], reset_num_timesteps=False)
    found = recorded(tmp_path / "paths")
    assert verify(tmp_path / "paths") == []
    if ending is None:
        policies = [*witness.policies, under_the_frozen(Policy.from_sb3(run))]
        returns = [*witness.returns, []]
    else:  # the fifth policy acted in two rollouts, of which one was cut short
        acting = under_the_frozen(Policy.from_sb3(run))
        policies = [*witness.policies[:5], *witness.policies[6:], acting]
        own = witness.returns
        kept = [] if ending.error is not None else own[4]
        returns = [*own[:4], kept + own[5], *own[6:], []]
    np.testing.assert_array_equal(
        found["params"][0], np.stack([policy.params for policy in policies[::every]])
    )
    assert found["iteration"].tolist() == list(range(0, len(policies), every))
    assert found["episodes"][0].tolist() == [len(ended) for ended in returns[::every]]
    known = [float(np.mean(ended)) if ended else math.nan for ended in returns[::every]]
    np.testing.assert_allclose(found["return"][0], known, rtol=1e-6)
    late = 0 if ending is None else steps - 4 * STEPS
    expected = [i * STEPS + late * (i > 4) for i in range(0, len(policies), every)]
    assert found["step"].tolist() == expected


def test_a_run_that_was_not_recorded_to_where_it_is_does_not_go_on(tmp_path: Path) -> None:
    recorder, run = PathRecorder(tmp_path / "paths", strict=True), model(0)
    run.learn(2 * STEPS, callback=recorder)
    before = recorded(tmp_path / "paths")
    run.learn(2 * STEPS, reset_num_timesteps=False)
    other = model(1)
    other.learn(2 * STEPS)
    given = PathRecorder(tmp_path / "paths", trial=0, strict=True)
    for late, own in ((run, recorder), (other, given)):
        with pytest.raises(TiplError, match=r"steps already, and .* trial 0.* end"):
            late.learn(2 * STEPS, callback=own, reset_num_timesteps=False)
    for name, value in recorded(tmp_path / "paths").items():
        np.testing.assert_array_equal(value, before[name])


def test_a_trial_that_was_given_is_not_written_over_and_the_run_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model(0).learn(2 * STEPS, callback=PathRecorder(tmp_path / "paths", trial=3))
    before = recorded(tmp_path / "paths")
    refused = model(1).learn(3 * STEPS, callback=PathRecorder(tmp_path / "paths", trial=3))
    assert len(caplog.messages) == 1
    assert "holds a trial 3 already, and nothing is written over it" in caplog.text
    plain = model(1).learn(3 * STEPS)
    np.testing.assert_array_equal(
        Policy.from_sb3(refused).params, Policy.from_sb3(plain).params, strict=True
    )
    next_one = PathRecorder(tmp_path / "paths")
    model(1).learn(STEPS, callback=next_one)
    assert next_one.trial == 4
    np.testing.assert_array_equal(
        PathDataset.open(tmp_path / "paths", trials=[3]).params(), before["params"]
    )


def test_a_run_goes_on_when_its_dataset_is_gone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Removing(BaseCallback):
        def _on_step(self) -> bool:
            if self.num_timesteps == 2 * STEPS + 5:
                shutil.rmtree(tmp_path / "paths")
            return True

    run = model(0)
    run.learn(5 * STEPS, callback=[PathRecorder(tmp_path / "paths"), Removing()])
    assert run.num_timesteps == 5 * STEPS
    assert len(caplog.messages) == 1
    assert "tipl stands aside: cannot" in caplog.text


class Jumping(BaseCallback):
    """Takes steps that count as the run's, and jumps to other weights, as `ForecastCallback`."""

    def _on_rollout_start(self) -> None:
        if self.model.num_timesteps in (0, 2 * STEPS + 500):
            self.model.num_timesteps += 500
            self.num_timesteps = self.model.num_timesteps
            with torch.no_grad():
                for weights in self.model.policy.parameters():
                    weights += 0.01

    def _on_step(self) -> bool:
        return True


@pytest.mark.parametrize("first", [True, False])
def test_jumps_and_the_steps_of_tests_are_recorded_in_any_order(
    tmp_path: Path, first: bool
) -> None:
    recorder, tests, witness = PathRecorder(tmp_path / "paths"), Jumping(), Witness()
    order = [recorder, tests] if first else [tests, recorder]
    run = model(0)
    run.learn(5 * STEPS + 1000, callback=[*order, witness])
    found = recorded(tmp_path / "paths")
    assert found["step"].tolist() == [500, 564, 1128, 1192, 1256, 1320]
    policies = [*witness.policies, under_the_frozen(Policy.from_sb3(run))]
    np.testing.assert_array_equal(found["params"][0], [policy.params for policy in policies])
    assert found["episodes"][0].tolist() == [*map(len, witness.returns), 0]


def test_checkpoints_may_come_by_environment_steps(tmp_path: Path) -> None:
    model(0).learn(9 * STEPS, callback=PathRecorder(tmp_path / "paths", every_steps=100))
    paths = PathDataset.open(tmp_path / "paths")
    assert paths.global_step.tolist() == [0, 128, 256, 320, 448, 512]
    assert paths.iteration.tolist() == [0, 2, 4, 5, 7, 8]
    assert paths.metadata.steps_per_checkpoint == 100


# --- processes -------------------------------------------------------------------------------


def start(directory: Path, seed: int, rollouts: int) -> multiprocessing.Process:
    """Records a run in another process."""

    def record() -> None:
        model(seed).learn(rollouts * STEPS, callback=PathRecorder(directory))

    process = multiprocessing.get_context("fork").Process(target=record)
    process.start()
    return process


def test_two_processes_at_once_record_two_trials(tmp_path: Path) -> None:
    processes = [start(tmp_path / "paths", seed, 12) for seed in (5, 6)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    paths = PathDataset.open(tmp_path / "paths")
    assert verify(paths.directory) == []
    assert (paths.trials.tolist(), paths.lengths.tolist()) == ([0, 1], [13, 13])
    firsts = {under_the_frozen(Policy.from_sb3(model(seed))).params.tobytes() for seed in (5, 6)}
    assert {params.tobytes() for params in paths.params()[:, 0]} == firsts
    for trial in paths:  # a run moves its weights little at a time
        steps = np.linalg.norm(np.diff(trial.params, axis=0), axis=1)
        across = np.linalg.norm(paths.params()[0, -1] - paths.params()[1, -1])
        assert steps.max() < across / 2


def test_a_run_that_is_killed_leaves_what_it_had_finished(tmp_path: Path) -> None:
    process = start(tmp_path / "paths", 0, 10_000)
    reached = 0
    while reached < 10:  # a part holds 8 checkpoints
        assert process.is_alive()
        with contextlib.suppress(TiplError):  # nothing is finished yet
            paths = PathDataset.open(tmp_path / "paths")
            assert np.isfinite(paths.episodic_return()[0, :-1]).all()
            assert paths.global_step.tolist() == [i * STEPS for i in range(paths.num_checkpoints)]
            reached = paths.num_checkpoints
    process.kill()
    process.join()
    killed = recorded(tmp_path / "paths")
    count = len(killed["step"])
    assert count >= reached
    model(0).learn(count * STEPS, callback=PathRecorder(tmp_path / "whole"))
    whole = recorded(tmp_path / "whole")
    np.testing.assert_array_equal(killed["params"], whole["params"][:, :count])
    np.testing.assert_array_equal(killed["return"][:, :-1], whole["return"][:, : count - 1])
    model(1).learn(STEPS, callback=PathRecorder(tmp_path / "paths"))
    assert verify(tmp_path / "paths") == []


def test_runs_of_other_hyperparameters_are_no_trials_of_a_dataset(tmp_path: Path) -> None:
    first = model(0)
    first.learn(STEPS, callback=PathRecorder(tmp_path / "paths", num_trials=2))
    ppo = read_metadata(tmp_path / "paths").ppo
    assert (ppo["learning_rate"], ppo["anneal_lr"]) == (3e-4, False)
    assert (ppo["clip_coef"], ppo["clip_vloss"], ppo["adam_eps"]) == (0.2, False, 1e-5)
    second = model(1)
    second.clip_range = lambda left: 0.9
    with pytest.raises(TiplError, match=r"its ppo.clip_coef is 0\.2, but 0\.9 was given"):
        second.learn(STEPS, callback=PathRecorder(tmp_path / "paths", trial=1, strict=True))


def test_wrappers_are_part_of_the_task_or_refused(tmp_path: Path) -> None:
    def rescaled() -> gym.Env[Any, Any]:
        low, high = np.float32(-1), np.float32(1)
        return Monitor(gym.wrappers.RescaleAction(gym.make(PENDULUM), low, high))

    def halved() -> gym.Env[Any, Any]:
        env = gym.make(PENDULUM)
        return gym.wrappers.TransformObservation(env, lambda o: o / 2, env.observation_space)

    def run(make: Any) -> PPO:
        return PPO("MlpPolicy", DummyVecEnv([make]), n_steps=STEPS, device="cpu")

    run(rescaled).learn(STEPS, callback=PathRecorder(tmp_path / "paths", strict=True))
    (wrapper,) = PathDataset.open(tmp_path / "paths").task.wrappers
    assert wrapper["name"] == "RescaleAction"
    with pytest.raises(TiplError, match=r"with the argument func=.* of the wrapper TransformObs"):
        run(halved).learn(STEPS, callback=PathRecorder(tmp_path / "halved", strict=True))
    assert not (tmp_path / "halved").exists()


CONFIG = CollectConfig(
    num_trials=2,
    total_steps=4 * STEPS,
    hidden_sizes=(8, 6),
    checkpoint_interval=2,
    ppo=PPOConfig(num_steps=STEPS, num_minibatches=2, update_epochs=1),
)


def test_trials_are_collected_and_complete_ones_left_alone(tmp_path: Path) -> None:
    paths = collect_with_sb3(PENDULUM, CONFIG, tmp_path / "paths", progress=False)
    assert (paths.num_trials, paths.num_checkpoints) == (2, 3)
    assert verify(paths.directory) == []
    first, second = sorted((paths.directory / "parts").iterdir())
    assert first.read_bytes() != second.read_bytes()
    kept, lost = first.stat().st_mtime_ns, second.read_bytes()
    second.unlink()
    collect_with_sb3(PENDULUM, CONFIG, tmp_path / "paths", progress=False)
    assert first.stat().st_mtime_ns == kept
    assert second.read_bytes() == lost


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "its seed is 0, but 1 was given"),
        ({"total_steps": 8 * STEPS}, "its num_checkpoints is 3, but 5"),
        ({"hidden_sizes": (4,)}, "its hidden_sizes is"),
        ({"ppo": dataclasses.replace(CONFIG.ppo, learning_rate=1e-3)}, "its ppo.learning_rate is"),
    ],
)
def test_other_settings_are_refused_where_trials_are_complete(
    complete: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(TiplError, match=f"already holds another dataset: {message}"):
        collect_with_sb3(PENDULUM, dataclasses.replace(CONFIG, **changes), complete, progress=False)


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return collect_with_sb3(
        PENDULUM, CONFIG, tmp_path_factory.mktemp("complete") / "paths", progress=False
    ).directory


@pytest.mark.parametrize(
    "changes",
    [
        {"normaliser": "running"},
        {"initial": "shared"},
        {"networks": "actor+critic"},
        {"trials_per_group": 1},
        {"vary": ("gravity=0.7..1.4",)},
        {"ppo": dataclasses.replace(CONFIG.ppo, reward_clip=1.0)},
    ],
)
def test_what_stable_baselines3_cannot_do_is_refused(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    (name,) = changes
    config = dataclasses.replace(CONFIG, **changes)
    with pytest.raises(TiplError, match=f"{name}.* was given together with stable-baselines3"):
        collect_with_sb3(PENDULUM, config, tmp_path / "paths", progress=False)
    assert not (tmp_path / "paths").exists()


@pytest.mark.parametrize("name", ["recorder", "callback"])
def test_a_missing_stable_baselines3_is_explained(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for ours in ("tipl.integrations.sb3", f"tipl.integrations.sb3.{name}"):
        monkeypatch.delitem(sys.modules, ours, raising=False)
    for module in [m for m in sys.modules if m.startswith("stable_baselines3")]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(TiplError, match=r"not installed; run `pip install 'tipl\[sb3\]'`"):
        importlib.import_module(f"tipl.integrations.sb3.{name}")


def test_the_command_line_collects_with_stable_baselines3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = f"collect {PENDULUM} --from-sb3 --num-trials 1 --total-steps 128 --out {tmp_path}/a"
    small = "--ppo.num-steps 64 --ppo.num-minibatches 2 --hidden-sizes 8 6"
    main(f"{command} {small} --evaluation-episodes 1".split())
    assert PathDataset.open(tmp_path / "a").deterministic_return().shape == (1, 3, 1)
    with pytest.raises(SystemExit) as ended:
        main(f"{command} {small} --pptb.rank 2".split())
    assert ended.value.code == 2
    assert "pptb was given together with stable-baselines3" in capsys.readouterr().err
