"""Pieces as tasks of Ray: machines come and go, and tasks of those that went run elsewhere."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tipl.core.engines.driver import Driver, LostError, run_remotely
from tipl.core.engines.work import Outcome, Work
from tipl.core.processes import interruptible
from tipl.core.progress import CollectionProgress
from tipl.core.trust import trusted
from tipl.errors import TiplError, one_sentence, shown

PATIENCE = 0.7
"""Seconds in which a cluster's head has to take a connection."""


def check_ray(address: str) -> None:
    """Raises a TiplError if Ray is not installed, or nothing answers at an address."""
    if find_spec("ray") is None:
        raise TiplError(
            "the engine ray was given, but Ray is not installed: install it with pip install "
            "'tipl[ray]', on all machines of the cluster"
        )
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", "auto")
    if address in ("auto", "local"):
        return
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit() and int(port) < 1 << 16) or "/" in host:
        raise TiplError(
            f"the address {shown(address)} was given of a Ray cluster; expected auto, local, or a "
            "host and a port, such as 10.0.0.1:6379"
        )
    try:
        socket.create_connection((host, int(port)), PATIENCE).close()
    except OSError as error:
        raise TiplError(
            f"no Ray cluster answers at {address}: {error.strerror or error}; give the address "
            "that `ray start --head` has printed"
        ) from error


class Ray:
    """Runs pieces as tasks of a Ray cluster, each with one processor and the memory it needs.

    Args:
        address: `"auto"`, `"local"` or `"host:port"`.
        at_once: tasks that there may be at once; None for all, of which Ray runs as many as fit.
    """

    def __init__(self, address: str, at_once: int | None) -> None:
        self.address, self.at_once = address, at_once

    def run(self, work: Work, pieces: Sequence[int], bar: CollectionProgress) -> dict[int, Outcome]:
        """Runs pieces to their end; what came of each."""
        with _connected(self.address, self.at_once), interruptible(signal.SIGTERM):
            return Driver(_Tasks(), self.at_once).run(work, pieces, bar)


@contextlib.contextmanager
def _connected(address: str, processors: int | None) -> Iterator[None]:
    """Is a driver of a cluster, unless the process is one already."""
    import ray

    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {}
    if address == "local":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        options = {"num_cpus": processors, "include_dashboard": False}
    try:
        with _signals_kept():
            ray.init(address, logging_level=logging.ERROR, log_to_driver=False, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = one_sentence(str(error).strip().partition("\n")[0].rstrip("."))
        raise TiplError(
            f"no Ray cluster was found ({reason}); start one by `ray start --head`, or give the "
            "address of one, or --address local"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Gives SIGTERM back its handler, which `ray.init` replaces."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


class _Tasks:
    """The cluster that this process is a driver of."""

    def submit(self, work: Work, pieces: Sequence[int]) -> list[_Task]:
        """A task for each piece."""
        import ray

        # Ray repeats none: of those that are killed for memory, it would try some for ever
        task = ray.remote(num_cpus=1, memory=work.memory, max_retries=0)(_run_in)
        shared = ray.put((work, Path.cwd(), trusted()))
        return [_Task(task.remote(shared, piece)) for piece in pieces]


class _Task:
    """A task of Ray."""

    def __init__(self, reference: Any) -> None:
        self.reference = reference

    def is_over(self) -> bool:
        """Whether it has ended, somehow."""
        import ray

        return bool(ray.wait([self.reference], timeout=0)[0])

    def outcome(self) -> Outcome:
        """What came of it; a LostError if that is not known."""
        import ray

        try:
            outcome: Outcome = ray.get(self.reference)
        except ray.exceptions.RayError as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            said = " ".join(lines if len(lines) < 3 else (lines[0], lines[-1]))
            raise LostError(one_sentence(f"{type(error).__name__}: {said}")) from error
        return outcome

    def cancel(self) -> None:
        """Ends its process."""
        import ray

        with contextlib.suppress(ray.exceptions.RayError):
            ray.cancel(self.reference, force=True)


def _run_in(shared: tuple[Work, Path, dict[str, list[str]]], piece: int) -> Outcome:
    """Runs a piece on the machine of a task, in the same folder as the driver."""
    work, folder, names = shared
    try:
        os.chdir(folder)
    except OSError as error:
        said = f"cannot go to {folder}: {error.strerror}; work in a folder that all machines share"
        return Outcome(socket.gethostname(), said)
    return run_remotely(work, piece, names)
