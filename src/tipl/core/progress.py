"""Progress, with time left: bars on a terminal and in a notebook, elsewhere a line now and then."""

from __future__ import annotations

import html
import importlib
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float
from rich.progress import (
    BarColumn,
    Progress,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from tipl.core.terminal import complain, console, is_quiet

FIRST_LINE, LONGEST_SILENCE, SHARE = 10.0, 600.0, 0.1
"""Seconds until the first line where there is no terminal, seconds between two lines at most, and
the share of the time passed that goes by between two: a log of a day has a hundred lines."""

REDRAWN = 0.5
"""Seconds between two pictures of a bar in a notebook."""

_Teller: TypeAlias = Callable[[Task], None]
"""Says how far a task is."""


def progress_bar(shown: bool = True) -> Progress:
    """A bar with a note, time passed and time left; `shown=False` makes a silent one.

    A task's `note`, with which it begins, is what it says of itself, such as its loss or its speed.
    Where there is no terminal, lines say the same now and then, and once at the end.
    """
    return _Bar(shown and not is_quiet())


class _Bar(Progress):
    def __init__(self, shown: bool) -> None:
        place = console(stderr=True)
        self._tellers: dict[TaskID, _Occasionally] = {}
        self._told = shown and not place.is_terminal
        self._in_notebook = place.is_jupyter
        super().__init__(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("passed,"),
            TimeRemainingColumn(),
            TextColumn("left"),
            TextColumn(
                "{task.fields[note]}",
                markup=False,
                table_column=Column(no_wrap=True, overflow="ellipsis"),
            ),
            console=place,
            disable=not shown or self._told,
            get_time=lambda: time.monotonic(),
        )

    def update(self, task_id: TaskID, *args: Any, **fields: Any) -> None:
        super().update(task_id, *args, **fields)
        self._tell(task_id)

    def advance(self, task_id: TaskID, advance: int | float = 1) -> None:
        super().advance(task_id, advance)
        self._tell(task_id)

    def stop(self) -> None:
        super().stop()
        for task_id in self.task_ids:
            self._tell(task_id, at_the_end=True)

    def _tell(self, task_id: TaskID, at_the_end: bool = False) -> None:
        """Says how far a task is, if there is no terminal and it is time to."""
        if not self._told:
            return
        with self._lock:
            if task_id not in self._tellers:
                in_notebook = self._in_notebook
                tell = _InNotebook() if in_notebook else _say_line
                self._tellers[task_id] = _Occasionally(tell, REDRAWN if in_notebook else None)
            self._tellers[task_id](self._tasks[task_id], at_the_end)


class _Occasionally:
    """Lets a task's state be said now and then, whenever it is asked."""

    def __init__(self, tell: _Teller, every: float | None) -> None:
        self._tell, self._every = tell, every
        self._next = FIRST_LINE if every is None else 0.0  # seconds after the task's start

    def __call__(self, task: Task, at_the_end: bool) -> None:
        passed = task.elapsed or 0.0
        if passed < self._next and not at_the_end:
            return
        rare = min(max(SHARE * passed, FIRST_LINE), LONGEST_SILENCE)
        self._next = passed + (rare if self._every is None else self._every)
        self._tell(task)


def _say_line(task: Task) -> None:
    complain(_line(task))


def _line(task: Task) -> str:
    """How far a task is, such as `train: 50%, loss 0.1, 0:00:30 passed, 0:00:30 left`."""
    times = {"passed": task.elapsed, "left": task.time_remaining}
    said = [f"{task.percentage:.0f}%", task.fields["note"]]
    for name, seconds in times.items():
        if seconds is not None:
            said.append(f"{timedelta(seconds=round(seconds))} {name}")
    return f"{task.description}: {', '.join(filter(None, said))}"


class _InNotebook:
    """A bar in the output of a notebook's cell, by IPython alone."""

    def __init__(self) -> None:
        self._handle: Any = None

    def __call__(self, task: Task) -> None:
        line = _line(task)
        bar = f'<progress value="{task.percentage:.0f}" max="100"></progress>'
        content = {"text/plain": line, "text/html": f"{bar} {html.escape(line)}"}
        if self._handle is None:
            display = importlib.import_module("IPython.display").display
            self._handle = display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)


_AT_FIRST = "compiling and starting"
"""What a collection does before its first steps: on a machine's first run for seconds."""


class CollectionProgress:
    """Progress of a collection whose groups of trials run in several threads."""

    def __init__(self, num_trials: int, total_steps: int, shown: bool) -> None:
        self._bar = progress_bar(shown)
        self._task = self._bar.add_task(
            f"collect {num_trials} trials", total=total_steps, note=_AT_FIRST
        )
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
