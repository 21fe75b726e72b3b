"""The one door for bytes that are read: a regular file, of a limited size, opened without waiting.

What a stranger's folder holds may be anything: a pipe that nobody writes to, a device without end,
a file that claims more than it has. Links are followed: caches of shared datasets are made of them.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tipl.core.addresses import address_of, is_address
from tipl.core.stores import fetched
from tipl.core.system_errors import explained
from tipl.errors import TiplError

_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def on_this_machine(
    path: Path, expected: str, check: Callable[[Path], object] | None = None
) -> Path:
    """Where the content of a file is: of an address, an intact copy as `tipl.core.stores` keeps it.

    Args:
        path: the file.
        expected: what it is, for the message when there is none.
        check: raises a TiplError if a copy is damaged.

    Raises:
        TiplError: there is no object of that address, or it cannot be fetched whole.
    """
    if not is_address(path):
        return path
    try:
        return fetched(path, check)
    except FileNotFoundError:
        raise _nothing(address_of(path), expected) from None


def _nothing(path: object, expected: str) -> TiplError:
    return TiplError(
        f"there is no {path}, but {expected} is expected there; check the spelling, or make it "
        "first"
    )


@contextmanager
def open_regular(path: Path, expected: str) -> Iterator[BinaryIO]:
    """Opens a regular file for reading bytes, or the copy of an object of a store.

    Args:
        path: the file, or a link to it.
        expected: what it is, for the message when there is none.

    Raises:
        TiplError: there is none, it is no regular file, or it may not be read.
    """
    path = on_this_machine(path, expected)
    with explained("read", path):
        try:
            # opening a pipe would wait for its writer
            number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            raise _nothing(path, expected) from None
        try:
            _check_regular(number, path, expected)
        except BaseException:
            os.close(number)
            raise
        with os.fdopen(number, "rb") as file:
            yield file


def _check_regular(number: int, path: Path, expected: str) -> None:
    mode = stat.S_IFMT(os.fstat(number).st_mode)
    if mode == stat.S_IFDIR:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if mode != stat.S_IFREG:
        raise TiplError(
            f"{path} is {_KINDS.get(mode, 'something else')}, but {expected}, a regular file, is "
            "expected there; remove it, and restore the file from a copy"
        )


def read_regular(path: Path, expected: str, limit: int) -> bytes:
    """The bytes of a regular file of at most `limit` bytes.

    Raises:
        TiplError: there is none, it is no regular file, it is larger, or it may not be read.
    """
    with open_regular(path, expected) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise TiplError(
            f"{path} has more than {limit:,} bytes, but {expected}, of at most that, is expected "
            "there; it was not written by tipl: remove it, and restore the file from a copy"
        )
    return data
