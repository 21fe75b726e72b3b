"""Files and directories that are written whole or not at all, and locks between processes.

A file is written under a temporary name beside its place, synced to the disk and renamed, so that
a killed process leaves the old file or the new one, never a part of one. The system takes a lock
back when its holder ends, however it ends.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tipl.errors import TiplError

_TEMPORARY_SUFFIX = ".unfinished"

_ADVICE = {
    errno.ENOENT: "create the folder first, or check the spelling",
    errno.ENOTDIR: "a part of the path is a file: choose another path",
    errno.EISDIR: "this is a folder: give the path of a file",
    errno.EEXIST: "something else has that name: choose another path",
    errno.EACCES: "choose a path that you may use, or change its permissions",
    errno.EPERM: "choose a path that you may use, or change its permissions",
    errno.EROFS: "the disk is read-only: choose another one",
    errno.ENOSPC: "free some space on the disk, then run the same command again",
    errno.EDQUOT: "your disk quota is used up: free some space, then run the same command again",
}


@contextmanager
def explained(action: str, path: Path) -> Iterator[None]:
    """Turns an OSError into a TiplError that names the path and says what to do."""
    try:
        yield
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, "check the path and the disk, then try again")
        reason = error.strerror or str(error)
        raise TiplError(f"cannot {action} {path}: {reason}; {advice}") from error


def _temporary(path: Path) -> Path:
    """A fresh hidden name in the same folder, so that a rename to `path` crosses no file system."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{_TEMPORARY_SUFFIX}")


def is_unfinished(path: Path) -> bool:
    """Whether the path has a name that only a write which is not finished uses."""
    return path.name.startswith(".") and path.name.endswith(_TEMPORARY_SUFFIX)


def unfinished_writes(directory: Path, name: str = "") -> list[Path]:
    """What unfinished writes have left in a directory, of files whose names start with `name`.

    A write that is under way looks the same as one whose process was killed.
    """
    with explained("read", directory):
        paths = sorted(directory.iterdir()) if directory.exists() else []
    return [path for path in paths if is_unfinished(path) and path.name.startswith(f".{name}")]


def remove_unfinished(directory: Path, name: str = "") -> None:
    """Removes `unfinished_writes(directory, name)`; nobody may be writing such files there."""
    with explained("clean up", directory):
        for path in unfinished_writes(directory, name):
            _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Makes renames in a folder survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes_atomically(path: str | Path, data: bytes, sync: bool = True) -> None:
    """Writes a file whole or not at all; an existing file is replaced.

    Without `sync` nobody waits for the disk: a killed process leaves all as it should be, but a
    power failure may damage a file written in its last moments.

    Raises:
        TiplError: the folder does not exist, may not be written to, or the disk is full.
    """
    path = Path(path)
    temporary = _temporary(path)
    with explained("write", path):
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                if sync:
                    os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            _remove(temporary)
        if sync:
            _sync_folder(path.parent)


@contextmanager
def new_directory(path: str | Path, replaces: str | None = None) -> Iterator[Path]:
    """Fills a directory that appears whole or not at all.

    Yields a temporary directory beside `path`; when the block ends it is renamed to `path`, and
    when the block raises it is removed. An existing directory is swapped out in one step where
    the system can (Linux); elsewhere a crash between two renames leaves it beside its place.

    A directory that is replaced holds a file of the name `replaces`, or is empty, so that nobody's
    other files are lost.

    Raises:
        TiplError: something else is at `path`, or it cannot be written.
    """
    path = Path(path).resolve()  # of a link, what it points to is replaced
    with explained("write", path):
        check_replaceable(path, replaces)
        temporary = _temporary(path)
        temporary.mkdir(parents=True)
    try:
        yield temporary
        with explained("write", path):
            _sync_folder(temporary)
            if path.exists():
                check_replaceable(path, replaces)
                _swap(temporary, path)
            else:
                temporary.rename(path)
            _sync_folder(path.parent)
    finally:
        _remove(temporary)  # the half-filled new directory, or the old one after the swap


def check_replaceable(path: Path, replaces: str | None) -> None:
    """Raises a TiplError if `new_directory` with the same arguments would, to say so early."""
    if not path.exists():
        return
    if not path.is_dir():
        raise TiplError(f"{path} is a file, but a directory is to be written; choose another path")
    names = sorted(entry.name for entry in path.iterdir())
    if names and replaces not in names:
        expected = f"a directory with a {replaces}" if replaces else "an empty directory"
        shown = ", ".join(names[:3]) + ", ..." * (len(names) > 3)
        raise TiplError(
            f"{path} holds other files ({shown}) and only {expected} is replaced; choose another "
            "path, or remove it first"
        )


def _swap(new: Path, old: Path) -> None:
    """Puts `new` in the place of the directory `old`, and `old` under the name of `new`."""
    try:
        _exchange(new, old)
    except (OSError, AttributeError):  # not Linux, or a file system without RENAME_EXCHANGE
        aside = _temporary(old)
        old.rename(aside)
        try:
            new.rename(old)
        except BaseException:
            aside.rename(old)
            raise
        aside.rename(new)


def _exchange(first: Path, second: Path) -> None:
    """Exchanges two names in one step, so that neither is vacant at any moment (renameat2)."""
    here, rename_exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of <linux/fs.h>
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(here, os.fsencode(first), here, os.fsencode(second), rename_exchange) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


class FileLock:
    """A lock that one process at a time holds; its file is there only while somebody holds it.

    After a kill the file stays behind, but not the lock: the next one to ask gets it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Takes the lock if it is free, and says whether it was."""
        with explained("lock", self.path):
            locked = False
            while not locked:
                descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    locked = os.path.samestat(os.fstat(descriptor), os.stat(self.path))
                except BlockingIOError:
                    return False
                except FileNotFoundError:
                    pass  # its last holder removed the file in between: ask again
                finally:
                    if not locked:
                        os.close(descriptor)
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
            self._descriptor = descriptor
            return True

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
    """Keeps other processes that ask the same from running the block; they wait their turn."""
    with explained("lock", directory):
        descriptor = os.open(directory, os.O_RDONLY)
    try:
        with explained("lock", directory):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
