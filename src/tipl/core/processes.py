"""Signals, which end a command, and child processes, which end with it.

SIGINT, SIGTERM and SIGHUP raise `Interrupted` in the main thread, once: what was finished is safe,
and what was not is tidied up on the way out. A third signal ends the process where it is.

Children run on a leash, a small process between (`core/leash.py`): it passes signals on, says
what its child took, and ends it when the parent is gone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from tipl.core.early import ENDING, leave

if TYPE_CHECKING:
    import subprocess

STATUSES = {128 + number: number for number in ENDING}
"""Exit statuses of commands that were ended by a signal, as a shell counts them."""

_LEASH = str(Path(__file__).with_name("leash.py"))
_PATIENCE = 3  # signals until nothing is tidied up any more; a terminal and a parent may both tell


class Interrupted(KeyboardInterrupt):  # as the one that it stands for
    """A signal has asked the process to end."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def exit_status(interruption: KeyboardInterrupt) -> int:
    """What an interrupted process ends with: 130 after SIGINT, 143 SIGTERM, 129 SIGHUP."""
    return 128 + getattr(interruption, "number", signal.SIGINT)


@contextlib.contextmanager
def interruptible(*numbers: signal.Signals, to_the_end: bool = False) -> Iterator[None]:
    """Lets signals raise `Interrupted` in the block, where signals can be handled: the main thread.

    Signals that are ignored, or that somebody else handles, are left alone. With `to_the_end`
    nothing of the process is left to interrupt after the block, and a signal ends it quietly.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = _Handler()
    ours = (signal.SIG_DFL, signal.default_int_handler, leave)
    before = {number: signal.getsignal(number) for number in numbers}
    before = {number: was for number, was in before.items() if was in ours}
    hook = sys.unraisablehook
    for number in before:
        signal.signal(number, handler)
    if hook is sys.__unraisablehook__:
        sys.unraisablehook = handler.unraisable
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for number, was in before.items():
            signal.signal(number, leave if to_the_end else was)


class _Handler:
    """Raises `Interrupted` at the first signal, and loses none."""

    def __init__(self) -> None:
        self.signals = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.signals += 1
        # libraries in the middle of their import print what is raised, or call it something else
        if self.signals >= _PATIENCE or _importing(frame):
            leave(number)
        if self.signals == 1:
            raise Interrupted(number)

    def unraisable(self, problem: Any) -> None:
        """Raises the interruption again, a moment later, if it struck where Python drops errors."""
        if not isinstance(problem.exc_value, Interrupted):
            sys.__unraisablehook__(problem)
            return
        self.signals = 0
        threading.Timer(0.05, os.kill, (os.getpid(), problem.exc_value.number)).start()


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


class Took(NamedTuple):
    """How a child ended, and what it took."""

    status: int  # its exit status; negative: the signal that killed it
    cpu_seconds: float
    peak_rss_mb: float
    interruption: KeyboardInterrupt | None  # that reached this process while it waited


def leash(command: Sequence[str], told: int = -1) -> list[str]:
    """The command line that runs a command on a leash of this process.

    What the child took is written, as JSON, to the descriptor `told`, which has to be passed on.
    """
    return [sys.executable, "-I", "-S", _LEASH, str(os.getpid()), str(told), *command]


def run_on_leash(command: Sequence[str], **streams: Any) -> Took:
    """Runs a command to its end, and says what it took.

    A signal that interrupts this process is passed on, and the child ends by itself; the
    interruption is returned. Other exceptions end the child and are raised.

    Args:
        command: the program and its arguments.
        **streams: `stdin`, `stdout` and `stderr`, as for `subprocess.Popen`.
    """
    import json
    import subprocess

    reading, writing = os.pipe()
    with open(reading) as told:
        try:
            process = subprocess.Popen(leash(command, writing), pass_fds=[writing], **streams)
        finally:
            os.close(writing)
        with _Waiting(process) as waiting:
            waiting.wait()
        said = told.read()
    status, cpu_seconds, peak = json.loads(said) if said else (process.returncode, 0.0, 0)
    # macOS counts memory in bytes, others in kilobytes
    megabytes = peak / (1e6 if sys.platform == "darwin" else 1e3)
    return Took(status, cpu_seconds, megabytes, waiting.interruption)


class _Waiting:
    """Waits for a leash, and ends what is on it if the block is left before."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.interruption: KeyboardInterrupt | None = None

    def __enter__(self) -> _Waiting:
        return self

    def wait(self) -> None:
        while self.process.returncode is None:
            try:
                self.process.wait()
            except KeyboardInterrupt as error:
                self.interruption = self.interruption or error
                self.process.send_signal(exit_status(error) - 128)

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        if self.process.returncode is None:
            self.process.terminate()
            self.wait()
