"""What the system refuses, in one sentence each: which path, why, and what to do."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tipl.core.addresses import address_of, is_address
from tipl.errors import TiplError

_ADVICE = {
    errno.ENOENT: "create the folder first, or check the spelling",
    errno.ENOTDIR: "a part of the path is a file: choose another path",
    errno.EISDIR: "this is a folder: give the path of a file",
    errno.EEXIST: "something else has that name: choose another path",
    errno.EACCES: "choose a path that you may use, or change its permissions",
    errno.EPERM: "choose a path that you may use, or change its permissions",
    errno.ELOOP: "nothing is written through links: choose another path, or remove the link",
    errno.EROFS: "the disk is read-only: choose another one",
    errno.ENOSPC: "free some space on the disk, then run the same command again",
    errno.EDQUOT: "your disk quota is used up: free some space, then run the same command again",
}

CANNOT = {errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF}
"""What file systems say that know no locks of such files, or that cannot sync folders."""


def refusal(error: Exception) -> str | None:
    """Why the system refuses something, such as a path; None if the error is of another kind."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, ValueError) and "embedded null" in str(error):
        return "a NUL character is no part of any path"
    if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop"):  # of pathlib
        return os.strerror(errno.ELOOP)
    return "it cannot be written in UTF-8" if isinstance(error, UnicodeEncodeError) else None


@contextmanager
def explained(action: str, path: Path) -> Iterator[None]:
    """Turns what the system refuses into a TiplError that names the path and says what to do.

    An address is refused: what takes one does not ask the system for it.
    """
    if is_address(path):
        raise TiplError(
            f"cannot {action} {address_of(path)} here: an address is for datasets, models, "
            "policies, forecasts and results that are read, or written whole; give a path on this "
            "machine, and copy what is there with `tipl paths copy`"
        )
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        reason = refusal(error)
        if reason is None:
            raise
        advice = _ADVICE.get(
            getattr(error, "errno", 0) or 0, "check the path and the disk, then try again"
        )
        raise TiplError(f"cannot {action} {path}: {reason}; {advice}") from error
