"""Copying a dataset: to a store, from one, or from disk to disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tipl.core import atomic, storage
from tipl.core.addresses import is_address, located
from tipl.core.progress import progress_bar
from tipl.core.regular_files import on_this_machine
from tipl.core.stores import exists, is_sent, send
from tipl.errors import TiplError
from tipl.paths.grid import PartRange
from tipl.paths.metadata import METADATA, PathMetadata, read_metadata
from tipl.paths.parts import PartFiles, create_dataset
from tipl.paths.returns import EVALUATION, ReturnFiles, settings_path


@dataclass(frozen=True)
class Copied:
    """What a copy of a dataset has come to."""

    files: int
    """that were copied"""
    there: int
    """that were there already"""
    missing: int
    """parts that neither place has yet"""


def copy_paths(source: str | Path, target: str | Path, progress: bool = False) -> Copied:
    """Copies the finished files of a dataset to another place, each whole or not at all.

    What is there already stays, so the same call goes on after an interruption, or when more is
    finished. Every byte is looked at on the way. At an address `metadata.json` comes last, once all
    parts are there, of however many collections: before, nobody can open the dataset.

    Args:
        source: directory or address of the dataset, complete or not.
        target: another directory or address.
        progress: show a progress bar.

    Raises:
        TiplError: there is no dataset, the target holds another one or other files, a file is
            damaged, or it cannot be written.
    """
    source, target = located(Path(source)), located(Path(target))
    metadata = read_metadata(source)
    if is_address(target):
        _check_same(target, metadata)
    else:
        create_dataset(target, metadata)
    kinds: list[tuple[PartFiles, PartFiles]] = [
        (PartFiles(source, metadata), PartFiles(target, metadata))
    ]
    if exists(settings_path(source)):
        found = ReturnFiles(source, metadata)
        kinds.append((found, ReturnFiles(target, metadata, found.evaluation)))
    files = there = 0
    with progress_bar(progress) as bar:
        row = bar.add_task("copy", total=sum(len(one.parts) for one, _ in kinds), note="")
        for ours, theirs in kinds:
            missing, at_target = {*ours.missing()}, {*theirs.missing()}
            for part in ours.parts:
                if part not in missing:
                    done = _copy(part, ours, theirs, part not in at_target)
                    files, there = files + done, there + (not done)
                bar.advance(row)
            if ours.folder_name == ReturnFiles.folder_name and not missing:
                files += _copy_json(ours.folder, theirs.folder, EVALUATION.name)
    missing_parts = kinds[0][1].missing()
    if is_address(target) and not missing_parts and kinds[0][0].parts:
        files += _copy_json(source, target, METADATA.name)
    return Copied(files, there, len(missing_parts))


def _check_same(target: Path, metadata: PathMetadata) -> None:
    """Raises a TiplError if there is another dataset at an address."""
    if exists(target / METADATA.name) and read_metadata(target).digest != metadata.digest:
        raise TiplError(
            f"{target} already holds another dataset; choose another address, or remove that one "
            "first"
        )


def _copy(part: PartRange, ours: PartFiles, theirs: PartFiles, is_there: bool) -> bool:
    """Copies the file of a part, unless its like is there; whether it was copied."""
    path = theirs.path(part)
    with ours.open_intact(part):  # looks at every byte
        file = on_this_machine(ours.path(part), ours.one, storage.verify_tensors)
    if is_there:
        same = is_sent(file, path) if is_address(path) else path.read_bytes() == file.read_bytes()
        if same:
            return False
        if not ours.metadata.recorded or not theirs.is_own(path):  # recorded runs grow
            raise TiplError(
                f"{path} is there with other bytes than {ours.path(part)}, and nothing is written "
                "over it; remove the one that is wrong, which `tipl paths verify` tells"
            )
    if is_address(path):
        send(file, path)
    else:
        atomic.make_folder(theirs.folder)
        own = theirs.own_file
        atomic.write_bytes_atomically(path, file.read_bytes(), own=own)
    return True


def _copy_json(source: Path, target: Path, name: str) -> bool:
    """Copies a sealed JSON file; whether it was not there."""
    if exists(target / name):
        return False
    file = on_this_machine(source / name, "a file of the dataset", storage.read_json)
    if is_address(target):
        storage.read_json(file)
        send(file, target / name)
    else:
        storage.write_json(target / name, storage.read_json(file))
    return True
