"""Environments so small that the value of every observation and the best action are known.

If PPO cannot learn one of them, the environment tells which of its parts is broken (Jones,
"Debugging RL, without the agonizing pain", 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from tipl.policies.tasks import TaskSpec

__all__ = [
    "ActionProbe",
    "ConstantProbe",
    "DiscountProbe",
    "ObservationActionProbe",
    "ObservationProbe",
    "Probe",
    "TruncationProbe",
    "Wanderer",
]


class Probe(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """E copies of what a subclass defines by `start` and `move`, reset in the same step."""

    observation_size: ClassVar[int] = 1
    action_size: ClassVar[int] = 1
    max_episode_steps: ClassVar[int] = 100
    observation_mean: ClassVar[tuple[float, ...]] = (0.0,)
    observation_std: ClassVar[tuple[float, ...]] = (1.0,)

    def __init__(self, num_envs: int) -> None:
        self.num_envs = num_envs
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.single_observation_space = Box(-np.inf, np.inf, (self.observation_size,), np.float64)
        self.single_action_space = Box(-3.0, 3.0, (self.action_size,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.elapsed_steps = np.zeros(num_envs, np.int64)

    def start(self, rng: np.random.Generator) -> np.ndarray:
        """The first observation `[O]` of an episode."""
        return np.zeros(1)

    def move(
        self, observation: np.ndarray, action: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, float, bool]:
        """The next observation `[O]`, the reward, and whether the episode terminates."""
        raise NotImplementedError

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: Any = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        assert isinstance(seed, Sequence)
        self.rngs = [np.random.default_rng(one) for one in seed]
        self.elapsed_steps[:] = 0
        self.observations = np.stack([self.start(rng) for rng in self.rngs])
        return self.observations.copy(), {}

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        rewards, terminations = np.zeros(self.num_envs), np.zeros(self.num_envs, np.bool_)
        self.elapsed_steps += 1
        truncations = self.elapsed_steps >= self.max_episode_steps
        final_obs = np.full(self.num_envs, None, dtype=object)
        for i, rng in enumerate(self.rngs):
            observation, rewards[i], terminations[i] = self.move(
                self.observations[i], actions[i], rng
            )
            if terminations[i] or truncations[i]:
                final_obs[i], observation = observation, self.start(rng)
                self.elapsed_steps[i] = 0
            self.observations[i] = observation
        done = terminations | truncations
        info = {"final_obs": final_obs, "_final_obs": done} if done.any() else {}
        return self.observations.copy(), rewards, terminations, truncations, info

    @classmethod
    def task(cls) -> TaskSpec:
        return TaskSpec(
            env_id=cls.__name__,
            observation_size=cls.observation_size,
            action_size=cls.action_size,
            action_low=(-3.0,) * cls.action_size,
            action_high=(3.0,) * cls.action_size,
            max_episode_steps=cls.max_episode_steps,
            observation_mean=cls.observation_mean,
            observation_std=cls.observation_std,
            gymnasium_spec="{}",
        )


class ConstantProbe(Probe):
    """Pays 1 and ends: the value is 1."""

    def move(
        self, observation: np.ndarray, action: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, float, bool]:
        return observation, 1.0, True


class ObservationProbe(Probe):
    """Pays what it shows, 1 or -1, and ends: the value is the observation."""

    def start(self, rng: np.random.Generator) -> np.ndarray:
        return rng.choice([-1.0, 1.0], 1)

    def move(
        self, observation: np.ndarray, action: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, float, bool]:
        return observation, float(observation[0]), True


class DiscountProbe(Probe):
    """Shows 0, then 1, then pays 1 and ends: the values are gamma and 1."""

    def move(
        self, observation: np.ndarray, action: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, float, bool]:
        last = bool(observation[0] == 1.0)
        return np.ones(1), float(last), last


class TruncationProbe(Probe):
    """Pays 1 for ever and is cut off each third step: the value is 1 / (1 - gamma)."""

    max_episode_steps = 3

    def move(
        self, observation: np.ndarray, action: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, float, bool]:
        return observation, 1.0, False


class ActionProbe(Probe):
    """Pays most for the action 0.5, whatever the observation, and ends."""

    def move(
        self, observation: np.ndarray, action: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, float, bool]:
        return observation, 1.0 - float(action[0] - 0.5) ** 2, True


class ObservationActionProbe(ObservationProbe):
    """Pays most for the action that is half of the observation, 1 or -1, and ends."""

    def move(
        self, observation: np.ndarray, action: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, float, bool]:
        return observation, 1.0 - float(action[0] - 0.5 * observation[0]) ** 2, True


class Wanderer(Probe):
    """Nothing to learn, but all that may happen: terminations, truncations, both, outliers."""

    observation_size = 3
    action_size = 2
    max_episode_steps = 5
    observation_mean = (0.5, -1.0, 0.0)
    observation_std = (0.5, 2.0, 0.1)

    def start(self, rng: np.random.Generator) -> np.ndarray:
        return rng.normal(size=3)

    def move(
        self, observation: np.ndarray, action: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, float, bool]:
        observation = 0.5 * observation + rng.normal(size=3) + [action[0], action[1], 0.0]
        return observation, float(observation.sum() - action[0] ** 2), bool(rng.random() < 0.2)
