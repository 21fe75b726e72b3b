"""Locks between processes, which the system takes back when their holder ends, however it ends."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tipl.core.atomic import explained

__all__ = ["FileLock", "locked_directory"]


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
            TiplError: the file cannot be written, or its file system knows no locks.
        """
        with explained("lock", self.path):
            while True:
                descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os.close(descriptor)
                    return False
                except BaseException:
                    os.close(descriptor)
                    raise
                if self._is_still_there(descriptor):
                    break
                os.close(descriptor)  # its last holder removed the file in between: ask again
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
            self._descriptor = descriptor
            return True

    def _is_still_there(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self.path))
        except FileNotFoundError:
            return False

    @property
    def holder(self) -> str:
        """Who holds the lock, as far as the file tells."""
        try:
            return self.path.read_text(encoding="utf-8") or "another process"
        except OSError:  # it has just been given back
            return "another process"

    def release(self) -> None:
        """Gives the lock back and removes its file."""
        if self._descriptor is not None:
            self.path.unlink(missing_ok=True)  # first, so that nobody locks a file about to go
            os.close(self._descriptor)
            self._descriptor = None


@contextmanager
def locked_directory(directory: Path) -> Iterator[None]:
    """Keeps other processes that ask the same from running the block; they wait their turn.

    Raises:
        TiplError: the directory is not there, or its file system knows no locks.
    """
    with explained("lock", directory):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except BaseException:
            os.close(descriptor)
            raise
    try:
        yield
    finally:
        os.close(descriptor)
