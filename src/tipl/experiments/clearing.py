"""Removing what an experiment has made: files of tipl's where its stages put them, nothing else."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

from tipl.core import storage
from tipl.core.locks import is_free_lock
from tipl.core.ownership import (
    ANIMATION,
    DRAWING,
    PAGE,
    PICTURE,
    ROWS,
    check_file,
    is_regular,
    named_among,
)
from tipl.core.system_errors import explained
from tipl.core.unfinished import is_held, unfinished_name
from tipl.errors import TiplError
from tipl.models import TRAINING_STATE
from tipl.paths.parts import FOLDERS

FILE = "stages.json"

RECORDS = (
    *("demo.json", "benchmark.json", "comparison.json", "worlds-benchmark.json", "scaling.json"),
)
"""What experiments were told, by kind."""

RECORD = storage.own_json("a record of an experiment", lambda found: "config" in found)

FILM_RECORD = storage.own_json(
    "the record of a film", lambda found: {"labels", "returns", "model"} <= found.keys()
)

_FILES = {
    *(FILE, *RECORDS, "costs.json", "worlds.json", "predictions.json"),
    *("results.jsonl", "report.html"),
}
"""What experiments write beside what their stages make."""

_FIGURES = "figures"

FILM_PLACE = Path(_FIGURES, "film.gif")
"""Where the film lies in an experiment's directory."""

MEASURED = "returns"
"""The folder of what benchmarks of worlds, and of scaling, have measured, in their directory."""

_ANY_JSON = storage.own_json("a JSON file", lambda found: True)


def clear_experiment(directory: Path, commands: Iterable[str], made: Iterable[Path]) -> None:
    """Removes what an experiment has made in its directory; `stages.json` goes last.

    Args:
        directory: of the experiment.
        commands: the command lines of its stages, as they were recorded.
        made: directories that its stages make now.

    Raises:
        TiplError: there is anything else in the directory (nothing has been removed then), or
            something cannot be removed.
    """
    stages = {directory / _FIGURES, directory / MEASURED, *made, *_made_by(directory, commands)}
    files, folders, others = list[Path](), list[Path](), list[Path]()
    above = [directory]
    for folder in above:
        for entry in sorted(folder.iterdir()):
            name = unfinished_name(entry) or entry.name
            if entry.with_name(name) in stages and _is_folder(entry):
                for found, more in zip((files, folders, others), _tree(entry), strict=True):
                    found += more
            elif _is_own(entry) and (
                (folder == directory and name in _FILES) or _is_of_training(entry, name, stages)
            ):
                files.append(entry)
            elif _is_folder(entry) and any(entry in stage.parents for stage in stages):
                above.append(entry)
            else:
                others.append(entry)
    _refuse(others, directory)
    files.sort(key=lambda file: file == directory / FILE)
    _remove(files, [*above[1:], *folders])


def clear_stage(directory: Path) -> None:
    """Removes the directory that a stage has made.

    Raises:
        TiplError: there is anything else in it (nothing has been removed then), or something
            cannot be removed.
    """
    if os.path.lexists(directory):
        files, folders, others = _tree(directory)
        _refuse(others, directory)
        _remove(files, folders)


def clear_state(state: Path) -> None:
    """Removes the state of a training that is another than the one to come.

    Raises:
        TiplError: it is something else (nothing has been removed then), or cannot be removed.
    """
    check_file(state, storage.own_tensors("training"))
    _remove([state], [])


def _refuse(others: list[Path], directory: Path) -> None:
    if others:
        named = named_among([str(other.relative_to(directory)) for other in sorted(others)])
        raise TiplError(
            f"{directory} holds other files than tipl has made there ({named}), or some in use, "
            "and nothing of others is removed; move them elsewhere first, or choose another "
            "directory"
        )


def _remove(files: list[Path], folders: list[Path]) -> None:
    for file in files:
        with explained("remove", file):
            file.unlink(missing_ok=True)
    for folder in sorted(folders, key=lambda one: -len(one.parts)):
        with explained("remove", folder):
            folder.rmdir()


def _made_by(directory: Path, commands: Iterable[str]) -> Iterator[Path]:
    """Where commands have put what they made, wherever the directory was then."""
    for command in commands:
        try:
            words = shlex.split(command)
        except ValueError:  # no command line
            continue
        if "--out" not in words[:-1]:
            continue
        parts = [part for part in Path(words[words.index("--out") + 1]).parts if part != "/"]
        places = (directory.joinpath(*parts[i:]) for i in range(len(parts)))
        there = [place for place in places if _is_folder(place)]
        if there and ".." not in parts:
            yield there[0]


def _tree(directory: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """All files of tipl's in a directory, all folders, itself included, and all else."""
    files, folders, others = list[Path](), list[Path](), list[Path]()
    if not _is_folder(directory):
        return [], [], [directory]
    for name, _, _ in os.walk(directory):
        folder = Path(name)
        (folders if folder.name in {directory.name, *FOLDERS} else others).append(folder)
        for entry in sorted(folder.iterdir()):
            if not _is_folder(entry):
                own = _is_own(entry) and (folder.name != _FIGURES or _is_of_report(entry))
                (files if own else others).append(entry)
    return files, folders, others


def _is_of_report(figure: Path) -> bool:
    """Whether a figure has a name that reports and runs give, and not only somebody's command."""
    name = unfinished_name(figure) or figure.name
    return bool(re.fullmatch(r"\d\d+-.+\.(svg|png)|film(-narrow)?\.(gif|png|json)", name))


def _is_of_training(entry: Path, name: str, stages: set[Path]) -> bool:
    """Whether it is the state of a training, beside where a stage's model is to be."""
    model = entry.with_name(name.removesuffix(TRAINING_STATE))
    return name.endswith(TRAINING_STATE) and model in stages


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _is_own(path: Path) -> bool:
    """Whether a file is one that tipl writes, and that nobody is writing now."""
    if not is_regular(path) or unfinished_name(path) is not None:
        return is_regular(path) and not is_held(path)
    kinds = {
        ".json": _ANY_JSON, ".jsonl": ROWS, ".html": PAGE, ".svg": DRAWING, ".png": PICTURE,
        ".gif": ANIMATION,
    }  # fmt: skip
    if path.suffix == ".safetensors":
        return _is_sealed(path)
    if path.suffix == ".lock":
        return is_free_lock(path)
    return path.suffix in kinds and (kinds[path.suffix].owns(path) or _is_recorded(path))


def _is_sealed(path: Path) -> bool:
    """Whether the header of a safetensors file is of tipl; of many bytes, not all are looked at."""
    try:
        with storage.open_tensors(path):
            return True
    except TiplError:
        return False


def _is_recorded(path: Path) -> bool:
    """Whether a picture is one that the record of a film beside it speaks of."""
    gif = path.with_name(path.stem.removesuffix("-narrow") + ".gif")
    *pictures, record = film_files(gif)
    return path in pictures and FILM_RECORD.owns(record)


def film_files(gif: Path) -> tuple[Path, Path, Path, Path]:
    """The files of a film of a run: wide and narrow animation, stills, and what it shows."""
    narrow = gif.with_name(f"{gif.stem}-narrow.gif")
    return gif, narrow, gif.with_suffix(".png"), gif.with_suffix(".json")
