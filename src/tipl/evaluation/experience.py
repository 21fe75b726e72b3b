"""Experience of a world: transitions, without rewards; recorded, or made by running a policy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from jaxtyping import Float64

from tipl.core import storage
from tipl.core.arrays import Array
from tipl.core.schemas import ArrayType, TensorsFile
from tipl.errors import TiplError, one_sentence, shown
from tipl.policies.actions import executable
from tipl.policies.tasks import TaskSpec

MOST_TRANSITIONS = 1_000_000
"""Of a file."""

Act = Callable[[Array], Array]
"""The action `[A]` for an observation `[O]`."""


@dataclasses.dataclass(frozen=True, eq=False)
class Experience:
    """Transitions in one world: what was observed, what was done, and what was observed then.

    They need not follow one another; the last observation of an episode is followed by nothing.

    Raises:
        TiplError: they are not as many, or not all finite numbers.
    """

    observations: Float64[np.ndarray, "S O"]
    """as the environment gives them"""
    actions: Float64[np.ndarray, "S A"]
    """as the environment took them; what is outside of its bounds is as good as at them"""
    next_observations: Float64[np.ndarray, "S O"]

    @classmethod
    def of(cls, observations: Any, actions: Any, next_observations: Any) -> Experience:
        """Experience from arrays of any type of numbers, or lists; raises what the class raises."""
        arrays = []
        for name, given in zip(_ARRAYS, (observations, actions, next_observations), strict=True):
            try:
                arrays.append(np.array(given, np.float64))
            except (TypeError, ValueError) as error:
                raise TiplError(
                    f"the {name} of an experience are no array of numbers "
                    f"({one_sentence(str(error))}); expected a row for each transition"
                ) from error
        return cls(*arrays)

    def __post_init__(self) -> None:
        shapes = [getattr(self, name).shape for name in _ARRAYS]
        even = all(len(one) == 2 for one in shapes) and shapes[0] == shapes[2]
        if not even or shapes[0][0] != shapes[1][0] or not shapes[0][0]:
            raise TiplError(
                "an experience was given with observations, actions and next observations of the "
                f"shapes {', '.join(map(str, shapes))}; expected [S, O], [S, A] and [S, O] for S "
                "transitions"
            )
        finite = np.stack([np.isfinite(getattr(self, name)).all(axis=1) for name in _ARRAYS])
        if wrong := int(np.count_nonzero(~finite.all(axis=0))):
            raise TiplError(
                f"{wrong:,} of {len(self):,} transitions of an experience hold NaN or infinite "
                "numbers; leave those out, and see why the environment gave them"
            )

    def __len__(self) -> int:
        return len(self.observations)

    def __add__(self, other: Experience) -> Experience:
        """Both, one after the other."""
        return Experience(
            *(np.concatenate([getattr(one, name) for one in (self, other)]) for name in _ARRAYS)
        )

    def check_task(self, task: TaskSpec) -> None:
        """Raises a TiplError unless the transitions have the sizes of a task."""
        found = self.observations.shape[1], self.actions.shape[1]
        expected = task.observation_size, task.action_size
        if found != expected:
            raise TiplError(
                f"an experience of {found[0]} observed values and {found[1]} actions was given, "
                f"but {shown(task.label)} has {expected[0]} and {expected[1]}; give transitions of "
                "that task"
            )

    def save(self, path: str | Path) -> None:
        """Writes a safetensors file, whole or not at all; one of experience is replaced.

        Raises:
            TiplError: something else has that name, or it cannot be written.
        """
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        storage.write_tensors(path, arrays, {"kind": "experience"}, own=EXPERIENCE_FILE)

    @classmethod
    def load(cls, path: str | Path) -> Experience:
        """Reads what `save` wrote.

        Raises:
            TiplError: there is none, it is damaged, or its transitions are not usable.
        """
        sizes = {"observations": "O", "actions": "A", "next_observations": "O"}
        arrays = {name: ArrayType("float64", ("S", size)) for name, size in sizes.items()}
        tensors, _ = EXPERIENCE.read(path, arrays)
        try:
            return cls(*(tensors[name] for name in _ARRAYS))
        except TiplError as error:
            raise TiplError(f"{path}: {error}") from error


_ARRAYS = tuple(field.name for field in dataclasses.fields(Experience))


@dataclasses.dataclass(frozen=True)
class _Header:
    """What the header of a file of experience says."""

    kind: Literal["experience"]


EXPERIENCE = TensorsFile(
    "experience.safetensors", _Header, "a file of experience (made by `Experience.save`)"
)

EXPERIENCE_FILE = storage.own_tensors("experience")
"""What `Experience.save` replaces."""


class WorldSteps:
    """Steps in somebody's environment, which are counted, and what came of them.

    Args:
        env: with the spaces of the task; it is not closed.
        task: whose policies are to act in it.
        seed: of the first episode; the later ones go on from it.

    Raises:
        TiplError: the environment has other spaces.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], task: TaskSpec, seed: int = 0) -> None:
        check_spaces(env, task)
        self.env, self.task, self.seed = env, task, seed
        self.num_steps = 0
        """made so far"""
        self._observation: Array | None = None  # of the episode that goes on

    def run(self, act: Act, num_steps: int) -> Experience:
        """Acts for some steps, episode after episode.

        Raises:
            TiplError: the environment gives something that is not usable.
        """
        rows: list[tuple[Array, Array, Array]] = []
        while len(rows) < num_steps:
            if self._observation is None:
                self._observation = self._reset()
            rows.append(self._step(act, self._observation)[0])
        return Experience.of(*map(np.stack, zip(*rows, strict=True)))

    def episode(self, act: Act) -> tuple[float, Experience]:
        """The return of a whole new episode, and its transitions.

        Raises:
            TiplError: the environment gives something that is not usable, or the episode does not
                end in time.
        """
        self._observation = self._reset()
        rows, total = [], 0.0
        for _ in range(self.task.max_episode_steps):
            row, reward = self._step(act, self._observation)
            rows.append(row)
            total += reward
            if self._observation is None:
                break
        self._observation = None
        return total, Experience.of(*map(np.stack, zip(*rows, strict=True)))

    def _reset(self) -> Array:
        seed, self.seed = self.seed, -1
        observation, _ = self.env.reset(seed=seed) if seed >= 0 else self.env.reset()
        return self._checked(observation)

    def _step(self, act: Act, observation: Array) -> tuple[tuple[Array, Array, Array], float]:
        """One transition and its reward; the episode goes on from it, or is over."""
        action = executable(self.task, np.asarray(act(observation)))
        following, reward, terminated, truncated, _ = self.env.step(action)
        self.num_steps += 1
        following = self._checked(following)
        if not np.isfinite(reward := float(reward)):
            raise TiplError(
                f"the environment gave the reward {reward} in step {self.num_steps:,}; expected a "
                "finite number: mend the environment"
            )
        self._observation = None if terminated or truncated else following
        return (observation, action, following), reward

    def _checked(self, observation: Any) -> Array:
        """An observation; raises a TiplError unless it is one of the task."""
        found = np.asarray(observation, np.float64)
        if found.shape != (self.task.observation_size,) or not np.isfinite(found).all():
            raise TiplError(
                f"the environment gave an observation of the shape {found.shape} with "
                f"{np.count_nonzero(~np.isfinite(found))} values that are not finite after "
                f"{self.num_steps:,} steps; expected {self.task.observation_size} finite values: "
                "mend the environment"
            )
        return found


def check_spaces(env: gymnasium.Env[Any, Any], task: TaskSpec) -> None:
    """Raises a TiplError unless an environment has the spaces of a task of continuous actions."""
    seen, acted = getattr(env, "observation_space", None), getattr(env, "action_space", None)
    right = isinstance(seen, Box) and seen.shape == (task.observation_size,)
    low, high = task.action_bounds
    if right and isinstance(acted, Box) and acted.shape == low.shape:
        right = bool(np.allclose(acted.low, low) and np.allclose(acted.high, high))
    else:
        right = False
    if not right:
        raise TiplError(
            f"an environment with the observations {shown(seen)} and the actions {shown(acted)} "
            f"was given, but {shown(task.label)} has {task.observation_size} observed values and "
            f"{task.action_size} actions from {low.tolist()} to {high.tolist()}; wrap it, so that "
            "it has these"
        )
