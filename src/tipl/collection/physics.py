"""The factors of physics that trials draw: once for each, or anew at each episode."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Integer

from tipl.core.arrays import Array
from tipl.core.seeds import Stream
from tipl.envs.worlds import World
from tipl.policies.factors import log_uniform


@dataclasses.dataclass(frozen=True)
class EpisodePhysics:
    """Draws the factors of each episode from (seed, trial, environment of the trial, episode).

    So they depend neither on which trials share a batch nor on what was drawn before, and a
    collection that goes on needs nothing but the episodes' numbers. It is a
    `tipl.envs.physics.Redraw`.
    """

    seed: int
    """of the collection"""
    trials: Sequence[int]
    """number of each trial of the batch"""
    num_envs: int
    """environments of each trial, E: the first E of the batch are the first trial's"""
    ranges: Mapping[str, Sequence[float]]
    """lowest and highest factor by name; drawn uniformly in the logarithm"""
    worlds: Sequence[World] = ()
    """of which one is drawn instead, if there are any"""

    def __call__(
        self, envs: Integer[np.ndarray, " n"], episodes: Integer[np.ndarray, " n"]
    ) -> dict[str, Array]:
        """Factors `[n]` by name, of environments of the batch in their episodes."""
        pairs = zip(envs.tolist(), episodes.tolist(), strict=True)
        draws = [self._draw(env, episode) for env, episode in pairs]
        return {name: np.array([draw[name] for draw in draws]) for name in sorted(self.ranges)}

    def _draw(self, env: int, episode: int) -> Mapping[str, float]:
        trial, e = self.trials[env // self.num_envs], env % self.num_envs
        rng = Stream.EPISODE_PHYSICS.rng(self.seed, trial, e, episode)
        if self.worlds:
            return self.worlds[int(rng.integers(len(self.worlds)))].factors
        return drawn_factors(self.ranges, rng)


def draw_physics(ranges: Mapping[str, Sequence[float]], seed: int, trial: int) -> dict[str, float]:
    """One trial's factors by name, uniform in the logarithm: half as likely as double."""
    return drawn_factors(ranges, Stream.PHYSICS.rng(seed, trial))


def drawn_factors(
    ranges: Mapping[str, Sequence[float]], rng: np.random.Generator
) -> dict[str, float]:
    """Factors by name, each of its own range."""
    return {name: log_uniform(rng, low, high) for name, (low, high) in sorted(ranges.items())}
