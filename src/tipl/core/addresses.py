"""Addresses such as `s3://bucket/paths`, which go through the package as paths do.

pathlib writes them with one slash, which is how they are told from files: no folder of this machine
is taken to have a name such as `s3:`.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePath

from tipl.errors import TiplError, shown

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/+(.*)", re.DOTALL)

LIBRARIES = {"s3": "s3fs", "gs": "gcsfs", "hf": "huggingface_hub", "memory": "fsspec", "file": ""}
"""What reads the addresses of each kind."""


def is_address(path: str | PurePath) -> bool:
    """Whether a path is an address: it begins as `s3://` does, or as `s3:/`."""
    return _ADDRESS.fullmatch(str(path)) is not None


def address_of(path: str | PurePath) -> str:
    """An address with the two slashes of which pathlib keeps one.

    Raises:
        TiplError: it is of no kind that is known, or names no bucket.
    """
    match = _ADDRESS.fullmatch(str(path))
    kind, rest = match.groups() if match else ("", "")
    if kind not in LIBRARIES or not rest.strip("/"):
        raise TiplError(
            f"the address {shown(str(path))} was given; expected a folder of one of these kinds: "
            f"{', '.join(f'{one}://' for one in LIBRARIES)}, as in s3://bucket/paths"
        )
    return f"{kind}://{'/' if kind == 'file' else ''}{rest.strip('/')}"


def absolute(path: Path) -> str:
    """What a file says of a path, so that it is found from any folder."""
    return address_of(path) if is_address(path) else str(path.resolve())


def located(path: Path) -> Path:
    """A path as it is, but a `file://` address as the path that it stands for."""
    if not is_address(path) or not address_of(path).startswith("file://"):
        return path
    return Path(address_of(path).removeprefix("file://"))
