"""Kills at every step of a file system, and power failures: old or new, never in between.

Each writer runs in a forked child that is killed before its first step, its second and so on:
what it makes, removes, renames or syncs. A power failure is played from a record of the same steps:
what was not synced may be lost, in the order in which a journal loses it.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from path_data import make_arrays, make_dataset, make_metadata, write_parts
from test_collection import FAST_PPO
from test_losing_nothing import forked
from test_outputs import DIRECTORIES, FILES, everything
from tipl.collection.collect import collect
from tipl.core import atomic, storage
from tipl.errors import TiplError
from tipl.evaluation.checkpoints import evaluate_paths
from tipl.forecast.base import Forecaster
from tipl.paths import create_dataset, verify
from tipl.policies.policy import Policy
from tried import tried

KILLS: dict[str, int] = {}
STATES: dict[str, int] = {}
"""How many were tried of each writer."""

PENDULUM = "InvertedPendulum-v4"

STEPS = ("fsync", "replace", "rename", "mkdir", "unlink", "rmdir", "ftruncate", "write")
"""Functions of `os` that change a file system; `open` joins them where it makes a file."""


@contextmanager
def told_of_steps(tell: Callable[[str, tuple[Any, ...], bool], None]) -> Iterator[None]:
    """Has a function told of each step, before it (False) and after it (True)."""

    def telling(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def told(*args: Any, **kwargs: Any) -> Any:
            if name == "open" and not args[1] & os.O_CREAT:
                return function(*args, **kwargs)
            tell(name, args, False)
            result = function(*args, **kwargs)
            tell(name, args, True)
            return result

        return told

    with pytest.MonkeyPatch.context() as patch:
        for name in (*STEPS, "open"):
            patch.setattr(os, name, telling(name, getattr(os, name)))
        patch.setattr(atomic, "_exchange", telling("exchange", atomic._exchange))
        yield


def killed_before(number: int, write: Callable[[], object]) -> bool:
    """Runs a writer in a child that is killed before a step; whether it had so many."""
    steps = 0

    def kill(name: str, args: tuple[Any, ...], after: bool) -> None:
        nonlocal steps
        if not after:
            if steps == number:
                os.kill(os.getpid(), signal.SIGKILL)
            steps += 1

    def child() -> None:
        with told_of_steps(kill):
            write()

    _, status = os.waitpid(forked(child), 0)
    if os.WIFSIGNALED(status):
        return True
    assert os.waitstatus_to_exitcode(status) == 0
    return False


# --- what writes -----------------------------------------------------------------------------


def collected(place: Path) -> None:
    collect(
        PENDULUM, out=place / "paths", threads=1, progress=False, num_trials=2, total_steps=3 * 16,
        trials_per_group=1, hidden_sizes=(3,), ppo=FAST_PPO,
    )  # fmt: skip


def evaluated(place: Path) -> None:
    evaluate_paths(place / "paths", 1, every=6, threads=1, progress=False)


def dataset(place: Path) -> None:
    metadata = make_metadata(num_trials=2, num_checkpoints=2)
    create_dataset(place / "paths", metadata)
    write_parts(place / "paths", metadata, make_arrays(metadata))


def nothing(place: Path) -> None:
    if not (dataset := place.parent / "dataset").exists():
        make_dataset(dataset)  # which sets of forecasts are of


def old_policy(place: Path) -> None:
    Policy.initial(PENDULUM, 5, (2,)).save(place / "out")


WRITERS: dict[str, tuple[Callable[[Path], object], Callable[[Path], object]]] = {
    **{
        f"new {kind}": (nothing, lambda place, write=write: write(place / "out"))  # type: ignore[misc]
        for kind, (write, _) in DIRECTORIES.items()
    },
    **{
        f"{kind} again": (
            lambda place, write=write: write(place / "out"),  # type: ignore[misc]
            lambda place, write=write: write(place / "out"),  # type: ignore[misc]
        )
        for kind, (write, _) in DIRECTORIES.items()
    },
    "another policy": (old_policy, lambda place: DIRECTORIES["policy"][0](place / "out")),
    **{
        name: (nothing, lambda place, name=name, write=write: write(place / name))  # type: ignore[misc]
        for name, write in FILES.items()
        if name not in ("curves.png", "film.png")  # which come with the others
    },
    "a dataset": (nothing, dataset),
    "an evaluation": (dataset, evaluated),
    "a collection": (nothing, collected),
}
"""For each what is there before, and what writes."""


@pytest.mark.parametrize("name", WRITERS)
def test_a_kill_at_every_step_leaves_the_old_or_the_new(name: str, tmp_path: Path) -> None:
    before, write = WRITERS[name]
    root, kept = tmp_path / "root", tmp_path / "kept"
    place = root / "here"
    root.mkdir()
    place.mkdir()
    before(place)
    shutil.copytree(root, kept)
    old = everything(place)
    write(place)
    new = everything(place)
    number = 0
    while True:
        shutil.rmtree(root)
        shutil.copytree(kept, root)
        if not killed_before(number, lambda: write(place)):
            break
        for path, content in everything(place).items():
            hidden = any(part.endswith((".unfinished", ".lock")) for part in Path(path).parts)
            if isinstance(content, bytes) and not hidden and "resume" not in path:
                assert content in (old.get(path), new.get(path)), f"{path} before step {number}"
        write(place)
        assert everything(place) == new, f"after a kill before step {number}"
        number += 1
    assert everything(place) == new
    assert number >= 3  # it makes, syncs and renames
    KILLS[name] = number


def test_as_many_kills_were_tried_as_is_said() -> None:
    if set(KILLS) == set(WRITERS):  # unless some were left out
        tried("kills before steps of the file system, in every writer", sum(KILLS.values()))


# --- power failures --------------------------------------------------------------------------


@dataclass
class Disk:
    """What a disk holds of a folder, as far as that is certain, while a writer goes on."""

    root: Path
    synced: dict[int, bytes] = field(default_factory=dict)  # content by the number of a file
    certain: int = 0  # steps that a synced folder has made certain, with all before them
    trees: list[dict[str, int | None]] = field(
        default_factory=list
    )  # after each step; None: folder
    states: list[tuple[dict[str, int | None], dict[int, bytes]]] = field(default_factory=list)

    def tell(self, name: str, args: tuple[Any, ...], after: bool) -> None:
        """Takes a step that was made."""
        if not after:
            return
        if name == "fsync":
            target = Path(os.readlink(f"/proc/self/fd/{args[0]}"))
            if target.is_dir():
                self.certain = max(self.certain, len(self.trees) - 1)
            else:
                self.synced[os.fstat(args[0]).st_ino] = target.read_bytes()
        else:
            self.trees.append(self.tree())
        # a journal keeps the order of names: any number of the later steps may be lost
        for tree in self.trees[self.certain :]:
            self.states.append((tree, dict(self.synced)))

    def tree(self) -> dict[str, int | None]:
        """The names that there are."""
        return {
            str(path.relative_to(self.root)): None if path.is_dir() else path.lstat().st_ino
            for path in sorted(self.root.rglob("*"))
        }

    def after_failures(self, place: Path, before: dict[int, bytes]) -> Iterator[Path]:
        """The folder after a power failure at each moment; what was never synced is empty."""
        seen = set()
        for tree, synced in self.states:
            files = {
                n: None if i is None else (synced | before).get(i, b"") for n, i in tree.items()
            }
            if (key := tuple(files.items())) in seen:
                continue
            seen.add(key)
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            for name, content in files.items():
                if content is None:
                    (place / name).mkdir()
                else:
                    (place / name).write_bytes(content)
            yield place


def read_policy(place: Path) -> bytes:
    return Policy.load(place / "out").params.tobytes()


def read_dataset(place: Path) -> None:
    """Raises a TiplError for what is damaged; what is not there yet is no harm."""
    for problem in verify(place / "paths"):
        if "damaged" in problem:
            raise TiplError(problem)


def read_json(place: Path) -> None:
    storage.read_json(place / "demo.json")


FAILURES: dict[str, Callable[[Path], object]] = {
    "new policy": read_policy,
    "policy again": read_policy,
    "another policy": read_policy,
    "new model": lambda place: Forecaster.from_pretrained(place / "out"),
    "model again": lambda place: Forecaster.from_pretrained(place / "out"),
    "demo.json": read_json,
    "a dataset": read_dataset,
    "an evaluation": read_dataset,
    "a collection": read_dataset,
}
"""Reads what a writer leaves; a TiplError is allowed where there was nothing before."""


@pytest.mark.parametrize("name", FAILURES)
def test_a_power_failure_at_any_moment_leaves_the_old_or_the_new(name: str, tmp_path: Path) -> None:
    before, write = WRITERS[name]
    place, after = tmp_path / "here", tmp_path / "after"
    place.mkdir()
    before(place)
    disk = Disk(place)
    disk.trees.append(disk.tree())
    files = [path for path in place.rglob("*") if path.is_file()]
    kept = {path.lstat().st_ino: path.read_bytes() for path in files}
    held = [path.open("rb") for path in files]  # so that no number is used again
    with told_of_steps(disk.tell):
        write(place)
    for file in held:
        file.close()
    read, refusals = 0, []
    for found in disk.after_failures(after, kept):
        try:
            FAILURES[name](found)
            read += 1
        except TiplError as error:
            refusals.append(str(error))
    assert not [refusal for refusal in refusals if "damaged" in refusal]
    if "paths" not in {part for file in files for part in file.parts}:
        assert not (files and refusals)  # what was there before is not lost
    assert read
    STATES[name] = read + len(refusals)


def test_as_many_failures_were_tried_as_is_said() -> None:
    if set(STATES) == set(FAILURES):
        tried("states of the disk after a power failure", sum(STATES.values()))
