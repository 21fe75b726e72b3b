"""What a collection will make: the description of its dataset, and the physics of each trial."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tipl.collection.config import CollectConfig, parse_ranges
from tipl.core.seeds import Stream
from tipl.envs import make_task, make_vec
from tipl.jumps.forecasters import check_fits, jump_forecaster
from tipl.paths.metadata import (
    CHECKPOINTS_PER_PART,
    PathMetadata,
    library_versions,
    networks_layout,
)
from tipl.policies.policy import Policy
from tipl.policies.tasks import TaskSpec

__all__ = ["dataset_metadata", "draw_physics"]


def dataset_metadata(env_id: str, config: CollectConfig) -> PathMetadata:
    """What the dataset of a collection says of itself; nothing is written.

    Args:
        env_id: a Gymnasium id; a task that does not ship with tipl is measured.
        config: what to collect.

    Raises:
        TiplError: the environment is unknown or unsupported, its physics cannot vary as asked, or
            the forecaster of jumps does not fit the trials.
    """
    task = make_task(env_id)
    ranges = parse_ranges(config.vary)
    if ranges:
        make_vec(env_id, 1, physics={name: np.ones(1) for name in ranges}).close()
    lowest = {name: low for name, (low, _) in ranges.items()}
    _check_jumps(config, task.with_physics(lowest))
    return PathMetadata(
        task=task,
        layout=networks_layout(task, config.hidden_sizes, config.networks),
        hidden_sizes=tuple(config.hidden_sizes),
        networks=config.networks,
        initial=config.initial,
        normaliser=config.normaliser,
        num_trials=config.num_trials,
        num_checkpoints=config.num_iterations // config.checkpoint_interval + 1,
        trials_per_part=config.group_size,
        checkpoints_per_part=CHECKPOINTS_PER_PART,
        checkpoint_interval=config.checkpoint_interval,
        steps_per_checkpoint=config.checkpoint_interval * config.ppo.num_steps,
        seed=config.seed,
        vary={name: list(bounds) for name, bounds in ranges.items()},
        ppo=dataclasses.asdict(config.ppo),
        pptb={} if config.pptb.rank is None else dataclasses.asdict(config.pptb),
        jumps={} if config.jumps.forecaster is None else _jump_settings(config),
        versions=library_versions(),
    )


def _check_jumps(config: CollectConfig, task: TaskSpec) -> None:
    """Raises a TiplError unless the forecaster of jumps fits trials of the task."""
    jumps = config.jumps
    if jumps.forecaster is not None:
        forecaster = jump_forecaster(jumps.forecaster, jumps.target)
        check_fits(forecaster, Policy.initial(task, hidden=config.hidden_sizes))


def _jump_settings(config: CollectConfig) -> dict[str, Any]:
    """The settings of jumps as plain JSON values."""
    return {**dataclasses.asdict(config.jumps), "horizons": list(config.jumps.horizons)}


def draw_physics(ranges: Mapping[str, Sequence[float]], seed: int, trial: int) -> dict[str, float]:
    """One trial's factors by name, uniform in the logarithm: half as likely as double.

    Args:
        ranges: lowest and highest factor by name.
        seed: of the collection.
        trial: its number.
    """
    rng = Stream.PHYSICS.rng(seed, trial)
    return {
        name: math.exp(rng.uniform(math.log(low), math.log(high)))
        for name, (low, high) in sorted(ranges.items())
    }
