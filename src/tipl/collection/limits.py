"""What a collection may ask for: no more than the disk and the memory of this machine hold."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tipl.collection.config import CollectConfig
from tipl.core.system_errors import explained
from tipl.errors import TiplError
from tipl.paths.metadata import PathMetadata
from tipl.policies.layout import ParamLayout

_BYTES_PER_WEIGHT = 4
# of a trial's learner: weights, gradients, Adam's two moments, and a copy of the last finite ones
_COPIES = 5

_LIBRARIES = 350_000_000
"""Bytes of a process that has imported what collects."""


def check_machine(
    directory: Path, config: CollectConfig, metadata: PathMetadata, threads: int
) -> None:
    """Raises a TiplError if a collection would need more disk or memory than there is.

    Both are estimated from below, from the weights and the rollouts alone.

    Args:
        directory: of the dataset, which may hold a part of it already.
        config: what is collected.
        metadata: of the dataset.
        threads: groups of trials that run at once.
    """
    weights = metadata.layout.size * _BYTES_PER_WEIGHT
    trials, checkpoints = metadata.num_trials or 0, metadata.num_checkpoints or 0
    stored = trials * checkpoints * weights
    with explained("look at", directory):
        there = directory.absolute()
        while not there.exists():
            there = there.parent
        free = shutil.disk_usage(there).free
        parts = directory / "parts"
        there_already = parts.iterdir() if parts.is_dir() else ()
        free += sum(part.stat().st_size for part in there_already if part.is_file())
    if stored > free:
        raise TiplError(
            f"{trials:,} trials of {checkpoints:,} checkpoints of {metadata.layout.size:,} weights "
            f"take {_size(stored)}, but {_size(free)} are free where {directory} lies; collect "
            "fewer trials, store fewer checkpoints (--checkpoint-interval), or choose another disk"
        )
    networks = _networks(config, metadata)
    at_once = min(threads, -(-trials // config.group_size)) * config.group_size
    needed, memory = at_once * _trial(config, metadata), _memory()
    if needed > memory:
        raise TiplError(
            f"{at_once:,} trials at once, of {config.ppo.rollout_steps:,} steps a rollout and "
            f"{networks.size:,} weights, take {_size(needed)} of memory, but this machine has "
            f"{_size(memory)}; give fewer trials_per_group, threads or steps, or smaller networks"
        )


def process_memory(config: CollectConfig, metadata: PathMetadata) -> int:
    """Bytes that a process with one group of trials needs, estimated from above."""
    return _LIBRARIES + 3 * config.group_size * _trial(config, metadata)


def _networks(config: CollectConfig, metadata: PathMetadata) -> ParamLayout:
    return metadata.actor_layout + ParamLayout.critic(metadata.task.observation_size, config.hidden)


def _trial(config: CollectConfig, metadata: PathMetadata) -> int:
    """Bytes of a trial's rollout and learner."""
    task = metadata.task
    step = (task.observation_size + task.action_size + 6) * _BYTES_PER_WEIGHT  # with its rewards
    learner = _COPIES * _networks(config, metadata).size * _BYTES_PER_WEIGHT
    return config.ppo.rollout_steps * step + learner


def _memory() -> int:
    """Bytes of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB"
