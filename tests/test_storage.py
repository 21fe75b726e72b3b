"""What is written is whole, canonical and checked: no half file, and no changed byte is read."""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from tipl.core import atomic, storage, unfinished
from tipl.core import sealed as seals
from tipl.core.ownership import ANYTHING, OwnDirectory, OwnFile
from tipl.errors import TiplError

TENSORS = {
    "weights": np.arange(12, dtype=np.float32).reshape(3, 4).T,  # not contiguous
    "steps": np.arange(3),
    "flags": np.array([True, False]),
    "scalar": np.array(2.5),
    "empty": np.zeros((0, 2), np.int32),
}
METADATA = {"name": "é", "ranges": [0, 1], "rate": 3e-4}


@pytest.fixture
def tensor_file(tmp_path: Path) -> Path:
    path = tmp_path / "file.safetensors"
    storage.write_tensors(path, TENSORS, METADATA)
    return path


@pytest.fixture
def json_file(tmp_path: Path) -> Path:
    path = tmp_path / "file.json"
    storage.write_json(path, METADATA)
    return path


def entries(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def fail_with(code: int) -> Any:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    return fail


def test_json_is_read_back_and_readable(json_file: Path) -> None:
    assert storage.read_json(json_file) == METADATA
    text = json_file.read_text()
    assert list(json.loads(text)) == ["name", "ranges", "rate", "sha256"]
    assert json.loads(text)["sha256"] == storage.content_digest(METADATA)
    assert '\n  "rate": 0.0003,\n' in text


def test_equal_json_has_equal_bytes(json_file: Path, tmp_path: Path) -> None:
    storage.write_json(tmp_path / "other", dict(reversed(METADATA.items())))
    assert (tmp_path / "other").read_bytes() == json_file.read_bytes()


def test_tensors_are_read_back(tensor_file: Path) -> None:
    tensors, metadata = storage.read_tensors(tensor_file)
    assert metadata == METADATA
    assert list(tensors) == sorted(TENSORS)
    for name, array in tensors.items():
        assert array.dtype == TENSORS[name].dtype
        np.testing.assert_array_equal(array, TENSORS[name], strict=True)
    assert storage.check_tensors(tensor_file) is None


def test_equal_tensors_have_equal_bytes(tensor_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    tensors, metadata = storage.read_tensors(tensor_file)
    storage.write_tensors(other, dict(reversed(tensors.items())), dict(reversed(metadata.items())))
    assert other.read_bytes() == tensor_file.read_bytes()


def test_slices_are_read_without_the_rest(tensor_file: Path) -> None:
    with storage.open_tensors(tensor_file) as file:
        assert file.metadata == METADATA
        assert file.arrays == {name: (a.dtype.name, a.shape) for name, a in TENSORS.items()}
        rows = file.read("weights", slice(1, 3))
        block = file.read("weights", slice(1, 3), slice(0, 2))
        scalar = file.read("scalar")
    np.testing.assert_array_equal(rows, TENSORS["weights"][1:3])
    np.testing.assert_array_equal(block, TENSORS["weights"][1:3, :2])
    assert scalar == 2.5


def test_a_file_that_is_replaced_while_it_is_opened_is_one_or_the_other(
    tensor_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = safetensors.safe_open

    def late(path: Path, **options: Any) -> Any:
        monkeypatch.undo()
        storage.write_tensors(tensor_file, {"x": np.arange(3)}, {"longer": "than before" * 9})
        return opened(path, **options)

    monkeypatch.setattr(safetensors, "safe_open", late)
    tensors, metadata = storage.read_tensors(tensor_file)
    assert list(tensors) == ["x"]
    assert list(metadata) == ["longer"]


def test_every_truncation_is_detected(tensor_file: Path, json_file: Path) -> None:
    for path, read in ((tensor_file, storage.read_tensors), (json_file, storage.read_json)):
        data = path.read_bytes()
        for length in range(len(data)):
            path.write_bytes(data[:length])
            with pytest.raises(TiplError, match="is damaged"):
                read(path)


def test_bit_flips_everywhere_are_detected(tensor_file: Path, json_file: Path) -> None:
    for path, read in ((tensor_file, storage.read_tensors), (json_file, storage.read_json)):
        data = path.read_bytes()
        for bit in range(0, 8 * len(data), 3):  # each place in a byte in turn
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            with pytest.raises(TiplError, match="is damaged"):
                read(path)


def test_appended_bytes_are_detected(tensor_file: Path, json_file: Path) -> None:
    for path, read in ((tensor_file, storage.read_tensors), (json_file, storage.read_json)):
        path.write_bytes(path.read_bytes() + b"\n")
        with pytest.raises(TiplError, match="is damaged"):
            read(path)


@pytest.mark.parametrize("content", [b"[]", b"{}", b"3", b"\xff\xfe", b"[" * 100_000, b'{"a": 1}'])
def test_other_json_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(TiplError, match=r"file is damaged.*delete it and make it again"):
        storage.read_json(tmp_path / "file")


HALF, LONG = "surrogates not allowed", "more than 308 digits"
HOSTILE = {
    r'"a\ud800b"': HALF, r'"\uDFFF"': HALF, r'"\udc00\ud800"': HALF, r'{"\uD83D": 1}': HALF,
    "9" * 309: LONG, "-" + "9" * 5_000: LONG, f"[1, {'1' * 1_000_000}]": LONG,
}  # fmt: skip
"""JSON of what nothing can print or write, or no float is as large as, and why it is refused."""


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: value[:12])
@pytest.mark.parametrize("place", ["%s", '[{"b": [0, %s]}]'])
def test_halves_of_characters_and_endless_integers_are_refused(
    tmp_path: Path, value: str, place: str
) -> None:
    text = '{"a": ' + place % value + ', "sha256": "0"}'
    (tmp_path / "json").write_text(text)
    (tmp_path / "tensors").write_bytes(safetensors.numpy.save({}, {"tipl": text}))
    for name, read in (("json", storage.read_json), ("tensors", storage.read_tensors)):
        with pytest.raises(TiplError, match=f"{name} is damaged: .*{HOSTILE[value]}"):
            read(tmp_path / name)


@pytest.mark.parametrize("value", ["a\ud800b", "\udfff", 10**308, -(10**400), {"\ud83d": 1}])
def test_nor_are_they_written(tmp_path: Path, value: Any) -> None:
    for data in ({"a": value}, {"a": [{"b": value}]}):
        with pytest.raises(TiplError, match="cannot store"):
            storage.write_json(tmp_path / "file", data)
        with pytest.raises(TiplError, match="cannot store"):
            storage.write_tensors(tmp_path / "file", {}, data)
    assert entries(tmp_path) == []


@pytest.mark.parametrize("value", ["\U0001f600", r"\ud800", "\ue000", 10**308 - 1, -(10**307), "9"])
def test_what_only_looks_like_them_is_kept(tmp_path: Path, value: Any) -> None:
    storage.write_json(tmp_path / "file", {"a": value, str(value): [value]})
    assert storage.read_json(tmp_path / "file") == {"a": value, str(value): [value]}


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"tipl": "{}"}, {"tipl": "[]"}])
def test_other_safetensors_are_refused(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    path = tmp_path / "file"
    path.write_bytes(safetensors.numpy.save({"x": np.zeros(2)}, metadata))
    with pytest.raises(TiplError, match=r"file is damaged: it has no hash.*make it again"):
        storage.read_tensors(path)
    assert str(path) in str(storage.check_tensors(path))


@pytest.mark.parametrize("read", [storage.read_json, storage.read_tensors])
def test_pipes_devices_and_sockets_are_refused_at_once(tmp_path: Path, read: Any) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        for name, message in (
            ("pipe", "is a pipe, but .*, a regular file, is expected"),
            ("device", "is a device, but .*, a regular file, is expected"),
            ("socket", "cannot read .*socket"),
        ):
            with pytest.raises(TiplError, match=message):
                read(tmp_path / name)


def test_files_are_read_through_links(tensor_file: Path, json_file: Path, tmp_path: Path) -> None:
    for file, read in ((tensor_file, storage.read_tensors), (json_file, storage.read_json)):
        (tmp_path / "link").symlink_to(file)
        read(tmp_path / "link")
        (tmp_path / "link").unlink()


def sparse(path: Path, start: bytes, size: int) -> Path:
    """A file of a size that takes no place on the disk."""
    path.write_bytes(start)
    os.truncate(path, size)
    return path


@pytest.mark.parametrize(
    ("read", "start", "message"),
    [
        (storage.read_json, b'{"a": 1}', "has more than 4,194,304 bytes"),
        (storage.read_json, b"[" * 300_000, "more than 200,000 lists and objects"),
        (storage.read_json, b'{"a": ' + b"[]," * 300_000, "more than 200,000 lists"),
        (storage.read_tensors, (99 << 20).to_bytes(8, "little"), "its header has 103,809,024 byt"),
        (storage.read_tensors, b"\xff" * 8, "its header has 18,446,744,073,709,551,615 bytes"),
    ],
)
def test_what_is_too_large_is_refused_before_it_is_read(
    tmp_path: Path, read: Any, start: bytes, message: str
) -> None:
    size = 1 << 40 if len(start) < 100 else len(start)
    file = sparse(tmp_path / "file", start, size)
    tracemalloc.start()
    try:
        with pytest.raises(TiplError, match=message):
            read(file)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20


def test_what_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    many = {f"{i:020d}": np.zeros(1, np.int8) for i in range(20_000)}
    with pytest.raises(TiplError, match=r"20,000 arrays were given to store.*fewer arrays"):
        storage.write_tensors(tmp_path / "file", many, {})
    with pytest.raises(TiplError, match=r"bytes of JSON were given to store.*numbers as arrays"):
        storage.write_json(tmp_path / "file", {"x": ["0123456789"] * 400_000})
    with pytest.raises(TiplError, match="the array x of complex128 was given to store"):
        storage.write_tensors(tmp_path / "file", {"x": np.zeros(1, complex)}, {})
    assert entries(tmp_path) == []


def test_arrays_are_looked_at_before_they_are_read(tmp_path: Path) -> None:
    header = seals.header_of({"x": ("float32", (1 << 36,))}, b"{}")
    sealed = seals.header_of({"x": ("float32", (1 << 36,))}, b'{"sha256":"0"}')
    assert header != sealed
    start = len(sealed).to_bytes(8, "little") + sealed
    file = sparse(tmp_path / "file", start, len(start) + (4 << 36))

    def check(metadata: dict[str, Any], arrays: storage.ArraySpecs) -> None:
        raise TiplError(f"{metadata} {arrays}")

    with pytest.raises(TiplError, match=r"\{\} \{'x': \('float32', \(68719476736,\)\)\}"):
        storage.read_tensors(file, check=check)


@pytest.mark.parametrize("dtype", list(seals.DTYPES.values()))
def test_a_file_is_what_safetensors_itself_would_write(tmp_path: Path, dtype: str) -> None:
    tensors = TENSORS | {"a": np.ones((2, 1), dtype), "ü": np.zeros(3, dtype)}
    storage.write_tensors(tmp_path / "file", tensors, METADATA)
    arrays = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    with safetensors.safe_open(tmp_path / "file", framework="numpy") as file:
        expected = safetensors.numpy.save(arrays, file.metadata())
    assert (tmp_path / "file").read_bytes() == expected


def test_a_missing_file_says_what_was_expected(tmp_path: Path) -> None:
    expected = "absent, but the weights of a model is expected there; check the spelling"
    for read in (storage.read_json, storage.read_tensors):
        with pytest.raises(TiplError, match=expected):
            read(tmp_path / "absent", "the weights of a model")
    with (
        pytest.raises(TiplError, match="absent, but a safetensors file"),
        storage.open_tensors(tmp_path / "absent"),
    ):
        pass
    with pytest.raises(TiplError, match=r"cannot read .*Is a directory"):
        storage.read_json(tmp_path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"x": float("nan")}, "as JSON"),
        ({"x": object()}, "as JSON"),
        ({"sha256": "0"}, "`sha256` is the file's own"),
    ],
)
def test_what_could_not_be_read_back_is_refused(
    tmp_path: Path, data: dict[str, Any], message: str
) -> None:
    with pytest.raises(TiplError, match=message):
        storage.write_json(tmp_path / "file", data)
    with pytest.raises(TiplError, match=message):
        storage.write_tensors(tmp_path / "file", TENSORS, data)
    assert entries(tmp_path) == []


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.ENOSPC, "No space left on device; free some space"),
        (errno.EACCES, "Permission denied; choose a path that you may use"),
        (errno.EIO, "error; check the path and the disk"),
    ],
)
@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, code: int, advice: str
) -> None:
    path = tmp_path / "file"
    storage.write_bytes_atomically(path, b"old")
    monkeypatch.setattr(os, step, fail_with(code))
    with pytest.raises(TiplError, match=f"cannot write .*file: .*{advice}"):
        storage.write_bytes_atomically(path, b"new", own=ANYTHING)
    assert path.read_bytes() == b"old"
    assert entries(tmp_path) == ["file"]


def test_an_interrupted_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "file"
    storage.write_bytes_atomically(path, b"old")
    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        storage.write_bytes_atomically(path, b"new", own=ANYTHING)
    assert path.read_bytes() == b"old"
    assert entries(tmp_path) == ["file"]


def test_a_file_is_synced_before_it_appears_and_its_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    fsync, replace = os.fsync, os.replace

    def record_fsync(descriptor: int) -> None:
        seen.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def record_replace(source: Path, target: Path) -> None:
        assert source.read_bytes() == b"new"
        seen.append("replace")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", record_replace)
    storage.write_bytes_atomically(tmp_path / "file", b"new")
    assert seen == ["file", "replace", "folder"]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(TiplError, match=r"cannot write .*absent/file: .*create the folder first"):
        storage.write_bytes_atomically(tmp_path / "absent" / "file", b"")
    (tmp_path / "file").touch()
    with pytest.raises(TiplError, match=r"cannot write .*a part of the path is a file"):
        storage.write_bytes_atomically(tmp_path / "file" / "file", b"")


OWN = OwnDirectory(
    "letters", {"a": OwnFile("a letter", lambda path: path.read_bytes() in (b"old", b"new"))}
)


def write_directory(path: Path, content: str, error: Exception | None = None) -> None:
    with atomic.new_directory(path, OWN) as new:
        assert new.parent == path.resolve().parent
        storage.write_bytes_atomically(new / "a", content.encode())
        assert not (path / "a").exists() or (path / "a").read_text() == "old"
        if error:
            raise error


def test_a_directory_appears_whole(tmp_path: Path) -> None:
    write_directory(tmp_path / "directory", "new")
    assert (tmp_path / "directory" / "a").read_text() == "new"
    assert entries(tmp_path) == ["directory"]


def test_a_directory_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        write_directory(tmp_path / "directory", "new", error=KeyError())
    assert entries(tmp_path) == []
    write_directory(tmp_path / "directory", "old")
    with pytest.raises(KeyError):
        write_directory(tmp_path / "directory", "new", error=KeyError())
    assert (tmp_path / "directory" / "a").read_text() == "old"
    assert entries(tmp_path) == ["directory"]


@pytest.mark.parametrize("exchange", [True, False])
def test_a_directory_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    if not exchange:  # as on a system that has no such call
        monkeypatch.setattr(atomic, "_exchange", fail_with(errno.ENOSYS))
    path = tmp_path / "directory"
    write_directory(path, "old")
    write_directory(path, "new")
    assert entries(path) == ["a"]
    assert (path / "a").read_text() == "new"
    assert entries(tmp_path) == ["directory"]


def test_two_directories_are_exchanged_in_one_step(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    try:
        atomic._exchange(tmp_path / "a", tmp_path / "b")
    except (OSError, AttributeError):
        pytest.skip("this system cannot")
    assert [entries(tmp_path / name) for name in "ab"] == [["b"], ["a"]]


def test_a_failed_replacement_leaves_the_old_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "directory"
    write_directory(path, "old")
    rename = os.rename

    def fail_to_place(source: Path, target: Path) -> None:
        if target == path and not path.exists() and (source / "a").read_text() == "new":
            raise OSError(errno.EIO, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(atomic, "_exchange", fail_with(errno.ENOSYS))
    monkeypatch.setattr(os, "rename", fail_to_place)
    with pytest.raises(TiplError, match=r"cannot write .*directory: Input/output error"):
        write_directory(path, "new")
    assert (path / "a").read_text() == "old"
    assert entries(tmp_path) == ["directory"]


def test_other_files_are_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "directory"
    path.mkdir()
    (path / "thesis.tex").touch()
    with pytest.raises(TiplError, match=r"holds other files \(thesis.tex\).*choose another path"):
        write_directory(path, "new")
    assert entries(path) == ["thesis.tex"]
    assert entries(tmp_path) == ["directory"]
    with pytest.raises(TiplError, match="is a file, but a directory is to be written"):
        write_directory(path / "thesis.tex", "new")


def test_an_empty_directory_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write_directory(tmp_path / "empty", "new")
    assert (tmp_path / "empty" / "a").read_text() == "new"


def test_a_directory_behind_a_link_is_replaced(tmp_path: Path) -> None:
    write_directory(tmp_path / "directory", "old")
    (tmp_path / "link").symlink_to(tmp_path / "directory")
    write_directory(tmp_path / "link", "new")
    assert (tmp_path / "directory" / "a").read_text() == "new"
    assert entries(tmp_path) == ["directory", "link"]


def test_a_directory_comes_with_its_parents(tmp_path: Path) -> None:
    write_directory(tmp_path / "absent" / "x", "new")
    assert entries(tmp_path / "absent") == ["x"]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    file, folder = (unfinished.temporary_name(tmp_path / name) for name in "fd")
    file.write_bytes(b"half")
    folder.mkdir()
    (folder / "a").touch()
    (tmp_path / "kept").touch()
    assert unfinished.is_unfinished(file)
    assert unfinished.is_unfinished(folder)
    assert not unfinished.is_unfinished(tmp_path / "kept")
    unfinished.remove_unfinished(tmp_path, inside=["a"])
    assert entries(tmp_path) == ["kept"]
