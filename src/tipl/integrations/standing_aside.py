"""What goes wrong in tipl stays in tipl: a training run goes on as if it were not there."""

from __future__ import annotations

import contextlib
import functools
import logging
import random
import sys
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Concatenate, ParamSpec

import numpy as np
import torch

from tipl.core.terminal import LOGGER, warn
from tipl.errors import TiplError, printable

"""What tipl says of its own accord: without any setup its warnings are lines on the terminal."""

LONGEST = 300
"""Characters of the message of an error that is not ours."""

Restore = Callable[[], object]
"""Sets something back to what it was when this was made."""


class Guard:
    """Keeps what goes wrong in tipl out of a run: `with guard:` lets no exception out.

    The first one sets back what was remembered, is told in one sentence, and is the last one: from
    then on there is a `reason` to stand aside. KeyboardInterrupt and SystemExit pass, with all set
    back.

    Args:
        strict: let exceptions through, once what was remembered is set back.
        run_logger: gives the logger of the run, as stable-baselines3 has one.

    Attributes:
        reason: why tipl stands aside in this run, as a sentence; None while it does not.
    """

    def __init__(self, strict: bool = False, run_logger: Callable[[], Any] | None = None) -> None:
        self.strict, self.run_logger = strict, run_logger
        self.reason: str | None = None
        self._run: tuple[object, ...] = ()
        self._told: set[str] = set()
        self._kept: list[list[Restore]] = []  # by each call that is being watched

    def begin(self, *run: object) -> None:
        """Tries again in another run than before: one of another model or environment."""
        if list(map(id, run)) != list(map(id, self._run)):
            self.reason, self._run = None, run

    def remember(self, *kept: Restore) -> None:
        """Remembers what to set back if the present call fails, the last one first."""
        if self._kept:
            self._kept[-1] += kept

    def __enter__(self) -> None:
        self._kept.append([])

    def __exit__(
        self, kind: object, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        kept = self._kept.pop()
        if error is None:
            return False
        for restore in reversed(kept):
            with contextlib.suppress(Exception):  # the others can still be set back
                restore()
        if self.strict or not isinstance(error, Exception):
            return False
        self.reason = f"tipl stands aside: {_sentence(error)}"
        self.tell(self.reason)
        return True

    def tell(self, sentence: str) -> None:
        """Says a sentence once, to the logger "tipl" and to that of the run; never fails."""
        sentence = printable(sentence)
        if sentence in self._told:
            return
        self._told.add(sentence)
        seen = False
        with contextlib.suppress(Exception):
            seen = _reaches_the_terminal(LOGGER)
            warn(sentence)
        for output in self._outputs():
            with contextlib.suppress(Exception):
                if not (seen and _is_terminal(getattr(output, "file", None))):
                    output.write_sequence([sentence])

    def _outputs(self) -> list[Any]:
        """The outputs of the run's logger that take text."""
        with contextlib.suppress(Exception):
            logger = None if self.run_logger is None else self.run_logger()
            if logger is not None and logger.level <= logging.WARNING:
                return [out for out in logger.output_formats if hasattr(out, "write_sequence")]
        return []


P = ParamSpec("P")


@contextlib.contextmanager
def generators_kept() -> Iterator[None]:
    """Leaves the global generators of random numbers as they were.

    Those are of `random`, of NumPy, and of torch on the processor and on GPUs that are in use.
    """
    # people's environments draw from NumPy's old global generator
    own, numpys = random.getstate(), np.random.get_state()  # noqa: NPY002
    in_use = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = range(torch.cuda.device_count() if in_use else 0)
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(own)
        np.random.set_state(numpys)  # noqa: NPY002


Method = Callable[Concatenate[Any, P], None]
"""Of an object that has a `guard`."""


def watched(method: Method[P]) -> Method[P]:
    """A method that lets no exception out, and does nothing once one failed.

    It is for what a run calls at every step, and what draws no number.
    """

    @functools.wraps(method)
    def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> None:
        if self.guard.reason is None:
            with self.guard:
                method(self, *args, **kwargs)

    return call


def guarded(method: Method[P]) -> Method[P]:
    """A watched method that leaves the generators of random numbers as they were."""
    return watched(generators_kept()(method))


def attributes(thing: Any, *names: str) -> Restore:
    """Remembers which objects are an object's attributes."""
    values = {name: getattr(thing, name) for name in names}

    def restore() -> None:
        for name, value in values.items():
            setattr(thing, name, value)

    return restore


def contents(*arrays: Any) -> Restore:
    """Remembers the elements of arrays or tensors, which are set back in place."""
    copies = [
        array.clone() if isinstance(array, torch.Tensor) else array.copy() for array in arrays
    ]

    @torch.no_grad()
    def restore() -> None:
        for array, copy in zip(arrays, copies, strict=True):
            array[...] = copy

    return restore


def _sentence(error: Exception) -> str:
    """Ours as they are; of others type and message on one line, and what to do."""
    if isinstance(error, TiplError):
        return str(error)
    message = ""
    with contextlib.suppress(Exception):
        message = " ".join(str(error).split())
    shown = message if len(message) <= LONGEST else f"{message[:LONGEST]}..."
    what = ": ".join(filter(None, [type(error).__name__, shown]))
    return f"{what}; training goes on without tipl, and strict=True raises the error"


def _reaches_the_terminal(logger: logging.Logger) -> bool:
    """Whether warnings of a logger are shown on the terminal."""
    if not logger.isEnabledFor(logging.WARNING):
        return False
    handlers: list[Any] = []
    at: logging.Logger | None = logger
    while at is not None:
        handlers += at.handlers
        at = at.parent if at.propagate else None
    shown = [h for h in handlers or [logging.lastResort] if h and h.level <= logging.WARNING]
    return any(_is_terminal(getattr(handler, "stream", None)) for handler in shown)


def _is_terminal(stream: Any) -> bool:
    """Whether a stream is where people read what a program says."""
    ours = stream is not None and any(stream is each for each in (sys.stdout, sys.stderr))
    return ours and not stream.closed
