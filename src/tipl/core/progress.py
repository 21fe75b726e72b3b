"""Progress bars with time left, on the terminal's standard error."""

from __future__ import annotations

import threading
import time

import numpy as np
from jaxtyping import Float
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tipl.core.terminal import console


def progress_bar(shown: bool = True) -> Progress:
    """A bar with a note, time passed and time left; `shown=False` makes a silent one.

    A task's `note`, with which it begins, is what it says of itself, such as its loss or its speed.
    """
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[note]}", markup=False),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console(stderr=True),
        disable=not shown,
    )


class CollectionProgress:
    """Progress of a collection whose groups of trials run in several threads."""

    def __init__(self, num_trials: int, total_steps: int, shown: bool) -> None:
        self._bar = progress_bar(shown)
        self._task = self._bar.add_task(f"collect {num_trials} trials", total=total_steps, note="")
        self._lock = threading.Lock()
        self._start = time.monotonic()
        self._fresh_steps = 0
        self._returns: dict[int, float] = {}

    def advance(
        self,
        steps: int,
        group: int = 0,
        episodic_return: Float[np.ndarray, " n"] | None = None,
        fresh: bool = True,
    ) -> None:
        """Adds environment steps, and the returns of a group of trials in its last rollout.

        The returns are NaN where no episode ended. Steps that are not `fresh` were made by an
        earlier run, which is being resumed.
        """
        with self._lock:
            if fresh:
                self._fresh_steps += steps
            if episodic_return is not None and np.isfinite(episodic_return).any():
                self._returns[group] = float(np.nanmean(episodic_return))
            speed = self._fresh_steps / max(time.monotonic() - self._start, 1e-9)
            note = f"{speed:,.0f} steps/s"
            if self._returns:
                note += f", mean return {np.mean(list(self._returns.values())):,.0f}"
            self._bar.update(self._task, advance=steps, note=note)

    def __enter__(self) -> CollectionProgress:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()
