"""Object stores: addresses such as `s3://bucket/paths`, where a directory or a file may be.

An address goes through the package as any path does (`tipl.core.addresses`), and only the doors
for reading and writing come here. What is read is copied to a cache first, whole and checked; what
is written is sent as whole objects under their final names. No network is touched unless somebody
gives an address. Objects in the cache are named by address, size and version, so that none of them
ever changes.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from tipl.core.addresses import LIBRARIES, address_of, is_address, located
from tipl.core.system_errors import explained
from tipl.core.unfinished import held, new_file
from tipl.errors import TiplError, shown

Result = TypeVar("Result")

TRIES, PAUSE = 4, 0.25
"""How often something is tried, and seconds before the second try; later ones wait for longer."""

CONNECT, ANSWER = 5.0, 15.0
"""Seconds until a store has to be reached, and between two signs of life of it."""

PATIENCE, SLOWEST = 30.0, 100_000
"""Seconds that a try may take, and bytes in each second that are sent at least on top of it."""

_listed: dict[str, dict[str, Any]] = {}
"""What is known of the objects in each folder that has been listed."""

_intact: set[Path] = set()
"""Copies in the cache that this process has looked at whole."""


def cache_directory() -> Path:
    """Where copies of objects are kept: `TIPL_CACHE`, or `tipl` in the user's folder for caches.

    Raises:
        TiplError: it cannot be made.
    """
    given, home = os.environ.get("TIPL_CACHE"), os.environ.get("XDG_CACHE_HOME")
    try:
        folder = Path(given) if given else Path(home or Path.home() / ".cache") / "tipl"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:
        raise TiplError(
            f"there is no folder for copies of what stores hold ({error}); name one that can be "
            "written to in the environment variable TIPL_CACHE"
        ) from error
    return folder


def working_copy(path: Path) -> Path:
    """Where on this machine what will be sent to an address is made, and is found again."""
    address = address_of(path)
    folder = cache_directory() / "unsent" / hashlib.sha256(address.encode()).hexdigest()[:16]
    with explained("make", folder):
        folder.mkdir(parents=True, exist_ok=True)
    return folder / path.name


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder for what is on its way to a store, which goes at the block's end."""
    with tempfile.TemporaryDirectory(prefix="sending-", dir=cache_directory()) as folder:
        yield Path(folder)


# --- reading ---------------------------------------------------------------------------------


def reading(path: Path) -> contextlib.AbstractContextManager[None]:
    """`explained` for a path on this machine; of an address, what goes wrong is explained here."""
    return contextlib.nullcontext() if is_address(path) else explained("read", path)


def exists(path: Path) -> bool:
    """Whether there is a file at a path or an address."""
    path = located(path)
    if not is_address(path):
        with explained("read", path):
            return path.exists()
    try:
        _known(path, fresh=True)
    except FileNotFoundError:
        return False
    return True


def names_in(folder: Path) -> list[str]:
    """The names of what is in a folder or under an address; none where there is nothing."""
    folder = located(folder)
    if not is_address(folder):
        with explained("read", folder):
            return sorted(os.listdir(folder)) if folder.exists() else []
    address = address_of(folder)
    try:
        found = _tried("list", address, lambda: _system(address).ls(address, detail=True))
    except FileNotFoundError:
        found = []
    names = {str(one["name"]).rstrip("/").rpartition("/")[2]: one for one in found}
    _listed[address] = names
    return sorted(names)


def size_of(path: Path) -> int:
    """Bytes of a file; 0 if there is none."""
    path = located(path)
    if not is_address(path):
        return path.stat().st_size if path.exists() else 0  # of no file in a folder that is none
    try:
        return int(_known(path)["size"])
    except FileNotFoundError:
        return 0


def fetched(path: Path, check: Callable[[Path], object] | None = None) -> Path:
    """Where the content of a file is on this machine: of an address, a copy in the cache.

    Args:
        path: the file.
        check: raises a TiplError if a copy is damaged; then it is fetched again.

    Raises:
        FileNotFoundError: there is no such object.
        TiplError: it cannot be fetched whole.
    """
    path = located(path)
    if not is_address(path):
        return path
    address, known = address_of(path), _known(path)
    copy = _place(address, known)
    if copy not in _intact and copy.exists() and not _is_intact(copy, int(known["size"]), check):
        copy.unlink(missing_ok=True)
    if not copy.exists():
        _tried("read", address, lambda: _fetch(address, int(known["size"]), copy, check))
        _intact.add(copy)
    return copy


def _is_intact(copy: Path, size: int, check: Callable[[Path], object] | None) -> bool:
    """Whether what an earlier process has fetched is as it was."""
    try:
        if check is not None:
            check(copy)
    except TiplError:
        return False
    _intact.add(copy)
    return copy.stat().st_size == size


def _known(path: Path, fresh: bool = False) -> dict[str, Any]:
    """What a store says of an object, without its content; FileNotFoundError if there is none."""
    folder, _, name = address_of(path).rpartition("/")
    if not fresh and name in _listed.get(folder, {}):
        return dict(_listed[folder][name])
    address = address_of(path)
    found = _tried("read", address, lambda: _system(address).info(address))
    if found["type"] != "file":
        raise FileNotFoundError(address)
    return dict(found)


def _place(address: str, known: dict[str, Any]) -> Path:
    """Where the copy of an object is, or will be."""
    versions = ("ETag", "etag", "md5Hash", "blob_id", "mtime", "LastModified", "created")
    version = next((str(known[name]) for name in versions if known.get(name)), "")
    name = hashlib.sha256(f"{address}\n{known['size']}\n{version}".encode()).hexdigest()
    folder = cache_directory() / "objects" / name[:2]
    with explained("make", folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder / (name + Path(address).suffix)


def _fetch(address: str, size: int, copy: Path, check: Callable[[Path], object] | None) -> None:
    """Copies an object to the cache, where it appears whole and intact or not at all."""
    with held(copy, new_file) as (temporary, descriptor):
        _copy(address, temporary, size)
        found = os.stat(temporary).st_size
        if found != size:
            raise ConnectionError(f"{found:,} of {size:,} bytes came")
        if check is not None:
            try:
                check(temporary)
            except TiplError as error:
                raise _DamagedError from error
        os.fsync(descriptor)
        os.replace(temporary, copy)


class _DamagedError(ConnectionError):
    """What has come is not what was written."""

    def __str__(self) -> str:
        return "what came does not have the hash that it was written with"


# --- writing ---------------------------------------------------------------------------------


def send(file: Path, path: Path) -> None:
    """Puts a file to an address as one object; it is there whole afterwards, or as it was before.

    Raises:
        TiplError: it cannot be sent.
    """
    address, size = address_of(path), file.stat().st_size

    def sent() -> None:
        system = _system(address)
        _within(system, system.put_file, "_put_file", size, str(file), address)
        if not _is_same(file, system.info(address)):
            with held(_place(address, {"size": size}), new_file) as (temporary, _):
                _copy(address, temporary, size)
                if temporary.read_bytes() != file.read_bytes():
                    system.rm_file(address)  # nobody is to read it
                    raise ConnectionError("the store has other bytes than were sent")

    _tried("write", address, sent)
    _listed.pop(address.rpartition("/")[0], None)


def is_sent(file: Path, path: Path) -> bool:
    """Whether an address has the bytes of a file; they are fetched if the store cannot tell."""
    try:
        known = _known(path)
        if _is_same(file, known) or int(known["size"]) != file.stat().st_size:
            return int(known["size"]) == file.stat().st_size
        return fetched(path).read_bytes() == file.read_bytes()
    except FileNotFoundError:
        return False


def _is_same(file: Path, known: dict[str, Any]) -> bool:
    if int(known["size"]) != file.stat().st_size:
        return False
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, lambda: hashlib.md5(usedforsecurity=False))
    return str(known.get("ETag", "")).strip('"') == digest.hexdigest()


# --- the store -------------------------------------------------------------------------------


def _copy(address: str, target: Path, size: int) -> None:
    system = _system(address)
    _within(system, system.get_file, "_get_file", size, address, str(target))


def _within(system: Any, plain_call: Any, name: str, size: int, *args: str) -> None:
    """Copies a file, in time if the store's library can be told how long it may take."""
    if not getattr(system, "async_impl", False):
        plain_call(*args)
        return
    from fsspec.asyn import sync

    args = tuple(system._strip_protocol(one) for one in args)
    sync(system.loop, getattr(system, name), *args, timeout=PATIENCE + size / SLOWEST)


def _system(address: str) -> Any:
    """What fsspec has for an address."""
    return _system_of(address.partition(":")[0])


@functools.cache
def _system_of(kind: str) -> Any:
    options: dict[str, Any] = {}
    if kind == "s3":
        own = {"connect_timeout": CONNECT, "read_timeout": ANSWER, "retries": {"max_attempts": 1}}
        options = {"config_kwargs": own}
    try:
        import fsspec

        system = fsspec.filesystem(kind, use_listings_cache=False, **options)
    except ImportError as error:
        raise TiplError(
            f"an address of the kind {kind}:// was given, but {error.name or error} is not "
            f"installed: {_installation(kind)}"
        ) from error
    if kind == "s3":
        system.retries = 1  # tries are counted here
    return system


def _installation(kind: str) -> str:
    if kind in ("s3", "memory"):
        return "pip install 'tipl[remote]'"
    return f"pip install 'tipl[remote]' {LIBRARIES[kind]}"


def _tried(action: str, address: str, call: Callable[[], Result]) -> Result:
    """What a call returns; one that fails for no reason that stays is tried again.

    Raises:
        FileNotFoundError: there is no such object.
        TiplError: it has failed for another reason, in all tries.
    """
    for attempt in range(TRIES):
        if attempt:
            time.sleep(PAUSE * 2 ** (attempt - 1))
        try:
            return call()
        except TiplError:
            raise
        except Exception as error:  # libraries of stores raise what they like
            last = error
        if isinstance(last, FileNotFoundError) and "specified bucket" not in str(last):
            raise last
        if advice := _what_stays(last, address):
            raise TiplError(f"cannot {action} {address}: {_words(last)}; {advice}") from last
    raise TiplError(
        f"cannot {action} {address}: {_words(last)}, in {TRIES} tries; check the connection and "
        "the store, then run the same command again"
    ) from last


def _words(error: BaseException) -> str:
    return str(error).rstrip(".") or type(error).__name__


def _what_stays(error: Exception, address: str) -> str:
    """What to do about an error that another try does not mend; nothing of others."""
    name = type(error).__name__
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return "free some space where copies are kept, or name another place as TIPL_CACHE"
    if isinstance(error, FileNotFoundError):
        return "check the spelling, or make the bucket first"
    if "Credential" in name or "ProfileNotFound" in name:
        return (
            "give credentials as the libraries of stores take them, such as AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY in the environment"
        )
    if isinstance(error, PermissionError) or "Denied" in name:
        return "ask whoever owns the store, or use other credentials"
    if isinstance(error, ValueError | TypeError | NotImplementedError):
        return f"give an address of that kind as it is meant, unlike {shown(address)}"
    return ""
