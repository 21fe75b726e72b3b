"""One environment of a task in a world, as Gymnasium's `Env`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from jaxtyping import Float64, Shaped

from tipl.envs.factory import make_vec
from tipl.policies.tasks import TaskSpec


class WorldEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """A copy of a task's environment in physics of its own.

    It does what a batch of one does (`tipl.envs.make_vec`), but does not start a new episode by
    itself: after the end of one, `reset` does.

    Args:
        env: a Gymnasium id, or a task, whose own physics are not applied.
        physics: factors of the model's own values, by name (see `tipl.envs.physics`).

    Raises:
        TiplError: there is no such task, or it has no such physics.
    """

    def __init__(self, env: str | TaskSpec, physics: Mapping[str, float] | None = None) -> None:
        factors = {name: np.array([factor], float) for name, factor in (physics or {}).items()}
        self.envs = make_vec(env, 1, physics=factors)
        self.observation_space = self.envs.single_observation_space
        self.action_space = self.envs.single_action_space
        self._seeds = np.random.SeedSequence()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float64[np.ndarray, " O"], dict[str, Any]]:
        """Starts an episode; equal seeds give equal ones, and without one they go on from it."""
        super().reset(seed=seed)
        if seed is not None:
            self._seeds = np.random.SeedSequence(seed)
            first = seed
        else:  # of a batch, the next episode has begun by itself, and is of no use
            first = int(self._seeds.spawn(1)[0].generate_state(1)[0])
        observations, _ = self.envs.reset(seed=first)
        return observations[0], {}

    def step(
        self, action: Shaped[np.ndarray, " ..."]
    ) -> tuple[Float64[np.ndarray, " O"], float, bool, bool, dict[str, Any]]:
        """Acts once."""
        stepped = self.envs.step(np.asarray(action)[None])
        observations, rewards, terminated, truncated, info = stepped
        done = bool(terminated[0] or truncated[0])
        observation = info["final_obs"][0] if done else observations[0]
        return observation, float(rewards[0]), bool(terminated[0]), bool(truncated[0]), {}

    def close(self) -> None:
        """Frees the simulation."""
        self.envs.close()
