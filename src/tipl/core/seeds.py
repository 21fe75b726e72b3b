"""Every stream of random numbers, by name.

A collection's numbers come from `(seed, index, stream, ...)`: they depend neither on which trials
share a batch nor on what was drawn before, so trials are independent and a resumed one needs no
stored generator. The index is a trial's number, or an iteration's where trials share the numbers.
"""

from __future__ import annotations

import enum

import numpy as np

HELD_OUT_SEED = 1_000_003
"""Of the batches whose loss is recorded but never learned from: the same for all models."""


@enum.unique
class Stream(enum.IntEnum):
    """What random numbers are for. A number that was given once is never given again."""

    EPISODES = 0
    """starts of evaluated episodes, by episode; the key of `(seed, index)` alone, as NumPy pads it,
    by which refitted critics and trials of stable-baselines3 are seeded, is the same"""
    INITIAL_NETWORK = 1
    """a trial's first weights"""
    ENVIRONMENT = 2
    """a trial's environment"""
    ACTION_NOISE = 3
    """a trial's actions, and then by iteration"""
    MINIBATCHES = 4
    """order of the steps, by iteration, for all trials"""
    PHYSICS = 5
    """a trial's factors of the original physics"""
    JUMP_TESTS = 6
    """starts of the episodes that test forecasts, by test"""
    WORLDS = 7
    """a world's factors, by its number, and then by a number of its split"""
    EPISODE_PHYSICS = 8
    """a trial's factors of one episode, then by environment and episode"""
    FRESH_NETWORKS = 9
    """fresh networks that a model is to carry, by number; the first has the seed itself"""

    def key(self, seed: int, index: int, *more: int) -> tuple[int, ...]:
        """What a generator is seeded with."""
        return (seed, index, int(self), *more)

    def rng(self, seed: int, index: int, *more: int) -> np.random.Generator:
        """A generator of the stream's numbers."""
        return np.random.default_rng(self.key(seed, index, *more))

    def number(self, seed: int, index: int, *more: int) -> int:
        """One number, for what takes a number as its seed."""
        return int(np.random.SeedSequence(self.key(seed, index, *more)).generate_state(1)[0])
