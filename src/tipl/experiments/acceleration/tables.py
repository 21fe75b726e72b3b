"""Tables of a comparison: a row a method and architecture, a column a metric."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tipl.experiments.acceleration.measures import SHARES, reach_metric
from tipl.experiments.acceleration.outcome import Comparison
from tipl.experiments.acceleration.trials import Architecture
from tipl.report.results import Result, Rows
from tipl.report.tables import Cell, Pivot, Table

__all__ = [
    "HEADLINE",
    "headline_table",
    "layers",
    "numbers_table",
    "terminal_headline",
]

HEADLINE = {
    **{reach_metric(share): f"thousand steps to {share:.0%}" for share in SHARES},
    "final_return": "return",
    "final_return_minus_ppo": "less PPO's",
}
"""The metrics that come first, and what they are called."""


def headline_table(comparison: Comparison) -> Table:
    """Steps to PPO's final return, and the return at equal steps."""
    return numbers_table(
        comparison,
        "Thousands of environment steps of one trial, tests of forecasts included, until the mean "
        "return is 95% and 100% of that of PPO's end (a dash: not within PPO's steps); mean return "
        f"at PPO's {comparison.architectures[0].end:,} steps, and its difference from PPO's, "
        "paired by trial. 95% intervals over trials.",
        HEADLINE,
        in_thousands=True,
    )


def terminal_headline(comparison: Comparison, architecture: Architecture, title: str) -> Table:
    """What a terminal has room for."""
    shown = dict(list(HEADLINE.items())[1:])
    where = {"architecture": architecture.name, "beside": None, "uses": None}
    return Pivot(shown, where=where, caption=title)(Rows(map(_thousands, comparison.rows)))


def _thousands(result: Result) -> Result:
    """A result in thousands, if it is a number of environment steps."""
    if not result.metric.startswith("env_steps"):
        return result
    value, low, high = (bound / 1000 for bound in (result.value, result.low, result.high))
    return dataclasses.replace(result, value=value, low=low, high=high)


def numbers_table(
    comparison: Comparison,
    caption: str,
    metrics: Mapping[str, str],
    *,
    in_thousands: bool = False,
    **place: Any,
) -> Table:
    """A row a method and architecture that has any of the metrics; a column a metric.

    The methods of an architecture follow each other: it is they that are compared.

    Args:
        comparison: has the numbers.
        caption: of the table.
        metrics: what they are called.
        in_thousands: whether environment steps are.
        **place: `beside` and `uses`, where the numbers have them.
    """
    rows = Rows(map(_thousands, comparison.rows)) if in_thousands else comparison.rows
    names = [architecture.name for architecture in comparison.architectures]
    where = {"architecture": names, "beside": None, "uses": None} | place
    columns = ("method", "architecture")
    headings = {"architecture": "layers"}
    table = Pivot(metrics, columns, where=where, caption=caption, headings=headings)(rows)
    return dataclasses.replace(table, rows=[list(map(_cell, row)) for row in table.rows])


def _cell(cell: Cell) -> Cell:
    """A number; nothing at all, of which no trial has any, needs neither decimals nor interval."""
    if isinstance(cell, Result) and cell.value == cell.low == cell.high == 0:
        return 0
    return cell


def layers(architecture: Architecture) -> str:
    """The name of an architecture, at which no line breaks."""
    return architecture.name.replace("-", "\N{NON-BREAKING HYPHEN}")
