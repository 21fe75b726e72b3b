"""Tables of a comparison: a row a method and architecture, a column a metric."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from tipl.experiments.acceleration.measures import SHARES, reach_metric
from tipl.experiments.acceleration.outcome import Comparison
from tipl.experiments.acceleration.trials import Architecture
from tipl.report.page import Cell, Table
from tipl.report.results import Result

__all__ = [
    "HEADLINE",
    "headline_results",
    "headline_table",
    "layers",
    "numbers_table",
]

HEADLINE = {
    **{reach_metric(share): f"thousand steps to {share:.0%}" for share in SHARES},
    "final_return": "return",
    "final_return_minus_ppo": "less PPO's",
}
"""The metrics that come first, and what they are called."""


def headline_table(comparison: Comparison) -> Table:
    """Steps to PPO's final return, and the return at equal steps."""
    table = numbers_table(
        comparison,
        "Thousands of environment steps of one trial, tests of forecasts included, until the mean "
        "return is 95% and 100% of that of PPO's end (a dash: not within PPO's steps); mean return "
        f"at PPO's {comparison.architectures[0].end:,} steps, and its difference from PPO's, "
        "paired by trial. 95% intervals over trials.",
        HEADLINE,
    )
    return dataclasses.replace(table, rows=[list(map(_thousands, row)) for row in table.rows])


def headline_results(comparison: Comparison, architecture: Architecture) -> list[Result]:
    """What a terminal has room for, each result with the name of its column as its setting."""
    found = [
        (label, _thousands(comparison.row(one.name, architecture.name, metric)))
        for one in architecture.trained
        for metric, label in list(HEADLINE.items())[1:]
    ]
    return [
        dataclasses.replace(row, setting=label) for label, row in found if isinstance(row, Result)
    ]


def _thousands(cell: Cell) -> Cell:
    """A cell in thousands, if it is a number of environment steps."""
    if not isinstance(cell, Result) or not cell.metric.startswith("env_steps"):
        return cell
    value, low, high = (bound / 1000 for bound in (cell.value, cell.low, cell.high))
    return dataclasses.replace(cell, value=value, low=low, high=high)


def numbers_table(comparison: Comparison, caption: str, metrics: Mapping[str, str]) -> Table:
    """A row a method and architecture that has any of the metrics; a column a metric.

    The methods of an architecture follow each other: it is they that are compared.

    Args:
        comparison: has the numbers.
        caption: of the table.
        metrics: what they are called.
    """
    rows: list[list[Cell]] = []
    for a in comparison.architectures:
        for one in a.trained:
            found = [comparison.row(one.name, a.name, metric) for metric in metrics]
            if any(row is not None for row in found):
                rows.append([one.name, layers(a), *map(_cell, found)])
    return Table(caption, ["method", "layers", *metrics.values()], rows)


def _cell(row: Result | None) -> Cell:
    """A number; nothing at all, of which no trial has any, needs neither decimals nor interval."""
    return 0 if row is not None and row.value == row.low == row.high == 0 else row


def layers(architecture: Architecture) -> str:
    """The name of an architecture, at which no line breaks."""
    return architecture.name.replace("-", "\N{NON-BREAKING HYPHEN}")
