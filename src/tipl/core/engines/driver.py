"""Running pieces as jobs on other machines, some of which die.

Nothing that matters is kept here. How far pieces are is read from the directory, so a driver that
is killed is started again and finds what has been done without it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from tipl.core.engines.work import Outcome, Work
from tipl.core.progress import CollectionProgress
from tipl.errors import TiplError

TRIES = 3
"""Jobs for a piece that may be lost one after another without anything more on the disk."""

LOOKS = 0.02
"""Share of the time that is spent on looking how far pieces are."""


class LostError(Exception):
    """A job has ended, and nobody knows how: its machine died, or the system killed it."""


@runtime_checkable
class Job(Protocol):
    """One attempt at a piece, by another process."""

    def is_over(self) -> bool:
        """Whether it has ended, somehow."""

    def outcome(self) -> Outcome:
        """What came of one that is over.

        Raises:
            LostError: nothing is known but that it ended.
        """

    def cancel(self) -> None:
        """Ends it, soon."""


@runtime_checkable
class Machines(Protocol):
    """Who takes jobs."""

    def submit(self, work: Work, pieces: Sequence[int]) -> Sequence[Job]:
        """A job for each piece."""


class Driver:
    """Submits jobs until each piece is done, has failed, or has been lost too often.

    A piece that another process is at, such as a job of a driver that was killed, is waited for.

    Args:
        machines: who takes jobs.
        at_once: jobs there may be at once; None for all.
        pause: seconds between two looks at jobs and files.
    """

    def __init__(self, machines: Machines, at_once: int | None, pause: float = 1.0) -> None:
        self.machines, self.at_once, self.pause = machines, at_once, pause

    def run(self, work: Work, pieces: Sequence[int], bar: CollectionProgress) -> dict[int, Outcome]:
        """Sees pieces to their end; what came of each."""
        self._work, self._waiting = work, list(pieces)
        self._running: dict[int, Job] = {}
        self._outcomes: dict[int, Outcome] = {}
        self._lost = dict.fromkeys(pieces, 0)  # jobs in a row, without progress between them
        self._not_before = dict.fromkeys(pieces, 0.0)
        self._reached = {piece: work.reached(piece) for piece in pieces}  # as the bar has it
        self._began = dict(self._reached)  # where the last job of a piece began
        bar.advance(sum(self._reached.values()), fresh=False)
        looked = time.monotonic()
        try:
            while self._waiting or self._running:
                self._submit()
                time.sleep(self.pause)
                for piece in [p for p, job in self._running.items() if job.is_over()]:
                    self._end(piece, self._running.pop(piece))
                start = time.monotonic()
                over = not (self._waiting or self._running)
                if over or (start - looked) * LOOKS >= self._took:
                    self._look(bar)
                    looked, self._took = time.monotonic(), time.monotonic() - start
        finally:
            for job in self._running.values():
                job.cancel()
        return self._outcomes

    _took = 0.0  # seconds, the last look at the files

    def _look(self, bar: CollectionProgress) -> None:
        """Reads from the disk how far all pieces are."""
        for piece, before in self._reached.items():
            if before < self._work.extent(piece):
                self._reached[piece] = max(before, self._work.reached(piece))
                bar.advance(self._reached[piece] - before)

    def _submit(self) -> None:
        """Submits what may run now."""
        room = len(self._waiting)
        if self.at_once is not None:
            room = self.at_once - len(self._running)
        now = time.monotonic()
        ready = [
            piece
            for piece in self._waiting
            if self._not_before[piece] <= now
            and not (self._not_before[piece] and self._work.holder(piece))
        ][: max(0, room)]
        if ready:
            self._began.update((piece, self._work.reached(piece)) for piece in ready)
            jobs = self.machines.submit(self._work, ready)
            self._running.update(zip(ready, jobs, strict=True))
            self._waiting = [piece for piece in self._waiting if piece not in self._running]

    def _end(self, piece: int, job: Job) -> None:
        """Takes note of what came of a job, or has the piece tried again."""
        try:
            outcome = job.outcome()
        except LostError as error:
            outcome = Outcome("a machine that was lost", str(error))
        else:
            if not outcome.holder:
                self._outcomes[piece] = outcome
                return
        self._try_again(piece, outcome)

    def _try_again(self, piece: int, outcome: Outcome) -> None:
        """Lets a piece wait for its next job, unless too many have come to nothing."""
        if self._work.is_done(piece):
            self._outcomes[piece] = Outcome(outcome.host)
            return
        further = self._work.reached(piece) > self._began[piece]
        self._lost[piece] = 0 if further else self._lost[piece] + 1
        if self._lost[piece] >= TRIES:
            if outcome.failure:
                said = f"{outcome.failure} (given up after {TRIES} jobs without a new checkpoint)"
                outcome = outcome._replace(failure=said)
            self._outcomes[piece] = outcome
            return
        self._not_before[piece] = time.monotonic() + self.pause * 4 ** self._lost[piece]
        self._waiting.append(piece)


def run_remotely(work: Work, piece: int, trusted: Mapping[str, Sequence[str]]) -> Outcome:
    """What a job does, on its machine."""
    import socket
    import threading

    from threadpoolctl import threadpool_limits

    from tipl.core.engines.work import attempt
    from tipl.core.trust import trust

    try:
        work.check_machine()
    except TiplError as error:
        return Outcome(socket.gethostname(), str(error))
    with trust(*trusted["modules"], arguments=trusted["arguments"]), threadpool_limits(1, "blas"):
        # an exception may hold what cannot be sent back
        return attempt(work, piece, threading.Event())._replace(error=None)
