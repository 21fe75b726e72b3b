"""Experience of a world: transitions, without rewards; recorded, or made by running a policy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
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

Act = Callable[[Array], Array]
"""The action `[A]` for an observation `[O]`."""

_Row = tuple[Array, Array, Array]
"""A transition."""


@dataclasses.dataclass(frozen=True, eq=False)
class Experience:
    """Transitions in one world: what was observed, what was done, and what was observed then.

    They need not follow one another; the last observation of an episode is followed by nothing.
    Each array is copied, whatever its type of numbers.

    Raises:
        TiplError: they are no arrays of real numbers, not as many, or not all finite.

    Examples:
        >>> log = tipl.Experience.of(np.zeros((3, 4)), np.zeros((3, 1)), np.zeros((3, 4)))
        >>> len(log + log)
        6
    """

    observations: Float64[np.ndarray, "S O"]
    """as the environment gives them"""
    actions: Float64[np.ndarray, "S A"]
    """as the environment took them; what is outside of its bounds is as good as at them"""
    next_observations: Float64[np.ndarray, "S O"]

    @classmethod
    def of(cls, observations: Any, actions: Any, next_observations: Any) -> Experience:
        """Experience from arrays of any type of numbers, or lists; raises what the class raises."""
        return cls(*_checked(observations, actions, next_observations))

    def __post_init__(self) -> None:
        checked = _checked(*(getattr(self, name) for name in _ARRAYS))
        for name, values in zip(_ARRAYS, checked, strict=True):
            object.__setattr__(self, name, values)

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


def _numbers(given: Any, whose: str) -> Array:
    """A copy in float64; raises a TiplError unless it is an array of real numbers."""
    try:
        found = np.asarray(given)
        if found.dtype.kind not in "biuf":
            raise TypeError(f"they are {found.dtype}")
        with np.errstate(over="ignore"):  # to infinity, which is refused
            return found.astype(np.float64)
    except (TypeError, ValueError, RuntimeError) as error:  # the last by tensors with gradients
        raise TiplError(
            f"{whose} are no array of real numbers ({one_sentence(str(error))}); expected whole or "
            "decimal numbers, in rows of equal lengths"
        ) from error


def _checked(*given: Any) -> list[Array]:
    """Copies of an experience's arrays; raises a TiplError unless they are such."""
    named = zip(_ARRAYS, given, strict=True)
    arrays = [
        _numbers(one, f"the {name.replace('_', ' ')} of an experience") for name, one in named
    ]
    shapes = [one.shape for one in arrays]
    even = all(len(one) == 2 for one in shapes) and shapes[0] == shapes[2]
    if not even or shapes[0][0] != shapes[1][0] or not shapes[0][0]:
        raise TiplError(
            "an experience was given with observations, actions and next observations of the "
            f"shapes {', '.join(map(str, shapes))}; expected [S, O], [S, A] and [S, O] for S "
            "transitions"
        )
    finite = np.stack([np.isfinite(one).all(axis=1) for one in arrays])
    if wrong := int(np.count_nonzero(~finite.all(axis=0))):
        raise TiplError(
            f"{wrong:,} of {shapes[0][0]:,} transitions of an experience hold NaN or infinite "
            "numbers; leave those out, and see why the environment gave them"
        )
    return arrays


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
        rows: list[_Row] = []
        while len(rows) < num_steps:
            if self._observation is None:
                self._observation = self._reset()
            rows.append(self._step(act, self._observation)[0])
        return _in_rows(rows)

    def episode(self, act: Act) -> tuple[float, Experience]:
        """The return of a whole new episode, or its first steps up to the task's limit, and these.

        Raises:
            TiplError: the environment gives something that is not usable.
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
        return total, _in_rows(rows)

    def _reset(self) -> Array:
        seed, self.seed = self.seed, -1
        given = self.env.reset(seed=seed) if seed >= 0 else self.env.reset()
        (observation,) = self._first(given, 1, "reset", "an observation and a dict")
        return self._checked(observation)

    def _first(self, given: Any, count: int, call: str, expected: str) -> tuple[Any, ...]:
        """What an environment returned before its dict; raises a TiplError if that is not all."""
        if not isinstance(given, tuple) or len(given) != count + 1:
            size = f" of {len(given)} values" if isinstance(given, tuple) else ""
            raise TiplError(
                f"the environment returned a {type(given).__name__}{size} from {call} after "
                f"{self.num_steps:,} steps; expected {expected}, as from Gymnasium's environments"
            )
        return given[:count]

    def _step(self, act: Act, observation: Array) -> tuple[_Row, float]:
        """One transition and its reward; the episode goes on from it, or is over."""
        action = executable(self.task, np.asarray(act(observation)))
        stepped = self.env.step(action)
        self.num_steps += 1
        following, reward, terminated, truncated = self._first(
            stepped, 4, "step", "an observation, a reward, terminated, truncated and a dict"
        )
        following = self._checked(following)
        earned = _numbers(reward, "the values that the environment gave as a reward")
        if earned.size != 1 or not np.isfinite(earned).all():
            raise TiplError(
                f"the environment gave the reward {shown(reward)} in step {self.num_steps:,}; "
                "expected a finite number: mend the environment"
            )
        self._observation = None if terminated or truncated else following
        return (observation, action, following), earned.item()

    def _checked(self, observation: Any) -> Array:
        """An observation; raises a TiplError unless it is one of the task."""
        found = _numbers(observation, "the values that the environment gave as an observation")
        if found.shape != (self.task.observation_size,) or not np.isfinite(found).all():
            raise TiplError(
                f"the environment gave an observation of the shape {found.shape} with "
                f"{np.count_nonzero(~np.isfinite(found))} values that are not finite after "
                f"{self.num_steps:,} steps; expected {self.task.observation_size} finite values: "
                "mend the environment"
            )
        return found


def _in_rows(rows: Sequence[_Row]) -> Experience:
    return Experience.of(*map(np.stack, zip(*rows, strict=True)))


def check_spaces(env: Any, task: TaskSpec) -> None:
    """Raises a TiplError unless it is an environment with the spaces of a continuous task."""
    seen, acted = getattr(env, "observation_space", None), getattr(env, "action_space", None)
    size, (low, high) = task.observation_size, task.action_bounds
    right = isinstance(env, gymnasium.Env) and isinstance(seen, Box) and seen.shape == (size,)
    if right and isinstance(acted, Box) and acted.shape == low.shape:
        right = acted.low.dtype.kind == low.dtype.kind
        right = right and bool(np.allclose(acted.low, low) and np.allclose(acted.high, high))
    else:
        right = False
    if not right:
        raise TiplError(
            f"{shown(env)} with the observations {shown(seen)} and the actions {shown(acted)} was "
            f"given as an environment, but {shown(task.label)} has {size} observed values and "
            f"{task.action_size} actions from {low.tolist()} to {high.tolist()}; give one of "
            "Gymnasium's that has these"
        )
