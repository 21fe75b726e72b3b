"""What a benchmark of worlds comes to: every number of its methods, and of pairs of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from tipl.envs.worlds import TRAINING, Worlds
from tipl.errors import TiplError
from tipl.evaluation import stats
from tipl.evaluation.stats import Interval
from tipl.experiments.stage_records import StageRecord, read_records
from tipl.experiments.worlds.cells import CELL, Cell, cell_file
from tipl.experiments.worlds.comparing import Rival
from tipl.experiments.worlds.config import WORLDS_BENCHMARK, WorldsConfig
from tipl.experiments.worlds.material import HOME, SINGLE
from tipl.experiments.worlds.rivals import ELITE, JUDGED, ppo_key, ppo_steps, rivals
from tipl.experiments.worlds.stages import worlds_file
from tipl.policies.factors import log_distances
from tipl.report.results import Result, Rows

RETURN, SCORE, DIFFERENCE = "return", "score", "return_difference"
WORST, HARM, SPENT = "return_in_worst_tenth", "share_below_elite", "env_steps_spent"
"""Metrics of methods in the worlds of a split."""


@dataclass(frozen=True, eq=False)
class WorldsBenchmark:
    """What a benchmark of worlds left; its numbers are worked out when they are asked for."""

    config: WorldsConfig
    command: str
    directory: Path
    worlds: Worlds
    methods: Sequence[Rival]
    cells: Mapping[tuple[str, str], Cell]
    """by group of worlds and key of the method"""
    stages: Sequence[StageRecord]

    def method(self, key: str) -> Rival:
        """The method with a key."""
        return next(one for one in self.methods if one.key == key)

    @property
    def judged(self) -> list[Rival]:
        """The model's ways that are set beside every other method."""
        return [one for one in self.methods if one.key in JUDGED]

    def returns(self, split: str, key: str) -> Float64[np.ndarray, " W"]:
        """What a method returns in each world of a group."""
        return self.cells[split, key].by_world

    @property
    def ppo(self) -> Rival:
        """PPO in the held-out world itself, to its end."""
        return self.method(ppo_key(ppo_steps(self.config)[-1]))

    def distances(self, split: str) -> Float64[np.ndarray, " W"]:
        """Of the held-out worlds of a split from the nearest one that was learned from."""
        here = self.worlds.split(split, self.config.held_out_worlds)
        there = self.worlds.split(TRAINING)
        stacked = (np.stack([*one.values()], axis=1) for one in (here, there))  # [W, V]
        return np.asarray(log_distances(*stacked).min(axis=1))

    @cached_property
    def rows(self) -> Rows:
        """All numbers; NaN where there is none."""
        found = [*self._regime()]
        for split in self.config.splits:
            for method in self.methods:
                found += self._of_method(split, method)
            for ours in self.judged:
                found += self._differences(split, ours)
        return Rows(found)

    def row(self, method: Rival, metric: str, value: Interval, group: str, **more: Any) -> Result:
        """One number of a method in a group of worlds."""
        cell = self.cells[group, method.key]
        split = group if group in self.config.splits else None
        place: dict[str, Any] = {"split": split, "n_trials": len(cell.worlds)}
        place |= {"n_episodes": cell.num_episodes, "key": method.key, "command": self.command}
        experiment = self.config.COMMAND
        return Result(self.config.env_id, experiment, method.name, metric, *value, **(place | more))

    def _regime(self) -> Iterator[Result]:
        """The elite at home, and where one factor is another."""
        elite = self.method(ELITE)
        home = self.cells[HOME, ELITE]
        yield self.row(elite, RETURN, Interval(float(home.by_world[0])), HOME, world=HOME)
        single = self.cells[SINGLE, ELITE]
        for world, value in zip(single.worlds, single.by_world, strict=True):
            yield self.row(elite, RETURN, Interval(float(value)), SINGLE, world=world, n_trials=1)

    def _of_method(self, split: str, method: Rival) -> Iterator[Result]:
        own, elite, ppo = (self.returns(split, key) for key in (method.key, ELITE, self.ppo.key))
        steps = np.array(self.cells[split, method.key].env_steps, np.float64)
        found = {
            RETURN: stats.mean_interval(own),
            SCORE: stats.ratio_interval(own - elite, ppo - elite),
            WORST: stats.worst_interval(own),
            HARM: stats.mean_interval((own < elite).astype(np.float64)),
            SPENT: stats.mean_interval(steps),
        }
        for metric, value in found.items():
            yield self.row(method, metric, value, split)

    def _differences(self, split: str, ours: Rival) -> Iterator[Result]:
        """By how much one of the model's ways returns more than each other method."""
        own = self.returns(split, ours.key)
        for other in self.methods:
            if other is not ours:
                value = stats.paired_difference_interval(own, self.returns(split, other.key))
                yield self.row(ours, DIFFERENCE, value, split, beside=other.name)

    def find(self, method: Rival, metric: str, split: str, **place: Any) -> Result:
        """One number of a method in a split.

        Raises:
            TiplError: there is no such number.
        """
        where: dict[str, Any] = {"key": method.key, "metric": metric, "split": split}
        return self.rows.one(**{"beside": None, "world": None} | where | place)


def verdict(difference: Result) -> str:
    """What a paired difference says of the first of two methods."""
    if difference.low > 0:
        return "wins"
    return "loses" if difference.high < 0 else "ties"


def load_worlds(directory: str | Path) -> WorldsBenchmark:
    """Reads what a benchmark of worlds left that has been measured.

    Raises:
        TiplError: something is missing or damaged.
    """
    directory = Path(directory)
    record = WORLDS_BENCHMARK.read(directory / WORLDS_BENCHMARK.name)
    config = record.config
    methods = [
        one
        for one in rivals(config)
        if not one.extra or cell_file(directory, config.splits[-1], one.key).exists()
    ]
    places = [(HOME, ELITE), (SINGLE, ELITE)]
    places += [(split, method.key) for split in config.splits for method in methods]
    cells = {(group, key): CELL.read(cell_file(directory, group, key)) for group, key in places}
    found = WorldsBenchmark(
        config, record.command, directory, Worlds.load(worlds_file(config, directory)), methods,
        cells, list(read_records(directory).values()),
    )  # fmt: skip
    for split in config.splits:
        names = [one.name for one in found.worlds.worlds(split, config.held_out_worlds)]
        for method in methods:
            if cells[split, method.key].worlds != names:
                raise TiplError(
                    f"{cell_file(directory, split, method.key)} is of other worlds than the split "
                    f"{split} of the benchmark; run `tipl worlds benchmark` again"
                )
    return found
