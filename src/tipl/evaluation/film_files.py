"""Where films are written: what lies there already must be one that tipl has made."""

from __future__ import annotations

from pathlib import Path

from tipl.core.ownership import ANIMATION, PICTURE, check_file
from tipl.errors import TiplError


def check_filmstrip(path: str | Path) -> tuple[Path, Path]:
    """The paths of `save_filmstrip`; raises a TiplError if something else has them."""
    gif = check_gif_name(path)
    check_file(gif, ANIMATION)
    check_file(gif.with_suffix(".png"), PICTURE)
    return gif, gif.with_suffix(".png")


def check_gif_name(path: str | Path) -> Path:
    """The path of a GIF; raises a TiplError if its name does not end in `.gif`."""
    path = Path(path)
    if path.suffix.lower() != ".gif":
        raise TiplError(f"{path} was given for a film; expected a name that ends in .gif")
    return path
