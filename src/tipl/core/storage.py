"""The two formats that hold everything: JSON and safetensors, each with a hash of the whole.

JSON is indented and ends in the SHA-256 of its content; a safetensors file has one metadata entry,
`tipl`, which is JSON with the SHA-256 of arrays and metadata. Both are canonical: equal content
gives equal bytes, so a file with other bytes than its content would be written as is damaged.
This module and `tipl.core.atomic` are the only ones that write files. What reads takes a path and
what the file is, `expected`, for the message when there is none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from tipl.core.arrays import Array
from tipl.core.atomic import explained, write_bytes_atomically
from tipl.errors import TiplError

_METADATA_KEY = "tipl"  # a single key, because safetensors keeps metadata keys in no stable order
_DTYPES = {"BOOL": "bool"} | {
    f"{kind[0].upper()}{bits}": f"{kind}{bits}"
    for kind in ("float", "int", "uint")
    for bits in (8, 16, 32, 64)
    if (kind, bits) != ("float", 8)
}


def _canonical(data: Any) -> bytes:
    """JSON with sorted keys and no spaces: equal data, equal bytes."""
    try:
        text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise TiplError(
            f"cannot store {data!r} as JSON: {error}; use finite numbers, strings, lists and "
            "dictionaries"
        ) from error
    return text.encode()


def content_digest(data: Mapping[str, Any]) -> str:
    """SHA-256 of the data as canonical JSON: the `sha256` that `write_json` puts in the file."""
    return hashlib.sha256(_canonical(data)).hexdigest()


def _json_bytes(data: Mapping[str, Any]) -> bytes:
    sealed = _with_hash(json.loads(_canonical(data)), content_digest(data))
    return (json.dumps(sealed, indent=2) + "\n").encode()


def _tensor_bytes(tensors: Mapping[str, Array], metadata: Mapping[str, Any]) -> bytes:
    # C-contiguous and little-endian, as the format wants it (ascontiguousarray would lose 0-d)
    arrays = {name: np.asarray(tensors[name], order="C") for name in sorted(tensors)}
    names = [[name, array.dtype.name, array.shape] for name, array in arrays.items()]
    digest = hashlib.sha256(_canonical({"metadata": metadata, "tensors": names}))
    for array in arrays.values():
        digest.update(array.data)
    sealed = _with_hash(metadata, digest.hexdigest())
    return safetensors.numpy.save(arrays, {_METADATA_KEY: _canonical(sealed).decode()})


def write_json(path: str | Path, data: Mapping[str, Any]) -> None:
    """Writes indented JSON with sorted keys, followed by `"sha256"`, the hash of the rest.

    Raises:
        TiplError: the data is not JSON, or the file cannot be written.
    """
    write_bytes_atomically(path, _json_bytes(data))


def write_tensors(
    path: str | Path, tensors: Mapping[str, Array], metadata: Mapping[str, Any], sync: bool = True
) -> None:
    """Writes arrays and JSON metadata as a safetensors file with a hash of both.

    Without `sync` nobody waits until it is on the disk, as `write_bytes_atomically` says.

    Raises:
        TiplError: the metadata is not JSON, or the file cannot be written.
    """
    write_bytes_atomically(path, _tensor_bytes(tensors, metadata), sync)


def read_json(path: str | Path, expected: str = "a JSON file of tipl") -> dict[str, Any]:
    """Reads what `write_json` wrote, without the hash.

    Raises:
        TiplError: the file is missing, or any of its bytes has changed.
    """
    path = Path(path)
    data = _read_bytes(path, expected)
    with _damage_named(path):
        sealed = json.loads(data.decode())
        content = _without_hash(sealed)
        if _json_bytes(content) != data:
            raise ValueError("its content does not have the hash that it was written with")
    return content


def read_tensors(
    path: str | Path, expected: str = "a safetensors file of tipl"
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Reads the arrays and the metadata that `write_tensors` wrote, without the hash.

    Raises:
        TiplError: the file is missing, or any of its bytes has changed.
    """
    with open_tensors(path, expected) as file:
        metadata = file.metadata
    data = _read_bytes(Path(path), expected)
    with _damage_named(Path(path)):
        tensors = dict(sorted(safetensors.numpy.load(data).items()))
        if _tensor_bytes(tensors, metadata) != data:
            raise ValueError("its content does not have the hash that it was written with")
    return tensors, metadata


def check_tensors(path: str | Path) -> str | None:
    """What is wrong with a file that `write_tensors` wrote, of which every byte counts, or None."""
    try:
        read_tensors(path)
    except TiplError as error:
        return str(error)
    return None


class TensorFile:
    """An open safetensors file, of which slices can be read without reading the rest.

    Attributes:
        metadata: what `write_tensors` was given; its hash has not been checked.
        arrays: dtype and shape of each array by name.
    """

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        entries = handle.metadata() or {}
        self.metadata = _without_hash(json.loads(entries.get(_METADATA_KEY, "null")))
        slices = {name: handle.get_slice(name) for name in handle.keys()}  # noqa: SIM118
        self.arrays = {
            name: (_DTYPES[part.get_dtype()], tuple(part.get_shape()))
            for name, part in slices.items()
        }

    def read(self, name: str, *index: slice) -> Array:
        """A copy of a slice (of step 1) of an array; without an index, of the whole."""
        return np.asarray(
            self._handle.get_slice(name)[index] if index else self._handle.get_tensor(name)
        )


@contextmanager
def open_tensors(
    path: str | Path, expected: str = "a safetensors file of tipl"
) -> Iterator[TensorFile]:
    """Opens a file that `write_tensors` wrote for reading slices by memory map.

    Only the header is checked: `read_tensors` and `check_tensors` check every byte.

    Raises:
        TiplError: the file is missing, cut off, or not one of tipl.
    """
    path = Path(path)
    _read_bytes(path, expected, 0)  # explains what safetensors would not
    with _damage_named(path):
        handle = safetensors.safe_open(path, framework="numpy")
        file = TensorFile(handle)
    with handle:
        yield file


def _with_hash(content: Mapping[str, Any], digest: str) -> dict[str, Any]:
    if "sha256" in content:
        raise TiplError(f"cannot store {content!r}: `sha256` is the file's own; use another name")
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


def _read_bytes(path: Path, expected: str, count: int = -1) -> bytes:
    with explained("read", path):
        if not path.exists():
            raise TiplError(
                f"there is no {path}, but {expected} is expected there; check the spelling, or "
                "make it first"
            )
        with path.open("rb") as file:
            return file.read(count)
