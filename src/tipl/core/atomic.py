"""Files and directories that are written whole or not at all, and never over other people's.

What is written lies under a temporary name beside its place, is synced to the disk and renamed, so
that a killed process leaves the old file or the new one, never a part of one. Only files of the
kind that is written are replaced (`tipl.core.ownership`), and links are never followed, but for the
place that somebody names.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tipl.core.addresses import is_address, located
from tipl.core.ownership import (
    NOTHING,
    OwnDirectory,
    OwnFile,
    check_directory,
    check_file,
    place_of,
)
from tipl.core.stores import scratch_folder, send
from tipl.core.system_errors import CANNOT, explained
from tipl.core.unfinished import (
    held,
    new_file,
    new_folder,
    opened,
    remove,
    temporary_name,
    try_lock,
)

_TAKEN = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}


def write_bytes_atomically(
    path: str | Path, data: bytes, sync: bool = True, own: OwnFile = NOTHING
) -> None:
    """Writes a file whole or not at all; a file of the kind `own` is replaced, and keeps its mode.

    Without `sync` nobody waits for the disk: a killed process leaves all as it should be, but a
    power failure may damage a file written in its last moments.

    Raises:
        TiplError: something else has that name, the folder does not exist or may not be written
            to, or the disk is full.
    """
    path = located(Path(path))
    check_file(path, own)
    if is_address(path):
        with scratch_folder() as folder:
            (folder / path.name).write_bytes(data)
            send(folder / path.name, path)
        return
    with explained("write", path), held(path, new_file) as (temporary, descriptor):
        with contextlib.suppress(OSError):
            os.fchmod(descriptor, os.lstat(path).st_mode & 0o777)
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(data)
        if sync:
            os.fsync(descriptor)
        os.replace(temporary, path)
        if sync:
            _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Makes renames in a folder survive a power failure, where the file system can."""
    try:
        with folder_opened(folder) as descriptor:
            os.fsync(descriptor)
    except OSError as error:
        if error.errno not in CANNOT | {errno.EACCES}:
            raise


@contextmanager
def folder_opened(folder: Path) -> Iterator[int]:
    """Opens a folder, or what a link to one leads to."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Makes a folder within a directory of ours, unless it is there.

    Raises:
        TiplError: something else has that name, such as a link, or it cannot be made.
    """
    with explained("make", folder):
        try:
            os.mkdir(folder)
        except FileExistsError:
            if not stat.S_ISDIR(os.lstat(folder).st_mode):
                raise


@contextmanager
def new_directory(path: str | Path, own: OwnDirectory) -> Iterator[Path]:
    """Fills a directory that appears whole or not at all.

    Yields a temporary directory beside `path`; when the block ends it is renamed to `path`, and
    when the block raises it is removed. An existing directory is swapped out in one step where
    the system can (Linux); elsewhere a crash between two renames leaves it beside its place.

    A directory that is replaced holds intact files of the kind `own` and no others, or is empty. At
    an address nothing is replaced, and the files are sent when the block ends.

    Raises:
        TiplError: something else is at `path`, or it cannot be written.
    """
    path = located(Path(path))
    check_directory(path, own)
    if is_address(path):
        with scratch_folder() as folder:
            yield folder
            for file in sorted(folder.iterdir(), key=lambda file: file.suffix == ".json"):
                send(file, path / file.name)  # the JSON, without which nothing is there, last
        return
    with contextlib.ExitStack() as stack:
        with explained("write", path):
            path = place_of(path)  # of a link, what it points to is replaced
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary, _ = stack.enter_context(held(path, new_folder, own.files))
        yield temporary
        with explained("write", path):
            _sync_folder(temporary)
            _place(temporary, path, own)
            _sync_folder(path.parent)


def _place(new: Path, path: Path, own: OwnDirectory) -> None:
    """Renames a directory to a path; what it replaces has the new one's name then.

    Another process may do the same at any moment: who comes last wins, and nothing is mixed.
    """
    while True:
        try:
            os.rename(new, path)  # where nothing is, or an empty directory
            return
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
        check_directory(path, own)
        try:
            with contextlib.suppress(PermissionError):  # of somebody else's directory
                os.chmod(new, stat.S_IMODE(os.lstat(path).st_mode))
            _swap(new, path, own)
            break
        except FileNotFoundError:
            continue  # another process has just moved it away
    with contextlib.suppress(FileNotFoundError):  # where another process has cleaned up
        if any(own.has_no(name) for name in os.listdir(new)):  # since it was looked at
            _swap(new, path, own)
            check_directory(path, own)


def _swap(new: Path, old: Path, own: OwnDirectory) -> None:
    """Puts `new` in the place of the directory `old`, and `old` under the name of `new`."""
    try:
        _exchange(new, old)
    except FileNotFoundError:
        raise
    except (OSError, AttributeError):  # not Linux, or a file system without RENAME_EXCHANGE
        _swap_in_steps(new, old, own)


def _swap_in_steps(new: Path, old: Path, own: OwnDirectory) -> None:
    aside = temporary_name(old)
    with opened(old) as descriptor:
        try_lock(descriptor)  # so that nobody takes it for a leftover
        os.rename(old, aside)
        try:
            os.rename(new, old)
        except BaseException as error:
            with contextlib.suppress(OSError):
                os.rename(aside, old)
            if isinstance(error, OSError) and error.errno in _TAKEN:
                remove(aside, own.files)  # where it is still: another process has put its own there
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from error
            raise
        with contextlib.suppress(FileNotFoundError):  # of tipl's own, which another has removed
            os.rename(aside, new)


def _exchange(first: Path, second: Path) -> None:
    """Exchanges two names in one step, so that neither is vacant at any moment (renameat2)."""
    here, rename_exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of <linux/fs.h>
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(here, os.fsencode(first), here, os.fsencode(second), rename_exchange) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
