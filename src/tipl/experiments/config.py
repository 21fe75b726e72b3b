"""What experiments do: their fields are the options of their commands.

What a task or a smoke run has otherwise than the defaults stands in `TASKS` and `QUICK`.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from tyro.conf import Positional

from tipl.collection.config import CollectConfig
from tipl.core import storage
from tipl.core.options import at_least
from tipl.core.schemas import JsonFile, NotNegative
from tipl.core.trust import trust_own
from tipl.envs.mujoco_tasks import task_budget
from tipl.errors import TiplError
from tipl.forecast.hub import shipped_models
from tipl.policies.layout import check_hidden_sizes

STARTS = (0.0, 0.1, 0.25, 0.5, 0.75)
"""Where histories end, as fractions of the path; 0 is the untrained network alone."""

HORIZONS = (1, 2, 5, 10, 20, 50)
"""Checkpoints ahead, as far as the path goes; the jump to its end comes on top."""

Kind = TypeVar("Kind", bound="ExperimentConfig")
Values = dict[str, Any]
"""Fields of a configuration."""


def check_places(starts: Sequence[float], horizons: Sequence[int]) -> None:
    """Raises a TiplError unless forecasts can be made from these starts, so far ahead."""
    outside = [start for start in starts if not 0 <= start < 1]
    if outside:
        raise TiplError(
            f"{outside[0]} was given as the fraction of a path that a history covers; expected "
            "from 0 (the untrained network) to below 1"
        )
    if not starts:
        raise TiplError("no starts were given; expected one history or more, such as 0.5")
    if min(horizons, default=0) < 1:
        raise TiplError(
            f"the horizons {list(horizons)} were given; expected 1 or more checkpoints ahead"
        )


def _collection(config: DemoConfig | BenchmarkConfig) -> CollectConfig:
    """The collection of an experiment, whose paths have three checkpoints or more."""
    shared = ("num_trials", "total_steps", "checkpoint_interval", "seed")
    return three_checkpoints(CollectConfig(**{name: getattr(config, name) for name in shared}))


def three_checkpoints(found: CollectConfig) -> CollectConfig:
    """The collection; raises a TiplError if its paths have fewer checkpoints than three."""
    least = 2 * found.checkpoint_interval
    if found.num_iterations < least:
        raise TiplError(
            f"total_steps is {found.total_steps}; expected at least "
            f"{least * found.ppo.rollout_steps}, for paths of three checkpoints"
        )
    return found


@dataclasses.dataclass(frozen=True)
class DemoConfig:
    """What the demo does; the defaults take about 10 minutes on two processors."""

    env_id: str = "InvertedPendulum-v4"
    """the task"""
    num_trials: int = 128
    """PPO trials to collect"""
    total_steps: int = 61_440
    """environment steps of each trial"""
    train_steps: int = 800
    """optimiser steps of each PathTransformer"""
    neuron_steps: int = 600
    """optimiser steps of the NeuronTransformer, for each target"""
    episodes: int = 2
    """episodes of each evaluated policy"""
    seed: int = 0
    """seed of the collection and of the training"""

    COMMAND: ClassVar = "demo"
    PLACES: ClassVar[tuple[str, ...]] = ()
    checkpoint_interval: ClassVar = 1

    @property
    def collection(self) -> CollectConfig:
        """What the demo collects."""
        return _collection(self)

    def __post_init__(self) -> None:
        # everything is checked before the first stage, not after minutes of work
        at_least(2, num_trials=self.num_trials)
        at_least(1, episodes=self.episodes)
        at_least(1, train_steps=self.train_steps, neuron_steps=self.neuron_steps)
        _collection(self)


@dataclasses.dataclass(frozen=True)
class ExperimentConfig:
    """What the experiments have in common that have settings for each task."""

    env_id: Positional[str]
    """a Gymnasium id, such as InvertedPendulum-v4 or HalfCheetah-v4"""
    total_steps: int = 200_704
    """environment steps of each trial"""
    checkpoint_interval: int = 1
    """PPO iterations between two checkpoints"""
    episodes: int = 2
    """episodes of each policy"""
    seed: int = 0
    """seed of the collections and of the training"""

    COMMAND: ClassVar[str]  # of tipl, that does such an experiment
    NAME: ClassVar[str]  # of such an experiment, and of the record in its directory
    PLACES: ClassVar[tuple[str, ...]] = ()  # what may have been made in its directory beforehand
    # what tasks have otherwise than the defaults and their budgets, by their ids
    TASKS: ClassVar[dict[str, Values]] = {}
    TRIALS_DIVISOR: ClassVar[int] = 1  # of the trials of a task's budget, one in so many
    QUICK: ClassVar[Values] = {}  # a smoke run: everything is made, its numbers show nothing
    LEAST: ClassVar[Values] = {}  # what fields are at least

    def __post_init__(self) -> None:
        for name, lowest in self.LEAST.items():
            at_least(lowest, **{name: getattr(self, name)})

    @classmethod
    def for_task(cls: type[Kind], env_id: str, *, quick: bool = False, **options: Any) -> Kind:
        """The experiment on a task, or a `quick` smoke run of it, with fields that shall differ.

        Raises:
            TiplError: an option is impossible.
        """
        trust_own(env_id)
        return cls._usual(env_id, quick=quick, **options)

    @classmethod
    def _usual(cls: type[Kind], env_id: str, *, quick: bool = False, **options: Any) -> Kind:
        usual = cls._budget(env_id) | cls.TASKS.get(env_id, {}) | (cls.QUICK if quick else {})
        return cls(env_id, **usual | options)

    @classmethod
    def _budget(cls, env_id: str) -> Values:
        """What comparisons spend on the task."""
        budget: Values = task_budget(env_id)._asdict()
        budget["num_trials"] //= cls.TRIALS_DIVISOR
        return budget

    def write_record(self, directory: Path, command: str | None, **more: Any) -> None:
        """Keeps what was done, by which command line (by default one that does the same)."""
        command = command or self.command_line(directory)
        record = {"config": dataclasses.asdict(self), "command": command, **more}
        storage.write_json(directory / f"{self.NAME}.json", record)

    def command_line(self, out: Path) -> str:
        """The command line that does this experiment in a directory."""
        usual, words = self._usual(self.env_id), ["tipl", *self.COMMAND.split(), self.env_id]
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value != getattr(usual, field.name):
                words += [f"--{field.name.replace('_', '-')}", *_flat(value)]
        return shlex.join([*words, "--out", str(out)])

    def collecting(self, num_trials: int, *shape: object) -> tuple[object, ...]:
        """The words of `tipl collect` that all trials of the experiment have in common."""
        return (
            "collect", self.env_id, "--num-trials", num_trials, "--total-steps", self.total_steps,
            "--checkpoint-interval", self.checkpoint_interval, *shape, "--seed", self.seed,
        )  # fmt: skip


def _flat(value: Any) -> list[str]:
    """An option's words: those of a tuple one after the other."""
    if isinstance(value, tuple):
        return [word for one in value for word in _flat(one)]
    return [str(value)]


@dataclasses.dataclass(frozen=True)
class BenchmarkConfig(ExperimentConfig):
    """What a benchmark collects, trains, forecasts and runs."""

    num_trials: int = 64
    """PPO trials with independent initial networks"""
    held_out: float = 0.25
    """share of them that no model sees"""
    shared_trials: int = 32
    """trials that start from one shared initial network, half of them held out; 0 leaves the
    experiment out"""
    path_steps: int = 800
    """optimiser steps of each PathTransformer"""
    elite_steps: int = 600
    """optimiser steps of the NeuronTransformer (elite)"""
    own_steps: int = 600
    """optimiser steps of the NeuronTransformer (own)"""
    own_behaviour_weight: float = 0.0
    """weight of the error of actions in training the NeuronTransformer (own)"""
    nowcaster_steps: int | None = None
    """optimiser steps of each nowcaster (default: as `tipl train`)"""
    starts: tuple[float, ...] = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75)
    """where histories end, as fractions of the path"""
    horizons: tuple[int, ...] = (1, 2, 5, 10, 20)
    """checkpoints ahead; the jump to the path's end comes on top"""
    pptb_trials: int = 16
    """trials of PPO with trimming and boosting, paired with the first ones without; 0 leaves the
    experiment out"""
    pptb: tuple[tuple[int, float], ...] = ((16, 0.1),)
    """rank and boost of each run of it"""

    COMMAND = NAME = "benchmark"
    TASKS: ClassVar[dict[str, Values]] = {
        "InvertedPendulum-v4": {
            "shared_trials": 64, "starts": (0.0, 0.034, 0.067, 0.1, 0.25, 0.5, 0.75),
            "pptb_trials": 32, "pptb": ((8, 0.1), (16, 0.1), (16, 0.5), (16, 1.0)),
        },
        "HalfCheetah-v4": {
            "elite_steps": 1000, "own_steps": 800, "own_behaviour_weight": 1.0,
            "horizons": (1, 5, 20),
        },
    }  # fmt: skip
    QUICK: ClassVar[Values] = {
        "num_trials": 8, "total_steps": 20_480, "checkpoint_interval": 1, "shared_trials": 4,
        "path_steps": 20, "elite_steps": 10, "own_steps": 10, "nowcaster_steps": 20,
        "starts": (0.0, 0.1, 0.5), "horizons": (1, 5), "episodes": 1,
        "pptb_trials": 2, "pptb": ((16, 0.1),),
    }  # fmt: skip
    LEAST: ClassVar[Values] = {
        "num_trials": 4, "shared_trials": 0, "pptb_trials": 0, "episodes": 1, "path_steps": 1,
        "own_steps": 1, "elite_steps": 1, "nowcaster_steps": 1,
    }  # fmt: skip

    @property
    def num_checkpoints(self) -> int:
        """Checkpoints of a path after its start."""
        return _collection(self).num_iterations // self.checkpoint_interval

    def __post_init__(self) -> None:
        super().__post_init__()
        check_places(self.starts, self.horizons)
        if not 0 < self.held_out < 1:
            raise TiplError(f"held_out is {self.held_out}; expected a share between 0 and 1")
        if self.shared_trials == 1:
            raise TiplError(
                "shared_trials is 1; expected 0, or at least 2: one to learn from and one to hold "
                "out"
            )
        if self.pptb_trials > self.num_trials:
            raise TiplError(
                f"pptb_trials is {self.pptb_trials}, but there are {self.num_trials} trials to "
                "pair them with; give at most as many"
            )
        _collection(self)


@dataclasses.dataclass(frozen=True)
class AccelerationConfig(ExperimentConfig):
    """What PPO with jumps is compared with, and on which trials."""

    num_trials: int = 16
    """trials of each method and architecture, paired by their seeds"""
    episodes: int = 1
    """episodes of each checkpoint, acting by its mean"""
    seed: int = 7_000_000
    """of the trials: one that no model was trained with"""
    widths: tuple[int, ...] = (64, 48)
    """units in each of the two hidden layers; one architecture a number"""
    model: str | None = None
    """model that forecasts, or its directory (default: the one that ships for the task, if any)"""
    nino: str | None = None
    """directory of a neural-graph nowcaster (default: that rival is left out)"""
    paths: str | None = None
    """dataset whose best policy of a training trial is copied (default: that rival is left out)"""

    COMMAND, NAME = "accelerate", "comparison"
    TRIALS_DIVISOR = 4
    TASKS: ClassVar[dict[str, Values]] = {
        "InvertedPendulum-v4": {"episodes": 2},
        "Hopper-v4": {"total_steps": 500_000, "checkpoint_interval": 4},
        "Swimmer-v4": {"total_steps": 500_000, "checkpoint_interval": 4},
    }
    QUICK: ClassVar[Values] = {
        "num_trials": 2, "total_steps": 20_480, "checkpoint_interval": 2, "episodes": 1,
        "widths": (64, 32),
    }  # fmt: skip
    LEAST: ClassVar[Values] = {"num_trials": 2, "episodes": 1, "checkpoint_interval": 1}

    def __post_init__(self) -> None:
        super().__post_init__()
        check_hidden_sizes(self.widths)
        if len(set(self.widths)) < len(self.widths):
            raise TiplError(f"widths {self.widths} were given; expected each one once")

    @property
    def forecaster(self) -> str | None:
        """The model that forecasts, if there is one."""
        if self.model is not None:
            return self.model
        return self.env_id if self.env_id in shipped_models() else None


@dataclasses.dataclass(frozen=True)
class ModelCost:
    """What data and training of a model took."""

    env_steps: NotNegative
    """of all trials of its dataset, and of training itself, if that is known"""
    cpu_seconds: NotNegative
    """of collecting and training"""
    own: bool
    """whether the model of the comparison learned from that very dataset; if not, the costs are
    those of one that is made alike"""


@dataclasses.dataclass(frozen=True)
class BenchmarkRecord:
    """What `write_record` keeps of a benchmark."""

    config: BenchmarkConfig
    command: str


@dataclasses.dataclass(frozen=True)
class ComparisonRecord:
    """What `write_record` keeps of a comparison."""

    config: AccelerationConfig
    command: str
    cost: ModelCost | None = None


BENCHMARK = JsonFile(
    "benchmark.json", BenchmarkRecord, "the record of a benchmark (made by `tipl benchmark`)"
)
COMPARISON = JsonFile(
    "comparison.json", ComparisonRecord, "the record of a comparison (made by `tipl accelerate`)"
)
