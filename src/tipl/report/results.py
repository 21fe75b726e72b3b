"""Results: each number that tipl reports, with its interval and the command that made it.

A results file is JSON Lines: one `Result` a line, so that it can be searched with `grep`,
joined with `cat` and loaded by any data library. NaN is written as `null`, and so that people can
read it, too, each line says in words where it was measured: its `setting`.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tipl.core.atomic import write_bytes_atomically
from tipl.core.ownership import ROWS
from tipl.errors import TiplError, shown

NAN = math.nan


@dataclass(frozen=True)
class Result:
    """One number: what was measured, where, its 95% interval, and how to measure it again.

    `low` and `high` are NaN where there is no interval, as with a single trial. The fields from
    `initial` on are the place: None where they say nothing of the number.
    """

    task: str  # "InvertedPendulum-v4"
    experiment: str  # "forecast", "optimize", ...
    method: str  # "PathTransformer", "standing still", ...
    metric: str  # "episodic_return", ...
    value: float
    low: float = NAN
    high: float = NAN
    n_trials: int = 0
    n_episodes: int = 0  # episodes a trial; 0 where none was run
    command: str = ""
    key: str = ""  # of the method, where its experiment gives it one
    initial: str | None = None  # "shared", if trials start from one network
    start: float | None = None  # part of the path that the history covers; 0: untrained
    horizon: int | None = None  # checkpoints ahead
    architecture: str | None = None  # units of the hidden layers: "64-64"
    world: str | None = None  # whose physics
    split: str | None = None  # of the worlds whose mean it is
    beside: str | None = None  # the method that is subtracted
    uses: float | None = None  # that share the cost of a model; may be infinite
    share: float | None = None  # of PPO's improvement
    env_steps: int | None = None  # of PPO before it was measured
    training_trials: int | None = None  # that a model learned from
    num_parameters: int | None = None  # of the model
    num_steps: int | None = None  # of its training
    part: str | None = None  # of the network, or of the work: "layer 2", "whole stage"
    center: str | None = None  # what is subtracted from a path: "displacements"

    @property
    def setting(self) -> str:
        """The place in words: "history 50%, horizon 5"."""
        return place_label(**{name: getattr(self, name) for name in _PLACE})

    @property
    def experiment_label(self) -> str:
        """The experiment in words, with the network from which trials start if they share it."""
        return f"{self.experiment}, shared initial network" if self.initial else self.experiment


def _start(start: float) -> str:
    return f"history {start:.0%}" if start else "untrained network"


def _uses(uses: float) -> str:
    return "infinitely many uses" if math.isinf(uses) else f"{uses:,.0f} use{'s' * (uses != 1)}"


def _env_steps(steps: int) -> str:
    return f"end ({steps:,} steps)" if steps else "start"


_PLACE: dict[str, Callable[[Any], str]] = {
    "start": _start,
    "horizon": "horizon {}".format,
    "architecture": str,
    "world": "world {}".format,
    "split": "{} worlds".format,
    "beside": "less {}".format,
    "uses": _uses,
    "share": "{:.0%} of PPO's improvement".format,
    "env_steps": _env_steps,
    "training_trials": "{} training trials".format,
    "num_parameters": "{:,} parameters".format,
    "num_steps": "{:,} training steps".format,
    "part": str,
    "center": str,
}
"""How the columns of a place are written in a setting, in its order."""

_COLUMNS = [field.name for field in dataclasses.fields(Result)]
_WRITTEN = ("task", "experiment", "method", "setting", "metric", "value", "low", "high",
            "n_trials", "n_episodes", "command")  # fmt: skip
"""What each line of a file has; typed columns stand behind it where they say something."""


def place_label(**columns: Any) -> str:
    """Columns of a `Result` in words, without those that are None: "history 50%, horizon 5".

    Those of its place stand behind all others, and as its setting has them.
    """
    known = {name: value for name, value in columns.items() if value is not None}
    plain = [str(value) for name, value in known.items() if name not in _PLACE]
    place = [write(known[name]) for name, write in _PLACE.items() if name in known]
    return ", ".join(plain + place)


RowAndColumn = tuple[tuple[Any, ...], tuple[Any, ...]]
"""What tells a row of a table apart, and what its column."""


class Rows(tuple[Result, ...]):
    """Results in order, found by their columns."""

    @cached_property
    def _by_metric(self) -> dict[str, list[Result]]:
        found: dict[str, list[Result]] = {}
        for result in self:
            found.setdefault(result.metric, []).append(result)
        return found

    def where(self, **columns: Any) -> Rows:
        """The results that have these values in these columns.

        A column is given a value, a collection of those that will do, or a test of one.

        Raises:
            TiplError: there is no such column.
        """
        _check_columns(columns)
        candidates: Iterable[Result] = self
        if isinstance(columns.get("metric"), str):  # most of the results of a run are of others
            candidates = self._by_metric.get(columns.pop("metric"), ())
        tests = {name: _test(value) for name, value in columns.items()}
        return Rows(
            result
            for result in candidates
            if all(test(getattr(result, name)) for name, test in tests.items())
        )

    def find(self, **columns: Any) -> Result | None:
        """The one result that has these values in these columns, or None.

        Raises:
            TiplError: several have them, or there is no such column.
        """
        found = self.where(**columns)
        if len(found) > 1:
            raise TiplError(
                f"{len(found)} results have {columns}, such as {found[0]} and {found[1]}; give "
                "more columns"
            )
        return found[0] if found else None

    def one(self, **columns: Any) -> Result:
        """The one result that has these values in these columns.

        Raises:
            TiplError: none has them, or several, or there is no such column.
        """
        found = self.find(**columns)
        if found is None:
            raise TiplError(f"of {len(self)} results, none has {columns}; expected one")
        return found

    def values(self, column: str) -> list[Any]:
        """The values of a column, each once, in order of appearance."""
        _check_columns([column])
        return list(dict.fromkeys(getattr(result, column) for result in self))

    def pivot(self, rows: Sequence[str], columns: Sequence[str]) -> dict[RowAndColumn, Result]:
        """The results as cells of a table, known by what tells its rows and its columns apart.

        Raises:
            TiplError: two results want the same cell, or there is no such column.
        """
        _check_columns([*rows, *columns])
        cells: dict[RowAndColumn, Result] = {}
        for result in self:
            row, column = (tuple(getattr(result, n) for n in names) for names in (rows, columns))
            if (row, column) in cells:
                raise TiplError(
                    f"two results were given for {row} and {column}; expected one for each "
                    f"{', '.join(rows)} and {', '.join(columns)}: choose one task, experiment and "
                    "metric"
                )
            cells[row, column] = result
        return cells


def _test(wanted: Any) -> Callable[[Any], bool]:
    """What says whether a value of a column is wanted."""
    if callable(wanted):
        return lambda value: value is not None and bool(wanted(value))
    if isinstance(wanted, Collection) and not isinstance(wanted, str):
        return lambda value: value in wanted
    return lambda value: bool(value == wanted)


def _check_columns(names: Iterable[str]) -> None:
    for name in names:
        if name not in _COLUMNS:
            raise TiplError(
                f"results have no column {shown(name)}; they have {', '.join(_COLUMNS)}"
            )


def write_results(path: str | Path, results: Iterable[Result]) -> None:
    """Writes a results file, whole or not at all; another one is replaced.

    Raises:
        TiplError: a number is infinite, something else has that name, or it cannot be written.
    """
    write_bytes_atomically(
        path, "".join(map(_to_line, results)).encode(errors="backslashreplace"), own=ROWS
    )


def _to_line(result: Result) -> str:
    for name in ("value", "low", "high"):
        if math.isinf(getattr(result, name)):
            raise TiplError(
                f"{name} of {shown(result.method)}, {shown(result.setting)}, "
                f"{shown(result.metric)} is infinite; expected a finite number, or NaN where "
                "there is none"
            )
    fields = {name: getattr(result, name) for name in _WRITTEN}
    fields["experiment"] = result.experiment_label
    for name in _COLUMNS:
        value = getattr(result, name)
        if name not in fields and value not in ("", None) and name != "initial":
            fields[name] = "infinite" if value == math.inf else value
    written = {name: None if value != value else value for name, value in fields.items()}
    return json.dumps(written, ensure_ascii=False) + "\n"
