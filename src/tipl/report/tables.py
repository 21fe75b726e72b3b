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

from tipl.errors import TiplError
from tipl.report.results import Result, Rows, in_words


def format_number(value: float, width: float = math.nan) -> str:
    """Writes a number with two digits of the width of its interval, and five digits at most.

    A dash stands for what is infinite or NaN.
    """
    if not math.isfinite(value):
        return "–"
    leading = math.floor(math.log10(abs(value))) if value else 0
    shown = 1 - math.floor(math.log10(width)) if 0 < width < math.inf else 2 - leading
    text = f"{value:,.{max(0, min(shown, 4 - leading))}f}"
    return text.replace("-", "−")


def format_bounds(result: Result) -> str:
    """Returns `[low, high]` with the digits of `format_result`."""
    width = result.high - result.low
    return f"[{format_number(result.low, width)}, {format_number(result.high, width)}]"


def format_result(result: Result) -> str:
    """Returns `value [low, high]` with as many digits as the interval supports."""
    width = result.high - result.low
    value = format_number(result.value, width)
    if math.isnan(width):  # no interval, or all of it infinite
        return value
    return f"{value} {format_bounds(result)}"


def format_whole(value: float) -> str:
    """A number without decimals, "−1,234"; a dash stands for what is infinite or NaN."""
    return f"{value:,.0f}".replace("-", "−") if math.isfinite(value) else "–"


def format_whole_interval(interval: Sequence[float]) -> str:
    """`value [low, high]` without decimals; the value alone where both bounds equal it."""
    value, low, high = map(format_whole, interval)
    return value if value == low == high else f"{value} [{low}, {high}]"


def listed(words: Sequence[str]) -> str:
    """Words as in a sentence: "a, b and c"."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


@dataclass(frozen=True)
class Judged:
    """A result with what it means for a statement.

    Attributes:
        result: the number.
        holds: whether the statement holds there; None is undecided.
        verdict: what it comes to, in words.
    """

    result: Result
    holds: bool | None
    verdict: str

    @property
    def mark(self) -> str:
        """The verdict as a sign."""
        return {True: "✓", False: "✗", None: "~"}[self.holds]

    @property
    def kind(self) -> str:
        """The verdict as a class of the style sheet."""
        return {True: "holds", False: "fails", None: "undecided"}[self.holds]


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
    """A table of results: which ones, and what tells its rows and its columns apart.

    Attributes:
        metric: that is shown; or several by what they are called, each a column of its own.
        rows: columns of results that tell rows apart: each is a column of text before the numbers.
        columns: columns of results that tell columns apart; nothing for a column a metric.
        where: further conditions, see `Rows.where`.
        caption: of the table.
        headings: what the columns of text are called, if it is not their name.
        order: values of the first of `rows`, in the order in which they shall stand; others follow.
        methods: which of the names of methods have a row, given all of them; by default all.
        cell: what a result is shown as, if not as it is.
    """

    metric: str | Mapping[str, str]
    rows: str | Sequence[str] = "method"
    columns: str | Sequence[str] = ("start", "horizon")
    where: Mapping[str, Any] = field(default_factory=dict)
    caption: str = "Mean and 95% interval"
    headings: Mapping[str, str] = field(default_factory=dict)
    order: Sequence[str] = ()
    methods: Callable[[Sequence[str]], Sequence[str]] | None = None
    cell: Callable[[Result], Cell] | None = None

    def __call__(self, results: Rows) -> Table:
        """The table of some results.

        Raises:
            TiplError: two results want the same cell.
        """
        single = isinstance(self.metric, str)
        found = results.where(metric=self.metric if single else list(self.metric), **self.where)
        if self.methods is not None:
            found = found.where(method=self.methods(found.values("method")))
        grid = found.pivot(self.rows, self.columns if single else "metric")
        columns = list(grid.columns)
        labels = [in_words(grid.column_names, column) for column in columns]
        if isinstance(self.metric, Mapping):
            labels, columns = list(self.metric.values()), [(name,) for name in self.metric]
        order = {name: n for n, name in enumerate(self.order)}
        rows = sorted(grid.rows, key=lambda row: order.get(row[0], len(order)))
        return Table(
            self.caption,
            [*(self.headings.get(name, name) for name in grid.row_names), *labels],
            [
                [
                    *map(column_text, grid.row_names, row),
                    *(self._cell(grid.cells.get((row, column))) for column in columns),
                ]
                for row in rows
            ],
        )

    def _cell(self, result: Result | None) -> Cell:
        return result if result is None or self.cell is None else self.cell(result)


def column_text(column: str, value: Any) -> str:
    """A value of a column of results in words; no line breaks within an architecture."""
    text = in_words((column,), (value,)) if value is not None else ""
    return text.replace("-", "\N{NON-BREAKING HYPHEN}") if column == "architecture" else text


def results_table(table: Table) -> rich_table.Table:
    """A table for the terminal, whose cells have two lines: values, and their intervals below."""
    # Text throughout: rich would read a name in brackets as markup
    title = Text(table.caption, style="bold")
    drawn = rich_table.Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    names = [str(row[0]) for row in table.rows]
    longest = max((len(word) for name in names for word in name.split()), default=0)
    drawn.add_column(table.columns[0], min_width=longest)
    for column in table.columns[1:]:
        drawn.add_column(Text(column), justify="right")
    for name, row in zip(names, table.rows, strict=True):
        drawn.add_row(Text(name), *map(_terminal_cell, row[1:]))
    return drawn


def _terminal_cell(cell: Cell) -> Text:
    """The value above its interval, so that a few columns fit into 80 characters."""
    if not isinstance(cell, Result):
        return Text("" if cell is None else str(cell))
    value, _, bounds = format_result(cell).partition(" ")
    return Text.assemble((value, "bold"), "\n", (bounds, "dim"))
