"""What a policy must know about its task, without an environment at hand.

A `TaskSpec` names a Gymnasium environment and holds its sizes, its action bounds and the
frozen observation normaliser. Specs of the tasks that ship with the package are read from
`task_specs.json` (written by `scripts/measure_task_specs.py`); `tipl.envs.make_task`
measures those of any other environment. Nothing here imports Gymnasium or MuJoCo.
"""

from __future__ import annotations

import functools
import json
import math
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from importlib import resources
from typing import Any

import msgspec
import numpy as np
from jaxtyping import Float64, Shaped

from tipl.core.arrays import Array
from tipl.core.options import is_count
from tipl.errors import TiplError, shown
from tipl.policies.factors import are_factors, checked_factors, observed_factors

MAX_SIZE, MAX_STEPS = 1_000_000, 1_000_000_000
"""Of observations and actions, in values, and of episodes."""

_HIGHEST = {
    "observation_size": MAX_SIZE,
    "action_size": MAX_SIZE,
    "max_episode_steps": MAX_STEPS,
}
_ACTION_DTYPES = [f"float{bits}" for bits in (16, 32, 64)] + [
    f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)
]

MADE_WITH = ("kwargs", "max_episode_steps", "additional_wrappers")
"""What of a Gymnasium spec makes one environment of an id another than the next."""


class _Made(msgspec.Struct):
    """What of a Gymnasium spec is read."""

    kwargs: dict[str, Any] | None = None
    max_episode_steps: int | None = None
    additional_wrappers: list[dict[str, Any]] | None = None


@dataclass(frozen=True)
class TaskSpec:
    """One task: a Gymnasium environment and the normaliser of its observations.

    Raises:
        TiplError: a value is of another type or size than possible, or values contradict each
            other.
    """

    env_id: str
    """the Gymnasium id, such as `"InvertedPendulum-v4"`"""
    observation_size: int
    """number of observed values, O"""
    action_size: int
    """number of action values, A"""
    action_low: tuple[float, ...]
    """lowest action, `[A]`"""
    action_high: tuple[float, ...]
    """highest action, `[A]`"""
    max_episode_steps: int
    """environment steps after which an episode is truncated"""
    observation_mean: tuple[float, ...]
    """mean `[O]` of the observations under uniform random actions, or, where these show too little
    of a task (Hopper), in short PPO trials"""
    observation_std: tuple[float, ...]
    """their standard deviation `[O]`, never below 1e-3"""
    gymnasium_spec: str
    """the Gymnasium spec of the environment as it was made, as JSON text: its arguments, limit of
    steps and wrappers may be others than registered"""
    first_action: int | None = None
    """of a task with A discrete actions the number of the first of them, with empty `action_low`
    and `action_high`; None if actions are continuous"""
    action_dtype: str = "float32"
    """NumPy dtype of the action space where actions are continuous: float32, float64 or integers"""
    physics: tuple[tuple[str, float], ...] = ()
    """names of `tipl.envs.physics` with factors of the original physics; empty for the task as
    Gymnasium defines it"""
    variant: str = ""
    """what was not as registered when the environment was made, in words; empty if nothing was"""
    observed: tuple[str, ...] = ()
    """names of physics, what is seen of which follows the environment's own observations, and
    counts among the O values: see `observed_values`"""

    def __post_init__(self) -> None:
        whose = f"the task spec of {reprlib.repr(self.env_id)}"
        self._check_types(whose)
        for name in ("action_low", "action_high"):
            _check_count(whose, name, getattr(self, name), 0 if self.discrete else self.action_size)
        if not all(low < high for low, high in zip(self.action_low, self.action_high, strict=True)):
            raise TiplError(
                f"{whose} has the action bounds {self.action_low} to "
                f"{self.action_high}: expected each low below its high; correct the fields"
            )
        _check_dtype(whose, self.action_dtype, self.action_low + self.action_high)
        normaliser = self.observation_mean, self.observation_std
        check_normaliser(whose, *normaliser, self.observation_size)

    def _check_types(self, whose: str) -> None:
        """Raises a TiplError unless texts are texts and numbers are possible ones."""
        for name in ("env_id", "gymnasium_spec", "variant", "action_dtype"):
            value = getattr(self, name)
            if not isinstance(value, str):
                raise TiplError(f"{whose} has {shown(value)} in {shown(name)}: expected text")
        for name, highest in _HIGHEST.items():
            value = getattr(self, name)
            if not is_count(value) or value > highest:
                raise TiplError(
                    f"{whose} has {shown(value)} in {shown(name)}: expected a whole number from 1 "
                    f"to {highest:,}; correct the field"
                )
        for name in ("action_low", "action_high", "observation_mean", "observation_std"):
            if not all(map(_is_number, getattr(self, name))):
                raise TiplError(
                    f"{whose} has something else than numbers in {shown(name)}; correct it"
                )
        if not all(isinstance(name, str) for name in self.observed) or (
            len({*self.observed}) < len(self.observed)
            or len(self.observed) >= self.observation_size
        ):
            raise TiplError(
                f"{whose} has {shown(self.observed)} in 'observed': expected different names, "
                f"fewer than its {self.observation_size} observed values"
            )
        first = self.first_action
        if self.discrete and not (type(first) is int and abs(first) <= MAX_STEPS):
            raise TiplError(
                f"{whose} has {shown(first)} in 'first_action': expected a whole number"
            )
        for name, factor in self.physics:
            if not isinstance(name, str):
                raise TiplError(f"{whose} has {shown(name)} in 'physics': expected names")
            checked_factors({name: factor}, f"{whose} has physics of which")

    @property
    def discrete(self) -> bool:
        """Whether actions are numbers, `action_size` of them."""
        return self.first_action is not None

    @property
    def observation_statistics(self) -> tuple[Float64[np.ndarray, " O"], Float64[np.ndarray, " O"]]:
        """Mean and standard deviation of the frozen normaliser of observations, `[O]` each."""
        mean, std = self.observation_mean, self.observation_std
        return np.array(mean, np.float64), np.array(std, np.float64)

    @property
    def bare_id(self) -> str:
        """The id without a module before a colon, which only says where it is registered."""
        return self.env_id.rpartition(":")[2]

    @property
    def label(self) -> str:
        """The id for readers, with what was not as registered, and which physics are observed."""
        seen = f"observes {', '.join(self.observed)}" if self.observed else ""
        return task_label(self.env_id, ", ".join(filter(None, (self.variant, seen))))

    @property
    def physics_label(self) -> str:
        """The factors of its physics that are not 1, for readers; empty at home."""
        return ", ".join(f"{name} × {factor:g}" for name, factor in self.physics if factor != 1)

    @property
    def made_with(self) -> dict[str, Any]:
        """How the environment was made: of its Gymnasium spec the `MADE_WITH` that it has.

        Raises:
            TiplError: the spec is no JSON object.
        """
        try:
            spec = json.loads(self.gymnasium_spec)
            made = {name: spec[name] for name in MADE_WITH if name in spec}
            msgspec.convert(made, _Made)
            return made
        except (ValueError, TypeError, RecursionError) as error:
            raise TiplError(
                f"the Gymnasium spec of the task {shown(self.env_id)} is damaged: {error}; make "
                "the task again by tipl.envs.make_task"
            ) from error

    @property
    def wrappers(self) -> list[dict[str, Any]]:
        """The wrappers of the environment as its Gymnasium spec has them, from the inside out."""
        return list(self.made_with.get("additional_wrappers") or [])

    def same_environment(self, other: TaskSpec) -> bool:
        """Whether two tasks are of one environment: id, arguments, limit, wrappers, what is seen.

        Normalisers and physics are not compared, but which of the physics are observed.
        """
        seen = self.observed == other.observed
        return seen and self.bare_id == other.bare_id and self.made_with == other.made_with

    def with_physics(self, physics: Mapping[str, float]) -> TaskSpec:
        """Returns the same task with its physics scaled by factors, instead of any it had."""
        return replace(self, physics=tuple(sorted(physics.items())))

    def observing(self, spread: Mapping[str, float]) -> TaskSpec:
        """The same task, whose policies also observe some of its physics.

        What they see is normalised by the mean of home, 0, and a `spread` by name.
        """
        names = tuple(sorted(spread))
        return replace(
            self,
            observation_size=self.observation_size + len(names),
            observation_mean=(*self.observation_mean, *(0.0 for _ in names)),
            observation_std=(*self.observation_std, *(float(spread[name]) for name in names)),
            observed=names,
        )

    def without_observing(self) -> TaskSpec:
        """The same task, whose policies observe none of its physics."""
        size = self.observation_size - len(self.observed)
        return replace(
            self,
            observation_size=size,
            observation_mean=self.observation_mean[:size],
            observation_std=self.observation_std[:size],
            observed=(),
        )

    def observed_values(self, physics: Mapping[str, float]) -> Float64[np.ndarray, " V"]:
        """What its policies observe of a world, after what the environment shows.

        That is the logarithm of each factor, in the order of `observed`, and 0 of those that are
        not given; of motors, which may be reversed, the factor less 1.
        """
        world = {name: np.array([factor]) for name, factor in checked_factors(physics).items()}
        return np.asarray(observed_factors(self.observed, world, 1)[0])

    @property
    def action_bounds(self) -> tuple[Shaped[np.ndarray, " A"], Shaped[np.ndarray, " A"]]:
        """Lowest and highest action, `[A]` each, of the `action_dtype`."""
        low, high = self.action_low, self.action_high
        return np.array(low, self.action_dtype), np.array(high, self.action_dtype)

    def to_json(self) -> dict[str, Any]:
        """Returns the spec as a dictionary of plain JSON values, for `from_json`."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        values["physics"] = dict(self.physics)
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
            # left out, as in the files of before there were any
            if value not in (None, {}, "")
            and (name, value) not in (("action_dtype", "float32"), ("observed", ()))
        }

    @classmethod
    def from_json(cls, data: object) -> TaskSpec:
        """Reads a spec back from what `to_json` returned. Unknown fields are ignored.

        Raises:
            TiplError: a field is missing or of another type, or fields contradict each other.
        """
        if not isinstance(data, dict):
            raise TiplError(
                f"a task spec was given as {type(data).__name__}: expected a JSON object; "
                "write it with TaskSpec.to_json()"
            )
        values: dict[str, Any] = {}
        for field in fields(cls):
            name, (expected, read) = field.name, _KINDS[str(field.type)]
            if name not in data and field.default is not MISSING:
                continue
            values[name] = read(data[name]) if name in data else None
            if values[name] is None:
                fault = f"has {shown(data[name])} in" if name in data else "lacks"
                raise TiplError(
                    f"a task spec {fault} the field {shown(name)}: expected {expected}; "
                    "write it with TaskSpec.to_json()"
                )
        return cls(**values)


def task_label(env_id: str, variant: str) -> str:
    """A task for readers: its id, with what of its environment is not as registered."""
    return f"{env_id} ({variant})" if variant else env_id


def check_normaliser(
    whose: str, mean: Sequence[float] | Array, std: Sequence[float] | Array, observation_size: int
) -> None:
    """Raises a TiplError unless observations can be normalised by mean and std `[O]`."""
    for name, given, lowest in (("mean", mean, -math.inf), ("std", std, 0.0)):
        _check_count(whose, f"observation_{name}", given, observation_size)
        values = np.asarray(given)
        if values.dtype.kind not in ("f" if isinstance(given, np.ndarray) else "fiu"):
            raise TiplError(
                f"{whose} has values of {values.dtype} in 'observation_{name}': expected floating-"
                "point numbers; measure again"
            )
        impossible = ~((values > lowest) & (values < math.inf))  # NaN as well
        if impossible.any():
            raise TiplError(
                f"{whose} has {values[impossible][0]} in 'observation_{name}': expected finite "
                "values, and standard deviations above 0; leave out what never changes, or measure "
                "again"
            )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.floating) and not isinstance(value, bool)


def _check_dtype(whose: str, dtype: str, bounds: tuple[float, ...]) -> None:
    valid = dtype in _ACTION_DTYPES
    if valid:
        with np.errstate(all="ignore"):  # what is not held is seen
            given = np.array(bounds, np.float64)
            held = given.astype(dtype).astype(np.float64)
        whole = np.dtype(dtype).kind != "f"
        valid = all(held == given if whole else np.isfinite(held) == np.isfinite(given))
    if not valid:
        raise TiplError(
            f"{whose} has {shown(dtype)} in 'action_dtype' and the action bounds {bounds}: "
            "expected float32, float64 or integers that hold the bounds; correct the fields"
        )


def _check_count(whose: str, name: str, values: Sequence[float] | Array, count: int) -> None:
    if np.shape(values) != (count,):
        raise TiplError(
            f"{whose} has {'x'.join(map(str, np.shape(values)))} values in {shown(name)}: expected "
            f"{count}, one per dimension; correct the field or its size"
        )


def known_tasks() -> tuple[str, ...]:
    """The ids of the tasks that ship with the package."""
    return tuple(_shipped_specs())


def get_task(env_id: str) -> TaskSpec:
    """The spec of one of `known_tasks`; raises a TiplError if the task is none of them."""
    specs = _shipped_specs()
    if env_id not in specs:
        raise TiplError(
            f"the task {shown(env_id)} does not ship with tipl: expected one of "
            f"{', '.join(specs)}; for any other Gymnasium id, measure it with "
            f"tipl.envs.make_task({shown(env_id)})"
        )
    return specs[env_id]


@functools.cache
def _shipped_specs() -> dict[str, TaskSpec]:
    text = resources.files("tipl.policies").joinpath("task_specs.json").read_text(encoding="utf-8")
    return {spec["env_id"]: TaskSpec.from_json(spec) for spec in json.loads(text)["tasks"]}


def _numbers(value: Any) -> tuple[float, ...] | None:
    if not isinstance(value, list) or any(type(x) not in (int, float) for x in value):
        return None
    return tuple(map(float, value)) if all(map(math.isfinite, value)) else None


def _names(value: Any) -> tuple[str, ...] | None:
    named = isinstance(value, list) and all(isinstance(one, str) for one in value)
    return tuple(value) if named else None


def _factors(value: Any) -> tuple[tuple[str, float], ...] | None:
    factors = _numbers(list(value.values())) if isinstance(value, dict) else None
    if not factors:
        return None
    named = dict(sorted(zip(value, factors, strict=True)))
    return tuple(named.items()) if all(map(are_factors, named, named.values())) else None


# For each type of a TaskSpec's fields what is expected, and how it is read (None: not as expected).
_KINDS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "str": ("a string", lambda value: value if isinstance(value, str) and value else None),
    # True is of another type
    "int": (
        "a positive integer",
        lambda value: value if type(value) is int and value > 0 else None,
    ),
    "int | None": ("an integer", lambda value: value if type(value) is int else None),
    "tuple[float, ...]": ("a list of finite numbers", _numbers),
    "tuple[str, ...]": ("a list of names", _names),
    "tuple[tuple[str, float], ...]": (
        "an object of names and their factors",
        _factors,
    ),
}
