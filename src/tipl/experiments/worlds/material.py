"""What the stages of a benchmark of worlds have left, opened when it is asked for."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64, Int64

from tipl.core import storage
from tipl.envs.worlds import TRAINING, World, Worlds
from tipl.evaluation.returns import Episodes, evaluate
from tipl.experiments.pipeline import digest_of_files
from tipl.experiments.worlds.cells import Measured, measured_cell
from tipl.experiments.worlds.config import WorldsConfig
from tipl.experiments.worlds.stages import worlds_file
from tipl.paths import PathDataset
from tipl.policies.policy import Policy

if TYPE_CHECKING:
    from tipl.models.world.forecaster import WorldForecaster

HOME, SINGLE = "home", "single factors"
"""Groups of worlds beside the splits: home alone, and those with one factor of their own."""

FACTORS = (0.5, 0.7, 1.4, 2.0)
"""Of single factors."""

RETURNS_SEED, TRIALS_SEED = 1_000, 2_000
"""Of the episodes by which all methods are measured, and of those that a method tries itself."""

CHOOSING_WORLDS = 16
"""Training worlds, at most, in which each stored policy is run to find the best one."""


@dataclass(frozen=True, eq=False)
class Material:
    """The worlds of a benchmark, its datasets and its models."""

    config: WorldsConfig
    directory: Path
    threads: int | None = None
    """of what is run"""

    @cached_property
    def worlds(self) -> Worlds:
        """All worlds."""
        return Worlds.load(worlds_file(self.config, self.directory))

    def group(self, name: str) -> tuple[World, ...]:
        """The worlds of a held-out split, `HOME`, or `SINGLE` factors."""
        if name == HOME:
            return (World(HOME, {}),)
        if name == SINGLE:
            return tuple(
                World(f"{factor} x{size:g}", {factor: size})
                for factor in self.worlds.physics
                for size in FACTORS
            )
        return self.worlds.worlds(name, self.config.held_out_worlds)

    @cache  # noqa: B019
    def paths(self, name: str) -> PathDataset:
        """A dataset in the directory."""
        return PathDataset.open(self.directory / name)

    @cached_property
    def elite(self) -> Policy:
        """The policy of home that all trials start from, under the frozen normaliser."""
        return self.paths("training").policy(0, 0).with_physics({})

    @cached_property
    def stored(self) -> list[Policy]:
        """The last policy of each training trial that did not diverge, M of them."""
        training = self.paths("training")
        usable = training.select(training.usable_trials())
        return [usable.policy(i, -1) for i in range(len(usable))]

    @cached_property
    def stored_factors(self) -> Float64[np.ndarray, "M V"]:
        """Of their worlds, in the order of the worlds' physics."""
        worlds = [dict(policy.task.physics) for policy in self.stored]
        return np.array([[one[name] for name in self.worlds.physics] for one in worlds])

    @cache  # noqa: B019
    def model(self, place: str) -> WorldForecaster:
        """A model of worlds in the directory."""
        from tipl.models.world.forecaster import WorldForecaster

        return WorldForecaster.from_pretrained(self.directory / place)

    def last_policy(self, name: str, trial: int, checkpoint: int = -1) -> Policy:
        """The policy of a trial at a checkpoint, or at the last one before it diverged."""
        paths = self.paths(name)
        sound = np.flatnonzero(~paths[trial].diverged)
        wanted = int(np.arange(paths.num_checkpoints)[checkpoint])
        return paths.policy(trial, int(sound[sound <= wanted][-1]))

    def run(self, policies: Sequence[Policy], episodes: int, seed: int) -> Episodes:
        """Episodes of policies, each in the world of its task."""
        found = evaluate(list(policies), episodes, seed=seed, threads=self.threads)
        return Episodes(found.episodic_return, found.episode_length)

    def try_out(
        self, policies: Sequence[Sequence[Policy]], episodes: int, seed: int
    ) -> tuple[Float64[np.ndarray, "W K"], Int64[np.ndarray, " W"]]:
        """Mean returns of K policies in each of W worlds, and the environment steps spent there."""
        flat = [policy for those in policies for policy in those]
        found = self.run(flat, episodes, TRIALS_SEED + seed)
        shape = (len(policies), -1, episodes)  # [W * K, E] -> [W, K, E]
        steps = found.lengths.reshape(shape).sum(axis=(1, 2))
        return found.returns.reshape(shape).mean(axis=2), steps

    @cached_property
    def returns_in_training(self) -> Float64[np.ndarray, "M E"]:
        """One episode of each stored policy in each of some training worlds."""
        worlds = self.worlds.worlds(TRAINING, self.config.num_worlds)
        chosen = np.unique(np.linspace(0, len(worlds) - 1, CHOOSING_WORLDS).round().astype(int))

        def measure() -> Measured:
            there = [p.with_physics(worlds[i].factors) for p in self.stored for i in chosen]
            found = self.run(there, 1, TRIALS_SEED)
            # [M * E, 1] -> [M, E]
            returns, lengths = (one.reshape(-1, len(chosen)) for one in found)
            return returns, lengths.sum(axis=1)

        names = [f"policy {i}" for i in range(len(self.stored))]
        digest = self.digest(["training"], TRAINING, "stored")
        cell = measured_cell(self.directory, TRAINING, "stored", digest, names, measure)
        return np.array(cell.returns)

    def digest(self, reads: Sequence[str], group: str, key: str) -> str:
        """Of all that a method's returns in a group of worlds follow from."""
        read = {name: digest_of_files(self.directory / name) for name in reads}
        return storage.content_digest(
            {
                "version": importlib.metadata.version("tipl"),
                "worlds": self.worlds.digest,
                "group": [group, self.config.held_out_worlds],
                "method": [key, self.config.episodes],
                "reads": read,
            }
        )
