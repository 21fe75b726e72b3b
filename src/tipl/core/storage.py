"""The two formats that hold everything: JSON and safetensors, each with a hash of the whole.

JSON is indented and ends in the SHA-256 of its content; a safetensors file has one metadata entry,
`tipl`, which is JSON with the SHA-256 of arrays and metadata. Both are canonical: equal content
gives equal bytes (`tipl.core.sealed`), so a file with other bytes than its content would be written
as is damaged.
This module and `tipl.core.atomic` are the only ones that write files. What reads takes a path and
what the file is, `expected`, for the message when there is none; it believes nothing before it has
seen that the file is a regular one of a possible size. What files say is the matter of
`tipl.core.schemas`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from tipl.core.arrays import Array
from tipl.core.atomic import write_bytes_atomically
from tipl.core.ownership import OwnFile
from tipl.core.regular_files import on_this_machine, open_regular, read_regular
from tipl.core.sealed import (
    DTYPES,
    MAX_CONTAINERS,
    MAX_HEADER_BYTES,
    MAX_JSON_BYTES,
    METADATA_KEY,
    canonical,
    containers,
    digest_of,
    header_of,
    json_bytes,
    parsed,
    tensor_bytes,
    with_hash,
    without_hash,
)
from tipl.core.sealed import ArraySpecs as ArraySpecs
from tipl.core.sealed import content_digest as content_digest
from tipl.core.system_errors import explained
from tipl.errors import TiplError

HeaderCheck = Callable[[dict[str, Any], ArraySpecs], object]
"""Raises a TiplError if a file's metadata, whose hash has not been checked yet, or the dtypes and
shapes of its arrays are not as they should be: so that nothing is read then."""


def write_json(path: str | Path, data: Mapping[str, Any], own: OwnFile | None = None) -> None:
    """Writes indented JSON with sorted keys, followed by `"sha256"`, the hash of the rest.

    What is replaced is a file of the kind `own`, by default an intact one that has some of the same
    keys.

    Raises:
        TiplError: the data is not JSON, something else has that name, or the file cannot be
            written.
    """

    def alike(found: Mapping[str, Any]) -> bool:
        return bool(found.keys() & data.keys())

    own = own or own_json("a JSON file of the kind", alike)
    write_bytes_atomically(path, json_bytes(data), own=own)


def write_tensors(
    path: str | Path,
    tensors: Mapping[str, Array],
    metadata: Mapping[str, Any],
    sync: bool = True,
    own: OwnFile | None = None,
) -> None:
    """Writes arrays and JSON metadata as a safetensors file with a hash of both.

    What is replaced is a file of the kind `own`, by default an intact one of the same `kind`.
    Without `sync` nobody waits until it is on the disk, as `write_bytes_atomically` says.

    Raises:
        TiplError: the metadata is not JSON, something else has that name, or the file cannot be
            written.
    """
    own = own or own_tensors(metadata.get("kind"))
    write_bytes_atomically(path, tensor_bytes(tensors, metadata), sync, own)


def own_json(what: str, accepts: Callable[[dict[str, Any]], bool]) -> OwnFile:
    """JSON files that `write_json` has written and nobody has changed, of accepted content."""
    return OwnFile(what, _unless_damaged(lambda path: accepts(read_json(path))))


def own_tensors(kind: object) -> OwnFile:
    """Files that `write_tensors` has written and nobody has changed, of a `kind`."""

    def recognises(path: Path) -> bool:
        with open_tensors(path) as file, _damage_named(path):
            file.verify()
            return bool(file.metadata.get("kind") == kind)

    return OwnFile(f"a file of {kind}", _unless_damaged(recognises))


def _unless_damaged(recognises: Callable[[Path], bool]) -> Callable[[Path], bool]:
    """Says no of files that cannot be understood; of one that cannot be read, nothing is known."""

    def recognised(path: Path) -> bool:
        try:
            return recognises(path)
        except TiplError as error:
            if isinstance(error.__cause__, OSError):
                raise
            return False

    return recognised


def read_json(path: str | Path, expected: str = "a JSON file of tipl") -> dict[str, Any]:
    """Reads what `write_json` wrote, without the hash.

    Raises:
        TiplError: the file is missing or too large, or any of its bytes has changed.
    """
    path = on_this_machine(Path(path), expected, read_json)
    data = read_regular(path, expected, MAX_JSON_BYTES)
    with _damage_named(path):
        if containers(data) > MAX_CONTAINERS:
            raise ValueError(f"it has more than {MAX_CONTAINERS:,} lists and objects")
        content = without_hash(parsed(data.decode()))
        if json_bytes(content) != data:
            raise ValueError("its content does not have the hash that it was written with")
    return content


def read_tensors(
    path: str | Path,
    expected: str = "a safetensors file of tipl",
    check: HeaderCheck | None = None,
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Reads the arrays and the metadata that `write_tensors` wrote, without the hash.

    Args:
        path: the file.
        expected: what it is, for messages.
        check: sees dtypes and shapes before an array is read.

    Raises:
        TiplError: the file is missing, any of its bytes has changed, or the check raises one.
    """
    path, tensors = Path(path), dict[str, Array]()
    with open_tensors(path, expected, check) as file, _damage_named(path):
        for name in sorted(file.arrays):
            tensors[name] = file.read(name)
        file.verify(tensors)
    return tensors, file.metadata


def verify_tensors(
    path: str | Path,
    expected: str = "a safetensors file of tipl",
    check: HeaderCheck | None = None,
) -> None:
    """Looks at every byte of a file that `write_tensors` wrote, as `read_tensors` does.

    No more than one array at a time is in memory.

    Raises:
        TiplError: what `read_tensors` would raise.
    """
    with open_tensors(path, expected, check) as file, _damage_named(Path(path)):
        file.verify()


def check_tensors(path: str | Path) -> str | None:
    """What is wrong with a file that `write_tensors` wrote, of which every byte counts, or None."""
    try:
        verify_tensors(path)
    except TiplError as error:
        return str(error)
    return None


class TensorFile:
    """An open safetensors file, of which slices can be read without reading the rest.

    Attributes:
        metadata: what `write_tensors` was given; its hash has not been checked.
        arrays: dtype and shape of each array by name.
    """

    def __init__(self, handle: Any, header: bytes) -> None:
        self._handle, self._header = handle, header
        entries = handle.metadata() or {}
        self._sealed = parsed(entries.get(METADATA_KEY, "null"))
        self.metadata = without_hash(self._sealed)
        slices = {name: handle.get_slice(name) for name in handle.keys()}  # noqa: SIM118
        self.arrays: ArraySpecs = {
            name: (DTYPES[part.get_dtype()], tuple(part.get_shape()))
            for name, part in slices.items()
        }

    def read(self, name: str, *index: slice) -> Array:
        """A copy of a slice (of step 1) of an array; without an index, of the whole."""
        return np.asarray(
            self._handle.get_slice(name)[index] if index else self._handle.get_tensor(name)
        )

    def start_of(self, name: str) -> int:
        """Where in the file the bytes of an array begin, little-endian and in C order."""
        start: int = json.loads(self._header)[name]["data_offsets"][0]
        return 8 + len(self._header) + start

    def verify(self, tensors: Mapping[str, Array] | None = None) -> None:
        """Raises a ValueError unless the file is as `write_tensors` would write its content.

        The arrays are read one after the other, unless they are given.
        """
        names = sorted(self.arrays)
        arrays = (self.read(name) for name in names)
        if tensors is not None:
            arrays = (tensors[name] for name in names)
        digest = digest_of(self.metadata, self.arrays, arrays)
        sealed = with_hash(self.metadata, digest)
        if sealed != self._sealed or self._header != header_of(self.arrays, canonical(sealed)):
            raise ValueError("its content does not have the hash that it was written with")


@contextmanager
def open_tensors(
    path: str | Path,
    expected: str = "a safetensors file of tipl",
    check: HeaderCheck | None = None,
) -> Iterator[TensorFile]:
    """Opens a file that `write_tensors` wrote for reading slices by memory map.

    Only the header is looked at, also by a `check`: `read_tensors` and `check_tensors` look at
    every byte.

    Raises:
        TiplError: the file is missing, cut off, or not one of tipl.
    """
    path = on_this_machine(Path(path), expected, verify_tensors)
    with open_regular(path, expected) as opened:
        start = opened.read(8)
        size = int.from_bytes(start, "little")
        header = opened.read(min(size, MAX_HEADER_BYTES))
        with _damage_named(path):
            if size > MAX_HEADER_BYTES:  # before safetensors takes memory for it
                raise ValueError(
                    f"its header has {size:,} bytes, and no file of tipl more than "
                    f"{MAX_HEADER_BYTES:,}"
                )
            handle = safetensors.safe_open(path, framework="numpy")
            file = TensorFile(handle, header)
        with explained("read", path):
            same = os.path.samestat(os.fstat(opened.fileno()), os.stat(path))
    if not same:  # it was replaced in between, as parts are that grow
        with handle, open_tensors(path, expected, check) as file:
            yield file
        return
    if check is not None:
        check(file.metadata, file.arrays)
    with handle:
        yield file


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """Turns whatever a parser raises for bytes that it cannot read into a TiplError."""
    try:
        yield
    except (safetensors.SafetensorError, LookupError, RecursionError, ValueError) as error:
        raise TiplError(
            f"{path} is damaged: {error}; restore it from a copy, or delete it and make it again"
        ) from error
