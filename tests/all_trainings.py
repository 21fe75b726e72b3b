"""Trains a little model of each kind: `torchrun --nproc-per-node 2 all_trainings.py DATA OUT`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import tipl
from tipl import PathDataset
from tipl.evaluation import behaviour
from tipl.models import loop, parallel
from tipl.models.neuron_transformer import losses as neuron_losses
from tipl.models.world import lineage, losses, observing

KINDS: dict[str, dict[str, Any]] = {
    "path": {"batch_size": 5},
    "neuron": {
        "width": 8, "heads": 2, "memory": 64, "fresh_widths": (4, 7), "rounds": 1,
        "behaviour_weight": 0.5, "batch_size": 5,
    },
    "wnn": {"width": 8, "batch_size": 24},
    "nino": {"width": 8, "batch_size": 24},
    "world": {
        "observer_worlds": 8, "observer_steps": 6, "observer_width": 8, "width": 8,
        "batch_size": 5,
    },
}  # fmt: skip

LITTLE = (
    (lineage, "STEPS_OF_ROLLOUT", 20), (lineage, "DRAWN_WORLDS", 8), (losses, "VISIT_EVERY", 4),
    (observing, "MOST_TRANSITIONS", 30), (behaviour, "NUM_ROLLOUTS", 4),
    (behaviour, "STEPS_OF_ROLLOUT", 20), (neuron_losses, "VISIT_EVERY", 4),
    (neuron_losses, "VISITING_STEPS", 10), (loop, "LOG_INTERVAL", 2),
)  # fmt: skip
"""What is to be small everywhere."""


def train_all(data: Path, out: Path) -> None:
    """Trains on the datasets `paths` and `lineage`; the models lie in `out`, by their kinds."""
    for kind, options in KINDS.items():
        paths = PathDataset.open(data / ("lineage" if kind == "world" else "paths"))
        carrier = {"carrier": str(data / "carrier")} if kind == "world" else {}
        tipl.train(
            paths, model=kind, num_steps=10, out=out / kind, threads=1, progress=False,
            **options, **carrier,
        )  # type: ignore[call-overload]  # fmt: skip


def main() -> None:
    """Trains with the processes that torchrun has started."""
    for module, name, value in LITTLE:
        setattr(module, name, value)
    data, out = map(Path, sys.argv[1:])
    with parallel.joined():
        rank, processes = parallel.place()
        train_all(data, out)
        (out / f"{rank}-of-{processes}").touch()


if __name__ == "__main__":
    main()
