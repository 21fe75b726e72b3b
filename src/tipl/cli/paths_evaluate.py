"""`tipl paths evaluate`."""

from __future__ import annotations

from pathlib import Path

from tyro.conf import Positional

from tipl.cli.paths_show import print_summary
from tipl.evaluation.checkpoints import evaluate_paths

__all__ = ["paths_evaluate"]


def paths_evaluate(
    directory: Positional[Path],
    /,
    episodes: int = 5,
    every: int = 1,
    seed: int = 0,
    threads: int | None = None,
) -> None:
    """Run the checkpoints of a dataset in their environment, and store their returns in it.

    Policies act by their mean, for whole episodes. Run the same command again after an
    interruption: it goes on where it was.

    Args:
        directory: the dataset
        episodes: episodes of each checkpoint
        every: run checkpoints 0, EVERY, 2 EVERY, ... of each trial, and the last
        seed: of the episodes' starts
        threads: default: one for each processor
    """
    evaluate_paths(directory, episodes, every=every, seed=seed, threads=threads, progress=True)
    print_summary(directory)
