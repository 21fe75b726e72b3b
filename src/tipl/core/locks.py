"""Locks between processes: the system takes one back when its holder ends, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tipl.core.system_errors import CANNOT, explained
from tipl.core.unfinished import is_at, is_held, opened, try_lock
from tipl.errors import TiplError

_HOLDER = re.compile(rb"process \d+ on [^\n\x00]{1,255}|process \d+")
_MOMENT = 0.02
"""Seconds for which somebody who looks whether a lock is held may hold it."""


class FileLock:
    """A lock that one process at a time holds; its file is there only while somebody holds it.

    After a kill the file stays behind, but not the lock: the next one to ask gets it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Takes the lock if it is free, and says whether it was.

        Raises:
            TiplError: something else has the file's name, which stays as it is.
        """
        with explained("lock", self.path):
            descriptor = self._taken()
            if descriptor is None:
                time.sleep(_MOMENT)
                descriptor = self._taken()
            if descriptor is None:
                return False
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
            self._descriptor = descriptor
            return True

    def _taken(self) -> int | None:
        """The lock's open file, locked; None if somebody else holds it."""
        options = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        while True:
            descriptor = os.open(self.path, options, 0o666)
            taken = False
            try:
                if not is_lock(descriptor):
                    raise TiplError(
                        f"{self.path} is no lock that tipl has made, and nothing else is written "
                        "over; move it elsewhere first"
                    )
                if try_lock(descriptor) is False:
                    return None
                taken = is_at(descriptor, self.path)
                if taken:  # otherwise its last holder removed the file in between: ask again
                    return descriptor
            finally:
                if not taken:
                    os.close(descriptor)

    @property
    def holder(self) -> str:
        """Who holds the lock, as far as the file tells."""
        try:
            with opened(self.path) as descriptor:
                said = os.pread(descriptor, 300, 0) if is_lock(descriptor) else b""
        except OSError:  # it has just been given back
            said = b""
        return said.decode(errors="replace") or "another process"

    def release(self) -> None:
        """Gives the lock back and removes its file."""
        if self._descriptor is not None:
            if is_at(self._descriptor, self.path):
                self.path.unlink(missing_ok=True)  # first: nobody locks a file about to go
            os.close(self._descriptor)
            self._descriptor = None


def is_lock(descriptor: int) -> bool:
    """Whether what is open is a file of a `FileLock`, under no other name as well."""
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        return False
    said = os.pread(descriptor, 300, 0)
    return not said or bool(_HOLDER.fullmatch(said))


def is_free_lock(path: Path) -> bool:
    """Whether a path is a file of a `FileLock` that nobody holds."""
    try:
        with opened(path) as descriptor:
            return is_lock(descriptor) and not is_held(path)
    except OSError:
        return False


def writer_of(path: Path) -> str | None:
    """Who holds a lock on a file or directory, as far as can be told; None if nobody does."""
    if not is_held(path):
        return None
    return FileLock(path).holder if path.suffix == ".lock" else _process_at(path)


def _process_at(path: Path) -> str:
    """The process that the system, if it is Linux, says to have locked what is at a path."""
    with contextlib.suppress(OSError, ValueError):
        found = os.lstat(path)
        place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            _, kind, _, how, process, where, *_ = line.split()
            if (kind, how, where) == ("FLOCK", "WRITE", place) and int(process) > 0:
                return f"process {process} on {socket.gethostname()}"
    return "another process"


@contextmanager
def locked_directory(directory: Path) -> Iterator[None]:
    """Keeps other processes that ask the same from running the block; they wait their turn."""
    with explained("lock", directory):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with explained("lock", directory):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            except OSError as error:
                if error.errno not in CANNOT:
                    raise
        yield
    finally:
        os.close(descriptor)
