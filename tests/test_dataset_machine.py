"""A dataset is written, killed, read, copied, moved and damaged in any order, beside a model of it.

The model knows what is finished and nothing else: of planned trials which parts, of recorded runs
how many checkpoints of each. All that is finished has the bytes of a dataset that nobody disturbed,
and readers say exactly what is there and what is wrong.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from path_data import make_arrays, make_metadata
from test_losing_nothing import forked, kill_in_write
from test_recorded_paths import checkpoint, recorded
from tipl.core.unfinished import is_unfinished
from tipl.errors import TiplError
from tipl.paths import (
    PathDataset,
    PathMetadata,
    create_dataset,
    part_ranges,
    summarize,
    verify,
    write_part,
)
from tipl.paths.grid import PartRange
from tipl.paths.writing import TrialWriter

STEPS_OF_RUN = 25
STEPS = int(os.environ.get("FUZZ_STEPS") or 0)
"""At length, with others each time; in the tests 300, always the same."""

_GRID = {"num_trials": 2, "num_checkpoints": 4, "trials_per_part": 1, "checkpoints_per_part": 2}
PLANNED = make_metadata(**_GRID)
RECORDED = recorded(checkpoints_per_part=2)
TRIALS, LONGEST = 2, 5
POINTS = st.integers(0, 9)
"""Where in a write it is killed: before and after each call that makes something lasting."""

PLACES = st.integers(0, 9999)
"""Taken modulo what there is: which of two processes is first must not change what is drawn."""

counts = {"steps": 0, "kills": 0, "pairs": 0, "damaged": 0}


@functools.cache
def _arrays() -> dict[str, np.ndarray]:
    arrays = make_arrays(PLANNED)
    arrays["params"] = np.nan_to_num(arrays["params"])
    return arrays


def _write_planned(directory: Path, part: PartRange) -> None:
    tensors = {
        name: array[part.slices[1] if array.ndim == 1 else part.slices]
        for name, array in _arrays().items()
    }
    write_part(directory, PLANNED, part.first_trial, part.first_checkpoint, tensors)


def _write_recorded(directory: Path, trial: int, length: int) -> None:
    """One checkpoint more of a trial, which may be its first one."""
    begin = TrialWriter.resume if length else TrialWriter
    writer = begin(directory, RECORDED, trial)
    there = writer.first + len(writer.growing)
    writer.append(checkpoint(RECORDED, trial, there))
    writer.sync()


@functools.cache
def _undisturbed(trial: int, length: int) -> dict[str, bytes]:
    """The files of a recorded run that nobody disturbed."""
    with tempfile.TemporaryDirectory() as made:
        create_dataset(made, RECORDED)
        for done in range(length):
            _write_recorded(Path(made), trial, done)
        return {path.name: path.read_bytes() for path in (Path(made) / "parts").iterdir()}


@functools.cache
def _undisturbed_parts() -> dict[PartRange, bytes]:
    """The parts of planned trials that nobody disturbed."""
    with tempfile.TemporaryDirectory() as made:
        create_dataset(made, PLANNED)
        for part in part_ranges(PLANNED):
            _write_planned(Path(made), part)
        return {part: part.path(Path(made)).read_bytes() for part in part_ranges(PLANNED)}


def _ended(child: int) -> int | None:
    """The exit status of a child: 0, 2 after a refusal, None if it was killed."""
    _, status = os.waitpid(child, 0)
    return None if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)


class DatasetMachine(RuleBasedStateMachine):
    """What may happen to a dataset."""

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp(prefix="tipl-dataset-"))
        self.directory = self.place / "0"
        self.moves = 0
        self.metadata: PathMetadata = PLANNED
        self.parts: set[PartRange] = set()  # that are finished, of planned trials
        self.lengths: dict[int, int] = {}  # finished checkpoints of each recorded run
        self.damaged: Path | None = None
        self.bytes_before = b""

    def teardown(self) -> None:
        shutil.rmtree(self.place)

    # --- what the model says ---------------------------------------------------------------------

    @property
    def finished(self) -> dict[str, bytes]:
        """The files that there should be."""
        if self.metadata is PLANNED:
            return {part.file_name: _undisturbed_parts()[part] for part in self.parts}
        runs = (_undisturbed(trial, length) for trial, length in self.lengths.items() if length)
        return {name: data for files in runs for name, data in files.items()}

    def found(self) -> dict[str, bytes]:
        """The files that there are, but for those of writes that never finished."""
        files = [p for p in (self.directory / "parts").iterdir() if not is_unfinished(p)]
        return {path.name: path.read_bytes() for path in files}

    def left_over(self) -> list[Path]:
        """What killed writes have left."""
        return [path for path in self.directory.rglob("*") if is_unfinished(path)]

    def one_write(self, which: int) -> tuple[Callable[[], None], Callable[[int], None]]:
        """A write of one of the parts or trials, and what it makes of the model if it is done."""
        directory = self.directory
        if self.metadata is PLANNED:
            part = part_ranges(PLANNED)[which % 4]
            return (
                lambda: _write_planned(directory, part),
                lambda times: self.parts.update({part} if times else set()),
            )
        trial = min(which % TRIALS, len(self.lengths))
        length = self.lengths.get(trial, 0)

        def done(times: int) -> None:
            if length + times:
                self.lengths[trial] = length + times

        return lambda: _write_recorded(directory, trial, length), done

    def can_grow(self, which: int) -> bool:
        trial = min(which % TRIALS, len(self.lengths))
        return self.metadata is PLANNED or self.lengths.get(trial, 0) < LONGEST

    # --- what happens ----------------------------------------------------------------------------

    @initialize(planned=st.booleans(), point=st.one_of(st.none(), POINTS))
    def create(self, planned: bool, point: int | None) -> None:
        self.metadata = PLANNED if planned else RECORDED
        directory, metadata = self.directory, self.metadata
        if point is not None:

            def killed() -> None:
                kill_in_write(point)
                create_dataset(directory, metadata)

            assert _ended(forked(killed)) in (0, None)
        create_dataset(directory, metadata)
        create_dataset(directory, metadata)  # which changes nothing
        counts["steps"] -= 1  # no step, and looked at as each is

    @precondition(lambda self: self.damaged is None)
    @rule(which=st.integers(0, 3))
    def write(self, which: int) -> None:
        if self.can_grow(which):
            write, done = self.one_write(which)
            write()
            done(1)

    @precondition(lambda self: self.damaged is None)
    @rule(which=st.integers(0, 3), point=POINTS)
    def write_and_be_killed(self, which: int, point: int) -> None:
        if not self.can_grow(which):
            return
        write, done = self.one_write(which)

        def killed() -> None:
            kill_in_write(point)
            write()

        before = self.finished
        ended = _ended(forked(killed))
        assert ended in (0, None)
        counts["kills"] += ended is None
        there = self.found()
        if ended == 0 or there != before:
            done(1)  # that it is the new state, and no other, the invariant says

    @precondition(lambda self: self.damaged is None)
    @rule(which=st.integers(0, 3), other=st.integers(0, 3))
    def write_in_two_processes(self, which: int, other: int) -> None:
        writes = [self.one_write(one) for one in (which, other)]
        if not (self.can_grow(which) and self.can_grow(other)):
            return
        ended = [_ended(child) for child in [forked(write) for write, _ in writes]]
        counts["pairs"] += 1
        assert set(ended) <= {0, 2}
        trials = {min(one % TRIALS, len(self.lengths)) for one in (which, other)}
        same = self.metadata is RECORDED and len(trials) == 1
        if same:
            assert 0 in ended  # one at least goes on, and the other after it or not at all
            done = writes[0][1]
            done(ended.count(0))
            if 2 in ended and self.found() != self.finished:
                done(2)  # the other one was told so only after its checkpoint, when it synced
        else:
            assert ended == [0, 0]
            for _, done in writes:
                done(1)

    @precondition(lambda self: self.damaged is None)
    @rule(which=st.integers(0, 3))
    def read_while_it_is_written(self, which: int) -> None:
        if not self.can_grow(which):
            return
        write, done = self.one_write(which)
        before = self.known_lengths()
        child = forked(write)
        seen = self.read_lengths()
        assert _ended(child) == 0
        done(1)
        assert seen in (before, self.known_lengths())

    @precondition(lambda self: self.damaged is None)
    @rule()
    def copy(self) -> None:
        self.moves += 1
        new = self.place / f"{self.moves}"
        shutil.copytree(self.directory, new)
        self.directory = new

    @rule()
    def move(self) -> None:
        self.moves += 1
        new = self.place / f"{self.moves}"
        self.directory.rename(new)
        if self.damaged is not None:
            self.damaged = new / "parts" / self.damaged.name
        self.directory = new

    @precondition(lambda self: self.damaged is None)
    @rule(which=PLACES, place=PLACES, bit=st.one_of(st.none(), st.integers(0, 7)))
    def damage(self, which: int, place: int, bit: int | None) -> None:
        names = sorted(self.finished)
        if not names:
            return
        self.damaged = self.directory / "parts" / names[which % len(names)]
        self.bytes_before = self.damaged.read_bytes()
        changed = bytearray(self.bytes_before)
        place %= len(changed)
        if bit is None:
            del changed[place:]
        else:
            changed[place] ^= 1 << bit
        self.damaged.write_bytes(changed)
        counts["damaged"] += 1

    @precondition(lambda self: self.damaged is not None)
    @rule()
    def restore(self) -> None:
        assert self.damaged is not None
        self.damaged.write_bytes(self.bytes_before)
        self.damaged = None

    # --- what is seen ----------------------------------------------------------------------------

    def known_lengths(self) -> dict[int, int]:
        """Checkpoints of each trial that can be read; none of planned trials before all are."""
        if self.metadata is PLANNED:
            return {0: 4, 1: 4} if len(self.parts) == 4 else {}
        return dict(self.lengths)

    def read_lengths(self) -> dict[int, int]:
        """Likewise, as a reader sees them."""
        try:
            paths = PathDataset.open(self.directory)
        except TiplError as error:
            if "is incomplete" in str(error) or "nothing of" in str(error):
                return {}
            raise
        return dict(zip(paths.trials.tolist(), paths.lengths.tolist(), strict=True))

    @precondition(lambda self: self.damaged is None)
    @rule()
    def read(self) -> None:
        known = self.known_lengths()
        assert self.read_lengths() == known
        summary = summarize(self.directory)
        assert summary.num_parts == len(self.finished)
        assert len(summary.missing_parts) == (
            4 - len(self.parts) if self.metadata is PLANNED else 0
        )
        if not known:
            return
        for trial, length in known.items():
            paths = PathDataset.open(self.directory, [trial])
            expected = (
                _arrays()["params"][trial]
                if self.metadata is PLANNED
                else np.concatenate(
                    [checkpoint(RECORDED, trial, t)["params"] for t in range(length)]
                )
            )
            np.testing.assert_array_equal(paths.params()[0], expected)

    @rule()
    def look_at_every_byte(self) -> None:
        problems = verify(self.directory)
        if self.damaged is not None:
            named = [problem for problem in problems if str(self.damaged) in problem]
            assert named
            problems = [problem for problem in problems if problem not in named]
        for path in self.left_over():
            named = [problem for problem in problems if str(path) in problem]
            assert len(named) == 1
            assert "never finished" in named[0]
            problems.remove(named[0])
        missing = 4 - len(self.parts) if self.metadata is PLANNED else 0
        if missing:
            assert problems.pop().startswith(f"{missing} of 4 parts are missing")
        assert problems == []

    @precondition(lambda self: self.damaged is not None)
    @rule()
    def read_what_is_damaged(self) -> None:
        assert self.damaged is not None
        incomplete = "|is incomplete" if self.metadata is PLANNED and len(self.parts) < 4 else ""
        with pytest.raises(TiplError, match=re.escape(self.damaged.name) + incomplete):
            PathDataset.open(self.directory).params()

    @invariant()
    def nothing_is_lost(self) -> None:
        counts["steps"] += 1
        if (self.directory / "parts").exists() and self.damaged is None:
            assert self.found() == self.finished


def test_a_dataset_is_what_its_model_says(record_property: Callable[[str, object], None]) -> None:
    try:
        run_state_machine_as_test(
            DatasetMachine,
            settings=settings(
                max_examples=max(STEPS // (STEPS_OF_RUN // 2), 12),
                stateful_step_count=STEPS_OF_RUN,
                derandomize=not STEPS,
                database=None,
                deadline=None,
                phases=[Phase.generate, Phase.shrink],
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        record_property(
            "counted", ", ".join(f"{number:,} {what}" for what, number in counts.items())
        )
