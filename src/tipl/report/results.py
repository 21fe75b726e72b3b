"""Results: each number that tipl reports, with its interval and the command that made it.

A results file is JSON Lines: one `Result` a line, so that it can be searched with `grep`,
joined with `cat` and loaded by any data library. NaN is written as `null`.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from tipl.core.atomic import write_bytes_atomically
from tipl.errors import TiplError

__all__ = ["Result", "format_result", "pivot", "read_results", "results_table", "write_results"]


@dataclass(frozen=True)
class Result:
    """One number: what was measured, its 95% interval, and how to measure it again.

    `low` and `high` are NaN where there is no interval, as with a single trial.
    """

    task: str  # "InvertedPendulum-v4"
    experiment: str  # "forecast", "optimize", ...
    method: str  # "PathTransformer", "standing still", ...
    setting: str  # "history 50%, horizon 5"
    metric: str  # "episodic_return", ...
    value: float
    low: float
    high: float
    n_trials: int
    n_episodes: int  # episodes a trial; 0 where none was run
    command: str


FIELDS = dataclasses.fields(Result)


def write_results(path: str | Path, results: Iterable[Result]) -> None:
    """Writes a results file, whole or not at all.

    Raises:
        TiplError: a number is infinite.
    """
    write_bytes_atomically(path, "".join(map(_to_line, results)).encode())


def read_results(path: str | Path) -> list[Result]:
    """Reads a results file.

    Raises:
        TiplError: the file is missing, or a line is not a result (the message names the line).
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise TiplError(
            f"{path} cannot be read ({error.strerror}); expected a results file written by tipl"
        ) from error
    except UnicodeDecodeError as error:
        raise TiplError(f"{path} is not UTF-8 text; expected a results file of tipl") from error
    # not splitlines(), which also splits at separators that JSON allows within a string
    lines = enumerate(text.split("\n"), 1)
    return [_from_line(line, f"{path}, line {n}") for n, line in lines if line]


def format_result(result: Result) -> str:
    """Returns `value [low, high]` with as many digits as the interval supports."""
    width = result.high - result.low
    value = format_number(result.value, width)
    if math.isnan(width):  # no interval, or all of it infinite
        return value
    return f"{value} {format_bounds(result)}"


def format_bounds(result: Result) -> str:
    """Returns `[low, high]` with the digits of `format_result`."""
    width = result.high - result.low
    return f"[{format_number(result.low, width)}, {format_number(result.high, width)}]"


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


def pivot(results: Sequence[Result]) -> tuple[list[str], dict[str, list[Result | None]]]:
    """Arranges results as a table `method x setting`, both in order of appearance.

    Returns:
        The settings (columns), and for each method its result in every setting or None.

    Raises:
        TiplError: two results want the same cell.
    """
    settings = list(dict.fromkeys(result.setting for result in results))
    rows: dict[str, list[Result | None]] = {r.method: [None] * len(settings) for r in results}
    for result in results:
        row, column = rows[result.method], settings.index(result.setting)
        if row[column] is not None:
            raise TiplError(
                f"two results were given for method {result.method!r} and setting "
                f"{result.setting!r}; expected one a cell: choose one task, experiment and metric"
            )
        row[column] = result
    return settings, rows


def results_table(results: Sequence[Result], *, title: str) -> Table:
    """Draws results for the terminal: a row a method, a column a setting, cells of two lines.

    Raises:
        TiplError: two results want the same cell.
    """
    settings, rows = pivot(results)
    # Text throughout: rich would read a name in brackets as markup
    table = Table(title=Text(title, style="bold"), title_justify="left", box=SIMPLE_HEAD)
    longest = max((len(word) for method in rows for word in method.split()), default=0)
    table.add_column("method", min_width=longest)
    for setting in settings:
        table.add_column(Text(setting), justify="right")
    for method, row in rows.items():
        table.add_row(Text(method), *map(_terminal_cell, row))
    return table


def _terminal_cell(result: Result | None) -> Text:
    """The value above its interval, so that a few columns fit into 80 characters."""
    if result is None:
        return Text()
    value, _, bounds = format_result(result).partition(" ")
    return Text.assemble((value, "bold"), "\n", (bounds, "dim"))


def _to_line(result: Result) -> str:
    fields = dataclasses.asdict(result)
    for name in ("value", "low", "high"):
        if math.isinf(fields[name]):
            raise TiplError(
                f"{name} of {result.method!r}, {result.setting!r}, {result.metric!r} is infinite; "
                "expected a finite number, or NaN where there is none"
            )
        if math.isnan(fields[name]):
            fields[name] = None
    return json.dumps(fields, ensure_ascii=False) + "\n"


def _from_line(line: str, where: str) -> Result:
    try:
        data = json.loads(line)
    except json.JSONDecodeError as error:
        raise TiplError(f"{where} is not JSON ({error.msg}); expected one result a line") from error
    names = [field.name for field in FIELDS]
    if not isinstance(data, dict) or set(data) != set(names):
        given = ", ".join(sorted(data)) if isinstance(data, dict) else type(data).__name__
        raise TiplError(f"{where} holds {given}; expected the fields {', '.join(names)}")
    fields: dict[str, Any] = {f.name: _checked(data[f.name], f, where) for f in FIELDS}
    return Result(**fields)


def _checked(value: Any, field: dataclasses.Field[Any], where: str) -> Any:
    kind = field.type  # "str", "int" or "float": annotations are text in this module
    if kind == "float" and value is None:
        return math.nan
    if kind == "float" and type(value) in (int, float):  # not isinstance: True is no number
        return float(value)
    if type(value).__name__ == kind:
        return value
    raise TiplError(f"{where} has {field.name} = {value!r}; expected {kind}")
