"""Writing checkpoints as they come: parts of planned trials, and one recorded run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tipl.core.arrays import Array
from tipl.core.locks import locked_directory
from tipl.core.system_errors import explained
from tipl.core.unfinished import remove_unfinished
from tipl.errors import TiplError
from tipl.paths.grid import PartRange, full_part, named_parts, part_ranges
from tipl.paths.metadata import PathMetadata
from tipl.paths.parts import PartFiles
from tipl.paths.returns import settings_path
from tipl.paths.values import PER_CHECKPOINT

Checkpoint = dict[str, Array]
"""Arrays `[n, ...]` by name, of n trials; of those `PER_CHECKPOINT`, a number."""


_State = tuple[Path, int, int, int]


class PartWriter:
    """Gathers the checkpoints of some trials, and writes a part when its last one is there."""

    def __init__(self, directory: Path, metadata: PathMetadata, parts: Sequence[PartRange]) -> None:
        self.files, self.parts = PartFiles(directory, metadata), parts
        self.finished = 0  # checkpoints so far
        self.growing: list[Checkpoint] = []  # those of them whose part is not written yet

    def add(self, checkpoint: Checkpoint) -> None:
        """Takes the trials' next checkpoint."""
        self.growing.append(checkpoint)
        self.finished += 1
        for part in self.parts:
            if part.last_checkpoint == self.finished - 1:
                self.files.write(part, _stacked(self.growing))
                self.growing.clear()


class PlannedTrial:
    """Writes one planned trial, each part once it is whole; used as a `TrialWriter` is.

    Args:
        directory: of a dataset of planned trials, with parts of one trial each.
        trial: its number.
    """

    def __init__(self, directory: Path, metadata: PathMetadata, trial: int) -> None:
        parts = [part for part in part_ranges(metadata) if part.first_trial == trial]
        self._writer, self.trial = PartWriter(directory, metadata, parts), trial
        self.last: Checkpoint | None = None
        self._pending = False  # whether more may be said of the last checkpoint

    def append(self, checkpoint: Checkpoint) -> None:
        """Takes the trial's next checkpoint."""
        self.sync()
        self.last, self._pending = checkpoint, True

    def amend(self, changes: Checkpoint) -> None:
        """Says more of the last checkpoint."""
        if self.last is not None:
            self.last = self.last | changes

    def sync(self) -> None:
        """Takes the last checkpoint as it is."""
        if self.last is not None and self._pending:
            self._writer.add(self.last)
        self._pending = False


class TrialWriter:
    """Writes a recorded run, as one trial of a dataset: each checkpoint is safe once it is there.

    The part that grows is replaced whole, so that readers and killed processes leave or find all
    checkpoints so far. A trial belongs to whoever wrote its last file: two runs never mix, in
    however many processes they are.

    Args:
        directory: of a dataset of recorded runs that is there.
        trial: number of the run; by default the next free one, taken with the first checkpoint.

    Raises:
        TiplError: there is such a trial.
    """

    def __init__(self, directory: Path, metadata: PathMetadata, trial: int | None = None) -> None:
        self.files, self.trial = PartFiles(directory, metadata), trial
        self.first = 0  # checkpoint of those that grow
        self.growing: list[Checkpoint] = []  # those of the last part
        self._written: _State | None = None  # the last file, as it was left
        if trial is not None:
            self._refuse(trial)

    @classmethod
    def resume(cls, directory: Path, metadata: PathMetadata, trial: int) -> TrialWriter:
        """Goes on with a trial that is there.

        Raises:
            TiplError: there is none, or it cannot be read.
        """
        writer = cls(directory, metadata)
        files, writer.trial = writer.files, trial
        with locked_directory(files.folder):
            files = writer.files = PartFiles(directory, metadata)
            own = [part for part in files.parts if part.first_trial == trial]
            if not own:
                raise TiplError(f"there is no trial {trial} in {directory} to go on with")
            part = own[-1]
            tensors = files.read_part(part)
            writer.first = part.first_checkpoint
            writer._remember(files.path(part))
        writer.growing = [
            {
                name: array[i] if name in PER_CHECKPOINT else array[:, i]
                for name, array in tensors.items()
            }
            for i in range(part.num_checkpoints)
        ]
        return writer

    @property
    def last(self) -> Checkpoint | None:
        """The last checkpoint, of 1 trial; None if there is none yet."""
        return self.growing[-1] if self.growing else None

    def append(self, checkpoint: Checkpoint) -> None:
        """Takes the run's next checkpoint, and writes it."""
        if len(self.growing) == self._size:
            self._write([checkpoint], self.first + len(self.growing))
        else:
            self._write([*self.growing, checkpoint], self.first)

    def amend(self, changes: Checkpoint) -> None:
        """Says more of the last checkpoint, and writes it again."""
        if self.growing:
            self._write([*self.growing[:-1], self.growing[-1] | changes], self.first)

    def sync(self) -> None:
        """Waits until all is on the disk, where no power failure loses it."""
        if self.growing:
            self._write(self.growing, self.first, sync=True)

    def _write(self, growing: list[Checkpoint], first: int, sync: bool = False) -> None:
        """Writes the part that starts at a checkpoint, unless the trial is somebody else's."""
        with locked_directory(self.files.folder):
            trial = self._claimed()
            part = self._part(trial, first, len(growing))
            path = self.files.path(part)
            full = part == full_part(part, self.files.metadata)
            self.files.write(part, _stacked(growing), sync or full)
            self._remember(path)
        self.trial, self.first, self.growing = trial, first, growing

    def _claimed(self) -> int:
        """The number of the trial, once it is sure that it is this run's."""
        trial = self.trial
        if self._written is not None and trial is not None:
            path, following = self._written[0], self._part(trial, self.first + self._size, 1)
            if self._written != _state(path) or self.files.path(following).exists():
                raise TiplError(
                    f"{path} is not as this run left it: another one goes on with trial {trial}, "
                    "or somebody has changed it; this run is recorded no further"
                )
        else:
            remove_unfinished(self.files.folder)  # whoever writes here holds the same lock
            if trial is not None:
                self._refuse(trial)
        return max(self._numbers(), default=-1) + 1 if trial is None else trial

    @property
    def _size(self) -> int:
        """Checkpoints of a part that is full."""
        return self.files.metadata.checkpoints_per_part

    def _part(self, trial: int, first: int, count: int) -> PartRange:
        return PartRange(trial, trial, first, first + count - 1)

    def _remember(self, path: Path) -> None:
        self._written = _state(path)

    def _refuse(self, trial: int) -> None:
        """Raises a TiplError if there is such a trial."""
        if trial in self._numbers():
            raise TiplError(
                f"{self.files.directory} holds a trial {trial} already, and nothing is written "
                "over it; give another number or none, which takes the next free one"
            )

    def _numbers(self) -> set[int]:
        """Of the trials that are there, or that there are returns of."""
        folders = self.files.folder, settings_path(self.files.directory).parent
        return {part.first_trial for folder in folders for part in named_parts(folder)}


def _state(path: Path) -> _State | None:
    """Tells a file that was replaced or changed from what it was; None if it is gone."""
    with explained("read", path):
        try:
            found = path.stat()
        except FileNotFoundError:
            return None
    return path, found.st_ino, found.st_mtime_ns, found.st_size


def _stacked(checkpoints: Sequence[Checkpoint]) -> dict[str, Array]:
    """The arrays of a part, `[n, t, ...]` and `[t]`, of those of its checkpoints."""
    axes = {name: 0 if name in PER_CHECKPOINT else 1 for name in checkpoints[0]}
    return {
        name: np.stack([checkpoint[name] for checkpoint in checkpoints], axis)
        for name, axis in axes.items()
    }
