"""What an engine runs: pieces of work, each attempted once at a time, whatever comes of it."""

from __future__ import annotations

import contextlib
import socket
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

from tipl.core.atomic import write_bytes_atomically
from tipl.core.ownership import ANYTHING
from tipl.core.progress import CollectionProgress
from tipl.errors import TiplError, one_sentence

Report = Callable[..., None]
"""Is told of what a piece has just done, as `CollectionProgress.advance` is."""


@runtime_checkable
class Work(Protocol):
    """Something long of independent pieces, which are counted from 0.

    It is sent to other machines as it is, so it holds plain data alone.
    """

    @property
    def directory(self) -> Path:
        """Which all machines share."""

    @property
    def memory(self) -> int:
        """Bytes that a process with one piece needs."""

    def unfinished(self) -> list[int]:
        """The pieces that are not done, in order."""

    def name(self, piece: int) -> str:
        """What a piece is called in messages."""

    def is_done(self, piece: int) -> bool:
        """Whether all files of a piece are there."""

    def extent(self, piece: int) -> int:
        """How much there is to do in a piece, as progress counts it."""

    def reached(self, piece: int) -> int:
        """How much of it is safe on the disk; of what runs elsewhere nothing else tells."""

    def holder(self, piece: int) -> str | None:
        """The process that is at a piece, as far as can be told from here."""

    def record(self, piece: int) -> Path:
        """Where a fault of the code in a piece is written down."""

    def bar(self, pieces: Sequence[int], shown: bool) -> CollectionProgress:
        """A bar of some pieces, empty."""

    def check_machine(self) -> None:
        """Raises a TiplError if this machine sees another directory or has other versions."""

    def run(self, piece: int, stop: threading.Event, report: Report) -> str | None:
        """Takes a piece from where it was to its end, or to where `stop` is set.

        Returns:
            The process that is at it already, if there is one: then nothing was done.
        """


@runtime_checkable
class Engine(Protocol):
    """Runs pieces, wherever that is."""

    def run(self, work: Work, pieces: Sequence[int], bar: CollectionProgress) -> dict[int, Outcome]:
        """Runs pieces to their end; what came of each."""


class Outcome(NamedTuple):
    """What came of an attempt at a piece: it is done, unless something else is said."""

    host: str  # where
    failure: str = ""  # what went wrong, in one sentence
    holder: str = ""  # the process that was at it already
    error: Exception | None = None  # that the sentence tells, if it was raised in this process


def attempt(
    work: Work, piece: int, stop: threading.Event, report: Report = lambda *_, **__: None
) -> Outcome:
    """Runs a piece; what goes wrong in it ends no other one.

    A fault of the code is written down beside the piece, with its traceback.
    """
    host = socket.gethostname()
    try:
        return Outcome(host, holder=work.run(piece, stop, report) or "")
    except TiplError as error:
        return Outcome(host, str(error), error=error)
    except Exception as error:
        failure = one_sentence(f"{type(error).__name__}: {error}")
        said = f"{work.name(piece)} on {host}: {failure}\n\n{traceback.format_exc()}"
        with contextlib.suppress(TiplError):  # a full disk, say, which the driver hears of anyway
            write_bytes_atomically(work.record(piece), said.encode(errors="replace"), own=ANYTHING)
        return Outcome(host, failure, error=error)


def run_pieces(
    engine: Engine, work: Work, pieces: Sequence[int], progress: bool
) -> dict[int, Outcome]:
    """Runs those of some pieces that are not finished; what came of each.

    Raises:
        TiplError: some failed, or the process was told to end.
    """
    left = sorted(set(pieces) & set(work.unfinished()))
    if not left:
        return {}
    done = [piece for piece in pieces if work.is_done(piece)]
    try:
        with work.bar(pieces, progress) as bar:
            bar.advance(sum(map(work.extent, done)), fresh=False)
            outcomes = engine.run(work, left, bar)
    except KeyboardInterrupt as error:
        raise TiplError(
            f"interrupted; finished checkpoints are safe in {work.directory}: run the same "
            "command again to go on"
        ) from error
    raise_failures(work, outcomes)
    return outcomes


def raise_failures(work: Work, outcomes: Mapping[int, Outcome]) -> None:
    """Raises a TiplError that says in one sentence which pieces failed, where and how to go on.

    What somebody else has done since is no failure.
    """
    failed = {
        piece: outcome
        for piece, outcome in sorted(outcomes.items())
        if outcome.failure and not work.is_done(piece)
    }
    if not failed:
        return
    first = next(iter(failed.values()))
    if isinstance(first.error, TiplError) and {one.failure for one in failed.values()} == {
        first.failure
    }:
        raise first.error
    by_reason: dict[str, list[int]] = {}
    for piece, outcome in failed.items():
        by_reason.setdefault(f"on {outcome.host}: {outcome.failure}", []).append(piece)
    reasons = [
        f"{work.name(pieces[0])}{f' and {len(pieces) - 1} more' if pieces[1:] else ''} {reason}"
        for reason, pieces in by_reason.items()
    ]
    records = [path for piece in failed if (path := work.record(piece)).exists()]
    written = f" (tracebacks are in {records[0].parent})" if records else ""
    raise TiplError(
        f"{len(failed)} of {len(outcomes)} failed{written}: {'; '.join(reasons[:3])}"
        f"{f'; and for {len(reasons) - 3} more reasons' if reasons[3:] else ''}. All else went on; "
        f"what is finished is safe in {work.directory}: run the same command again to go on"
    ) from first.error
