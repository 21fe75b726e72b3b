"""What a comparison comes to: the trials of every method, and every number as a result."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tipl.experiments.acceleration.amortised import ModelCost
from tipl.experiments.acceleration.config import AccelerationConfig
from tipl.experiments.acceleration.job import best_policy_directory
from tipl.experiments.acceleration.measures import architecture_rows, cost_rows
from tipl.experiments.acceleration.trials import (
    Architecture,
    Trained,
    load_architecture,
    load_record,
)
from tipl.experiments.runs import recorded_stages
from tipl.report.page import Stage
from tipl.report.results import Result, Rows

__all__ = ["Comparison", "load_comparison"]


@dataclass(frozen=True, eq=False)
class Comparison:
    """What the stages of a comparison left, and what was made of it.

    Attributes:
        config: what was compared.
        command: its command line.
        architectures: one for each width.
        cost: of the model that forecasts; None if it is not known.
        rows: all numbers, infinite where a goal is not reached.
        stages: what each took.
    """

    config: AccelerationConfig
    command: str
    architectures: Sequence[Architecture]
    cost: ModelCost | None
    rows: Rows
    stages: Sequence[Stage]

    @cached_property
    def results(self) -> Rows:
        """All rows of `results.jsonl`: NaN where a goal is not reached."""
        return Rows(map(_finite, self.rows))

    @property
    def gated(self) -> str:
        """The method of which most is said: see `Architecture.gated`."""
        return self.architectures[0].gated.name

    def find(self, one: Trained, architecture: Architecture, metric: str, **place: Any) -> Result:
        """One number of a method in an architecture.

        Args:
            one: the method.
            architecture: where it was trained.
            metric: what was measured.
            **place: `beside` and `uses`, where the number has them.

        Raises:
            TiplError: there is no such number.
        """
        where: dict[str, Any] = {"beside": None, "uses": None} | place
        return self.rows.one(
            key=one.method.key, architecture=architecture.name, metric=metric, **where
        )


def load_comparison(directory: str | Path) -> Comparison:
    """Reads what a comparison left, and computes what it comes to.

    Args:
        directory: of the comparison, whose stages are all done.

    Raises:
        TiplError: a stage's result is missing or damaged, the methods' trials are not the same
            ones, or fewer than two of them diverged under no method.
    """
    directory = Path(directory)
    record = load_record(directory)
    config, cost, command = record.config, record.cost, record.command
    stages = recorded_stages(directory)
    by_name = {stage.name: stage for stage in stages}
    methods = config.methods(best_policy_directory(directory))
    architectures = []
    for i, width in enumerate(config.widths):
        trained = [method for method in methods if method.any_width or i == 0]
        architectures.append(load_architecture(directory, width, trained, by_name))
    rows = [
        row
        for architecture in architectures
        for row in architecture_rows(architecture, config.env_id, cost, command)
    ]
    rows += [] if cost is None else cost_rows(config.env_id, cost, command)
    return Comparison(config, command, architectures, cost, Rows(rows), stages)


def _finite(row: Result) -> Result:
    value, low, high = (x if math.isfinite(x) else math.nan for x in (row.value, row.low, row.high))
    return dataclasses.replace(row, value=value, low=low, high=high)
