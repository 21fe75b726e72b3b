"""The engine that needs nothing: pieces run in threads of this process."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from threadpoolctl import threadpool_limits

from tipl.core.engines.work import Outcome, Work, attempt
from tipl.core.processes import interruptible
from tipl.core.progress import CollectionProgress


class Threads:
    """Runs pieces in threads; an interruption stops all of them soon, a failure only its piece.

    Args:
        threads: pieces that run at once.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def run(self, work: Work, pieces: Sequence[int], bar: CollectionProgress) -> dict[int, Outcome]:
        """Runs pieces to their end; what came of each."""
        stop = threading.Event()
        # Each thread computes alone: BLAS threads of one piece would fight with the other piece's.
        with (
            interruptible(signal.SIGTERM, signal.SIGUSR2),
            threadpool_limits(1, "blas"),
            ThreadPoolExecutor(min(self.threads, len(pieces))) as pool,
        ):
            futures = {pool.submit(attempt, work, p, stop, bar.advance): p for p in pieces}
            try:
                return {futures[future]: future.result() for future in as_completed(futures)}
            except BaseException:
                stop.set()
                pool.shutdown(cancel_futures=True)
                raise
