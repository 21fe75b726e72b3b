"""`tipl paths best`."""

from __future__ import annotations

from pathlib import Path

from tyro.conf import Positional

from tipl.core.atomic import check_replaceable
from tipl.evaluation.elite import best_checkpoint
from tipl.paths import PathDataset

__all__ = ["paths_best"]


def paths_best(
    directory: Positional[Path], /, out: Path, held_out: float = 0.25, episodes: int = 8
) -> None:
    """Find the best policy among the stored ones, and save it.

    The checkpoints with the highest training returns act by their mean for some episodes each.

    Args:
        directory: the dataset
        out: directory of the policy
        held_out: share of the trials to leave out, as in `tipl train`
        episodes: episodes of each policy that is tried
    """
    check_replaceable(out, replaces="policy.json")
    paths = PathDataset.open(directory)
    training = paths.split(held_out=held_out)[0] if held_out else paths
    best = best_checkpoint(training, episodes)
    best.policy.save(out)
    print(
        f"{out}: checkpoint {best.checkpoint} of trial {best.trial}, mean return "
        f"{best.mean_return:,.1f} over {best.episodes} episodes that did not choose it"
    )
