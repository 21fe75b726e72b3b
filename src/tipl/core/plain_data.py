"""Results as plain data: what JSON has words for."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import numpy as np

from tipl.core.addresses import address_of, is_address


def plain(found: object) -> Any:
    """Results as dictionaries, lists, texts and numbers; NaN and infinity become None.

    Dataclasses and named tuples become dictionaries of their fields, arrays lists, and paths texts;
    what has a `to_json` is what that returns.

    Raises:
        TypeError: something is of another type.
    """
    if isinstance(found, float):
        return found if math.isfinite(found) else None
    if found is None or isinstance(found, str | int):
        return found
    if callable(convert := getattr(found, "to_json", None)):
        return plain(convert())
    if isinstance(found, np.generic | np.ndarray):
        return plain(found.tolist())
    if isinstance(found, Mapping):
        return {str(name): plain(one) for name, one in found.items()}
    if dataclasses.is_dataclass(found):
        return {one.name: plain(getattr(found, one.name)) for one in dataclasses.fields(found)}
    if isinstance(found, tuple) and hasattr(found, "_asdict"):
        return plain(found._asdict())
    if isinstance(found, list | tuple):
        return [plain(one) for one in found]
    if isinstance(found, PurePath):
        return address_of(found) if is_address(found) else str(found)
    raise TypeError(f"{type(found).__name__} is no plain data")


def json_text(found: object) -> str:
    """Results as indented JSON of ASCII characters, which no terminal obeys."""
    text = json.dumps(plain(found), indent=2, allow_nan=False)
    return text.replace("\x7f", "\\u007f")
