"""What configurations and calls have in common: checks of their values, and threads."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from tipl.errors import TiplError

Config = TypeVar("Config")


def at_least(lowest: int, of: str = "", **values: Any) -> None:
    """Checks named numbers; None, for "not given", passes.

    Args:
        lowest: that each may be.
        of: what the names belong to, such as `"the jumps"`, where they do not say it.
        **values: the numbers by name.

    Raises:
        TiplError: one of them is lower, or NaN.
    """
    for name, value in values.items():
        if value is not None and not value >= lowest:
            raise TiplError(f"{_whose(name, of)} is {value}; expected at least {lowest}")


def one_of(choices: Iterable[object], of: str = "", **values: object) -> None:
    """Checks that each named value is one of the choices; see `at_least`.

    Raises:
        TiplError: one of them is none of the choices.
    """
    allowed = tuple(choices)
    for name, value in values.items():
        if value not in allowed:
            known = ", ".join(map(str, allowed))
            raise TiplError(f"{_whose(name, of)} is {value!r}; expected one of {known}")


def _whose(name: str, owner: str) -> str:
    return f"{name} of {owner}" if owner else name


def config_from_options(
    kind: type[Config], config: Config | None, options: Mapping[str, Any], caller: str
) -> Config:
    """The configuration of a call that takes either a whole one or its fields.

    Args:
        kind: the dataclass of the configuration.
        config: the whole one, if it was given.
        options: its fields, if they were given.
        caller: what the user called.

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
            f"{caller} has no option {unknown[0]!r}; expected one of {', '.join(known)}"
        )
    return kind(**options)


def thread_count(threads: int | None) -> int:
    """The number of threads asked for; None is one for each processor.

    Raises:
        TiplError: the number is below 1.
    """
    at_least(1, threads=threads)
    return threads or os.cpu_count() or 1
