"""Reads results files, also those of format 1 and those of `docs/results`, and checks each line."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tipl.errors import TiplError
from tipl.report.results import Result, Rows, place_label


def _integer(text: str) -> int:
    return int(text.replace(",", ""))


PLACES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "start": (r"untrained network|history (\d+)%", lambda s: int(s or 0) / 100),
    "horizon": (r"horizon (\d+)", int),
    "architecture": (r"(\d+(?:-\d+)*)", str),
    "world": (r"world (.+)", str),
    "split": (r"(.+) worlds", str),
    "beside": (r"less (.+)", str),
    "uses": (
        r"(?:([\d,]+)|infinitely many) uses?",
        lambda s: float(_integer(s)) if s else math.inf,
    ),
    "share": (r"(\d+)% of PPO's improvement", lambda s: int(s) / 100),
    "env_steps": (r"start|end \(([\d,]+) steps\)", lambda s: _integer(s or "0")),
    "training_trials": (r"(\d+) training trials", int),
    "num_parameters": (r"([\d,]+) parameters", _integer),
    "num_steps": (r"([\d,]+) training steps", _integer),
    "part": (r"(.+)", str),
    "center": (r"(.+)", str),
}
"""How a setting says the columns of a place; what matches none is a part, and a centre."""

FIELDS = {field.name: field for field in dataclasses.fields(Result)}
WRITTEN = ("task", "experiment", "method", "setting", "metric", "value", "low", "high",
           "n_trials", "n_episodes", "command")  # fmt: skip
SHARED = ", shared initial network"


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


def _to_result(data: Any, where: str) -> Result:
    """A result from a line's object; files of before have its place in the setting alone."""
    if not isinstance(data, dict) or not set(WRITTEN) <= set(data) <= {*WRITTEN, *FIELDS}:
        given = ", ".join(sorted(data)) if isinstance(data, dict) else type(data).__name__
        raise TiplError(f"{where} holds {given}; expected the fields {', '.join(WRITTEN)}")
    values = {name: value for name, value in data.items() if name != "setting"}
    if not set(PLACES) & set(values):
        values |= _read_place(_checked(data["setting"], "str", "setting", where))
    elif values.get("uses") == "infinite":
        values["uses"] = math.inf
    fields: dict[str, Any] = {
        name: _checked(value, str(FIELDS[name].type).removesuffix(" | None"), name, where)
        for name, value in values.items()
    }
    if fields["experiment"].endswith(SHARED):
        fields |= {"experiment": fields["experiment"].removesuffix(SHARED), "initial": "shared"}
    return Result(**fields)


def _read_place(setting: str) -> dict[str, Any]:
    """The columns that a setting says in words: `place_label` backwards."""
    place: dict[str, Any] = {}
    # a method's name may have commas
    head, less, method = setting.partition(", less ")
    for piece in head.split(", ") if head else ():
        for name, (pattern, read) in PLACES.items():
            match = re.fullmatch(pattern, piece)
            if match and name not in place:
                place[name] = read(match[1] if match.lastindex else "")
                break
    if less:
        place["beside"] = method
    return place if place_label(**place) == setting else {"part": setting}


def _checked(value: Any, kind: str, name: str, where: str) -> Any:
    """A value of the type that a field is annotated with: "str", "int" or "float"."""
    if kind == "float" and value is None:
        return math.nan
    if kind == "float" and type(value) in (int, float):  # not isinstance: True is no number
        return float(value)
    if type(value).__name__ == kind:
        return value
    raise TiplError(f"{where} has {name} = {value!r}; expected {kind}")
