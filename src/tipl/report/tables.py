"""Tables and the numbers in them, for pages and for the terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich import table as rich_table
from rich.box import SIMPLE_HEAD
from rich.text import Text

from tipl.errors import TiplError, printable
from tipl.report.results import Result, Rows, place_label


def format_number(value: float, width: float = math.nan) -> str:
    """Writes a number with two digits of the width of its interval, and five digits at most.

    A dash stands for what is infinite or NaN.
    """
    leading = math.floor(math.log10(abs(value))) if math.isfinite(value) and value else 0
    shown = 1 - math.floor(math.log10(width)) if 0 < width < math.inf else 2 - leading
    return _with_decimals(value, max(0, min(shown, 4 - leading)))


def format_whole(value: float) -> str:
    """A number without decimals, "−1,234"; a dash stands for what is infinite or NaN."""
    return _with_decimals(value, 0)


def _with_decimals(value: float, decimals: int) -> str:
    return f"{value:,.{decimals}f}".replace("-", "−") if math.isfinite(value) else "–"


def format_whole_interval(interval: Sequence[float]) -> str:
    """`value [low, high]` without decimals; the value alone where both bounds equal it."""
    value, low, high = map(format_whole, interval)
    return value if value == low == high else f"{value} [{low}, {high}]"


def value_and_bounds(result: Result) -> tuple[str, str]:
    """`value` and `[low, high]` with as many digits as the interval supports.

    The latter is empty where there is no interval, or all of it is infinite.
    """
    width = result.high - result.low
    value, low, high = (format_number(x, width) for x in (result.value, result.low, result.high))
    return value, "" if math.isnan(width) else f"[{low}, {high}]"


def format_result(result: Result) -> str:
    """`value [low, high]`; see `value_and_bounds`."""
    return " ".join(filter(None, value_and_bounds(result)))


def listed(words: Sequence[str]) -> str:
    """Words as in a sentence: "a, b and c"."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


@dataclass(frozen=True)
class Judged:
    """A result with whether a statement holds there (None: undecided), and that in words."""

    result: Result
    holds: bool | None
    verdict: str

    @property
    def sign(self) -> tuple[str, str]:
        """The verdict as a sign, and as a class of the style sheet."""
        return {True: ("✓", "holds"), False: ("✗", "fails"), None: ("~", "undecided")}[self.holds]


Number = int | float | np.number[Any]
Cell = str | Number | Result | Judged | None
"""What a table holds: a `Result` is shown as "value [low, high]", with a sign before it if it is
judged; None is an empty cell."""


@dataclass(frozen=True)
class Table:
    """A captioned table; the first cell of each row is its heading.

    Raises:
        TiplError: a row has more or fewer cells than the table has columns.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise TiplError(
                    f"a row of {len(row)} cells was given for the table {self.caption!r} of "
                    f"{len(self.columns)} columns; expected a cell a column (None if it is empty)"
                )


@dataclass(frozen=True)
class Pivot:
    """A table of results: which ones, and which of their columns tell rows and columns apart."""

    metric: str | Mapping[str, str]  # or several by what they are called, each a column of its own
    rows: str | Sequence[str] = "method"  # each is a column of text before the numbers
    columns: str | Sequence[str] = ("start", "horizon")  # not for several metrics
    where: Mapping[str, Any] = field(default_factory=dict)  # see `Rows.where`
    caption: str = "Mean and 95% interval"
    headings: Mapping[str, str] = field(default_factory=dict)  # of columns of text, if not the name
    order: Sequence[str] = ()  # of values of the first of `rows`; others follow
    methods: Callable[[Sequence[str]], Sequence[str]] | None = None
    """which of the names of methods have a row, given all of them; by default all"""
    cell: Callable[[Result], Cell] | None = None  # what a result is shown as, if not as it is

    def __call__(self, results: Rows) -> Table:
        """The table of some results.

        Raises:
            TiplError: two results want the same cell.
        """
        metrics = {} if isinstance(self.metric, str) else self.metric
        found = results.where(metric=list(metrics) or self.metric, **self.where)
        if self.methods is not None:
            found = found.where(method=self.methods(found.values("method")))
        down, across = (
            [names] if isinstance(names, str) else list(names)
            for names in (self.rows, "metric" if metrics else self.columns)
        )
        cells = found.pivot(down, across)
        order = {name: n for n, name in enumerate(self.order)}
        rows = sorted(
            dict.fromkeys(row for row, _ in cells), key=lambda row: order.get(row[0], len(order))
        )
        columns = {one: place_label(**dict(zip(across, one, strict=True))) for _, one in cells}
        if metrics:
            columns = {(name,): label for name, label in metrics.items()}
        return Table(
            self.caption,
            [*(self.headings.get(name, name) for name in down), *columns.values()],
            [
                [
                    *map(column_text, down, row),
                    *(self._cell(cells.get((row, column))) for column in columns),
                ]
                for row in rows
            ],
        )

    def _cell(self, result: Result | None) -> Cell:
        return result if result is None or self.cell is None else self.cell(result)


def column_text(column: str, value: Any) -> str:
    """A value of a column of results in words; no line breaks within an architecture."""
    text = place_label(**{column: value})
    return text.replace("-", "\N{NON-BREAKING HYPHEN}") if column == "architecture" else text


def results_table(table: Table) -> rich_table.Table:
    """A table for the terminal, whose cells have two lines: values, and their intervals below."""
    # Text throughout: rich would read a name in brackets as markup
    title = Text(printable(table.caption), style="bold")
    drawn = rich_table.Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    names = [str(row[0]) for row in table.rows]
    longest = max((len(word) for name in names for word in name.split()), default=0)
    drawn.add_column(Text(printable(table.columns[0])), min_width=longest)
    for column in table.columns[1:]:
        drawn.add_column(Text(printable(column)), justify="right")
    for name, row in zip(names, table.rows, strict=True):
        drawn.add_row(Text(printable(name)), *map(_terminal_cell, row[1:]))
    return drawn


def _terminal_cell(cell: Cell) -> Text:
    """The value above its interval, so that a few columns fit into 80 characters."""
    sign = ""
    if isinstance(cell, Judged):
        sign, cell = f"{cell.sign[0]} ", cell.result
    if not isinstance(cell, Result):
        return Text("" if cell is None else printable(str(cell)))
    value, bounds = value_and_bounds(cell)
    return Text.assemble((sign + value, "bold"), "\n", (bounds, "dim"))
