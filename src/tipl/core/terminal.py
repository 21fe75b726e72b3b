"""The one way to the terminal: results, notes, warnings, and streams that may be broken.

Text of strangers, such as the id of a task in a file, may hold what a terminal obeys. All that is
printed therefore goes through here, where `tipl.errors.printable` shows it as escapes, and where
nothing in brackets is markup.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from tipl.errors import one_sentence, printable

if TYPE_CHECKING:
    from rich.console import Console

LOGGER = logging.getLogger("tipl")

_PLAIN = {
    "×": "x", "−": "-", "–": "-", "—": "-", "‑": "-", "±": "+-", "·": ".", "•": "*", "…": "...",
    "≥": ">=", "≤": "<=", "→": "->", "✓": "yes", "✗": "no", "“": '"', "”": '"', "’": "'",
    **dict.fromkeys("─━═╌╸╺", "-"), **dict.fromkeys("│┃║", "|"),
    **dict.fromkeys("╭╮╰╯┌┐└┘├┤┬┴┼┏┓┗┛", "+"),
}  # fmt: skip
"""What stands for our signs where a terminal has no more than ASCII."""


@dataclass(frozen=True)
class Manner:
    """What a command prints beside warnings and errors."""

    json: bool = False
    """print results as one JSON value, and nothing else on standard output"""
    quiet: bool = False
    """print results, warnings and errors alone: no progress, and no word on what was done"""


_USUAL = Manner()
_manner: ContextVar[Manner] = ContextVar("_manner", default=_USUAL)


@contextlib.contextmanager
def speaking(manner: Manner) -> Iterator[None]:
    """Lets all that is printed in the block be so."""
    before = _manner.set(manner)
    try:
        yield
    finally:
        _manner.reset(before)


def is_quiet() -> bool:
    """Whether neither progress nor notes are wanted."""
    return _manner.get().quiet


def say(*lines: str) -> None:
    """Prints lines of results on standard output, unless `answer` prints them as JSON."""
    if not _manner.get().json:
        for line in lines:
            print(printable(line))  # noqa: T201


def note(*lines: str) -> None:
    """Prints lines on what was done: where nothing but JSON is printed, on standard error."""
    if is_quiet():
        return
    for line in lines:
        (complain if _manner.get().json else say)(line)


def answer(found: object) -> None:
    """Prints the results of a command as one JSON value, if that is wanted."""
    if _manner.get().json:
        from tipl.core.plain_data import json_text

        print(json_text(found))  # noqa: T201


def complain(line: str) -> None:
    """Prints a line on standard error."""
    with contextlib.suppress(OSError, ValueError):  # nobody is there to read it, and that is that
        print(printable(line), file=sys.stderr, flush=True)  # noqa: T201


def warn(sentence: str) -> None:
    """Says a sentence to the logger "tipl", which is the terminal's if nobody chose another.

    As that of an error, it becomes one line of a bearable length.
    """
    LOGGER.warning("%s", one_sentence(sentence))


def relay(text: str) -> None:
    """Prints on standard error what a library made of its own words and of printable ones."""
    with contextlib.suppress(OSError, ValueError):
        print(text, end="", file=sys.stderr, flush=True)  # noqa: T201


def without_boxes(text: str) -> str:
    """The words of a library's box, on one line."""
    return " ".join(re.sub("[\u2500-\u257f]", " ", text).split())


def console(stderr: bool = False, quiet: bool = False) -> Console:
    """A console for tables and styled lines, on which texts are what they are.

    On standard output it is one for results, on standard error for progress and notes.
    """
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class Careful(Console):
        def render(
            self, renderable: RenderableType, options: ConsoleOptions | None = None
        ) -> Iterator[Segment]:
            for text, style, control in super().render(renderable, options):
                lines = text if control else "\n".join(map(printable, text.split("\n")))
                yield Segment(lines, style, control)

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # which the command line knows what to do with

    quiet = quiet or (is_quiet() if stderr else _manner.get().json)
    return Careful(stderr=stderr, quiet=quiet, markup=False, emoji=False, highlight=False)


# --- the streams of a process, as the command line finds them --------------------------------


@contextlib.contextmanager
def prepared() -> Iterator[None]:
    """Makes the process' own streams fit for whatever is printed, and for whoever reads it.

    In the block, characters that a stream cannot encode have substitutes, what cannot be written
    to standard error is dropped, and warnings and errors of other libraries are shown on lines of
    their own. Streams that somebody has put in the place of the process' own are left alone.
    """
    if sys.stdout is not sys.__stdout__ or sys.stderr is not sys.__stderr__:
        yield
        return
    _fill_closed_descriptors()
    before = sys.stdout, sys.stderr, sys.excepthook, logging.lastResort
    codecs.register_error("tipl", _substitute)
    sys.stdout = output = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    errors = output.errors
    if isinstance(output, io.TextIOWrapper):
        output.reconfigure(errors="tipl")
    sys.stderr = _forgiving(sys.stderr)
    sys.excepthook = _show_error
    logging.lastResort = logging.StreamHandler(sys.stderr)
    logging.lastResort.setLevel(logging.WARNING)
    logging.lastResort.setFormatter(_Printable())
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it does without a home as well
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            yield
    finally:
        sys.stdout, sys.stderr, sys.excepthook, logging.lastResort = before
        if isinstance(output, io.TextIOWrapper):
            output.reconfigure(errors=errors)


def drop_output() -> None:
    """Lets nothing complain any more, at the process' end, that output could not be written."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    with contextlib.suppress(OSError, ValueError):  # what stands in for a file has no number
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fill_closed_descriptors() -> None:
    """Keeps files that are opened later from becoming somebody's standard output."""
    for descriptor, mode in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:  # to 1 nothing can be written, and that is to be noticed
            os.dup2(opened := os.open(os.devnull, mode), descriptor)
            if opened != descriptor:
                os.close(opened)


def _substitute(error: Any) -> tuple[str, int]:
    """What stands for characters that a stream cannot encode."""
    characters = error.object[error.start : error.end]
    found = [_PLAIN.get(one) or one.encode("ascii", "backslashreplace").decode()
             for one in characters]  # fmt: skip
    return "".join(found), error.end


class _Forgiving(io.FileIO):
    """Standard error: what cannot be written is dropped, and the work goes on."""

    def write(self, data: Any) -> int:
        written: int | None = None
        with contextlib.suppress(OSError):
            written = super().write(data)
        return len(memoryview(data)) if written is None else written


def _forgiving(stream: TextIO | None) -> TextIO:
    encoding = stream.encoding if stream is not None else "ascii"
    raw = _Forgiving(2, "w", closefd=False)
    buffered = io.BufferedWriter(raw)
    return io.TextIOWrapper(buffered, encoding, "tipl", line_buffering=True)


class _Printable(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    words = " ".join(re.sub(r"\x1b\[[\d;]*m", "", str(message)).split())  # of Gymnasium's in colour
    complain(one_sentence(f"tipl: a warning of {filename}, line {lineno}: {words}"))


def _show_error(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """A fault of ours, which is told in full."""
    for text in traceback.format_exception(kind, error, trace):
        for line in text.rstrip("\n").split("\n"):
            complain(line)
