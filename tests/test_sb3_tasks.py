"""The task of a model of stable-baselines3: its environment as it was made, or one sentence."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from sb3_contrib import MaskablePPO
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecEnvWrapper,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
)

from tipl import Policy, TiplError
from tipl.evaluation.returns import evaluate

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*is out of date:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*precision lowered"),
]

Array = np.ndarray[Any, np.dtype[Any]]

PENDULUM = "InvertedPendulum-v4"
SWING = "Pendulum-v1"


def ppo(env: Any) -> PPO:
    network = {"net_arch": [6]}
    return PPO("MlpPolicy", env, n_steps=32, batch_size=32, policy_kwargs=network, seed=0)


def vector(wrap: Callable[[Any], Any] = lambda env: env, **options: Any) -> DummyVecEnv:
    return DummyVecEnv([lambda: Monitor(wrap(gym.make(PENDULUM, **options)))])


def halved(env: Any) -> Any:
    return gym.wrappers.TransformObservation(env, lambda o: o / 2, env.observation_space)


def stacked(env: Any) -> Any:
    return gym.wrappers.FrameStackObservation(env, 3)


class Rows(gym.Env[Any, Any]):
    """Observations of 3 rows, and whether actions are what the rows say."""

    observation_space = gym.spaces.Box(-1, 1, (3, 2), np.float32)
    action_space = gym.spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        return self._observation(), float(action @ [1, 2]), False, False, {}

    def _observation(self) -> Array:
        return self.np_random.uniform(-1, 1, (3, 2)).astype(np.float32)


@pytest.fixture
def rows() -> Iterator[str]:
    gym.register("Rows-v0", entry_point=f"{__name__}:Rows", max_episode_steps=5)
    yield "Rows-v0"
    gym.registry.pop("Rows-v0")


def test_arguments_and_limit_are_the_run_s() -> None:
    env = gym.make("Hopper-v5", terminate_when_unhealthy=False, max_episode_steps=40)
    run = ppo(Monitor(env))
    policy = Policy.from_sb3(run)
    assert policy.task.max_episode_steps == 40
    assert policy.task.made_with["kwargs"]["terminate_when_unhealthy"] is False
    expected, lengths = evaluate_policy(run, run.get_env(), 3, return_episode_rewards=True)
    found = evaluate(policy, episodes=3, threads=1)
    assert found.episode_length.tolist() == lengths == [40, 40, 40]
    np.testing.assert_allclose(found.episodic_return.mean(), np.mean(expected), rtol=0.1)


def test_wrappers_that_can_be_written_down_are_carried() -> None:
    run = ppo(vector(stacked))
    policy = Policy.from_sb3(run)
    assert [wrapper["name"] for wrapper in policy.task.wrappers] == ["FrameStackObservation"]
    raw = np.random.default_rng(0).normal(size=(9, 3, 4))
    acted = policy.act(raw.reshape(9, 12))
    np.testing.assert_allclose(acted, run.predict(raw, deterministic=True)[0], atol=1e-6)
    assert evaluate(policy, episodes=1, threads=1).episode_length.min() > 1


def test_observations_of_rows_are_read_as_flat(rows: str) -> None:
    run = ppo(Monitor(gym.make(rows)))
    policy = Policy.from_sb3(run)
    assert policy.task.observation_size == 6
    expected = evaluate_policy(run, run.get_env(), 50)[0]
    found = evaluate(policy, episodes=50, threads=1).episodic_return
    assert abs(found.mean() - expected) < 3 * found.std() / 5


def test_the_run_s_normaliser_is_the_policy_s_and_no_wrapper() -> None:
    env = vector(gym.wrappers.NormalizeObservation)
    run = ppo(env).learn(32)
    policy = Policy.from_sb3(run)
    assert not policy.task.wrappers
    (member,) = env.envs
    np.testing.assert_array_equal(policy.observation_mean, member.get_wrapper_attr("obs_rms").mean)
    raw = np.random.default_rng(0).normal(size=(9, 4))
    seen = (raw - policy.observation_mean) / policy.observation_std
    acted = run.predict(seen, deterministic=True)[0]
    np.testing.assert_allclose(policy.act(raw), acted, atol=1e-6)


class Doubling(VecEnvWrapper):
    def reset(self) -> Any:
        return 2 * self.venv.reset()  # type: ignore[operator]

    def step_wait(self) -> Any:
        return self.venv.step_wait()


class Skewed(VecNormalize):
    def _normalize_obs(self, obs: Array, obs_rms: Any) -> Array:
        return super()._normalize_obs(obs, obs_rms) + 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: vector(halved), "the argument func=.* of the wrapper TransformObservation, which"),
        (lambda: VecFrameStack(vector(), 2), "the wrapper VecFrameStack around the model's vector"),
        (lambda: Doubling(vector()), "the wrapper Doubling around the model's vector of environm"),
        (lambda: Skewed(vector()), "the wrapper Skewed around|normalises otherwise than"),
        (
            lambda: vector(lambda env: stacked(gym.wrappers.NormalizeObservation(env))),
            "normalised by NormalizeObservation and then given to FrameStackObservation; expected",
        ),
        (
            lambda: DummyVecEnv([Rows]),
            "not made by gymnasium.make, .* or name the task: Policy.fro",
        ),
    ],
    ids=["function", "stack", "own vector wrapper", "own normaliser", "stacked", "no spec"],
)
def test_what_is_no_part_of_a_task_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(TiplError, match=message):
        Policy.from_sb3(ppo(make()))


@pytest.mark.parametrize("around", [VecMonitor, lambda env: VecNormalize(env, norm_obs=False)])
def test_what_watches_or_scales_rewards_is_none_of_a_policy_s_business(around: Any) -> None:
    policy = Policy.from_sb3(ppo(around(DummyVecEnv([lambda: gym.make(PENDULUM)]))))
    assert not policy.task.wrappers
    assert policy.task.env_id == PENDULUM


def test_a_given_task_has_to_have_the_wrappers() -> None:
    for wrap in (halved, stacked):
        with pytest.raises(TiplError, match=r"has the wrappers \w+Observation, and Inv\S+ has \(n"):
            Policy.from_sb3(ppo(vector(wrap)), PENDULUM)
    run = ppo(vector(stacked))
    task = Policy.from_sb3(run).task
    assert Policy.from_sb3(run, task).task == task
    rewarded = vector(lambda env: gym.wrappers.TransformReward(env, lambda r: r / 2))
    assert not Policy.from_sb3(ppo(rewarded), PENDULUM).task.wrappers


def reloaded(run: PPO) -> PPO:
    file = io.BytesIO()
    run.save(file)
    file.seek(0)
    return PPO.load(file)


def test_a_model_from_a_file_is_read_with_its_task() -> None:
    run = ppo(vector()).learn(32)
    read = Policy.from_sb3(reloaded(run), PENDULUM)
    np.testing.assert_array_equal(read.params, Policy.from_sb3(run).params)
    with pytest.raises(TiplError, match=r'name the task: Policy.from_sb3\(model, "Hopper-v5"\)'):
        Policy.from_sb3(reloaded(run))


def test_a_model_whose_normaliser_is_not_here_is_refused() -> None:
    env = VecNormalize(vector())
    run = ppo(env).learn(32)
    lost = reloaded(run)
    with pytest.raises(
        TiplError, match=r"load its statistics by VecNormalize\.load and give that to model"
    ):
        Policy.from_sb3(lost, PENDULUM)
    lost.set_env(env)
    read = Policy.from_sb3(lost, PENDULUM)
    np.testing.assert_array_equal(read.observation_mean, env.obs_rms.mean)


class Masking(gym.Wrapper[Any, Any, Any, Any]):
    def action_masks(self) -> Array:
        return np.array([True, False])


def test_environments_that_mask_actions_are_refused() -> None:
    run = MaskablePPO("MlpPolicy", Masking(gym.make("CartPole-v1")), n_steps=32, batch_size=32)
    with pytest.raises(TiplError, match="of this MaskablePPO masks actions"):
        Policy.from_sb3(run)
