"""The points of an experiment on scaling: which models are trained, in which order, and how."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from tipl.experiments.pipeline import Stage
from tipl.experiments.scaling.config import AXES, ScalingConfig
from tipl.forecast.base import Target

TARGETS: tuple[Target, ...] = tuple(reversed(get_args(Target)))
"""Of each size a model for each: own first."""


@dataclasses.dataclass(frozen=True)
class Size:
    """How much data, how large a model, and how much training compute."""

    trials: int
    widths: int
    num_steps: int

    def __str__(self) -> str:
        return f"{self.trials} trials, width {self.widths}, {self.num_steps} steps"


@dataclasses.dataclass(frozen=True)
class Point:
    """One model of a size."""

    target: Target
    size: Size
    seed: int

    @property
    def name(self) -> str:
        """Of the stage that trains it."""
        return f"{self.target}: {self.size}, seed {self.seed}"

    @property
    def slug(self) -> str:
        """Of its files."""
        parts = (self.target, *dataclasses.astuple(self.size), self.seed)
        return "-".join(map(str, parts))

    @property
    def place(self) -> str:
        """Where the model is, in the directory of the experiment."""
        return f"models/{self.slug}"


def sizes(config: ScalingConfig, axis: str) -> list[Size]:
    """The sizes along an axis, from the smallest on: all else is as at the base."""
    return [Size(**{**config.base, axis: value}) for value in getattr(config, axis)]


def largest(config: ScalingConfig, axis: str) -> Size | None:
    """The size at the end of an axis that is predicted before it is run, if the axis has two."""
    along = sizes(config, axis)
    return along[-1] if len(along) > 1 else None


def seeds(config: ScalingConfig, size: Size) -> range:
    """The seeds of the models of a size."""
    small = all(getattr(size, axis) <= base for axis, base in config.base.items())
    return range(config.seed, config.seed + (config.seeds if small else config.large_seeds))


def points_of(config: ScalingConfig, size: Size, target: Target) -> list[Point]:
    """All models of a size."""
    return [Point(target, size, seed) for seed in seeds(config, size)]


def points(config: ScalingConfig) -> tuple[list[Point], list[Point]]:
    """All models, each once: those to predict from, and those of the largest sizes, for later."""
    ends = {size: None for axis in AXES if (size := largest(config, axis)) is not None}
    others = {size: None for axis in AXES for size in sizes(config, axis) if size not in ends}
    first, later = (
        [point for size in group for target in TARGETS for point in points_of(config, size, target)]
        for group in (others, ends)
    )
    return first, later


def training_stage(config: ScalingConfig, directory: Path, point: Point) -> Stage:
    """The stage that trains a model."""
    paths, out, size = config.dataset(directory), directory / point.place, point.size
    weighs = point.target == "own" and config.own_behaviour_weight
    behaviour = ("--behaviour-weight", config.own_behaviour_weight) if weighs else ()
    words = (
        "train", paths, "--model", "neuron", "--targets", point.target,
        "--held-out", config.held_out, "--first-trials", size.trials, "--order", point.seed,
        "--width", size.widths, "--rounds", config.rounds, "--num-steps", size.num_steps,
        *behaviour, "--seed", point.seed, "--out", out,
    )  # fmt: skip
    return Stage(point.name, words, out, (paths,))


def scaling_stages(config: ScalingConfig, directory: Path) -> Iterator[Stage]:
    """The stages of an experiment in its directory, in order."""
    if config.paths is None:
        paths = config.dataset(directory)
        yield Stage("collect", (*config.collecting(config.num_trials), "--out", paths), paths)
    for group in points(config):
        for point in group:
            yield training_stage(config, directory, point)
