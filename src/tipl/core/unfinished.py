"""Unfinished writes: files and directories under names of their own, held while they are written.

A writer holds a lock on what it writes, which the system takes back when it ends, however it ends.
So what nobody holds is left over from a kill, and the next write of the same name removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from tipl.core.system_errors import CANNOT, explained
from tipl.errors import TiplError

_NAME = re.compile(r"\.(.+)\.[0-9a-f]{4,}\.unfinished", re.DOTALL)


def unfinished_name(path: Path) -> str | None:
    """The name of the file or directory to be, if only an unfinished write has such a name."""
    match = _NAME.fullmatch(path.name)
    return match and match[1]


def is_unfinished(path: Path) -> bool:
    """Whether the path has a name that only a write which is not finished uses."""
    return unfinished_name(path) is not None


def temporary_name(path: Path) -> Path:
    """A fresh hidden name in the same folder, so that a rename to `path` crosses no file system."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.unfinished")


def unfinished_writes(directory: Path, name: str = "", *, exact: bool = False) -> list[Path]:
    """What unfinished writes have left in a directory, of files whose names start with `name`.

    A write that is under way looks the same as one whose process was killed: see `is_held`.
    """
    with explained("read", directory):
        names = os.listdir(directory) if directory.exists() else []
    paths = (directory / one for one in names if one.endswith(".unfinished"))
    found = [(path, of) for path in sorted(paths) if (of := unfinished_name(path)) is not None]
    return [path for path, of in found if (of == name if exact else of.startswith(name))]


def remove_unfinished(
    directory: Path, name: str = "", inside: Collection[str] = (), *, exact: bool = False
) -> None:
    """Removes those of `unfinished_writes` that no process holds, as far as that can be told.

    Of directories, only files named in `inside` are removed, and the directory once it is empty.
    """
    with contextlib.suppress(TiplError):  # they do no harm
        for path in unfinished_writes(directory, name, exact=exact):
            with contextlib.suppress(OSError), opened(path) as descriptor:
                if try_lock(descriptor) and is_at(descriptor, path):
                    remove(path, inside)


def is_held(path: Path) -> bool:
    """Whether a process is writing what has an unfinished name, or holds a lock on a file."""
    try:
        with opened(path) as descriptor:
            return try_lock(descriptor, fcntl.LOCK_SH) is False
    except OSError:
        return False


@contextmanager
def held(
    path: Path, make: Callable[[Path], int], inside: Collection[str] = ()
) -> Iterator[tuple[Path, int]]:
    """Makes and holds what is to be renamed to a path, and removes it unless it has been.

    What earlier writes of the same name have left is removed, too.

    Args:
        path: where it shall be.
        make: makes and opens it under a temporary name: `new_file` or `new_folder`.
        inside: of a directory, the files that it may hold.
    """
    remove_unfinished(path.parent, path.name, inside, exact=True)
    ours = False
    while not ours:
        temporary = temporary_name(path)
        descriptor = make(temporary)
        try:
            # unless another process has just taken it for a leftover
            ours = try_lock(descriptor) is not False and is_at(descriptor, temporary)
            if ours:
                yield temporary, descriptor
        finally:
            remove(temporary, inside)
            os.close(descriptor)


def new_file(path: Path) -> int:
    """Makes a file that is not there, and opens it for writing."""
    options = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, options, 0o666)


def new_folder(path: Path) -> int:
    """Makes a directory that is not there, and opens it."""
    os.mkdir(path)
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:  # another process has just taken it for a leftover
        return new_folder(path)
    except BaseException:
        os.rmdir(path)
        raise


def remove(path: Path, inside: Collection[str] = ()) -> None:
    """Removes a file, or files of some names from a directory, which goes once it is empty.

    Links and all else stay, and what cannot be removed is left for the next write.
    """
    with contextlib.suppress(OSError):
        mode = os.lstat(path).st_mode
        if stat.S_ISREG(mode):
            path.unlink()
        elif stat.S_ISDIR(mode):
            for entry in path.iterdir():
                named = (unfinished_name(entry) or entry.name) in inside
                if named and stat.S_ISREG(os.lstat(entry).st_mode):
                    entry.unlink()
            path.rmdir()


# --- locks of open files ---------------------------------------------------------------------


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """Opens a file or a directory, but no link, and waits for nobody at the end of a pipe."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def try_lock(descriptor: int, how: int = fcntl.LOCK_EX) -> bool | None:
    """Takes the lock of what is open, and says whether it was free.

    None: the file system knows no locks.
    """
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in CANNOT:
            return None
        raise
    return True


def is_at(descriptor: int, path: Path) -> bool:
    """Whether what is open is what a path names: it was neither removed nor replaced."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False
