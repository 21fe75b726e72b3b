"""What is grown to see how results grow: its fields are the options of `tipl scaling`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar

from tipl.collection.config import CollectConfig
from tipl.core.schemas import JsonFile
from tipl.envs.mujoco_tasks import task_budget
from tipl.errors import TiplError, shown
from tipl.experiments.config import ExperimentConfig, Values, check_places, three_checkpoints
from tipl.models.neuron_transformer import NeuronTrainConfig
from tipl.paths.dataset import PathDataset

AXES = {"trials": "base_trials", "widths": "base_width", "num_steps": "base_steps"}
"""The fields whose values grow, one at a time, and those of the value that they have meanwhile."""


@dataclasses.dataclass(frozen=True)
class ScalingConfig(ExperimentConfig):
    """Along which axes NeuronTransformers are grown, and what is measured of each."""

    paths: str | None = None
    """a dataset of paths of the task (default: one is collected)"""
    num_trials: int = 640
    """PPO trials to collect, if no dataset is given"""
    held_out: float = 0.2
    """share of the trials that no model of any size learns from"""
    trials: tuple[int, ...] = (8, 16, 32, 64, 128, 256, 512)
    """training trials: nested subsets, of which the larger contain the smaller ones"""
    widths: tuple[int, ...] = (32, 64, 128, 192, 320)
    """widths of the model; with two rounds from 0.1 to 11 million parameters"""
    num_steps: tuple[int, ...] = (125, 250, 500, 1000, 2000, 4000)
    """optimiser steps: the training compute"""
    base_trials: int = 128
    """training trials where they are not what grows"""
    base_width: int = 64
    """width of the model where it is not what grows"""
    base_steps: int = 1000
    """optimiser steps where they are not what grows"""
    rounds: int = 2
    """rounds of messages of every model"""
    seeds: int = 3
    """seeds of models up to the base's size: each has its own order of the trials, its own initial
    model and its own batches"""
    large_seeds: int = 1
    """the same of models beyond the base"""
    own_behaviour_weight: float = 0.0
    """weight of the error of actions in training own"""
    history: float = 0.25
    """part of the path that own's error is measured after"""
    horizon: int = 5
    """checkpoints ahead at which it is measured; at most to the path's end"""
    networks: int = 32
    """fresh random networks that are carried to the elite"""

    COMMAND = NAME = "scaling"
    TASKS: ClassVar[dict[str, Values]] = {"HalfCheetah-v4": {"own_behaviour_weight": 1.0}}
    QUICK: ClassVar[Values] = {
        "num_trials": 8, "held_out": 0.25, "total_steps": 8192, "checkpoint_interval": 1,
        "trials": (1, 2, 3, 4, 6), "widths": (8, 16, 24), "num_steps": (5, 10, 20),
        "base_trials": 3, "base_width": 16, "base_steps": 10, "rounds": 1, "seeds": 1,
        "episodes": 1, "networks": 4, "horizon": 2,
    }  # fmt: skip
    LEAST: ClassVar[Values] = {
        "num_trials": 2, "episodes": 1, "base_trials": 1, "base_width": 1, "base_steps": 1,
        "rounds": 1, "seeds": 1, "large_seeds": 1, "networks": 2,
    }  # fmt: skip

    @classmethod
    def _budget(cls, env_id: str) -> Values:
        budget: Values = task_budget(env_id)._asdict()
        del budget["num_trials"]  # comparisons need fewer
        return budget

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.held_out < 1:
            raise TiplError(f"held_out is {self.held_out}; expected a share between 0 and 1")
        check_places((self.history,), (self.horizon,))
        for axis in AXES:
            self._check_axis(axis)
        for width in sorted({*self.widths, self.base_width}):
            NeuronTrainConfig(width=width, rounds=self.rounds, seed=self.seed,
                              behaviour_weight=self.own_behaviour_weight)  # fmt: skip
        if self.paths is None:
            self._check_collection()

    def _check_axis(self, axis: str) -> None:
        """Raises a TiplError unless an axis rises from positive values to beyond the base."""
        values, base = getattr(self, axis), self.base[axis]
        if not values or values[0] < 1 or list(values) != sorted({*values}):
            raise TiplError(
                f"{axis} {shown(values)} were given; expected positive numbers that rise, such as "
                "8 16 32"
            )
        if len(values) > 1 and values[-1] <= base:
            raise TiplError(
                f"{axis} end at {values[-1]}, but {AXES[axis]} is {base}; expected a base below "
                "the largest, which is predicted before it is run"
            )

    def _check_collection(self) -> None:
        three_checkpoints(
            CollectConfig(self.num_trials, self.total_steps, self.seed,
                          checkpoint_interval=self.checkpoint_interval)
        )  # fmt: skip
        left = self.num_trials - max(1, round(self.held_out * self.num_trials))
        largest = max(*self.trials, self.base_trials)
        if left < largest:
            raise TiplError(
                f"{largest} trials were to be learned from, but of num_trials "
                f"{self.num_trials}, {left} are not held out; give a higher --num-trials, or fewer "
                "--trials"
            )

    @property
    def base(self) -> dict[str, int]:
        """The value of each axis where it is not what grows."""
        return {axis: getattr(self, name) for axis, name in AXES.items()}

    def dataset(self, directory: Path) -> Path:
        """Where the paths are, of an experiment in a directory."""
        return directory / "paths" if self.paths is None else Path(self.paths)

    def check_inputs(self) -> None:
        """Looks at a dataset that is given, before any work.

        Raises:
            TiplError: there is none, it is of another task, or it has too few trials or
                checkpoints.
        """
        if self.paths is None:
            return
        paths = PathDataset.open(self.paths)
        if paths.task.env_id.rpartition(":")[2] != self.env_id.rpartition(":")[2]:
            raise TiplError(
                f"paths of {shown(paths.task.env_id)} were given for {shown(self.env_id)}; give "
                "those of the same task"
            )
        if paths.num_checkpoints < 3:
            raise TiplError(
                f"the paths in {self.paths} have {paths.num_checkpoints} checkpoints; expected "
                "three at least"
            )
        left = paths.split(self.held_out).train.num_trials
        largest = max(*self.trials, self.base_trials)
        if left < largest:
            raise TiplError(
                f"{largest} trials were to be learned from, but of those in {self.paths}, {left} "
                "did not diverge and are not held out; give fewer --trials, or collect more"
            )


@dataclasses.dataclass(frozen=True)
class ScalingRecord:
    """What `write_record` keeps of an experiment on scaling."""

    config: ScalingConfig
    command: str
    ppo: list[list[float]] = dataclasses.field(default_factory=list)
    """returns of what PPO made of the held-out networks: of each a list of episodes"""


SCALING = JsonFile(
    "scaling.json", ScalingRecord, "the record of an experiment on scaling (by `tipl scaling`)"
)
