"""Progress bars: silent if asked, and right however many threads report to them."""

from __future__ import annotations

import sys
import threading
import time

import numpy as np
import pytest

from tipl.core.progress import CollectionProgress, progress_bar
from tipl.core.terminal import Manner, speaking


def note(progress: CollectionProgress) -> str:
    return str(progress._bar.tasks[0].fields["note"])


def test_a_hidden_bar_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with CollectionProgress(4, 100, shown=False) as progress:
        progress.advance(50, episodic_return=np.array([1.0, np.nan]))
        progress.advance(50)
    with progress_bar(shown=False) as bar:
        bar.update(bar.add_task("train", total=1, note=""), advance=1, note="loss 0.1")
    assert capfd.readouterr() == ("", "")


def test_a_shown_bar_goes_to_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    with CollectionProgress(4, 100, shown=True) as progress:
        progress.advance(100, episodic_return=np.array([7.0, 9.0]))
    out, err = capfd.readouterr()
    assert out == ""
    for text in ("collect 4 trials", "100%", "steps/s", "mean return 8", "left"):
        assert text in err


def test_an_interrupted_bar_stops(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    progress = CollectionProgress(4, 100, shown=True)

    def interrupted() -> None:
        with progress:
            assert progress._bar.live.is_started
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not progress._bar.live.is_started
    assert "collect 4 trials" in capfd.readouterr().err


def test_steps_are_counted() -> None:
    progress = CollectionProgress(4, 100, shown=False)
    task = progress._bar.tasks[0]
    assert (task.completed, task.total) == (0, 100)
    progress.advance(30)
    progress.advance(20, group=1)
    assert task.completed == 50
    assert task.percentage == 50


def test_steps_of_an_earlier_run_are_no_speed() -> None:
    progress = CollectionProgress(4, 100, shown=False)
    progress.advance(30, fresh=False)
    assert progress._bar.tasks[0].completed == 30
    assert note(progress) == "0 steps/s"
    progress.advance(10**6)
    assert not note(progress).startswith("0 ")


@pytest.mark.parametrize(
    ("reports", "shown"),
    [
        ([(0, [10.0, 20.0])], "mean return 15"),
        ([(0, [10.0, np.nan])], "mean return 10"),  # no episode ended in the second trial
        ([(0, [10.0]), (1, [30.0])], "mean return 20"),  # the mean of groups
        ([(0, [10.0]), (0, [40.0])], "mean return 40"),  # the last rollout's
        ([(0, [10.0]), (0, [np.nan])], "mean return 10"),  # none ended since
        ([(0, [1234.4])], "mean return 1,234"),
    ],
)
def test_mean_returns(reports: list[tuple[int, list[float]]], shown: str) -> None:
    progress = CollectionProgress(4, 100, shown=False)
    for group, returns in reports:
        progress.advance(1, group, np.array(returns, np.float32))
    progress.advance(1)  # a group that reports no return changes none
    assert note(progress).endswith(f" steps/s, {shown}")


@pytest.mark.parametrize("returns", [None, np.full(2, np.nan), np.zeros(0)])
def test_without_a_return_none_is_shown(returns: np.ndarray | None) -> None:
    progress = CollectionProgress(4, 100, shown=False)
    progress.advance(10, 0, returns)
    assert "return" not in note(progress)
    assert progress._bar.tasks[0].completed == 10


class SlowlyAdded(int):
    """A number that lets other threads run in the middle of an addition."""

    def __radd__(self, other: int) -> int:
        time.sleep(0.001)
        return int(other) + int(self)


def test_threads_lose_no_steps() -> None:
    progress = CollectionProgress(2, 80, shown=False)
    barrier = threading.Barrier(2)

    def run(group: int) -> None:
        barrier.wait()
        for _ in range(20):
            progress.advance(SlowlyAdded(2), group, np.array([group, np.nan]))

    threads = [threading.Thread(target=run, args=(group,)) for group in (10, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert progress._bar.tasks[0].completed == 80
    assert progress._fresh_steps == 80
    assert note(progress).endswith("mean return 15")


# --- without a terminal ----------------------------------------------------------------------


class Clock:
    """Time that passes when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000.0
        monkeypatch.setattr("tipl.core.progress.time.monotonic", lambda: self.now)


def test_a_log_has_a_line_now_and_then(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    with progress_bar() as bar:
        task = bar.add_task("train", total=86_400, note="loss 1")
        for second in range(86_400):  # a day
            clock.now += 1
            bar.advance(task)
            if second == 9:
                bar.update(task, note="loss 0.5")
    out, err = capfd.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert 50 < len(lines) < 250
    assert lines[0].startswith("train: 0%, loss 1, 0:00:10 passed, ")
    assert lines[-1] == "train: 100%, loss 0.5, 1 day, 0:00:00 passed, 0:00:00 left"
    assert not any(line != line.strip() or "\r" in line for line in lines)


def test_a_short_job_has_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    with progress_bar() as bar:
        task = bar.add_task("train", total=9, note="")
        for _ in range(9):
            bar.advance(task)
    assert capfd.readouterr().err == "train: 100%, 0:00:00 passed, 0:00:00 left\n"


def test_who_wants_quiet_gets_none(capfd: pytest.CaptureFixture[str]) -> None:
    with speaking(Manner(quiet=True)), CollectionProgress(4, 100, shown=True) as progress:
        progress.advance(100)
    assert capfd.readouterr() == ("", "")


def test_a_collection_says_why_it_has_no_steps_yet() -> None:
    assert note(CollectionProgress(4, 100, shown=False)) == "compiling and starting"


class Shown:
    """IPython's display, and what is to be seen of it."""

    def __init__(self) -> None:
        self.shown: list[dict[str, str]] = []

    def display(self, content: dict[str, str], raw: bool, display_id: bool) -> Shown:
        assert raw
        assert display_id
        self.shown.append(content)
        return self

    def update(self, content: dict[str, str], raw: bool) -> None:
        assert raw
        self.shown[-1] = content


def test_a_notebook_has_a_bar_without_widgets(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, seen = Clock(monkeypatch), Shown()
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setitem(sys.modules, "IPython.display", seen)  # type: ignore[arg-type]
    with progress_bar() as bar:
        task = bar.add_task("<train>", total=4, note="")
        bar.advance(task, 2)
        assert seen.shown[0]["text/plain"] == "<train>: 50%, 0:00:00 passed"
        assert '<progress value="50" max="100">' in seen.shown[0]["text/html"]
        assert "&lt;train&gt;: 50%" in seen.shown[0]["text/html"]
        bar.advance(task, 1)  # at once: nobody sees so much
        assert seen.shown[0]["text/plain"].startswith("<train>: 50%")
        clock.now += 1
        bar.advance(task, 0)
        assert seen.shown[0]["text/plain"].startswith("<train>: 75%")
        bar.advance(task, 1)
    assert len(seen.shown) == 1
    assert seen.shown[0]["text/plain"].startswith("<train>: 100%")
    assert capfd.readouterr() == ("", "")
