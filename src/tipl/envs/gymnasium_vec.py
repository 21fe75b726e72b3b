"""Any Gymnasium environment behind the interface of the batched tasks, one copy after another."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from gymnasium.spaces.utils import flatten
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from tipl.core.arrays import Array
from tipl.envs.registry import one_line
from tipl.errors import TiplError, shown

_NO_SEED = -1


class GymnasiumVec(SyncVectorEnv):
    """Gymnasium's `SyncVectorEnv`, reset in the same step, whose episodes can be saved.

    Observations come as flat float64 vectors, and actions reach the environments in the dtype of
    their space. What the environments add as `info` is left out. Nobody can look into any
    environment, so what `state()` saves is how each episode came about: the seed or generator that
    it started from, and its actions. `set_state()` plays them again and checks what they lead to.

    Raises:
        TiplError: by `reset` and `step`, whatever an environment raises there, or if it returns
            something else than Gymnasium's environments do.
    """

    def __init__(self, env_fns: Sequence[Callable[[], gymnasium.Env[Any, Any]]]) -> None:
        self._recorders = [EpisodeRecorder(make()) for make in env_fns]
        made = [partial(lambda one: one, recorder) for recorder in self._recorders]
        try:
            super().__init__(made, autoreset_mode=AutoresetMode.SAME_STEP)
        except RuntimeError as error:  # copies of an environment that are not alike
            raise self._recorders[0].explained("its constructor", error) from error

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Steps every environment by its action; see Gymnasium's `SyncVectorEnv`."""
        dtype = self.action_space.dtype
        return super().step(actions.astype(dtype, casting="same_kind", copy=False))

    def state(self) -> dict[str, Array]:
        """Returns how the present episodes came about, as plain arrays.

        Returns:
            `seed` `[E]` int64 (-1: none), `rng` `[E, R]` uint8 (the generator as JSON, padded),
            `num_actions` `[E]` int64, `actions` `[E, L, ...]` (padded) and `observation` `[E, O]`,
            the present ones.
        """
        recorders = self._recorders
        lengths = [len(recorder.actions) for recorder in recorders]
        space: Any = self.single_action_space
        actions = np.zeros((len(recorders), max(lengths), *space.shape), space.dtype)
        texts = [np.frombuffer(recorder.rng.encode(), np.uint8) for recorder in recorders]
        rng = np.full((len(recorders), max(map(len, texts))), ord(" "), np.uint8)
        for i, recorder in enumerate(recorders):
            rng[i, : len(texts[i])] = texts[i]
            if recorder.actions:
                actions[i, : lengths[i]] = recorder.actions
        return {
            "seed": np.array([recorder.seed for recorder in recorders], np.int64),
            "rng": rng,
            "num_actions": np.array(lengths, np.int64),
            "actions": actions,
            "observation": np.stack([recorder.observation for recorder in recorders]),
        }

    def set_state(self, state: dict[str, Array]) -> None:
        """Continues from what `state` returned, in this or another process.

        Raises:
            TiplError: the environment does not repeat itself: it keeps random numbers or other
                things that its generator and its actions do not determine.
        """
        for i, recorder in enumerate(self._recorders):
            rng = state["rng"][i].tobytes().decode().strip()
            recorder.replay(
                int(state["seed"][i]), rng, state["actions"][i, : state["num_actions"][i]]
            )
            if not np.array_equal(recorder.observation, state["observation"][i], equal_nan=True):
                raise TiplError(
                    f"copy {i} of the environment does not repeat itself: the same seed and "
                    "actions led to another observation; expected an environment whose randomness "
                    "all comes from self.np_random. Start over"
                )
        # what SyncVectorEnv itself keeps between steps
        self._autoreset_envs = np.zeros(self.num_envs, dtype=np.bool_)
        self._env_obs = [r.observation for r in self._recorders]  # type: ignore[misc]


class EpisodeRecorder(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Flattens observations, remembers how the present episode came about, explains errors.

    Raises:
        TiplError: by `reset` and `step`, as `GymnasiumVec` does.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        space = env.observation_space
        size = int(np.prod(space.shape or ()))
        self.observation_space = Box(-np.inf, np.inf, (size,), np.float64)
        self._raw_space = space
        self.seed = _NO_SEED  # that the episode was reset with
        self.rng = ""  # the generator before the reset, as JSON; empty if there is none to see
        self.actions: list[Array] = []  # taken since
        self.observation = np.zeros(size)  # the present one

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Resets the environment, after a look at what it will start from."""
        self.seed = _NO_SEED if seed is None else seed
        self.rng = "" if seed is not None else _generator_to_json(self.env)
        self.actions = []
        try:
            observation, info = self.env.reset(seed=seed, options=options)
            self._take(observation, info)
        except Exception as error:  # in somebody's code
            raise self.explained("reset", error) from error
        return self.observation.copy(), {}

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Steps the environment and remembers the action."""
        self.actions.append(np.copy(action))
        try:
            observation, reward, terminated, truncated, info = self.env.step(action)
            self._take(observation, info)
            ends = bool(_scalar(terminated)), bool(_scalar(truncated))
            return self.observation.copy(), float(_scalar(reward)), *ends, {}
        except Exception as error:  # in somebody's code
            raise self.explained("step", error) from error

    def close(self) -> None:
        """Closes the environment, whose complaints come too late to matter."""
        with contextlib.suppress(Exception):
            self.env.close()

    def replay(self, seed: int, rng: str, actions: Array) -> None:
        """Brings the environment to where an episode was."""
        if seed != _NO_SEED:
            self.reset(seed=seed)
        else:
            if rng:
                self.env.unwrapped.np_random.bit_generator.state = json.loads(rng)
            self.reset()
        for action in actions:
            self.step(action if action.shape else action[()])

    def _take(self, observation: Any, info: Any) -> None:
        flat = np.asarray(flatten(self._raw_space, observation), np.float64)
        if flat.shape != self.observation.shape or not isinstance(info, dict):
            raise TypeError(
                f"it returned {flat.size} observed values with a {type(info).__name__} as info, "
                f"and its observation space has {self.observation.size}, with a dict"
            )
        self.observation = flat

    def explained(self, call: str, error: Exception) -> TiplError:
        """What went wrong in somebody's code, in a sentence."""
        name = self.env.spec.id if self.env.spec else type(self.env.unwrapped).__name__
        return TiplError(
            f"the environment {shown(name)} failed in {call}: {type(error).__name__}: "
            f"{one_line(error)} (expected of reset an observation and a dict, and of step, for any "
            "action of the space, an observation, a reward, terminated, truncated and a dict; "
            "gymnasium.utils.env_checker.check_env checks that)"
        )


def _scalar(value: Any) -> Any:
    """A number as it is, or what an array of one value holds."""
    return value if isinstance(value, (int, float)) else np.asarray(value).item()


def _generator_to_json(env: gymnasium.Env[Any, Any]) -> str:
    """The state of an environment's generator; empty if it has none that can be written down."""
    try:
        return json.dumps(env.unwrapped.np_random.bit_generator.state)
    except (AttributeError, TypeError):
        return ""
