"""Environments as somebody made them: other arguments, another limit or wrappers than registered.

What a `TaskSpec` writes down of an environment is the text of a Gymnasium spec. Of that text three
things are believed: the constructor's arguments (see `tipl.envs.arguments`), the limit of episode
steps, and wrappers of `gymnasium.wrappers`. The class is always the one that is registered here
under the id, so that a file from somebody else names no code to run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec, WrapperSpec

from tipl.envs.arguments import check_believed, trust_arguments
from tipl.envs.registry import one_line, registered_spec
from tipl.errors import TiplError, shown
from tipl.policies.tasks import TaskSpec

_OF_GYMNASIUM = "gymnasium.wrappers."

# They change nothing that a policy sees or does: the time limit is a field of the spec, and
# policies act inside the bounds.
_WITHOUT_EFFECT = {
    *("ClipAction", "TimeLimit", "OrderEnforcing", "PassiveEnvChecker", "RecordEpisodeStatistics"),
    *("RecordVideo", "RenderCollection", "HumanRendering"),
}
_MONITOR = "stable_baselines3.common.monitor:Monitor"
_WITH_STATISTICS = ("NormalizeObservation", "NormalizeReward")
_RENDERING = "render_mode"

_ADVICE = (
    "register an environment under an id of its own ('module:Env-v0') whose entry point makes it so"
)


class Variant(NamedTuple):
    """An environment that is not as registered."""

    kwargs: dict[str, Any]
    """all arguments of the constructor"""
    max_episode_steps: int | None
    """environment steps after which an episode is truncated"""
    wrappers: tuple[WrapperSpec, ...]
    """of `gymnasium.wrappers`, from the inside out, around what is registered"""
    words: str
    """what is not as registered, for readers"""


def described(spec: EnvSpec) -> Variant | None:
    """How an environment is not as registered; None if it is.

    Args:
        spec: of the environment as it was made, such as `env.spec`.

    Raises:
        TiplError: the id is not registered, or something that is not as registered cannot be
            written down.
    """
    registered = registered_spec(spec.id)
    point = registered.entry_point
    if isinstance(point, str) and spec.entry_point != point:
        raise TiplError(
            f"an environment {shown(spec.id)} was made by {spec.entry_point}, and what is "
            f"registered under this id is {point}; {_ADVICE}"
        )
    _check_arguments(spec.id, spec.kwargs)
    for kwargs in (spec.kwargs, *(one.kwargs or {} for one in spec.additional_wrappers)):
        trust_arguments(kwargs)  # somebody has made this environment
    inside = _with_effect(registered.additional_wrappers)
    wrappers = _with_effect(spec.additional_wrappers)
    if len(wrappers) > len(inside):  # an entry point may wrap what it makes
        alone = make_one(spec.id, Variant(spec.kwargs, spec.max_episode_steps, (), ""))
        inside = _with_effect(alone.spec.additional_wrappers if alone.spec else ())
        with contextlib.suppress(Exception):  # what it says at its end is of no use
            alone.close()
    return _variant(registered, spec.kwargs, spec.max_episode_steps, wrappers, inside)


def written(env_id: str, variant: Variant | None) -> str:
    """An environment as text, for a `TaskSpec`.

    Raises:
        TiplError: what is registered cannot be written down.
    """
    registered = registered_spec(env_id)
    if not isinstance(registered.entry_point, str | None):
        raise TiplError(
            f"{shown(env_id)} is registered with the entry point {registered.entry_point}, which "
            "cannot be written down: expected text; put it into a module and register the "
            "environment as 'module:Class'"
        )
    _check_arguments(env_id, registered.kwargs)
    try:
        made = json.loads(registered.to_json())
    except (TypeError, ValueError) as error:
        raise TiplError(
            f"the Gymnasium spec of {shown(env_id)} cannot be written down: {one_line(error)} "
            "(expected plain values; register the environment with such)"
        ) from error
    if variant is not None:
        made |= {"kwargs": variant.kwargs, "max_episode_steps": variant.max_episode_steps}
        made["additional_wrappers"] += [dataclasses.asdict(one) for one in variant.wrappers]
    return json.dumps(made)


def variant_of(task: TaskSpec) -> Variant | None:
    """How the environment of a task is not as registered; None if it is.

    Raises:
        TiplError: the id is not registered, or the task's text says what is not believed, or
            not without the user's word.
    """
    registered, made = registered_spec(task), task.made_with
    inside = _with_effect(registered.additional_wrappers)
    try:
        wrappers = inside
        if "additional_wrappers" in made:
            wrappers = _with_effect([WrapperSpec(**one) for one in made["additional_wrappers"]])
        kwargs = dict(made.get("kwargs", registered.kwargs))
        limit = made.get("max_episode_steps", registered.max_episode_steps)
        if limit is not None and (type(limit) is not int or limit < 1):
            raise TypeError(f"max_episode_steps is {shown(limit)}")
    except (AttributeError, TypeError, ValueError) as error:
        raise TiplError(
            f"the Gymnasium spec of the task {shown(task.env_id)} is damaged: {one_line(error)}; "
            "make the task again by tipl.envs.make_task"
        ) from error
    variant = _variant(registered, kwargs, limit, wrappers, inside)
    if variant is not None:
        usual = registered.kwargs
        check_believed(
            task.env_id, {k: v for k, v in variant.kwargs.items() if usual.get(k) is not v}
        )
        for wrapper in variant.wrappers:
            check_believed(task.env_id, wrapper.kwargs or {})
    return variant


def make_one(
    env_id: str, variant: Variant | None = None, **options: Any
) -> gymnasium.Env[Any, Any]:
    """One environment: as registered, or a variant.

    The options are those of `gymnasium.make`, such as a render mode.

    Raises:
        TiplError: the id is unknown, or the environment cannot be made.
    """
    spec, wrappers = registered_spec(env_id), () if variant is None else variant.wrappers
    if variant is not None:
        limit = variant.max_episode_steps
        spec = dataclasses.replace(spec, kwargs=variant.kwargs, max_episode_steps=limit)
    try:
        with warnings.catch_warnings():
            # An old version is a choice here: returns of v4 and v5 are not comparable.
            warnings.filterwarnings("ignore", ".*is out of date", DeprecationWarning)
            env = gymnasium.make(spec, **options)
            # numbers that were float32 are Python's in a text, and warned of as more precise
            warnings.filterwarnings("ignore", ".*precision lowered", UserWarning)
            for wrapper in wrappers:
                env = _class_of(wrapper)(env, **_tuples(wrapper.kwargs or {}))
    except Exception as error:  # in somebody's code
        raise TiplError(
            f"the environment {shown(env_id)} could not be made: {one_line(error)} "
            "(expected an environment that gymnasium.make can make here; install what it needs, "
            "and register it with the arguments that it needs)"
        ) from error
    return env


def _variant(
    registered: EnvSpec,
    kwargs: Mapping[str, Any],
    limit: int | None,
    wrappers: Sequence[WrapperSpec],
    inside: Sequence[WrapperSpec],
) -> Variant | None:
    """What was made, if it is not as registered; its wrappers begin with those `inside`."""
    usual = registered.kwargs
    # a value as registered stays the registered one: text has no tuples
    others = {
        name: _plain(value)
        for name, value in kwargs.items()
        if name != _RENDERING and not (name in usual and _same(usual[name], value))
    }
    kept = {name: usual[name] for name in usual if name in kwargs or name == _RENDERING}
    words = _arguments(others)
    words += [f"without {name}" for name in usual if name not in kept]
    if limit != registered.max_episode_steps:
        words.append("no limit of steps" if limit is None else f"{limit} steps")
    outside = _outside(registered.id, wrappers, inside)
    around = tuple(_checked_wrapper(registered.id, one) for one in outside)
    words += [f"{one.name}({', '.join(_arguments(one.kwargs or {}))})" for one in around]
    return Variant(kept | others, limit, around, ", ".join(words)) if words else None


def _arguments(kwargs: Mapping[str, Any]) -> list[str]:
    return [f"{name}={textwrap.shorten(repr(value), 40)}" for name, value in kwargs.items()]


def _with_effect(wrappers: Sequence[WrapperSpec]) -> list[WrapperSpec]:
    """Wrappers without those that no policy notices."""
    return [
        one
        for one in wrappers
        if one.entry_point != _MONITOR
        and not (one.entry_point.startswith(_OF_GYMNASIUM) and one.name in _WITHOUT_EFFECT)
    ]


def _outside(
    env_id: str, wrappers: Sequence[WrapperSpec], inside: Sequence[WrapperSpec]
) -> list[WrapperSpec]:
    """The wrappers around those that are registered."""
    theirs = [one.entry_point for one in inside]
    if [one.entry_point for one in wrappers[: len(inside)]] != theirs:
        raise TiplError(
            f"an environment {shown(env_id)} was made with the wrappers "
            f"{', '.join(one.name for one in wrappers) or '(none)'}: expected at first those that "
            f"it is registered with, {', '.join(theirs)}; {_ADVICE}"
        )
    return list(wrappers[len(inside) :])


def _checked_wrapper(env_id: str, wrapper: WrapperSpec) -> WrapperSpec:
    """A wrapper that can be written down, its arguments as text has them."""
    if not isinstance(wrapper.kwargs, dict) or _class_of(wrapper) is None:
        raise TiplError(
            f"an environment {shown(env_id)} was made with the wrapper {wrapper.name} "
            f"({wrapper.entry_point}): expected wrappers of gymnasium.wrappers alone; {_ADVICE}"
        )
    if wrapper.name in _WITH_STATISTICS:
        raise TiplError(
            f"an environment {shown(env_id)} was made with the wrapper {wrapper.name}, whose "
            "running statistics would not be those of another one; leave it out"
        )
    _check_arguments(env_id, wrapper.kwargs, f" of the wrapper {wrapper.name}")
    return dataclasses.replace(wrapper, kwargs=_plain(wrapper.kwargs))


def _class_of(wrapper: WrapperSpec) -> Any:
    """The class of a wrapper if it is one of Gymnasium's; else None. Imports nothing else."""
    if not wrapper.entry_point.startswith(_OF_GYMNASIUM):
        return None
    # but for those that Gymnasium imports when they are asked for, with PyTorch or JAX
    found = vars(gymnasium.wrappers).get(wrapper.name)
    return found if isinstance(found, type) and issubclass(found, gymnasium.Wrapper) else None


def _check_arguments(env_id: str, kwargs: Mapping[str, Any], whose: str = "") -> None:
    """Raises a TiplError unless arguments can be written as text."""
    for name, value in kwargs.items():
        try:
            _plain(value)
        except (TypeError, ValueError) as error:
            # a function's own text would tell where it lies in memory
            said = getattr(value, "__qualname__", shown(value, 60))
            raise TiplError(
                f"an environment {shown(env_id)} was made with the argument {name}={said}{whose}, "
                f"which cannot be written down: expected numbers, text and lists of them; {_ADVICE}"
            ) from error


def _same(one: Any, other: Any) -> bool:
    try:
        return bool(_plain(one) == _plain(other))
    except (TypeError, ValueError):
        return one is other


def _plain(value: Any) -> Any:
    """A value as it is read back from JSON."""
    return json.loads(json.dumps(value, default=_number))


def _number(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is not plain")


def _tuples(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """A wrapper's arguments: text turned their tuples into lists, and some insist on tuples."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in kwargs.items()}
