"""Gymnasium environments in the middle of an episode, saved and played again."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from tipl.envs import make_vec
from tipl.envs.gymnasium_vec import GymnasiumVec
from tipl.errors import TiplError

E = 3


def random_actions(env: GymnasiumVec, steps: int, seed: int = 0) -> list[np.ndarray]:
    env.action_space.seed(seed)
    return [env.action_space.sample() for _ in range(steps)]


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Acrobot-v1", "Pendulum-v1"])
@pytest.mark.parametrize("before", [0, 1, 250])
def test_a_restored_env_goes_on_alike(env_id: str, before: int) -> None:
    env = make_vec(env_id, E)
    assert isinstance(env, GymnasiumVec)
    env.reset(seed=[4, 9, 1])  # type: ignore[arg-type]
    for action in random_actions(env, before):
        env.step(action)
    state = env.state()
    restored = make_vec(env_id, E)
    restored.set_state(state)  # type: ignore[attr-defined]
    ended = False
    for action in random_actions(env, 510, seed=1):
        ours, theirs = restored.step(action), env.step(action)
        for got, expected in zip(ours[:4], theirs[:4], strict=True):
            np.testing.assert_array_equal(got, expected)
        ended |= bool(theirs[2].any() | theirs[3].any())
    assert ended
    np.testing.assert_array_equal(env.state()["observation"], restored.state()["observation"])  # type: ignore[attr-defined]


def test_the_episodes_are_those_of_gymnasium() -> None:
    env, alone = make_vec("CartPole-v1", 2), gymnasium.make("CartPole-v1")
    first, _ = env.reset(seed=[0, 7])  # type: ignore[arg-type]
    observation, _ = alone.reset(seed=7)
    assert first.dtype == np.float64
    np.testing.assert_array_equal(first[1], observation)
    ends = 0
    for action in random_actions(env, 200):  # type: ignore[arg-type]
        batch = env.step(action)
        observation, reward, terminated, truncated, _ = alone.step(action[1])
        assert (batch[1][1], batch[2][1], batch[3][1]) == (reward, terminated, truncated)
        if terminated or truncated:
            np.testing.assert_array_equal(batch[4]["final_obs"][1], observation)
            observation, _ = alone.reset()
            ends += 1
        np.testing.assert_array_equal(batch[0][1], observation)
    assert ends > 3


class Image(gymnasium.Env[np.ndarray, int]):
    """Shows a small picture, and takes the actions -1, 0 and 1."""

    observation_space = Box(0, 255, (2, 3), np.uint8)
    action_space = Discrete(3, start=-1)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.noise = np.random.default_rng()  # that no seed determines
        return np.zeros((2, 3), np.uint8), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        assert action in (-1, 0, 1)
        return self.noise.integers(0, 256, (2, 3)).astype(np.uint8), 0.0, False, False, {}


def test_pictures_are_flattened() -> None:
    env = GymnasiumVec([Image, Image])
    env.reset(seed=0)
    observations, *_ = env.step(np.array([-1, 1]))
    assert observations.shape == (2, 6)
    assert observations.dtype == np.float64


def test_an_env_that_does_not_repeat_itself_is_found_out() -> None:
    env = GymnasiumVec([Image])
    env.reset(seed=0)
    start = env.state()
    env.step(np.array([0]))
    state = env.state()
    GymnasiumVec([Image]).set_state(start)
    with pytest.raises(TiplError, match="copy 0 of the environment does not repeat itself"):
        GymnasiumVec([Image]).set_state(state)
