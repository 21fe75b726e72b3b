"""`tipl train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from tipl.core.atomic import check_replaceable
from tipl.models import train as training
from tipl.paths import PathDataset

__all__ = ["train"]


def train(
    paths: Positional[tuple[Path, ...]],
    /,
    config: Annotated[training.TrainConfig, arg(name="")],
    out: Path,
    held_out: float = 0.25,
    threads: int | None = None,
) -> None:
    """Train a model of how weights change: a PathTransformer, a NeuronTransformer or a rival.

    Args:
        paths: the dataset of paths; a NeuronTransformer learns from several of one task at once
        config: how to train
        out: directory of the model
        held_out: share of the trials that the model does not learn from
        threads: of a NeuronTransformer's training (default: one for each processor)
    """
    check_replaceable(out, replaces="config.json")  # before the work, not after it
    splits = [PathDataset.open(directory).split(held_out) for directory in paths]
    model = training.train(
        [split.train for split in splits],
        held_out=[split.held_out for split in splits],
        config=config,
        threads=threads,
    )
    model.save_pretrained(out)
    print(
        f"{out}: {model.kind}, {sum(split.train.num_trials for split in splits)} training and "
        f"{sum(split.held_out.num_trials for split in splits)} held-out trials"
    )
    for target, curve in model.settings["curves"].items():
        print(
            f"  {model.with_options(target=target).name}: held-out loss "
            f"{curve['held_out_loss'][-1]:.3f}, standing still "
            f"{curve['standing_still_loss'][-1]:.3f}"
        )
