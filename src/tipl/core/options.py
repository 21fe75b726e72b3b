"""What configurations and calls have in common: checks of their values, and threads."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import numpy as np

from tipl.core.processors import usable_processors
from tipl.errors import TiplError, shown

Config = TypeVar("Config")


def at_least(lowest: int, of: str = "", **values: Any) -> None:
    """Checks that no named number is lower, or NaN; None, for "not given", passes.

    Raises:
        TiplError: one of them is; `of` is what the names belong to, such as `"the jumps"`.
    """
    for name, value in values.items():
        if value is not None and not value >= lowest:
            raise TiplError(f"{_whose(name, of)} is {value}; expected at least {lowest}")


def at_most(highest: float | int, of: str = "", **values: Any) -> None:
    """Checks, as `at_least` does, that no named number is higher, or NaN."""
    for name, value in values.items():
        if value is not None and not value <= highest:
            raise TiplError(f"{_whose(name, of)} is {value:.7g}; expected at most {highest:,.7g}")


def is_count(value: object) -> bool:
    """Whether it is a whole number above 0, which `True` is not."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return whole and bool(value >= 1)  # type: ignore[operator]


def one_of(choices: Iterable[object], of: str = "", **values: object) -> None:
    """Checks, as `at_least` does, that each named value is one of the choices."""
    allowed = tuple(choices)
    for name, value in values.items():
        if value not in allowed:
            known = ", ".join(map(str, allowed))
            raise TiplError(f"{_whose(name, of)} is {shown(value)}; expected one of {known}")


def _whose(name: str, owner: str) -> str:
    return f"{name} of {owner}" if owner else name


def spelling_hint(name: str, known: Iterable[str]) -> str:
    """What to do about a name that is none of the known ones, for the end of a message."""
    spelled = {one.lower(): one for one in known}  # whoever gets the case wrong means it so
    close = [spelled[one] for one in difflib.get_close_matches(name.lower(), spelled, n=3)]
    return f"did you mean {' or '.join(close)}?" if close else "check its spelling"


def config_from_options(
    kind: type[Config], config: Config | None, options: Mapping[str, Any], caller: str
) -> Config:
    """The configuration of a call by the user that takes either a whole one or its fields.

    Raises:
        TiplError: both were given, or an option is no field of the configuration.
    """
    if config is not None:
        if options:
            raise TiplError(f"both config and the options {sorted(options)} were given; give one")
        return config
    known = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise TiplError(
            f"{caller} has no option {shown(unknown[0])}; expected one of {', '.join(known)}"
        )
    return kind(**options)


def thread_count(threads: int | None) -> int:
    """The number of threads asked for, which is checked; None is one for each usable processor."""
    at_least(1, threads=threads)
    return threads or usable_processors()
