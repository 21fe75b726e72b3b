"""What a comparison comes to: the trials of every method, and every number as a result."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tipl.core import storage
from tipl.experiments.acceleration.rows import ModelCost, architecture_rows, cost_rows
from tipl.experiments.acceleration.stages import trained_methods
from tipl.experiments.acceleration.trials import (
    Architecture,
    Trained,
    load_architecture,
)
from tipl.experiments.config import AccelerationConfig
from tipl.experiments.pipeline import StageRecord, read_records
from tipl.report.results import Result, Rows

__all__ = ["Comparison", "Record", "load_comparison", "load_record", "write_record"]


FILE = "comparison.json"


@dataclass(frozen=True)
class Record:
    """What was compared: all that is needed beside the stages to make the report again.

    Attributes:
        config: the comparison.
        command: its command line.
        cost: of the model that forecasts; None if it is not known.
    """

    config: AccelerationConfig
    command: str
    cost: ModelCost | None


def write_record(directory: Path, record: Record) -> None:
    """Writes what was compared to a comparison's directory."""
    storage.write_json(directory / FILE, dataclasses.asdict(record))


def load_record(directory: Path) -> Record:
    """Reads what `write_record` wrote.

    Raises:
        TiplError: there is no such file, or it is damaged.
    """
    read = storage.read_json(
        directory / FILE, "the record of a comparison (made by `tipl accelerate`)"
    )
    cost = None if read["cost"] is None else ModelCost(**read["cost"])
    return Record(AccelerationConfig.from_json(read["config"]), read["command"], cost)


@dataclass(frozen=True, eq=False)
class Comparison:
    """What the stages of a comparison left; its numbers are worked out when they are asked for.

    Attributes:
        config: what was compared.
        command: its command line.
        directory: where the stages left it.
        architectures: one for each width.
        cost: of the model that forecasts; None if it is not known.
        stages: what each took.
    """

    config: AccelerationConfig
    command: str
    directory: Path
    architectures: Sequence[Architecture]
    cost: ModelCost | None
    stages: Sequence[StageRecord]

    @cached_property
    def rows(self) -> Rows:
        """All numbers, infinite where a goal is not reached."""
        task, cost, command = self.config.env_id, self.cost, self.command
        rows = [
            row
            for architecture in self.architectures
            for row in architecture_rows(architecture, task, cost, command)
        ]
        return Rows(rows + ([] if cost is None else cost_rows(task, cost, command)))

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
    """Reads what a comparison left.

    Args:
        directory: of the comparison, whose stages are all done.

    Raises:
        TiplError: a stage's result is missing or damaged, the methods' trials are not the same
            ones, or fewer than two of them diverged under no method.
    """
    directory = Path(directory)
    record = load_record(directory)
    stages = read_records(directory)
    architectures = [
        load_architecture(directory, width, methods, stages)
        for width, methods in trained_methods(record.config, directory)
    ]
    return Comparison(
        record.config, record.command, directory, architectures, record.cost, list(stages.values())
    )


def _finite(row: Result) -> Result:
    value, low, high = (x if math.isfinite(x) else math.nan for x in (row.value, row.low, row.high))
    return dataclasses.replace(row, value=value, low=low, high=high)
