"""Results: each number that tipl reports, with its interval and the command that made it.

A results file is JSON Lines: one `Result` a line, so that it can be searched with `grep`,
joined with `cat` and loaded by any data library. NaN is written as `null`, and so that people can
read it, too, each line says in words where it was measured: its `setting`.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, overload

from tipl.core.atomic import write_bytes_atomically
from tipl.errors import TiplError

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
    beside: str | None = None  # the method that is subtracted
    uses: float | None = None  # that share the cost of a model; may be infinite
    share: float | None = None  # of PPO's improvement
    env_steps: int | None = None  # of PPO before it was measured
    training_trials: int | None = None  # that a model learned from
    part: str | None = None  # of the network, or of the work: "layer 2", "whole stage"
    center: str | None = None  # what is subtracted from a path: "displacements"

    @property
    def setting(self) -> str:
        """The place in words: "history 50%, horizon 5"."""
        return place_label(**{name: getattr(self, name) for name in _LABELS})

    @property
    def experiment_label(self) -> str:
        """The experiment in words, with the network from which trials start if they share it."""
        return f"{self.experiment}{_INITIAL if self.initial else ''}"


class _Label(NamedTuple):
    """How a column is written in a setting, and how it is read."""

    pattern: str
    read: Callable[[str], Any]
    write: Callable[[Any], str]


def _write_start(start: float) -> str:
    return f"history {start:.0%}" if start else "untrained network"


def _write_uses(uses: float) -> str:
    return "infinitely many uses" if math.isinf(uses) else f"{uses:,.0f} use{'s' * (uses != 1)}"


def _write_env_steps(steps: int) -> str:
    return f"end ({steps:,} steps)" if steps else "start"


def _integer(text: str) -> int:
    return int(text.replace(",", ""))


_LABELS = {
    "start": _Label(r"untrained network|history (\d+)%", lambda s: int(s or 0) / 100, _write_start),
    "horizon": _Label(r"horizon (\d+)", int, "horizon {}".format),
    "architecture": _Label(r"(\d+(?:-\d+)*)", str, str),
    "world": _Label(r"world (.+)", str, "world {}".format),
    "beside": _Label(r"less (.+)", str, "less {}".format),
    "uses": _Label(
        r"(?:([\d,]+)|infinitely many) uses?",
        lambda s: float(_integer(s)) if s else math.inf,
        _write_uses,
    ),
    "share": _Label(
        r"(\d+)% of PPO's improvement", lambda s: int(s) / 100, "{:.0%} of PPO's improvement".format
    ),
    "env_steps": _Label(
        r"start|end \(([\d,]+) steps\)", lambda s: _integer(s or "0"), _write_env_steps
    ),
    "training_trials": _Label(r"(\d+) training trials", int, "{} training trials".format),
    "part": _Label(r"(.+)", str, str),
    "center": _Label(r"(.+)", str, str),
}
"""The columns of a place in the order of a setting; what matches none is a part, and a centre."""

_INITIAL = ", shared initial network"
"""How the experiments end in a file whose trials start from one network."""

_FIELDS = {field.name: field for field in dataclasses.fields(Result)}
_WRITTEN = ("task", "experiment", "method", "setting", "metric", "value", "low", "high",
            "n_trials", "n_episodes", "command")  # fmt: skip
"""What each line of a file has; typed columns stand behind it where they say something."""


def place_label(**columns: Any) -> str:
    """A place in words, for tables and figures: "history 50%, horizon 5".

    Args:
        **columns: columns of a `Result` from `start` on; those that are None are left out.
    """
    given = {name: columns.get(name) for name in _LABELS}
    return ", ".join(
        _LABELS[name].write(value) for name, value in given.items() if value is not None
    )


def _read_place(setting: str) -> dict[str, Any]:
    """The columns that a setting says in words: `place_label` backwards."""
    place: dict[str, Any] = {}
    # a method's name may have commas
    head, less, method = setting.partition(", less ")
    for piece in head.split(", ") if head else ():
        for name, label in _LABELS.items():
            match = re.fullmatch(label.pattern, piece)
            if match and name not in place:
                place[name] = label.read(match[1] if match.lastindex else "")
                break
    if less:
        place["beside"] = method
    return place if place_label(**place) == setting else {"part": setting}


class Rows(Sequence[Result]):
    """Results, found by their columns."""

    def __init__(self, results: Iterable[Result] = ()) -> None:
        self._results = tuple(results)

    def __len__(self) -> int:
        """How many they are."""
        return len(self._results)

    @overload
    def __getitem__(self, index: int) -> Result: ...
    @overload
    def __getitem__(self, index: slice) -> Rows: ...
    def __getitem__(self, index: int | slice) -> Result | Rows:
        """One of them, or some in a row."""
        found = self._results[index]
        return found if isinstance(found, Result) else Rows(found)

    def __iter__(self) -> Iterator[Result]:
        """All of them, in order."""
        return iter(self._results)

    def __eq__(self, other: object) -> bool:
        """Whether the same results stand in the same order."""
        return isinstance(other, Rows) and self._results == other._results

    __hash__ = None  # type: ignore[assignment]

    @cached_property
    def _by_metric(self) -> dict[str, list[Result]]:
        found: dict[str, list[Result]] = {}
        for result in self._results:
            found.setdefault(result.metric, []).append(result)
        return found

    def where(self, **columns: Any) -> Rows:
        """The results that have these values in these columns.

        Args:
            **columns: a value, a collection of those that will do, or a test of one.

        Raises:
            TiplError: there is no such column.
        """
        _check_columns(columns)
        candidates: Iterable[Result] = self._results
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
        return list(dict.fromkeys(getattr(result, column) for result in self._results))

    def pivot(self, rows: str | Sequence[str], columns: str | Sequence[str]) -> Grid:
        """Arranges the results as a table, both ways in order of appearance.

        Args:
            rows: the column or columns that tell rows apart.
            columns: those that tell columns apart.

        Raises:
            TiplError: two results want the same cell, or there is no such column.
        """
        down, across = (
            (names,) if isinstance(names, str) else tuple(names) for names in (rows, columns)
        )
        _check_columns([*down, *across])
        grid = Grid(down, across, {}, {}, {})
        for result in self._results:
            row, column = (tuple(getattr(result, n) for n in names) for names in (down, across))
            if (row, column) in grid.cells:
                raise TiplError(
                    f"two results were given for {row} and {column}; expected one for each "
                    f"{', '.join(down)} and {', '.join(across)}: choose one task, experiment and "
                    "metric"
                )
            grid.rows[row] = grid.columns[column] = None
            grid.cells[row, column] = result
        return grid


Place = tuple[Any, ...]


class Grid(NamedTuple):
    """Results as a table: see `Rows.pivot`.

    Attributes:
        row_names: the columns of results that tell rows apart.
        column_names: those that tell columns apart.
        rows: the values of the former for each row, in order (the keys of a dictionary).
        columns: the values of the latter for each column, in order.
        cells: the results, by row and column.
    """

    row_names: tuple[str, ...]
    column_names: tuple[str, ...]
    rows: dict[Place, None]
    columns: dict[Place, None]
    cells: dict[tuple[Place, Place], Result]


def in_words(names: Sequence[str], values: Sequence[Any]) -> str:
    """Values of columns as a label: places as in a setting, others as they are."""
    columns = dict(zip(names, values, strict=True))
    plain = [str(value) for name, value in columns.items() if name not in _LABELS]
    place = place_label(**{name: value for name, value in columns.items() if name in _LABELS})
    return ", ".join([*plain, place] if place else plain)


def _test(wanted: Any) -> Callable[[Any], bool]:
    """What says whether a value of a column is wanted."""
    if callable(wanted):
        return lambda value: value is not None and bool(wanted(value))
    if isinstance(wanted, Collection) and not isinstance(wanted, str):
        return lambda value: value in wanted
    return lambda value: bool(value == wanted)


def _check_columns(names: Iterable[str]) -> None:
    for name in names:
        if name not in _FIELDS:
            raise TiplError(f"results have no column {name!r}; they have {', '.join(_FIELDS)}")


def write_results(path: str | Path, results: Iterable[Result]) -> None:
    """Writes a results file, whole or not at all.

    Raises:
        TiplError: a number is infinite.
    """
    write_bytes_atomically(path, "".join(map(_to_line, results)).encode())


def read_results(path: str | Path) -> Rows:
    """Reads a results file: of `write_results`, or one of `docs/results`, of arrays.

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
    common: dict[str, Any] = {}
    found = []
    # not splitlines(), which also splits at separators that JSON allows within a string
    for number, line in enumerate(text.split("\n"), 1):
        where = f"{path}, line {number}"
        try:
            data = json.loads(line) if line else None
        except json.JSONDecodeError as error:
            raise TiplError(f"{where} is not JSON ({error.msg}); expected a result") from error
        if number == 1 and isinstance(data, dict) and set(data) == {"task", "command", "columns"}:
            common = data | {"n_episodes": 0}
        elif data is not None:
            if isinstance(data, list) and len(data) == len(common.get("columns", ())):
                data = common | dict(zip(common["columns"], data, strict=True))
                del data["columns"]
            found.append(_to_result(data, where))
    return Rows(found)


def _to_line(result: Result) -> str:
    for name in ("value", "low", "high"):
        if math.isinf(getattr(result, name)):
            raise TiplError(
                f"{name} of {result.method!r}, {result.setting!r}, {result.metric!r} is infinite; "
                "expected a finite number, or NaN where there is none"
            )
    fields = {name: getattr(result, name) for name in _WRITTEN}
    fields["experiment"] = result.experiment_label
    for name in _FIELDS:
        value = getattr(result, name)
        if name not in fields and value not in ("", None) and name != "initial":
            fields[name] = "infinite" if value == math.inf else value
    written = {name: None if value != value else value for name, value in fields.items()}
    return json.dumps(written, ensure_ascii=False) + "\n"


def _to_result(data: Any, where: str) -> Result:
    """A result from a line's object; files of before have its place in the setting alone."""
    if not isinstance(data, dict) or not set(_WRITTEN) <= set(data) <= {*_WRITTEN, *_FIELDS}:
        given = ", ".join(sorted(data)) if isinstance(data, dict) else type(data).__name__
        raise TiplError(f"{where} holds {given}; expected the fields {', '.join(_WRITTEN)}")
    values = {name: value for name, value in data.items() if name != "setting"}
    if not set(_LABELS) & set(values):
        values |= _read_place(_checked(data["setting"], "str", "setting", where))
    elif values.get("uses") == "infinite":
        values["uses"] = math.inf
    fields: dict[str, Any] = {
        name: _checked(value, str(_FIELDS[name].type).removesuffix(" | None"), name, where)
        for name, value in values.items()
    }
    if fields["experiment"].endswith(_INITIAL):
        fields |= {"experiment": fields["experiment"].removesuffix(_INITIAL), "initial": "shared"}
    return Result(**fields)


def _checked(value: Any, kind: str, name: str, where: str) -> Any:
    """A value of the type that a field is annotated with: "str", "int" or "float"."""
    if kind == "float" and value is None:
        return NAN
    if kind == "float" and type(value) in (int, float):  # not isinstance: True is no number
        return float(value)
    if type(value).__name__ == kind:
        return value
    raise TiplError(f"{where} has {name} = {value!r}; expected {kind}")
