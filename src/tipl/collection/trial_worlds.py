"""The world of each trial of a collection: trial i learns in world i // K of a split."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tipl.collection.config import CollectConfig, parse_ranges
from tipl.envs.worlds import World, Worlds
from tipl.errors import TiplError, shown
from tipl.paths.metadata import TrialWorlds
from tipl.policies.factors import observed_factors


def read_worlds(given: str | Path | Worlds | None, env_id: str) -> Worlds | None:
    """The worlds of a file, or those that were given themselves.

    Raises:
        TiplError: there is none, it is damaged, or they are of another task.
    """
    if given is None:
        return None
    worlds = Worlds.of(given)
    if worlds.env_id.rpartition(":")[2] != env_id.rpartition(":")[2]:
        raise TiplError(
            f"worlds of {shown(worlds.env_id)} were given for trials in {shown(env_id)}; give "
            "those of the same task"
        )
    return worlds


def with_worlds(config: CollectConfig, worlds: Worlds | None) -> CollectConfig:
    """The configuration with its number of trials: all that the split has worlds for, by default.

    Raises:
        TiplError: there is no such split, or its worlds are not for as many trials.
    """
    if worlds is None or config.redraw != "never":
        return dataclasses.replace(config, num_trials=config.trials)
    each = config.trials_per_world
    available = each * len(worlds.worlds(config.split))
    trials = available if config.num_trials is None else config.num_trials
    if trials > available or trials % each:
        wanted = f"a multiple of {each} up to {available}" if each > 1 else f"at most {available}"
        raise TiplError(
            f"num_trials is {trials}, with {each} in each of {available // each} worlds of the "
            f"split {shown(config.split)}; expected {wanted}, which takes the first worlds, or no "
            "num_trials, which takes all"
        )
    return dataclasses.replace(config, num_trials=trials)


def trial_worlds(config: CollectConfig, worlds: Worlds | None) -> tuple[World, ...]:
    """The world of each trial, of a configuration with its number of trials; none: they vary.

    Where worlds are redrawn, those that all trials draw from.
    """
    if worlds is None:
        return ()
    chosen = worlds.worlds(config.split)
    if config.redraw != "never":
        return chosen
    return tuple(chosen[trial // config.trials_per_world] for trial in range(config.trials))


def as_stored(config: CollectConfig, worlds: Worlds | None) -> TrialWorlds | None:
    """What the metadata say of the worlds."""
    if worlds is None:
        return None
    names = [one.name for one in trial_worlds(config, worlds)[:: config.trials_per_world]]
    return TrialWorlds(worlds.digest, config.split, config.trials_per_world, tuple(names))


def physics_ranges(config: CollectConfig, chosen: Sequence[World]) -> Mapping[str, list[float]]:
    """Lowest and highest factor by name, of what varies between trials."""
    if not chosen:
        return {name: list(bounds) for name, bounds in parse_ranges(config.vary).items()}
    factors = {name: [one.factors[name] for one in chosen] for name in sorted(chosen[0].factors)}
    return {name: [min(values), max(values)] for name, values in factors.items()}


def observed_spread(config: CollectConfig, chosen: Sequence[World]) -> dict[str, float]:
    """By name, how what is observed of physics spreads: its standard deviation over the draws."""
    spread = {}
    for name, (low, high) in physics_ranges(config, chosen).items():
        ends = np.array([low, high] if not chosen else [one.factors[name] for one in chosen])
        seen = observed_factors([name], {name: ends}, len(ends))
        # of a uniform distribution, or of what is drawn from
        std = seen.std() if chosen else np.ptp(seen) / math.sqrt(12)
        spread[name] = float(std) or 1.0  # of what does not vary
    return spread
