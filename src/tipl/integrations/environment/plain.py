"""Whether a run's policy sees and does what the task of its environment's id says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import vector as vector_wrappers

from tipl.integrations.environment.description import RECORDERS
from tipl.integrations.environment.gate_environment import GateEnvironment
from tipl.integrations.environment.members import unwrapped_layers
from tipl.integrations.environment.normaliser import normaliser_classes

PROBES = 32
"""Observations and actions by which wrappers are told."""


def plain_id(gate: GateEnvironment, around: Sequence[Any]) -> str | None:
    """The id of the task that a run's policy acts in, if it sees and does what the task says.

    Its observations may be normalised, and clipped then, and its actions clipped: that is found by
    what wrappers of observations and actions compute. None if there are other wrappers, also
    `around` the run's vector, or the id is not known.
    """
    harmless = (vector_wrappers.ClipAction, vector_wrappers.NormalizeReward)
    if not all(isinstance(wrapper, (*normaliser_classes(), *harmless)) for wrapper in around):
        return None
    first = gate.first
    if first is None or first.spec is None:
        return None
    *wrappers, base = unwrapped_layers(first)
    monitor = "stable_baselines3.common.monitor"
    for wrapper in wrappers:
        read = (gym.ObservationWrapper, gym.ActionWrapper, gym.RewardWrapper, *RECORDERS)
        if not isinstance(wrapper, read) and type(wrapper).__module__ != monitor:
            return None
    try:
        with gate.frozen():
            plain = _observations_plain(wrappers, base, gate) and _actions_plain(wrappers, base)
    except Exception:  # of somebody's function, for what it may not expect
        return None
    return str(first.spec.id) if plain else None


def _observations_plain(wrappers: Sequence[Any], base: Any, gate: GateEnvironment) -> bool:
    """Whether observations come as they are or normalised, as far as one standard deviation."""
    own = [wrapper for wrapper in wrappers if isinstance(wrapper, gym.ObservationWrapper)]
    if not own:
        return True
    space = base.observation_space
    if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1:
        return False
    wanted = np.random.default_rng(0).uniform(-1, 1, (PROBES, *space.shape))
    mean, std = np.zeros(space.shape), np.ones(space.shape)
    if any(isinstance(wrapper, normaliser_classes()) for wrapper in own):
        mean, std = gate.normaliser.statistics
    for expected in wanted:
        seen = np.asarray(mean + std * expected, space.dtype)
        for wrapper in reversed(own):
            seen = wrapper.observation(seen)
        if np.shape(seen) != space.shape or not np.allclose(seen, expected, atol=1e-3):
            return False
    return True


def _actions_plain(wrappers: Sequence[Any], base: Any) -> bool:
    """Whether actions arrive as they are, inside the bounds."""
    own = [wrapper for wrapper in wrappers if isinstance(wrapper, gym.ActionWrapper)]
    space = base.action_space
    if not own:
        return True
    if not isinstance(space, gym.spaces.Box) or own[0].action_space.shape != space.shape:
        return False
    reach = np.where(space.bounded_above & space.bounded_below, space.high - space.low, 1.0)
    middle = np.where(np.isfinite(space.low + space.high), (space.low + space.high) / 2, 0.0)
    for share in np.random.default_rng(0).uniform(-0.75, 0.75, (PROBES, *space.shape)):
        action = wanted = np.asarray(middle + share * reach, space.dtype)
        for wrapper in own:
            action = wrapper.action(action)
        if not np.allclose(*(np.clip(one, space.low, space.high) for one in (action, wanted))):
            return False
    return True
