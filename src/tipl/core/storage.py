"""The two formats that hold everything: JSON and safetensors, each with a hash of the whole.

JSON is indented and ends in the SHA-256 of its content; a safetensors file has one metadata entry,
`tipl`, which is JSON with the SHA-256 of arrays and metadata. Both are canonical: equal content
gives equal bytes, so a file with other bytes than its content would be written as is damaged.
This module and `tipl.core.atomic` are the only ones that write files. What reads takes a path and
what the file is, `expected`, for the message when there is none; it believes nothing before it has
seen that the file is a regular one of a possible size. What files say is the matter of
`tipl.core.schemas`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from tipl.core.arrays import Array
from tipl.core.atomic import write_bytes_atomically
from tipl.core.ownership import OwnFile
from tipl.core.regular_files import open_regular, read_regular
from tipl.core.system_errors import explained
from tipl.errors import TiplError, shown

MAX_JSON_BYTES, MAX_HEADER_BYTES = 4 << 20, 1 << 20
"""Of a JSON file, and of the header of a safetensors file: many times what any of ours has."""

MAX_CONTAINERS = 200_000
"""Lists and objects in a JSON file: each takes many times the memory of its two bytes."""

_LONG_NUMBER = re.compile(r"\d{309}")
_MAYBE_LONG = re.compile(r"\d{7}")  # in every 44th character of a text with such a number
_METADATA_KEY = "tipl"  # a single key, because safetensors keeps metadata keys in no stable order
# in the order in which safetensors puts arrays of different dtypes into a file
_DTYPES = {
    "U64": "uint64", "I64": "int64", "F64": "float64", "F32": "float32", "U32": "uint32",
    "I32": "int32", "F16": "float16", "U16": "uint16", "I16": "int16", "I8": "int8", "U8": "uint8",
    "BOOL": "bool",
}  # fmt: skip

ArraySpecs = dict[str, tuple[str, tuple[int, ...]]]
"""Dtype and shape of arrays, by name."""

HeaderCheck = Callable[[dict[str, Any], ArraySpecs], object]
"""Raises a TiplError if a file's metadata, whose hash has not been checked yet, or the dtypes and
shapes of its arrays are not as they should be: so that nothing is read then."""


def _canonical(data: Any) -> bytes:
    """JSON with sorted keys and no spaces: equal data, equal bytes."""
    try:
        text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
        _check_text(text)
    except (RecursionError, TypeError, ValueError) as error:
        raise TiplError(
            f"cannot store {reprlib.repr(data)} as JSON: {error}; use finite numbers, strings, "
            "lists and dictionaries"
        ) from error
    return text.encode()


def _parsed(text: str) -> Any:
    """What JSON says, of texts and numbers with which one can go on; or a ValueError."""
    _check_text(text)
    return json.loads(text)


def _check_text(text: str) -> None:
    """Raises a ValueError if JSON has halves of characters, or integers larger than any float."""
    if "\\ud" in text or "\\uD" in text:
        json.dumps(json.loads(text), ensure_ascii=False).encode()
    if _MAYBE_LONG.search(text[::44]) and _LONG_NUMBER.search(text):
        raise ValueError("it has a number of more than 308 digits")


def content_digest(data: Mapping[str, Any]) -> str:
    """SHA-256 of the data as canonical JSON: the `sha256` that `write_json` puts in the file."""
    return hashlib.sha256(_canonical(data)).hexdigest()


def _json_bytes(data: Mapping[str, Any]) -> bytes:
    canonical = _canonical(data)
    sealed = _with_hash(json.loads(canonical), hashlib.sha256(canonical).hexdigest())
    written = (json.dumps(sealed, indent=2) + "\n").encode()
    if len(written) > MAX_JSON_BYTES or _containers(written) > MAX_CONTAINERS:
        raise TiplError(
            f"{len(written):,} bytes of JSON were given to store, with {_containers(written):,} "
            f"lists and objects; expected at most {MAX_JSON_BYTES:,} and {MAX_CONTAINERS:,}, which "
            "are read back: store less at once, or numbers as arrays"
        )
    return written


def _containers(data: bytes) -> int:
    return data.count(b"[") + data.count(b"{")


def _tensor_bytes(tensors: Mapping[str, Array], metadata: Mapping[str, Any]) -> bytes:
    # C-contiguous and little-endian, as the format wants it (ascontiguousarray would lose 0-d)
    arrays = {name: np.asarray(tensors[name], order="C") for name in sorted(tensors)}
    specs = {name: (array.dtype.name, array.shape) for name, array in arrays.items()}
    if odd := [name for name in specs if specs[name][0] not in _DTYPES.values()]:
        raise TiplError(
            f"the array {odd[0]} of {specs[odd[0]][0]} was given to store; expected one of "
            f"{', '.join(_DTYPES.values())}"
        )
    sealed = _canonical(_with_hash(metadata, _digest(metadata, specs, arrays.values())))
    # not by safetensors' own `save`, of which another version may order arrays in another way
    header = _header(specs, sealed)
    if len(header) > MAX_HEADER_BYTES:
        raise TiplError(
            f"{len(arrays):,} arrays were given to store, with {len(sealed):,} bytes about them; "
            f"expected a header of at most {MAX_HEADER_BYTES:,} bytes, which is read back: store "
            "fewer arrays in a file, and less about them"
        )
    ordered = (arrays[name].tobytes() for name in _file_order(specs))
    return b"".join((len(header).to_bytes(8, "little"), header, *ordered))


def _digest(metadata: Mapping[str, Any], specs: ArraySpecs, arrays: Iterable[Array]) -> str:
    """SHA-256 of metadata and of arrays, which are given in the order of their sorted names."""
    names = [[name, *specs[name]] for name in sorted(specs)]
    digest = hashlib.sha256(_canonical({"metadata": metadata, "tensors": names}))
    for array in arrays:
        digest.update(array.data)
    return digest.hexdigest()


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
    write_bytes_atomically(path, _json_bytes(data), own=own)


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
    write_bytes_atomically(path, _tensor_bytes(tensors, metadata), sync, own)


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
    path = Path(path)
    data = read_regular(path, expected, MAX_JSON_BYTES)
    with _damage_named(path):
        if _containers(data) > MAX_CONTAINERS:
            raise ValueError(f"it has more than {MAX_CONTAINERS:,} lists and objects")
        content = _without_hash(_parsed(data.decode()))
        if _json_bytes(content) != data:
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
        self._sealed = _parsed(entries.get(_METADATA_KEY, "null"))
        self.metadata = _without_hash(self._sealed)
        slices = {name: handle.get_slice(name) for name in handle.keys()}  # noqa: SIM118
        self.arrays: ArraySpecs = {
            name: (_DTYPES[part.get_dtype()], tuple(part.get_shape()))
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
        digest = _digest(self.metadata, self.arrays, arrays)
        sealed = _with_hash(self.metadata, digest)
        if sealed != self._sealed or self._header != _header(self.arrays, _canonical(sealed)):
            raise ValueError("its content does not have the hash that it was written with")


def _file_order(arrays: ArraySpecs) -> list[str]:
    """The names of arrays as safetensors orders them: the widest first, so that all are aligned."""
    order = list(_DTYPES.values())
    return sorted(arrays, key=lambda name: (order.index(arrays[name][0]), name))


def _header(arrays: ArraySpecs, sealed: bytes) -> bytes:
    """The header of a safetensors file of arrays, with its metadata."""
    dtypes = {name: key for key, name in _DTYPES.items()}
    header: dict[str, Any] = {"__metadata__": {_METADATA_KEY: sealed.decode()}}
    end = 0
    for name in _file_order(arrays):
        dtype, shape = arrays[name]
        start, end = end, end + math.prod(shape) * np.dtype(dtype).itemsize
        header[name] = {"dtype": dtypes[dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return text + b" " * (-len(text) % 8)


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
    path = Path(path)
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


def _with_hash(content: Mapping[str, Any], digest: str) -> dict[str, Any]:
    if "sha256" in content:
        raise TiplError(
            f"cannot store {shown(content)}: `sha256` is the file's own; use another name"
        )
    return {**content, "sha256": digest}


def _without_hash(sealed: Any) -> dict[str, Any]:
    if not isinstance(sealed, dict) or "sha256" not in sealed:
        raise ValueError("it has no hash, so it was not written by tipl")
    return {key: value for key, value in sealed.items() if key != "sha256"}


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """Turns whatever a parser raises for bytes that it cannot read into a TiplError."""
    try:
        yield
    except (safetensors.SafetensorError, LookupError, RecursionError, ValueError) as error:
        raise TiplError(
            f"{path} is damaged: {error}; restore it from a copy, or delete it and make it again"
        ) from error
