"""Options that several Python calls take: the fields of a configuration, and threads."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any, TypeVar

from tipl.errors import TiplError

__all__ = ["config_from_options", "thread_count"]

Config = TypeVar("Config")


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
    if threads is not None and threads < 1:
        raise TiplError(f"{threads} threads were given; expected at least 1")
    return threads or os.cpu_count() or 1
