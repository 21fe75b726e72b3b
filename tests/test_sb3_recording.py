"""Paths of stable-baselines3's runs: what is recorded is what acted, as a dataset like any."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from tipl import CollectConfig, PathDataset, Policy, PPOConfig, TiplError, train
from tipl.cli import main
from tipl.integrations.sb3.recorder import PathRecorder, collect_with_sb3
from tipl.paths import read_metadata, verify

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


class Witness(BaseCallback):
    """Knows what acts in each rollout, and what it returns."""

    def __init__(self) -> None:
        super().__init__()
        self.policies: list[Policy] = []
        self.statistics: list[Array] = []
        self.returns: list[list[float]] = []

    def _on_rollout_start(self) -> None:
        self.policies.append(Policy.from_sb3(self.model))
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
        witness.policies.append(Policy.from_sb3(run))
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
    relu = model(0, activation_fn=torch.nn.ReLU)
    with pytest.raises(TiplError, match="no multi-layer perceptron of tanh units"):
        relu.learn(STEPS, callback=PathRecorder(tmp_path / "paths"))
    assert not (tmp_path / "paths").exists()
    run = model(0)
    run.learn(STEPS, callback=PathRecorder(tmp_path / "paths"))
    with pytest.raises(TiplError, match="has done 64 steps already"):
        run.learn(STEPS, callback=PathRecorder(tmp_path / "more"), reset_num_timesteps=False)
    with pytest.raises(TiplError, match="already holds another dataset: its num_checkpoints is 2"):
        model(0).learn(3 * STEPS, callback=PathRecorder(tmp_path / "paths"))


class Stopping(BaseCallback):
    """Ends a run in the middle of a rollout."""

    def __init__(self, rollouts: int) -> None:
        super().__init__()
        self.rollouts = rollouts

    def _on_step(self) -> bool:
        return self.num_timesteps < self.rollouts * STEPS + 10


@pytest.mark.parametrize("rollouts", [0, 7])
def test_a_run_that_is_stopped_early_gives_no_last_checkpoint(
    tmp_path: Path, rollouts: int
) -> None:
    recorder = PathRecorder(tmp_path / "paths")
    model(0).learn((rollouts + 1) * STEPS, callback=[recorder, Stopping(rollouts)])
    with pytest.raises(TiplError, match="is incomplete"):
        PathDataset.open(tmp_path / "paths")
    model(0).learn((rollouts + 1) * STEPS, callback=recorder)  # records another run as well
    paths = PathDataset.open(tmp_path / "paths")
    assert verify(paths.directory) == []
    assert paths.iteration.tolist() == list(range(rollouts + 2))


def test_runs_of_other_hyperparameters_are_no_trials_of_a_dataset(tmp_path: Path) -> None:
    first = model(0)
    first.learn(STEPS, callback=PathRecorder(tmp_path / "paths", num_trials=2))
    ppo = read_metadata(tmp_path / "paths").ppo
    assert (ppo["learning_rate"], ppo["anneal_lr"]) == (3e-4, False)
    assert (ppo["clip_coef"], ppo["clip_vloss"], ppo["adam_eps"]) == (0.2, False, 1e-5)
    second = model(1)
    second.clip_range = lambda left: 0.9
    with pytest.raises(TiplError, match=r"its ppo.clip_coef is 0\.2, but 0\.9 was given"):
        second.learn(STEPS, callback=PathRecorder(tmp_path / "paths", trial=1, num_trials=2))


def test_actions_that_a_wrapper_changes_are_refused(tmp_path: Path) -> None:
    def rescaled() -> gym.Env[Any, Any]:
        low, high = np.float32(-1), np.float32(1)
        return Monitor(gym.wrappers.RescaleAction(gym.make(PENDULUM), low, high))

    run = PPO("MlpPolicy", DummyVecEnv([rescaled]), n_steps=STEPS, device="cpu")
    with pytest.raises(TiplError, match=r"actions are Box.*InvertedPendulum-v4 are values"):
        run.learn(STEPS, callback=PathRecorder(tmp_path / "paths"))
    assert not (tmp_path / "paths").exists()


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
