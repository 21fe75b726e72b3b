"""`tipl train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from tipl import training
from tipl.atomic import check_replaceable
from tipl.paths import PathDataset

__all__ = ["train"]


def train(
    paths: Positional[Path],
    /,
    config: Annotated[training.TrainConfig, arg(name="")],
    out: Path,
    held_out: float = 0.25,
) -> None:
    """Train a PathTransformer to predict the next checkpoint of a path.

    Args:
        paths: the dataset of paths
        config: how to train
        out: directory of the model
        held_out: share of the trials that the model does not learn from
    """
    check_replaceable(out, replaces="config.json")  # before the work, not after it
    split = PathDataset.open(paths).split(held_out)
    model = training.train(split.train, held_out=split.held_out, config=config)
    model.save_pretrained(out)
    curve = model.settings["curve"]
    print(
        f"{out}: {model.name}, {split.train.num_trials} training and {split.held_out.num_trials} "
        f"held-out trials; held-out loss {curve['held_out_loss'][-1]:.3f}, standing still "
        f"{curve['standing_still_loss'][-1]:.3f}"
    )
