"""Damage to files, drawn by Hypothesis: to their bytes, to what they say, and to what they are."""

from __future__ import annotations

import contextlib
import copy
import enum
import functools
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from hypothesis import strategies as st

from tipl.core import sealed as seals
from tipl.errors import TiplError

Files = Mapping[str, bytes]
"""Contents of files by their paths, which are relative to a directory."""

Draw = Callable[[st.SearchStrategy[Any]], Any]


class Odd(enum.Enum):
    """What stands where a file or a folder is expected."""

    GONE = enum.auto()
    FOLDER = enum.auto()
    FULL_FOLDER = enum.auto()
    PIPE = enum.auto()
    SOCKET = enum.auto()
    LINK_NOWHERE = enum.auto()
    LINK_TO_ITSELF = enum.auto()
    LINK_TO_ZERO = enum.auto()
    LINK_TO_NULL = enum.auto()
    LINK_TO_FOLDER = enum.auto()
    HUGE = enum.auto()
    """the file, and after it a hole of a terabyte"""
    FORBIDDEN = enum.auto()


class Damage:
    """What is written over the files of a directory, and what it is in words.

    What is sealed by tipl is so when it is first asked for, and not while Hypothesis draws: checks
    of types draw random numbers of their own.
    """

    def __init__(self, files: Mapping[str, bytes | Odd | Callable[[], bytes]], what: str) -> None:
        self._files, self.what = files, what

    @functools.cached_property
    def files(self) -> dict[str, bytes | Odd]:
        """What is written, by the paths of the files."""
        return {name: made() if callable(made) else made for name, made in self._files.items()}

    def __repr__(self) -> str:
        return self.what

    def apply(self, directory: Path) -> None:
        """Does it to a directory that holds the files as they were."""
        for name, content in self.files.items():
            path = directory / name
            if content is not Odd.HUGE and content is not Odd.FORBIDDEN:
                remove(path)
            if isinstance(content, bytes):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            else:
                _ODD[content](path)

    def undo(self, directory: Path, files: Files) -> None:
        """Makes a directory again what it was."""
        for name in self.files:
            remove(directory / name)
        put(directory, files)


def put(directory: Path, files: Files) -> None:
    """Writes those of the files that are not there."""
    for name, content in files.items():
        path = directory / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def remove(path: Path) -> None:
    """Removes whatever is there; a link, and not what it points to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _full_folder(path: Path) -> None:
    path.mkdir()
    (path / "config.json").write_bytes(b"{}")


def _socket(path: Path) -> None:
    name = path.with_name("s")  # names of sockets are short
    with socket.socket(socket.AF_UNIX) as made:
        here = os.open(name.parent, os.O_RDONLY)
        made.bind(f"/proc/self/fd/{here}/s")
        os.close(here)
    name.rename(path)


def _huge(path: Path) -> None:
    if path.is_file():
        os.truncate(path, 1 << 40)


_ODD: dict[Odd, Callable[[Path], object]] = {
    Odd.GONE: lambda path: None,
    Odd.FOLDER: Path.mkdir,
    Odd.FULL_FOLDER: _full_folder,
    Odd.PIPE: os.mkfifo,
    Odd.SOCKET: _socket,
    Odd.LINK_NOWHERE: lambda path: path.symlink_to("nowhere"),
    Odd.LINK_TO_ITSELF: lambda path: path.symlink_to(path.name),
    Odd.LINK_TO_ZERO: lambda path: path.symlink_to("/dev/zero"),
    Odd.LINK_TO_NULL: lambda path: path.symlink_to("/dev/null"),
    Odd.LINK_TO_FOLDER: lambda path: path.symlink_to("."),
    Odd.HUGE: _huge,
    Odd.FORBIDDEN: lambda path: path.chmod(0),
}


# --- what is drawn ---------------------------------------------------------------------------


@st.composite
def damages(draw: Draw, files: Files) -> Damage:
    """Something that happens to one of the files, or to the folder of one."""
    name = draw(st.sampled_from(sorted(files)))
    suffix = name.rpartition(".")[2]
    if suffix not in _FAMILIES:  # its content is not read
        suffix = ""
    family = draw(st.sampled_from(_FAMILIES[suffix]))
    return family(draw, files, name)


def _odd(draw: Draw, files: Files, name: str) -> Damage:
    """Something else stands there."""
    folder = name.rpartition("/")[0]
    target = folder if folder and draw(st.integers(0, 3)) == 0 else name
    odd = draw(st.sampled_from(Odd))
    return Damage({target: odd}, f"{target}: {odd.name}")


def _exchanged(draw: Draw, files: Files, name: str) -> Damage:
    """Another file stands there."""
    other = draw(st.sampled_from(sorted(files)))
    return Damage({name: files[other]}, f"{name}: the bytes of {other}")


def _added(draw: Draw, files: Files, name: str) -> Damage:
    """A file of an odd name stands beside it."""
    folder, slash, _ = name.rpartition("/")
    new = f"{folder}{slash}{draw(st.sampled_from(_NAMES))}"
    return Damage({new: files[name]}, f"{new!r}: the bytes of {name}")


_NAMES = [
    "trials-00000-99999999999999999999.checkpoints-00000-00006.safetensors",
    "trials-00000-00001.checkpoints-99999999999-00006.safetensors",
    "trials-00009-00009.checkpoints-00003-00005.safetensors",
    "trials-\u0661\u0662\u0663\u0664\u0665-00000.checkpoints-00000-00006.safetensors",
    ".metadata.json.12345678.unfinished",
    "trials-00000.lock",
    "\x1b[2J.json",
    "\udcff.safetensors",
    "a\nb.safetensors",
    "config.json",
]


def _bytes(draw: Draw, files: Files, name: str) -> Damage:
    """Bytes are lost, changed, moved or added."""
    data = bytearray(files[name])
    places = st.integers(0, len(data))
    way = draw(st.sampled_from(["cut", "flip", "splice", "insert", "tail", "length", "whole"]))
    if way == "cut":
        del data[draw(places) :]
    elif way == "flip":
        for _ in range(draw(st.integers(1, 3))):
            data[min(draw(places), len(data) - 1)] ^= 1 << draw(st.integers(0, 7))
    elif way == "splice":
        start, there = draw(places), draw(places)
        data[there : there + draw(st.integers(0, 64))] = data[
            start : start + draw(st.integers(0, 64))
        ]
    elif way == "insert":
        at = draw(places)
        data[at:at] = draw(st.sampled_from(_INSERTED))
    elif way == "tail":
        data[draw(places) :] = draw(st.binary(max_size=64))
    elif way == "length":
        data[:8] = draw(st.sampled_from(_LENGTHS)).to_bytes(8, "little")
    else:
        data = bytearray(draw(st.one_of(st.binary(max_size=64), st.sampled_from(_INSERTED))))
    return Damage({name: bytes(data)}, f"{name}: bytes, {way}, now {bytes(data[:80])!r}...")


_LENGTHS = [0, 1, 2, 7, 8, 100, 1 << 10, 1 << 20, (1 << 20) + 1, 1 << 31, 1 << 40, 2**63, 2**64 - 1]
_INSERTED = [
    b"", b"\0" * 100, b"\xff" * 9, b"NaN", b"1e999", b"-Infinity", b"9" * 5000, b"[" * 100_000,
    b'{"a":' * 5000, b"[],[],", b'"sha256":"0",', b"\\ud800", b'"', b"\xef\xbb\xbf", b"null",
    b"[1,", b"{}\n", b"\x80\x04N.", b"PK\x03\x04",
]  # fmt: skip


# --- what a file says ------------------------------------------------------------------------


def _said(draw: Draw, files: Files, name: str) -> Damage:
    """A JSON file says something else, under a hash that is right."""
    content = json.loads(files[name])
    content.pop("sha256")
    what = _change(draw, content)
    return Damage({name: lambda: sealed_json(content)}, f"{name}: {what}")


def _change(draw: Draw, content: Any) -> str:
    """Changes JSON in a few places, and says how."""
    done = []
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        places = list(_places(content))
        if not places:
            break
        container, key = places[draw(st.integers(0, len(places) - 1))]
        way = draw(st.sampled_from(_WAYS))
        before = f"{container[key]!r:.60}"
        way(draw, container, key)
        done.append(f"{key!r:.60} of {before}, {way.__name__}, so {container!r:.200}")
    return "; ".join(done)


def _places(content: Any) -> Iterator[tuple[Any, Any]]:
    """Each container with each of its keys, those within others included."""
    keys = content if isinstance(content, dict) else range(len(content))
    for key in keys:
        yield content, key
        if isinstance(content[key], (dict, list)):
            yield from _places(content[key])


def _replace(draw: Draw, container: Any, key: Any) -> None:
    container[key] = copy.deepcopy(draw(st.sampled_from(_VALUES)))


def _draw_anew(draw: Draw, container: Any, key: Any) -> None:
    container[key] = draw(_ANYTHING)


def _vary(draw: Draw, container: Any, key: Any) -> None:
    """Another one of the same type."""
    value = container[key]
    if isinstance(value, bool):
        value = not value
    elif isinstance(value, (int, float)):
        scale = draw(st.sampled_from(_SCALES))
        with contextlib.suppress(OverflowError):  # of integers that no float holds
            value = scale(value)
    elif isinstance(value, str):
        longer = value * 2000 if len(value) < 100 else value
        value = draw(st.sampled_from([value + "\x1b[2J", value[:-1], value.upper(), longer]))
    elif isinstance(value, list):
        value = draw(st.sampled_from([value[:-1], value * 2, value[::-1], [*value, None], [value]]))
        if draw(st.integers(0, 99)) == 0 and len(json.dumps(value)) < 1000:
            value = value * 2000
    container[key] = copy.deepcopy(value)


def _delete(draw: Draw, container: Any, key: Any) -> None:
    if len(container) > 1 or isinstance(container, dict):
        del container[key]
        if not container:
            container |= {"nothing": None}


def _rename(draw: Draw, container: Any, key: Any) -> None:
    if isinstance(container, dict):
        container[draw(st.sampled_from(_KEYS))] = container.pop(key)


def _add(draw: Draw, container: Any, key: Any) -> None:
    if isinstance(container, dict):
        container[draw(st.sampled_from(_KEYS))] = copy.deepcopy(container[key])
    else:
        container.insert(key, copy.deepcopy(container[key]))


def _swap(draw: Draw, container: Any, key: Any) -> None:
    keys = list(container) if isinstance(container, dict) else range(len(container))
    other = keys[draw(st.integers(0, len(keys) - 1))]
    container[key], container[other] = container[other], container[key]


def _nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


_WAYS = [_replace, _replace, _replace, _draw_anew, _vary, _vary, _delete, _rename, _add, _swap]
_VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 64, 2**31, -(2**31), 2**53, 2**53 + 1, 2**63, 2**64, 10**18,
    10**30, 10**400, 0.0, -0.0, 0.5, 1.5, -1.5, 1e-320, 1e-30, 1e30, 1e39, 1.7e308, -1.7e308,
    "", "0", "1", "NaN", "Infinity", "null", "\0", "\x1b[2J", "a\nb", "\u202e", "\ud800", "é" * 300,
    "../..", "/dev/zero", "/", ".", "x" * 30_000, "os:Env-v0", "Nothing-v0", "CartPole-v1", "tanh",
    "relu", "float16", "BF16", "F8_E4M3", "U64", "frozen", "elite", [], {}, [[]], [None], [{}],
    [0], [1, 2], ["x"], {"": None}, {"a": {}}, {"a": [1]}, [1.5] * 99, [[1, 2]] * 20,
    _nested(100), _nested(300), {str(i): i for i in range(99)}, list(range(40)),
]  # fmt: skip
_SCALES: list[Callable[[Any], Any]] = [
    lambda x: x + 1, lambda x: x - 1, lambda x: -x, lambda x: x * 2, lambda x: x * 1000,
    lambda x: x * 10**12, float, lambda x: x + 0.5, str, lambda x: [x], lambda x: x / 1e12,
]  # fmt: skip
_KEYS = ["", "x", "0", "sha", "kind", "\x1b[2J", "\ud800", "__class__", "self", "x" * 5000, "name"]
_LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(max_size=9),
    st.floats(allow_nan=False, allow_infinity=False),
)  # fmt: skip
_ANYTHING = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)


def sealed_json(content: Mapping[str, Any]) -> bytes:
    """A JSON file of some content, under a hash that is right if there can be one."""
    try:
        return seals.json_bytes(content)
    except (TiplError, RecursionError):
        return json.dumps(content).encode()


# --- arrays ----------------------------------------------------------------------------------


@functools.lru_cache(maxsize=64)
def _unpacked(data: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arrays of a safetensors file, and what its header says, without the hash."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["tipl"])
    return safetensors.numpy.load(data), {k: v for k, v in header.items() if k != "sha256"}


def opened_tensors(data: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arrays of a safetensors file and what its header says, to be changed."""
    arrays, header = _unpacked(data)
    return dict(arrays), copy.deepcopy(header)


def sealed_tensors(arrays: Mapping[str, Any], header: Mapping[str, Any]) -> bytes:
    """A safetensors file under a hash that is right if there can be one."""
    try:
        return seals.tensor_bytes(arrays, header)
    except (TiplError, RecursionError, UnicodeEncodeError):
        return safetensors.numpy.save({}, {"tipl": json.dumps(header)})


def _tensors(draw: Draw, files: Files, name: str) -> Damage:
    """Arrays are others, under a hash that is right."""
    arrays, header = opened_tensors(files[name])
    done = []
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        if not arrays:
            break
        key = draw(st.sampled_from(sorted(arrays)))
        way = draw(st.sampled_from(_ARRAY_WAYS))
        before = f"{arrays[key].dtype} {list(arrays[key].shape)}"
        way(draw, arrays, key)
        now = f"{arrays[key].dtype} {list(arrays[key].shape)}" if key in arrays else "gone"
        done.append(f"{key} of {before}, {way.__name__}, {now}")
    return Damage({name: lambda: sealed_tensors(arrays, header)}, f"{name}: {'; '.join(done)}")


def _header(draw: Draw, files: Files, name: str) -> Damage:
    """The header says something else, under a hash that is right."""
    arrays, header = opened_tensors(files[name])
    if not header:
        header = {"kind": None}
    what = _change(draw, header)
    return Damage({name: lambda: sealed_tensors(arrays, header)}, f"{name}: header: {what}")


def _offsets(draw: Draw, files: Files, name: str) -> Damage:
    """What safetensors reads says something else."""
    data = files[name]
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    what = _change(draw, header)
    text = json.dumps(header, separators=(",", ":")).encode()
    made = len(text).to_bytes(8, "little") + text + data[8 + size :]
    return Damage({name: made}, f"{name}: format: {what}")


def _dtype(draw: Draw, arrays: dict[str, Any], key: str) -> None:
    with np.errstate(all="ignore"):
        arrays[key] = arrays[key].astype(draw(st.sampled_from(sorted(seals.DTYPES.values()))))


def _shape(draw: Draw, arrays: dict[str, Any], key: str) -> None:
    array = arrays[key]
    way = draw(st.sampled_from(["flat", "more", "cut", "empty", "one", "turn", "twice", "far"]))
    if array.ndim == 0 and way in ("cut", "empty", "twice"):
        way = "more"
    made = {
        "flat": lambda: array.ravel(),  # [...] -> [n]
        "more": lambda: array[None],
        "cut": lambda: array[:-1],
        "empty": lambda: array[:0],
        "one": lambda: array.ravel()[:1].reshape(()),  # [1] -> []
        "turn": lambda: array.T,
        "twice": lambda: np.concatenate([array, array], axis=-1),
        "far": lambda: np.zeros((0, 10**12), array.dtype),
    }[way]
    if array.size or way != "one":
        arrays[key] = made()


def _value(draw: Draw, arrays: dict[str, Any], key: str) -> None:
    array = arrays[key].copy()
    value = draw(st.sampled_from([np.nan, np.inf, -np.inf, 0, 1, -1, 1e-300, 1e30, 3e38, 1e300]))
    at = slice(None) if draw(st.booleans()) else draw(st.integers(0, max(array.size - 1, 0)))
    with np.errstate(all="ignore"):
        if array.size and array.dtype.kind in "fb":
            array.reshape(-1)[at] = value  # [...] -> [n]
        elif array.size:
            value = draw(st.sampled_from([0, 1, 2, np.iinfo(array.dtype).max]))
            array.reshape(-1)[at] = value  # [...] -> [n]
    arrays[key] = array


def _lost(draw: Draw, arrays: dict[str, Any], key: str) -> None:
    del arrays[key]


def _another(draw: Draw, arrays: dict[str, Any], key: str) -> None:
    names = ["", "x", "\x1b[2J", "params.0", "growing.0.params", "x" * 5000, "a/b", "__metadata__x"]
    arrays[draw(st.sampled_from(names))] = arrays[key]


def _renamed(draw: Draw, arrays: dict[str, Any], key: str) -> None:
    arrays["other." + key] = arrays.pop(key)


def _changed_places(draw: Draw, arrays: dict[str, Any], key: str) -> None:
    other = draw(st.sampled_from(sorted(arrays)))
    arrays[key], arrays[other] = arrays[other], arrays[key]


def _many(draw: Draw, arrays: dict[str, Any], key: str) -> None:
    arrays |= {f"{i}": np.zeros(1, np.int8) for i in range(200)}


_ARRAY_WAYS = [
    _dtype, _shape, _shape, _value, _value, _value, _lost, _another, _renamed, _changed_places,
    _many,
]  # fmt: skip

_FAMILIES = {
    "json": [_said] * 8 + [_bytes] * 3 + [_odd, _exchanged, _added],
    "safetensors": [_tensors] * 5 + [_header] * 2 + [_offsets] * 2 + [_bytes] * 3
    + [_odd, _exchanged, _added],
    "": [_bytes, _odd, _exchanged, _added],
}  # fmt: skip
"""Ways to damage a file, by how its name ends, as often as they stand there."""
