"""Which files are tipl's own: nothing else is ever replaced or removed.

JSON and safetensors are told by their seals (`tipl.core.storage`); pictures, pages and rows by a
mark that tipl writes into them. A name alone tells nothing.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tipl.core.addresses import address_of, is_address, located
from tipl.core.regular_files import open_regular
from tipl.core.stores import exists, names_in
from tipl.core.system_errors import explained
from tipl.core.unfinished import unfinished_name
from tipl.errors import TiplError

MARK = "tipl"
"""What pictures and pages name as the software that made them; drawings have a style for it."""

STYLE_OF_DRAWINGS = "@media(prefers-color-scheme:dark){svg{color:#e4e8ee}}"
"""In every drawing that tipl saves: it follows the page, light or dark."""

_BEGINNING = 1 << 16
"""Bytes from a file's beginning that tell what it is."""


@dataclass(frozen=True)
class OwnFile:
    """A kind of file that tipl writes."""

    what: str
    """what it is, for messages, such as "a report" """
    recognises: Callable[[Path], bool]
    """whether a regular file is one of this kind that tipl has written"""

    def owns(self, path: Path) -> bool:
        """Whether a path is a regular file of this kind, not a link to one."""
        try:
            return is_regular(path) and self.recognises(path)
        except TiplError as error:
            if isinstance(error.__cause__, FileNotFoundError):  # moved away since
                return False
            raise


@dataclass(frozen=True)
class OwnDirectory:
    """A kind of directory that tipl writes whole."""

    what: str
    """what it is, for messages, such as "a policy" """
    files: Mapping[str, OwnFile]
    """all that it may hold, by name"""

    def has_no(self, name: str) -> bool:
        """Whether it holds no file of such a name, nor an unfinished one of a name that it has."""
        if name.endswith(".unfinished"):
            name = unfinished_name(Path(name)) or name
        return name not in self.files

    def others(self, directory: Path) -> list[str]:
        """The names in a directory that are not tipl's own files of this kind, in order."""
        names = sorted(os.listdir(directory))
        return [name for name in names if self.has_no(name) or not self._owns(directory / name)]

    def _owns(self, path: Path) -> bool:
        """Whether what has a name that it may hold is one of tipl's files."""
        if unfinished_name(path) is not None:
            return is_regular(path)
        return self.files[path.name].owns(path)


ANYTHING = OwnFile("a file", lambda path: True)
"""Of a file that only tipl gives its name, in a folder that only tipl makes."""

NOTHING = OwnFile("a file", lambda path: False)
"""Of a file that never changes."""


def is_regular(path: Path) -> bool:
    """Whether there is a regular file of this name, and no link."""
    if is_address(path):
        return exists(path)
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


# --- what is there already -------------------------------------------------------------------

_ELSEWHERE = "choose another path, or move it elsewhere first"


def check_file(path: str | Path, own: OwnFile) -> None:
    """Raises a TiplError if a path is taken by anything but a file of tipl's of the kind."""
    path = located(Path(path))
    if is_address(path):
        if exists(path) and not own.owns(path):
            raise TiplError(_not_own(path, own))
        return
    with explained("write", path):
        try:
            mode = os.lstat(path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if stat.S_ISLNK(mode):
            raise OSError(errno.ELOOP, "it is a link")
    if not own.owns(path):
        raise TiplError(_not_own(path, own))


def _not_own(path: Path, own: OwnFile) -> str:
    return (
        f"{path} is not {own.what} that tipl has written, and nothing else is replaced: "
        f"{_ELSEWHERE}"
    )


def check_directory(path: str | Path, own: OwnDirectory) -> None:
    """Raises a TiplError if `new_directory` with the same arguments would, to say so early."""
    path = located(Path(path))
    if is_address(path):
        _check_store(path, own)
        return
    with explained("write", path):
        place = place_of(path)
        _check_folder(place.parent)
        others = _others(place, own)
    if others:
        raise TiplError(
            f"{path} holds other files ({named_among(others)}) than intact ones of {own.what}, "
            f"and nothing else is replaced; {_ELSEWHERE}"
        )


def _check_store(path: Path, own: OwnDirectory) -> None:
    """As `check_directory`, of an address: of whole directories there, nothing is replaced.

    What has been sent without the JSON, which comes last, is left over.
    """
    names = names_in(path)
    if any(own.has_no(name) or name.endswith(".json") for name in names):
        raise TiplError(
            f"{address_of(path)} holds {named_among(names)}, and {own.what} in a store is written "
            "once: choose another address, or remove what is there first"
        )


def _others(place: Path, own: OwnDirectory) -> list[str]:
    """As `OwnDirectory.others`, of a directory that must be one that may be written, or not there.

    Another process may replace it at any moment: what is found wrong counts only if the directory
    that it was found in is still in its place.
    """
    while (before := _identity(place)) is not None:
        others, problem = list[str](), None
        try:
            if not place.is_dir():
                raise TiplError(
                    f"{place} is a file, but a directory is to be written; {_ELSEWHERE}"
                )
            _check_folder(place)
            others = own.others(place)
        except (OSError, TiplError) as error:
            problem = error
        if not others and problem is None:
            break
        if _identity(place) == before:
            if problem is not None:
                raise problem
            return others
    return []


def _identity(place: Path) -> tuple[int, int, int] | None:
    """What no other file that has ever had this name has; None if there is none."""
    try:
        status = os.lstat(place)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino, status.st_ctime_ns  # of renaming, too


def place_of(path: Path) -> Path:
    """What a path that somebody names leads to, which may be a link to a directory."""
    place = Path(os.path.realpath(path))
    if path.is_symlink() and not place.exists():
        raise TiplError(f"{path} is a link to nothing; {_ELSEWHERE}")
    return place


def _check_folder(folder: Path) -> None:
    """Raises an OSError if nothing can be made in a folder, which may not be there yet."""
    while not os.path.lexists(folder):
        folder = folder.parent
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def refuse_links(directory: Path, *folders: str) -> None:
    """Raises a TiplError if there are links in a directory, or in some of its folders.

    A command that writes into a directory would write through them, to wherever they lead.
    """
    for folder in (directory, *(directory / name for name in folders)):
        if is_address(folder):
            return  # there are none
        with explained("read", folder):
            if not folder.is_dir():
                continue
            with os.scandir(folder) as entries:
                links = sorted(entry.name for entry in entries if entry.is_symlink())
        if links:
            raise TiplError(
                f"{folder} holds links ({named_among(links)}), and nothing is written into a "
                "folder with links inside: put what they lead to in their place, or remove them"
            )


def named_among(names: list[str]) -> str:
    """A few of some names, for messages."""
    return ", ".join(names[:3]) + ", ..." * (len(names) > 3)


# --- files that have no seal -----------------------------------------------------------------


def _beginning(path: Path) -> bytes:
    with open_regular(path, "a file of tipl") as file:
        return file.read(_BEGINNING)


def _png_chunks(data: bytes) -> dict[bytes, bytes]:
    """The chunks of a PNG before its pixels, by type; none of what is no PNG."""
    found, at = dict[bytes, bytes](), 8
    while data.startswith(b"\x89PNG\r\n\x1a\n") and at + 8 <= len(data):
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if kind == b"IDAT":
            break
        found[kind] = data[at + 8 : at + 8 + size]
        at += size + 12
    return found


def _is_drawing(path: Path) -> bool:
    return STYLE_OF_DRAWINGS.encode() in _beginning(path)[:4096]


def _is_picture(path: Path) -> bool:
    chunks = _png_chunks(_beginning(path))
    if chunks.get(b"tEXt") == b"Software\x00" + MARK.encode():
        return True
    # before there were marks: without any text, at 200 dots per inch, beside a drawing of ours
    unmarked = bool(chunks) and not chunks.keys() - {b"IHDR", b"pHYs"}
    dense = chunks.get(b"pHYs") == (7874).to_bytes(4, "big") * 2 + b"\x01"
    return unmarked and dense and DRAWING.owns(path.with_suffix(".svg"))


def _is_animation(path: Path) -> bool:
    data = _beginning(path)
    comment = b"\x21\xfe" + bytes([len(MARK)]) + MARK.encode() + b"\x00"
    return data.startswith(b"GIF8") and comment in data


def _is_page(path: Path) -> bool:
    text = _beginning(path)
    marked = f'<meta name="generator" content="{MARK}'.encode() in text
    # before there were marks: a head and colours that every report has
    return marked or all(part in text for part in (_OLD_HEAD, b"--page: #", b"--quiet: #"))


_OLD_HEAD = (
    b'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    b'<meta name="color-scheme" content="light dark">\n<title>'
)


def _is_rows(path: Path) -> bool:
    line = _beginning(path).split(b"\n", 1)[0]
    try:
        row = json.loads(line) if line else None
    except (ValueError, RecursionError):
        return False
    if row is None:
        return not path.stat().st_size  # no rows at all
    expected = {"task", "experiment", "method", "setting", "metric", "value", "command"}
    return isinstance(row, dict) and expected <= row.keys()


DRAWING = OwnFile("a drawing", _is_drawing)
PICTURE = OwnFile("a picture", _is_picture)
ANIMATION = OwnFile("an animation", _is_animation)
PAGE = OwnFile("a report", _is_page)
ROWS = OwnFile("a file of results", _is_rows)
