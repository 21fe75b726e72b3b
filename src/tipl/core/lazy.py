"""Names that are imported when they are first used."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

from tipl.core import moved

__all__ = ["lazy_names", "resolve"]


def resolve(entry: str) -> Any:
    """What an entry of a table, `"tipl.models.train:train"`, names; its module is imported."""
    module, _, name = entry.partition(":")
    return getattr(importlib.import_module(module), name)


def lazy_names(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The `__getattr__` and `__dir__` of a package that imports its names on first use.

    A package states them where type checkers do not look, who would believe that any name exists.
    Names that have moved elsewhere are found as well.

    Args:
        package: its `__name__`.
        homes: the names that each module gives, with spaces between them.
    """
    home_of = {name: module for module, names in homes.items() for name in names.split()}

    def getattr_(name: str) -> Any:
        if name in home_of:
            return resolve(f"{home_of[name]}:{name}")
        return moved.find(package, name)

    return getattr_, lambda: sorted(sys.modules[package].__all__)
