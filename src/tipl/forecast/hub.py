"""Where trained models are found: in a directory, or among those that ship with tipl."""

from __future__ import annotations

from pathlib import Path

from tipl.core.atomic import explained
from tipl.errors import TiplError

__all__ = ["model_directory", "shipped_models"]

SHIPPED = Path(__file__).parent / "pretrained"
"""One folder for each model that ships with tipl, as `save_pretrained` wrote it."""


def shipped_models() -> list[str]:
    """Names of the models that ship with tipl, for `Forecaster.from_pretrained`."""
    return sorted(config.parent.name for config in SHIPPED.glob("*/config.json"))


def model_directory(source: str | Path) -> Path:
    """The directory of a model that is given as a directory or by name.

    Args:
        source: a directory, or the name of a model that ships with tipl; of a source that is both,
            the directory is meant.

    Raises:
        TiplError: the source is neither.
    """
    directory = Path(source)
    with explained("read", directory):
        if directory.is_dir():
            return directory
    names = shipped_models()
    if str(source) in names:
        return SHIPPED / source
    raise TiplError(
        f"there is no {directory / 'config.json'}, but a model (made by `tipl train`) is expected "
        f"there, and {str(source)!r} is not one of the models that ship with tipl "
        f"({', '.join(names) or 'there are none'}); check the spelling, or make a model by "
        "`tipl train`"
    )
