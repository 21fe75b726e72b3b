"""What the bytes of sealed files are: JSON and safetensors, each with a hash of the whole.

Nothing here opens a file: see `tipl.core.storage`.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tipl.core.arrays import Array
from tipl.errors import TiplError, shown

MAX_JSON_BYTES, MAX_HEADER_BYTES = 4 << 20, 1 << 20
"""Of a JSON file, and of the header of a safetensors file: many times what any of ours has."""

MAX_CONTAINERS = 200_000
"""Lists and objects in a JSON file: each takes many times the memory of its two bytes."""

_LONG_NUMBER = re.compile(r"\d{309}")
_MAYBE_LONG = re.compile(r"\d{7}")  # in every 44th character of a text with such a number
METADATA_KEY = "tipl"  # a single key, because safetensors keeps metadata keys in no stable order
# in the order in which safetensors puts arrays of different dtypes into a file
DTYPES = {
    "U64": "uint64", "I64": "int64", "F64": "float64", "F32": "float32", "U32": "uint32",
    "I32": "int32", "F16": "float16", "U16": "uint16", "I16": "int16", "I8": "int8", "U8": "uint8",
    "BOOL": "bool",
}  # fmt: skip

ArraySpecs = dict[str, tuple[str, tuple[int, ...]]]
"""Dtype and shape of arrays, by name."""


def canonical(data: Any) -> bytes:
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


def parsed(text: str) -> Any:
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
    return hashlib.sha256(canonical(data)).hexdigest()


def json_bytes(data: Mapping[str, Any]) -> bytes:
    """The bytes of a JSON file: indented, with sorted keys, and the hash of the rest at its end.

    Raises:
        TiplError: the data is not JSON, or more than is read back.
    """
    plain = canonical(data)
    sealed = with_hash(json.loads(plain), hashlib.sha256(plain).hexdigest())
    written = (json.dumps(sealed, indent=2) + "\n").encode()
    if len(written) > MAX_JSON_BYTES or containers(written) > MAX_CONTAINERS:
        raise TiplError(
            f"{len(written):,} bytes of JSON were given to store, with {containers(written):,} "
            f"lists and objects; expected at most {MAX_JSON_BYTES:,} and {MAX_CONTAINERS:,}, which "
            "are read back: store less at once, or numbers as arrays"
        )
    return written


def containers(data: bytes) -> int:
    """At least as many as there are lists and objects in JSON."""
    return data.count(b"[") + data.count(b"{")


def tensor_bytes(tensors: Mapping[str, Array], metadata: Mapping[str, Any]) -> bytes:
    """The bytes of a safetensors file of arrays and metadata, with the hash of both.

    Raises:
        TiplError: an array is of another dtype, the metadata is not JSON, or more than is read
            back.
    """
    # C-contiguous and little-endian, as the format wants it (ascontiguousarray would lose 0-d)
    arrays = {name: np.asarray(tensors[name], order="C") for name in sorted(tensors)}
    specs = {name: (array.dtype.name, array.shape) for name, array in arrays.items()}
    if odd := [name for name in specs if specs[name][0] not in DTYPES.values()]:
        raise TiplError(
            f"the array {odd[0]} of {specs[odd[0]][0]} was given to store; expected one of "
            f"{', '.join(DTYPES.values())}"
        )
    sealed = canonical(with_hash(metadata, digest_of(metadata, specs, arrays.values())))
    # not by safetensors' own `save`, of which another version may order arrays in another way
    header = header_of(specs, sealed)
    if len(header) > MAX_HEADER_BYTES:
        raise TiplError(
            f"{len(arrays):,} arrays were given to store, with {len(sealed):,} bytes about them; "
            f"expected a header of at most {MAX_HEADER_BYTES:,} bytes, which is read back: store "
            "fewer arrays in a file, and less about them"
        )
    ordered = (arrays[name].tobytes() for name in _file_order(specs))
    return b"".join((len(header).to_bytes(8, "little"), header, *ordered))


def digest_of(metadata: Mapping[str, Any], specs: ArraySpecs, arrays: Iterable[Array]) -> str:
    """SHA-256 of metadata and of arrays, which are given in the order of their sorted names."""
    names = [[name, *specs[name]] for name in sorted(specs)]
    digest = hashlib.sha256(canonical({"metadata": metadata, "tensors": names}))
    for array in arrays:
        digest.update(array.data)
    return digest.hexdigest()


def _file_order(arrays: ArraySpecs) -> list[str]:
    """The names of arrays as safetensors orders them: the widest first, so that all are aligned."""
    order = list(DTYPES.values())
    return sorted(arrays, key=lambda name: (order.index(arrays[name][0]), name))


def header_of(arrays: ArraySpecs, sealed: bytes) -> bytes:
    """The header of a safetensors file of arrays, with its metadata."""
    dtypes = {name: key for key, name in DTYPES.items()}
    header: dict[str, Any] = {"__metadata__": {METADATA_KEY: sealed.decode()}}
    end = 0
    for name in _file_order(arrays):
        dtype, shape = arrays[name]
        start, end = end, end + math.prod(shape) * np.dtype(dtype).itemsize
        header[name] = {"dtype": dtypes[dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return text + b" " * (-len(text) % 8)


def with_hash(content: Mapping[str, Any], digest: str) -> dict[str, Any]:
    """The content and its digest, as a file has them; a TiplError if it has one already."""
    if "sha256" in content:
        raise TiplError(
            f"cannot store {shown(content)}: `sha256` is the file's own; use another name"
        )
    return {**content, "sha256": digest}


def without_hash(sealed: Any) -> dict[str, Any]:
    """The content of what a file has; a ValueError if there is no hash in it."""
    if not isinstance(sealed, dict) or "sha256" not in sealed:
        raise ValueError("it has no hash, so it was not written by tipl")
    return {key: value for key, value in sealed.items() if key != "sha256"}
