"""What ten factors that do nothing cost a model of worlds: a row for each split.

    python benchmarks/irrelevant_factors.py runs/worlds-benchmark/HalfCheetah-v4

The directory is that of a finished `tipl worlds benchmark`. Two models learn from its training
worlds: one is told their factors, the other those and ten more, drawn at random, that nothing
depends on. Both are told the factors of held-out worlds; the second one ten random ones as well.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path

import numpy as np
import torch
import tyro
from jaxtyping import Float64
from rich.console import Console
from rich.table import Table

from tipl import PathDataset, Worlds
from tipl.evaluation.returns import evaluate_stack
from tipl.evaluation.stats import mean_interval, paired_difference_interval
from tipl.models.loop import fit, torch_threads
from tipl.models.world import WorldTrainConfig
from tipl.models.world.teacher import WorldTeacher
from tipl.models.world.training import Lineage, TeacherLoss, initial_teacher

RANGE = 0.6, 1.6
"""Of the factors that do nothing."""


@dataclasses.dataclass(frozen=True)
class Args:
    """What to measure."""

    run: tyro.conf.Positional[Path]
    """directory of a benchmark of worlds"""
    irrelevant: int = 10
    """factors that do nothing"""
    num_steps: int = 2000
    """optimiser steps of each model"""
    episodes: int = 4
    """of each policy"""
    seed: int = 0


class WithIrrelevant(Lineage):
    """A lineage that has more factors than there are."""

    def __init__(self, paths: PathDataset, seed: int, irrelevant: int) -> None:
        super().__init__(paths, seed)
        self.own = self.names
        more = irrelevant_factors(len(self.factors), irrelevant, seed)
        self.factors = np.concatenate([self.factors, more], axis=1)
        self.names = (*self.names, *(f"nothing-{i}" for i in range(irrelevant)))

    def physics(self) -> dict[str, Float64[np.ndarray, " W"]]:
        """Those that the environments have."""
        return dict(zip(self.own, self.factors.T, strict=False))


def irrelevant_factors(worlds: int, count: int, seed: int) -> Float64[np.ndarray, "W N"]:
    """Factors that do nothing, even in the logarithm."""
    rng = np.random.default_rng((seed, worlds, count))
    return np.exp(rng.uniform(*np.log(RANGE), (worlds, count)))


def trained(lineage: Lineage, config: WorldTrainConfig) -> WorldTeacher:
    """A model of the lineage's teachers."""
    with torch_threads(1):
        teacher = initial_teacher(lineage, config)
        loss = TeacherLoss(lineage, config)
        label = f"train ({len(lineage.names)} factors)"
        fit(teacher, config, partial(loss, teacher), None, label=label, remembers=loss)
    return teacher.eval()


def main(args: Args) -> None:
    """Trains both models, and prints what their teachers return."""
    paths = PathDataset.open(args.run / "training")
    worlds = Worlds.load(args.run / "worlds.json")
    config = WorldTrainConfig(num_steps=args.num_steps, seed=args.seed)
    lineages = [WithIrrelevant(paths, args.seed, count) for count in (0, args.irrelevant)]
    teachers = [trained(lineage, config) for lineage in lineages]
    table = Table("split", "none", f"{args.irrelevant} irrelevant factors", "difference")
    for split in worlds.splits:
        if split == "training":
            continue
        returns = []
        for lineage, teacher in zip(lineages, teachers, strict=True):
            physics = worlds.split(split)
            told = np.stack([physics[name] for name in lineages[0].own], axis=1)
            more = irrelevant_factors(
                len(told), len(lineage.names) - len(lineage.own), args.seed + 1
            )
            logarithms = torch.as_tensor(np.log(np.concatenate([told, more], axis=1))).float()
            with torch.inference_mode():
                made = teacher(logarithms, torch.zeros_like(logarithms)).numpy()
            found = evaluate_stack(
                made, lineage.layout, lineage.task, args.episodes, physics=physics, seed=args.seed
            )
            returns.append(found.returns.mean(axis=1))
        cells = [f"{mean_interval(one).value:,.0f}" for one in returns]
        apart = paired_difference_interval(returns[1], returns[0])
        share = apart.value / returns[0].mean()
        table.add_row(
            split, *cells, f"{apart.value:,.0f} [{apart.low:,.0f}, {apart.high:,.0f}], {share:.1%}"
        )
    Console(width=100).print(table)


if __name__ == "__main__":
    main(tyro.cli(Args))
