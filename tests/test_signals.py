"""Signals end commands and their children, and none is lost; handlers of others are left alone."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tipl.cli import main
from tipl.core.processes import Interrupted, exit_status, interruptible, run_on_leash

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

PARENT = """
import sys
from tipl.core.processes import ENDING, exit_status, interruptible, run_on_leash
with interruptible(*ENDING):
    took = run_on_leash([sys.executable, "-c", sys.argv[1]])
    raise SystemExit(exit_status(took.interruption) if took.interruption else took.status)
"""

CHILD = """
import os, signal, sys, time
def told(number, frame):
    with open("told", "a") as file:
        print(number, file=file)
    time.sleep(0.3)  # it tidies up, and is not hurried by the other ways in which it is told
    sys.exit(128 + number)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, told)
with open("started", "w") as file:
    print(os.getpid(), os.getppid(), file=file)
os.rename("started", "child")
time.sleep(60)
"""


@contextlib.contextmanager
def started(*command: str, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """A process in a session of its own, as of a terminal; nothing of it is left after the test."""
    process = subprocess.Popen(
        command,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # tests that a shell runs in the background ignore SIGINT, and so would their children
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    with process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def has_ended(process: int) -> bool:
    """Whether there is no such process; one that nobody has waited for is no process any more."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


# --- children --------------------------------------------------------------------------------


@pytest.mark.parametrize("tell", [os.kill, os.killpg], ids=["the parent alone", "the whole group"])
@pytest.mark.parametrize("number", ENDING)
def test_a_signal_reaches_the_child_once(
    number: signal.Signals, tell: Callable[[int, int], None], tmp_path: Path
) -> None:
    with started(sys.executable, "-c", PARENT, CHILD, cwd=tmp_path) as parent:
        wait_until((tmp_path / "child").exists)
        tell(parent.pid, number)
        _, errors = parent.communicate(timeout=60)
        assert (parent.returncode, errors) == (128 + number, "")
        told = (tmp_path / "told").read_text().split()
        assert told[0] == str(int(number))
        assert has_ended(int((tmp_path / "child").read_text().split()[0]))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the leash alone looks after it")
@pytest.mark.parametrize("victim", ["the parent", "the leash"])
def test_no_child_outlives_a_killed_parent(victim: str, tmp_path: Path) -> None:
    with started(sys.executable, "-c", PARENT, CHILD, cwd=tmp_path) as parent:
        wait_until((tmp_path / "child").exists)
        child, leash = map(int, (tmp_path / "child").read_text().split())
        os.kill(parent.pid if victim == "the parent" else leash, signal.SIGKILL)
        parent.communicate(timeout=60)
        wait_until(lambda: has_ended(child) and has_ended(leash))
        assert (tmp_path / "told").read_text().split() == [str(int(signal.SIGTERM))]


def test_a_child_that_does_not_end_is_ended(tmp_path: Path) -> None:
    stubborn = CHILD.replace("time.sleep(0.3)", "time.sleep(60)")
    with started(sys.executable, "-c", PARENT, stubborn, cwd=tmp_path) as parent:
        wait_until((tmp_path / "child").exists)
        child = int((tmp_path / "child").read_text().split()[0])
        for count in range(3):  # the third time nobody waits any more
            os.kill(parent.pid, signal.SIGTERM)
            wait_until((tmp_path / "told").exists)
            time.sleep(0.2 if count < 2 else 0)
        _, errors = parent.communicate(timeout=60)
        assert (parent.returncode, errors) == (143, "tipl: interrupted\n")
        wait_until(lambda: has_ended(child))


def test_what_a_child_took(tmp_path: Path) -> None:
    code = "import sys; x = bytearray(50_000_000); sys.exit(7)"
    took = run_on_leash([sys.executable, "-c", code])
    assert (took.status, took.interruption) == (7, None)
    assert 50 < took.peak_rss_mb < 200
    killed = run_on_leash([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"])
    assert killed.status == -signal.SIGKILL
    assert run_on_leash([str(tmp_path / "nothing")]).status == 127


# --- one process -----------------------------------------------------------------------------

SLOW = """
# as libraries do, it calls all errors ImportError
import pathlib, time
pathlib.Path('importing').touch()
try:
    time.sleep(60)
except BaseException as error:
    raise ImportError from error
"""


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_in_an_import_leaves_no_traceback(number: signal.Signals, tmp_path: Path) -> None:
    (tmp_path / "slow_envs.py").write_text(SLOW)
    code = "from tipl.cli import main; main()"
    with started(
        sys.executable, "-c", code, "collect", "slow_envs:Env-v0", cwd=tmp_path
    ) as process:
        wait_until(lambda: (tmp_path / "importing").exists() or process.poll() is not None)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (128 + number, "tipl: interrupted\n")


def test_a_signal_that_python_drops_comes_again(tmp_path: Path) -> None:
    code = """
import os, signal, time
from tipl.core.processes import ENDING, exit_status, interruptible
class Dropped:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
with interruptible(*ENDING):
    try:
        Dropped()
        time.sleep(60)
    except KeyboardInterrupt as error:
        raise SystemExit(exit_status(error))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (143, b"")


HANDLERS = """
import signal, sys
sys.argv[0] = sys.argv[1]
import tipl, tipl.cli, tipl.collection.collect
print(*[getattr(signal.getsignal(one), "__name__", "default")
        for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)])
"""


def test_the_command_line_ends_quietly_from_its_first_import_and_a_library_does_not() -> None:
    def handlers(name: str) -> list[str]:
        command = [sys.executable, "-c", HANDLERS, name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    assert handlers("/usr/bin/tipl") == handlers("-m") == ["leave"] * 3
    assert handlers("a_script.py") == ["default_int_handler", "default", "default"]


def test_handlers_are_put_back_and_those_of_others_stay() -> None:
    before = [signal.getsignal(number) for number in ENDING]
    with pytest.raises(SystemExit):
        main(["nonsense"])
    assert [signal.getsignal(number) for number in ENDING] == before

    def own(number: int, frame: object) -> None:
        heard.append(number)

    heard: list[int] = []
    was = signal.signal(signal.SIGTERM, own)
    try:
        with interruptible(*ENDING):
            signal.raise_signal(signal.SIGTERM)
            assert signal.getsignal(signal.SIGHUP) != before[2]
    finally:
        signal.signal(signal.SIGTERM, was)
    assert heard == [signal.SIGTERM]


def test_the_second_signal_does_not_disturb_what_the_first_began() -> None:
    tidied = False

    def work() -> None:
        nonlocal tidied
        try:
            signal.raise_signal(signal.SIGHUP)
        finally:
            signal.raise_signal(signal.SIGHUP)
            tidied = True

    with interruptible(signal.SIGHUP), pytest.raises(Interrupted) as caught:
        work()
    assert tidied
    assert exit_status(caught.value) == 129
    assert exit_status(KeyboardInterrupt()) == 130


def test_a_killed_demo_leaves_no_process(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tipl", "demo", "--num-trials", "8", "--out", "run"]
    with started(*command, cwd=tmp_path) as demo:
        state = tmp_path / "run" / "paths" / "resume"
        wait_until(lambda: any(state.glob("*.safetensors")) or demo.poll() is not None)
        children = [
            int(entry.name) for entry in Path("/proc").iterdir() if _in_session(entry, demo)
        ]
        assert len(children) == 3  # itself, the leash and the collection
        demo.send_signal(signal.SIGTERM)
        _, errors = demo.communicate(timeout=60)
        assert demo.returncode == 143
        assert "Traceback" not in errors
        assert "exit status 143" in errors.splitlines()[-1]
        assert "run the same again to go on" in errors.splitlines()[-1]
        assert all(map(has_ended, children))


def _in_session(entry: Path, leader: subprocess.Popen[str]) -> bool:
    try:
        return entry.name.isdigit() and os.getsid(int(entry.name)) == leader.pid
    except ProcessLookupError:
        return False
