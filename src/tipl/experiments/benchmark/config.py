"""What a benchmark does: its trials, models and places, by task."""

from __future__ import annotations

import dataclasses
from typing import Any

from tipl.collection.config import CollectConfig
from tipl.errors import TiplError

__all__ = ["BenchmarkConfig", "benchmark_config"]


@dataclasses.dataclass(frozen=True)
class BenchmarkConfig:
    """What a benchmark collects, trains, forecasts and runs."""

    env_id: str
    """the task"""
    num_trials: int = 64
    """PPO trials with independent initial networks"""
    held_out: float = 0.25
    """share of them that no model sees"""
    total_steps: int = 200_704
    """environment steps of each trial"""
    checkpoint_interval: int = 1
    """PPO iterations between two checkpoints"""
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
    episodes: int = 2
    """episodes of each policy"""
    pptb_trials: int = 16
    """trials of PPO with trimming and boosting, paired with the first ones without; 0 leaves the
    experiment out"""
    pptb: tuple[tuple[int, float], ...] = ((16, 0.1),)
    """rank and boost of each run of it"""
    seed: int = 0
    """seed of the collections and of the training"""

    def __post_init__(self) -> None:
        least = {"num_trials": 4, "path_steps": 1, "elite_steps": 1, "own_steps": 1, "episodes": 1}
        least |= {"shared_trials": 0, "pptb_trials": 0}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise TiplError(f"{name} is {getattr(self, name)}; expected at least {bound}")
        if 0 < self.shared_trials < 2:
            raise TiplError(
                f"shared_trials is {self.shared_trials}; expected 0, or at least 2: one to learn "
                "from and one to hold out"
            )
        if self.pptb_trials > self.num_trials:
            raise TiplError(
                f"pptb_trials is {self.pptb_trials}, but there are {self.num_trials} trials to "
                "pair them with; give at most as many"
            )
        collection = CollectConfig(
            num_trials=self.num_trials,
            total_steps=self.total_steps,
            seed=self.seed,
            checkpoint_interval=self.checkpoint_interval,
        )
        if collection.num_iterations // self.checkpoint_interval < 2:
            raise TiplError(
                f"total_steps is {self.total_steps}; expected at least "
                f"{2 * collection.ppo.num_steps * self.checkpoint_interval}, for paths of three "
                "checkpoints"
            )


TASKS: dict[str, dict[str, Any]] = {
    "InvertedPendulum-v4": {
        "num_trials": 128,
        "total_steps": 61_440,
        "shared_trials": 64,
        "starts": (0.0, 0.034, 0.067, 0.1, 0.25, 0.5, 0.75),
        "pptb_trials": 32,
        "pptb": ((8, 0.1), (16, 0.1), (16, 0.5), (16, 1.0)),
    },
    "HalfCheetah-v4": {
        "num_trials": 64,
        "total_steps": 1_000_000,
        "checkpoint_interval": 8,
        "elite_steps": 1000,
        "own_steps": 800,
        "own_behaviour_weight": 1.0,
        "horizons": (1, 5, 20),
    },
}
"""What differs from the defaults. HalfCheetah's paths are of one checkpoint in eight iterations, so
that a horizon means about the same share of both tasks' paths."""

QUICK: dict[str, Any] = {
    "num_trials": 8,
    "total_steps": 20_480,
    "checkpoint_interval": 1,
    "shared_trials": 4,
    "path_steps": 20,
    "elite_steps": 10,
    "own_steps": 10,
    "nowcaster_steps": 20,
    "starts": (0.0, 0.1, 0.5),
    "horizons": (1, 5),
    "episodes": 1,
    "pptb_trials": 2,
    "pptb": ((16, 0.1),),
}
"""A smoke run: everything is made, nothing is shown by its numbers."""


def benchmark_config(env_id: str, *, quick: bool = False, **options: Any) -> BenchmarkConfig:
    """The benchmark of a task.

    Args:
        env_id: a Gymnasium id. For tasks without settings of their own, 64 trials of 200,704 steps
            are collected.
        quick: a smoke run of minutes.
        **options: fields of `BenchmarkConfig` that shall differ; None leaves them as they are.

    Raises:
        TiplError: an option is impossible.
    """
    chosen = {name: value for name, value in options.items() if value is not None}
    return BenchmarkConfig(env_id, **(TASKS.get(env_id, {}) | (QUICK if quick else {}) | chosen))
