"""What a benchmark of worlds does: its fields are the options of `tipl worlds benchmark`."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import ClassVar

from tipl.collection.config import CollectConfig
from tipl.core.schemas import JsonFile
from tipl.envs.world_presets import Preset
from tipl.envs.worlds import SPLITS, TRAINING, Worlds
from tipl.errors import TiplError, shown
from tipl.experiments.config import ExperimentConfig, Values, three_checkpoints
from tipl.forecast.hub import check_model, shipped_models
from tipl.policies.policy import POLICY


@dataclasses.dataclass(frozen=True)
class WorldsConfig(ExperimentConfig):
    """What a model of worlds is compared with in worlds that nobody has trained in."""

    num_worlds: int = 64
    """training worlds with a PPO trial of their own: the first ones of the split training"""
    held_out_worlds: int = 24
    """worlds of each other split: its first ones"""
    splits: tuple[str, ...] = SPLITS[1:]
    """splits of worlds that are held out"""
    total_steps: int = 204_800
    """environment steps of each trial"""
    checkpoint_interval: int = 20
    episodes: int = 4
    """episodes of each policy in each world, whose starts are the same for all methods"""
    preset: Preset = "v1"
    """worlds that have a name (see tipl worlds make)"""
    worlds: str | None = None
    """file of worlds, instead of a preset (tipl worlds make)"""
    elite: str | None = None
    """directory of the policy of home that all trials start from (default: what the model that
    ships for the task makes of a fresh network)"""
    carrier: str | None = None
    """model that carries networks of other architectures (default: the one that ships for the
    task)"""
    randomised: bool = True
    """domain randomisation, too, which takes as long as the universal policy that the model learns
    from"""
    redrawn_steps: float = 1.0
    """environment steps of the universal policy and of domain randomisation, as a share of those of
    all training trials together"""
    train_steps: int = 2000
    """optimiser steps of each model"""
    observer_worlds: int = 1500
    """worlds without trials, from which the model learns to tell what a world is"""
    trials_per_group: int = 32
    """trials in one batched loop"""

    COMMAND, NAME = "worlds benchmark", "worlds-benchmark"
    PLACES = (
        "worlds.json", "elite", "training", "ppo", "randomised", "universal", "model", "models",
    )  # fmt: skip
    QUICK: ClassVar[Values] = {
        "num_worlds": 4, "held_out_worlds": 3, "total_steps": 12_288, "checkpoint_interval": 2,
        "episodes": 1, "train_steps": 100, "observer_worlds": 40,
    }  # fmt: skip
    LEAST: ClassVar[Values] = {
        "num_worlds": 2, "held_out_worlds": 2, "episodes": 1, "train_steps": 1,
        "trials_per_group": 1, "observer_worlds": 2,
    }  # fmt: skip

    @classmethod
    def _budget(cls, env_id: str) -> Values:
        return {}  # the protocol's is the same for every task

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.splits or TRAINING in self.splits or len({*self.splits}) < len(self.splits):
            raise TiplError(
                f"the splits {shown(self.splits)} were given; expected each held-out split once"
            )
        for split in self.splits:
            if not re.fullmatch(r"\w[\w-]*", split):  # it names a folder
                raise TiplError(f"the split {shown(split)} was given; expected letters and digits")
        if not 0 < self.redrawn_steps <= 100:
            raise TiplError(f"redrawn_steps is {self.redrawn_steps}; expected a share above 0")
        three_checkpoints(
            CollectConfig(self.num_worlds, self.total_steps, self.seed,
                          checkpoint_interval=self.checkpoint_interval)
        )  # fmt: skip

    @property
    def redrawn_share(self) -> str:
        """`redrawn_steps` in words: as many as something else, or so many times as many."""
        times = self.redrawn_steps
        return "as many" if times == 1 else f"{times:g} times as many"

    def check_inputs(self) -> None:
        """Looks at what is given by its place, before any work.

        Raises:
            TiplError: there is no such file of worlds, it has too few, or there is nothing to start
                from.
        """
        if self.worlds is not None:
            worlds = Worlds.load(self.worlds)
            if worlds.env_id.rpartition(":")[2] != self.env_id.rpartition(":")[2]:
                raise TiplError(
                    f"worlds of {shown(worlds.env_id)} were given for {shown(self.env_id)}; give "
                    "those of the same task"
                )
            worlds.worlds(TRAINING, self.num_worlds)
            for split in self.splits:
                worlds.worlds(split, self.held_out_worlds)
        ships = self.env_id in shipped_models()
        missing = [
            name for name in ("elite", "carrier") if getattr(self, name) is None and not ships
        ]
        if missing:
            raise TiplError(
                f"no model ships for {shown(self.env_id)}; give "
                f"{' and '.join('--' + name for name in missing)}: the elite is a policy of home "
                "(tipl paths best), the carrier a model of it (tipl train --model neuron "
                "--targets elite)"
            )
        if self.elite is not None:
            POLICY.read(Path(self.elite) / POLICY.name)
        if self.carrier is not None:
            check_model(self.carrier)


@dataclasses.dataclass(frozen=True)
class WorldsRecord:
    """What `write_record` keeps of a benchmark of worlds."""

    config: WorldsConfig
    command: str


WORLDS_BENCHMARK = JsonFile(
    "worlds-benchmark.json",
    WorldsRecord,
    "the record of a benchmark of worlds (made by `tipl worlds benchmark`)",
)
