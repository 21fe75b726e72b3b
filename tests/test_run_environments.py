"""Other people's environments: what a run acts in, and another one like it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import wrappers
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecEnvWrapper,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
)

from tipl import TiplError
from tipl.envs import make_vec
from tipl.integrations.environment.description import describe
from tipl.integrations.environment.members import UnsendableSpec
from tipl.integrations.environment.normaliser import RunNormaliser
from tipl.integrations.environment.run_environment import run_environment

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),  # of Gymnasium and stable-baselines3
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]

PENDULUM = "InvertedPendulum-v5"
Wrap = Callable[[Any], Any]


class Doubled(gym.ObservationWrapper[Any, Any, Any]):
    """A wrapper of somebody's own."""

    def observation(self, observation: Any) -> Any:
        return 2 * observation


class OwnNormaliser(gym.ObservationWrapper[Any, Any, Any]):
    """What somebody copied from an old Gym."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.obs_rms = RunningMeanStd(shape=env.observation_space.shape)

    def observation(self, observation: Any) -> Any:
        self.obs_rms.update(observation[None])
        return (observation - self.obs_rms.mean) / np.sqrt(self.obs_rms.var + 1e-8)


class Through(VecEnvWrapper):
    """A wrapper of a vector, of somebody's own."""

    def reset(self) -> Any:
        return self.venv.reset()

    def step_wait(self) -> Any:
        return self.venv.step_wait()


def maker(*wraps: Wrap, **arguments: Any) -> Callable[[], Any]:
    def make() -> Any:
        return reduce(lambda env, wrap: wrap(env), wraps, gym.make(PENDULUM, **arguments))

    return make


def doubled(env: Any) -> Any:
    return wrappers.TransformObservation(env, lambda o: 2 * o, env.observation_space)


def a_tenth(env: Any) -> Any:
    return wrappers.TransformReward(env, lambda reward: 0.1 * reward)


rescaled = partial(wrappers.RescaleAction, min_action=np.float32(0), max_action=np.float32(1))
CLEANRL: tuple[Wrap, ...] = (
    wrappers.RecordEpisodeStatistics,
    wrappers.ClipAction,
    wrappers.NormalizeObservation,
    lambda env: wrappers.TransformObservation(
        env, lambda o: np.clip(o, -10, 10), env.observation_space
    ),
    wrappers.NormalizeReward,
    lambda env: wrappers.TransformReward(env, lambda reward: np.clip(reward, -10, 10)),
)


def dummy(*makers: Any) -> Any:
    return DummyVecEnv(list(makers))


def workers(*makers: Any) -> Any:
    return SubprocVecEnv(list(makers), start_method="fork")


def sync(*makers: Any) -> Any:
    return gym.vector.SyncVectorEnv(list(makers))


def asynchronous(*makers: Any) -> Any:
    return gym.vector.AsyncVectorEnv(list(makers))


def stands_still(observations: Any) -> Any:
    return np.full((len(observations), 1), 0.5, np.float32)


def episode(env: Any, eval_env: Any = None) -> tuple[float, int]:
    """Return and steps of an episode of half the unit push in the environment for tests."""
    return run_environment(env, eval_env).test_env.episode(stands_still, 3)


# --- the whole stack -------------------------------------------------------------------------


@pytest.mark.parametrize("vector", [dummy, workers, sync, asynchronous])
@pytest.mark.parametrize(
    "make",
    [
        maker(),
        maker(Monitor),
        maker(wrappers.RecordEpisodeStatistics),
        maker(max_episode_steps=4),
        maker(partial(wrappers.TimeLimit, max_episode_steps=3)),
        maker(rescaled),
        maker(partial(wrappers.ClipReward, max_reward=0.5)),
    ],
)
def test_tests_run_in_the_run_s_own_stack(vector: Any, make: Any) -> None:
    own, expected, length, done = make(), 0.0, 0, False
    own.reset(seed=3)
    while not done:
        _, reward, terminated, truncated, _ = own.step(np.full(1, 0.5, np.float32))
        expected, length, done = expected + float(reward), length + 1, terminated or truncated
    env = vector(make, make)
    got = episode(env)
    env.close()
    assert got == (pytest.approx(expected, rel=1e-6), length)


def test_arguments_of_the_environment_are_the_run_s() -> None:
    env = make_vec_env("Hopper-v5", 2, env_kwargs={"terminate_when_unhealthy": False})
    found = run_environment(env)
    assert found.test_env.spec.kwargs["terminate_when_unhealthy"] is False
    still = found.test_env.episode(lambda o: np.zeros((len(o), 3), np.float32), 0)
    assert still[1] == 1000  # it has fallen long before
    assert found.env_id == "Hopper-v5"


@pytest.mark.parametrize("vector", [workers, asynchronous])
def test_workers_outlive_being_asked(vector: Any) -> None:
    """What cannot be sent would kill the worker that tried to, and the run with it."""
    env = vector(maker(a_tenth), maker(a_tenth))
    env.reset()
    if vector is workers:
        with pytest.raises(TiplError, match="cannot be sent from there; give an eval_env"):
            describe(env)
        assert episode(env, gym.make(PENDULUM))[1] > 1
    else:
        assert episode(env)[0] < 3  # Gymnasium makes the first one here as well
    assert len(env.step(np.zeros((2, 1), np.float32))[0]) == 2
    env.close()


def test_what_cannot_be_sent_is_known_beforehand() -> None:
    assert isinstance(maker(a_tenth)(), UnsendableSpec)
    assert not isinstance(maker(wrappers.ClipAction)(), UnsendableSpec)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: dummy(maker(Doubled)), "the wrapper Doubled .* give an eval_env"),
        (lambda: workers(maker(Doubled)), "the wrapper Doubled .* give an eval_env"),
        (lambda: Through(dummy(maker())), "the wrapper Through around"),
        (lambda: dummy(maker(max_episode_steps=5), maker(max_episode_steps=6)), "not alike"),
        (lambda: workers(maker(max_episode_steps=5), maker(max_episode_steps=6)), "not alike"),
        (lambda: dummy(lambda: maker()().unwrapped.__class__()), "not made by gymnasium.make"),
        (lambda: workers(lambda: maker()().unwrapped.__class__()), "not made by gymnasium.make"),
        (lambda: dummy(maker(OwnNormaliser)), "OwnNormaliser normalises .* cannot be read"),
        (lambda: workers(maker(wrappers.NormalizeObservation)), "in other processes"),
        (lambda: asynchronous(maker(wrappers.NormalizeObservation)), "in other processes"),
        (lambda: dummy(*[maker(wrappers.NormalizeObservation)] * 2), "statistics of their own"),
    ],
)
def test_one_sentence_says_why_another_one_cannot_be_made(make: Any, message: str) -> None:
    env = make()
    with pytest.raises(TiplError, match=message) as told:
        run_environment(env)
    env.close()
    assert "\n" not in str(told.value)


def test_observations_of_several_parts_are_refused() -> None:
    parts = {"place": gym.spaces.Box(-1, 1, (2,))}
    env = dummy(
        lambda: wrappers.TransformObservation(
            gym.make(PENDULUM), lambda o: {"place": o[:2]}, gym.spaces.Dict(parts)
        )
    )
    with pytest.raises(TiplError, match=r"several parts: Dict.*FlattenObservation"):
        run_environment(env)


# --- somebody's eval_env ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "eval_env",
    [
        lambda: gym.make(PENDULUM),
        lambda: make_vec_env(PENDULUM, 1),
        lambda: VecNormalize(make_vec_env(PENDULUM, 1), training=False),
        lambda: gym.make_vec(PENDULUM, 1),
        lambda: VecMonitor(dummy(lambda: gym.make(PENDULUM))),
    ],
)
def test_an_eval_env_may_be_an_env_or_a_vector_of_either_library(eval_env: Any) -> None:
    run = VecNormalize(make_vec_env(PENDULUM, 2))
    run.obs_rms.mean[:] = 7.0
    given = eval_env()
    found = run_environment(run, given)
    seen = []

    def act(observations: Any) -> Any:
        seen.append(observations)
        return stands_still(observations)

    assert found.test_env.episode(act, 3) == episode(make_vec_env(PENDULUM, 2))
    np.testing.assert_allclose(np.concatenate(seen)[:, 1], -7.0, atol=0.3)  # by the run's mean
    assert found.env_id == PENDULUM
    assert run.obs_rms.count < 1  # tests teach it nothing
    if isinstance(given, VecNormalize):
        assert given.obs_rms is not run.obs_rms


@pytest.mark.parametrize(
    ("make", "eval_env", "message"),
    [
        (lambda: sync(maker(rescaled)), lambda: gym.make(PENDULUM), "actions are Box"),
        (lambda: dummy(maker()), lambda: gym.make("Hopper-v5"), "the policy sees Box"),
        (lambda: dummy(maker()), lambda: "InvertedPendulum-v5", "eval_env of type str"),
        (lambda: dummy(maker()), lambda: VecNormalize(dummy(maker())), "eval_env normalises"),
    ],
)
def test_an_eval_env_of_another_world_is_refused(make: Any, eval_env: Any, message: str) -> None:
    with pytest.raises(TiplError, match=message):
        run_environment(make(), eval_env())


@pytest.mark.parametrize("of_vector", [lambda env: env, lambda env: env.envs[0]])
def test_the_run_s_own_environment_is_no_eval_env(of_vector: Any) -> None:
    vector = dummy(maker(Monitor))
    with pytest.raises(TiplError, match="eval_env is the run's own environment"):
        run_environment(VecNormalize(vector), of_vector(vector))


def test_clipping_wrappers_may_be_left_out_of_an_eval_env() -> None:
    assert episode(sync(maker(wrappers.ClipAction)), gym.make(PENDULUM))[1] > 1


# --- what policies see -----------------------------------------------------------------------


@pytest.mark.parametrize("stacked_first", [True, False])
def test_frames_and_normalisers_come_in_the_run_s_order(stacked_first: bool) -> None:
    vector = make_vec_env(PENDULUM, 2)
    run = (
        VecNormalize(VecFrameStack(vector, 3))
        if stacked_first
        else VecFrameStack(VecNormalize(vector), 3)
    )
    normaliser = run if stacked_first else run.venv
    normaliser.obs_rms.mean[:] = 2.0
    first = []
    run_environment(run).test_env.episode(
        lambda o: first.append(o[0]) or stands_still(o),  # type: ignore[func-returns-value]
        3,
    )
    # frames that are not there yet are 0 before they are stacked
    np.testing.assert_allclose(first[0][0], -2.0 if stacked_first else 0.0, atol=1e-6)
    assert first[0].shape == (12,)


def test_the_clip_is_the_run_s() -> None:
    run = VecNormalize(make_vec_env(PENDULUM, 2), clip_obs=0.25)
    found = run_environment(run)
    assert found.normaliser.clip == 0.25
    run.obs_rms.mean[:] = 9.0
    seen = []
    found.test_env.episode(
        lambda o: seen.append(o) or stands_still(o),  # type: ignore[func-returns-value]
        3,
    )
    np.testing.assert_array_equal(np.concatenate(seen), -0.25)
    assert RunNormaliser(sync(maker(*CLEANRL)), 4).clip == np.inf


@pytest.mark.parametrize(
    ("make", "known"),
    [
        (lambda: sync(maker(*CLEANRL)), True),
        (lambda: dummy(maker(*CLEANRL)), True),
        (lambda: sync(maker(wrappers.ClipAction)), True),
        (lambda: VecNormalize(dummy(maker())), True),
        (lambda: sync(maker(a_tenth)), True),
        (lambda: sync(maker(doubled)), False),
        (lambda: sync(maker(rescaled)), False),
        (lambda: sync(maker(partial(wrappers.FrameStackObservation, stack_size=2))), False),
        (lambda: VecFrameStack(dummy(maker()), 2), False),
        (lambda: make_vec("InvertedPendulum-v4", 2), True),
    ],
)
def test_models_are_asked_only_where_policies_see_and_do_what_the_task_says(
    make: Any, known: bool
) -> None:
    found = run_environment(make())
    assert (found.env_id is not None) == known


def test_an_episode_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    module = "tipl.integrations.environment.gate_environment"
    monkeypatch.setattr(f"{module}.LONGEST", 50)
    env = dummy(lambda: gym.make("Pendulum-v1", max_episode_steps=-1))
    with pytest.raises(TiplError, match="had not ended after 50 steps; give an eval_env"):
        run_environment(env).test_env.episode(stands_still, 0)
