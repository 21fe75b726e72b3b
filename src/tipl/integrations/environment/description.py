"""What a training run acts in: one description, of any library's vector of environments."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import gymnasium as gym
from gymnasium import wrappers
from gymnasium.envs.registration import EnvSpec, WrapperSpec
from gymnasium.wrappers import vector as vector_wrappers

from tipl.errors import TiplError
from tipl.integrations.environment.members import (
    LIKE_IT,
    member_specs,
    sb3_class,
    unwrapped_layers,
)

RECORDERS = (
    wrappers.RecordEpisodeStatistics,
    wrappers.RecordVideo,
    wrappers.HumanRendering,
    wrappers.RenderCollection,
    wrappers.PassiveEnvChecker,
    wrappers.OrderEnforcing,
    wrappers.TimeLimit,  # told by the spec
)
"""Wrappers that change neither observations nor actions nor rewards."""

RECORDERS_OF_VECTORS = (
    vector_wrappers.RecordEpisodeStatistics,
    vector_wrappers.RecordVideo,
    vector_wrappers.HumanRendering,
    vector_wrappers.DictInfoToList,
)
"""Likewise of Gymnasium's vectors."""

SB3_RECORDERS = ("VecMonitor", "VecCheckNan", "VecVideoRecorder")
"""Likewise of stable-baselines3's."""

SB3_MONITOR = "stable_baselines3.common.monitor:Monitor"


class RunDescription(NamedTuple):
    """The whole stack of a run's environment."""

    spec: EnvSpec
    """of one environment: its arguments, its time limit, and the wrappers, from the inside out,
    that change what a policy sees, does or is rewarded for"""
    around: tuple[Any, ...]
    """the wrappers around the vector, from the inside out, that do so"""
    num_envs: int


def describe(env: Any) -> RunDescription:
    """Describes a run's environment: a Gymnasium one, a vector of them, or stable-baselines3's.

    Raises:
        TiplError: one sentence that says why it cannot be known, and what to do.
    """
    # the wrappers of one environment are told by its spec
    vector = env if isinstance(env, gym.Env) else unwrapped_layers(env)[-1]
    specs = [cleaned(spec) for spec in member_specs(vector)]
    if any(_comparable(spec) != _comparable(specs[0]) for spec in specs):
        raise TiplError(
            f"the run's {len(specs)} environments are not alike, so that none of them speaks for "
            f"all; {LIKE_IT}"
        )
    return RunDescription(specs[0], wrappers_around(env), getattr(env, "num_envs", 1))


def wrappers_around(env: Any) -> tuple[Any, ...]:
    """The wrappers around a vector, from the inside out, without those that only watch."""
    if isinstance(env, gym.Env):
        return ()
    watching = (*RECORDERS_OF_VECTORS, *(one for name in SB3_RECORDERS for one in sb3_class(name)))
    around = reversed(unwrapped_layers(env)[:-1])
    return tuple(wrapper for wrapper in around if type(wrapper) not in watching)


def is_one_of(wrapper: WrapperSpec, classes: Any) -> bool:
    """Whether a wrapper's spec is that of one of some classes: of themselves, not of namesakes."""
    return wrapper.entry_point in {f"{one.__module__}:{one.__name__}" for one in classes}


def cleaned(spec: EnvSpec) -> EnvSpec:
    """A spec without what only watches or draws, and without the scaling of rewards.

    Rewards are scaled by running statistics for the sake of training; what comes after that is of
    scaled ones. Both are left out, so that returns are those of before it.
    """
    spec = copy.deepcopy(spec)
    kept: list[WrapperSpec] = []
    scaled = False
    for wrapper in spec.additional_wrappers:
        if is_one_of(wrapper, RECORDERS) or wrapper.entry_point == SB3_MONITOR:
            continue
        if is_one_of(wrapper, [wrappers.NormalizeReward]):
            scaled = True
        elif not (scaled and is_one_of(wrapper, [wrappers.TransformReward, wrappers.ClipReward])):
            kept.append(wrapper)
    spec.additional_wrappers = tuple(kept)
    drawn = any(is_one_of(wrapper, [wrappers.AddRenderObservation]) for wrapper in kept)
    if not drawn:
        spec.kwargs.pop("render_mode", None)
    return spec


def _comparable(value: Any) -> Any:
    """What two specs have to have in common, where functions are made anew for each of them."""
    if isinstance(value, EnvSpec):
        told = (value.kwargs, [(one.entry_point, one.kwargs) for one in value.additional_wrappers])
        return (value.id, value.max_episode_steps, _comparable(told))
    if isinstance(value, dict):
        return {name: _comparable(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_comparable(one) for one in value]
    if hasattr(value, "tobytes"):
        return (str(value.dtype), value.shape, value.tobytes())
    if callable(value):
        return (getattr(value, "__module__", ""), getattr(value, "__qualname__", repr(type(value))))
    return value if isinstance(value, str | int | float | bool | None) else repr(type(value))
