"""A collection that is killed, interrupted, run twice at once or out of disk loses nothing.

Children are forked from this process, which has everything imported and compiled, and killed by
SIGKILL: at random moments, and at random points inside the writing of a file.
"""

from __future__ import annotations

import errno
import os
import random
import resource
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from test_collection import content
from tipl.collection.collect import collect
from tipl.collection.groups import TrialGroup
from tipl.core import storage
from tipl.core.locks import FileLock
from tipl.errors import TiplError
from tipl.paths import PathDataset, PathMetadata, part_ranges, read_metadata, verify
from tipl.paths.writing import PartWriter
from tipl.ppo.config import PPOConfig
from tipl.ppo.ppo import PPO, Rollout

STEPS = 4
# Episodes of 1,000 steps: every kill is in the middle of one. Trials 0 and 1 learn in one group, 2
# in another; parts hold 8 checkpoints, 8 and 5.
TASK = "HalfCheetah-v4"
OPTIONS: dict[str, Any] = {
    "num_trials": 3,
    "trials_per_group": 2,
    "total_steps": 20 * STEPS,
    "hidden_sizes": (6,),
    "normaliser": "running",
    "ppo": PPOConfig(num_steps=STEPS, num_minibatches=2, update_epochs=1),
}
KILLS = 30


def run(out: Path, **changes: Any) -> PathDataset:
    return collect(TASK, out=out, threads=2, progress=False, **(OPTIONS | changes))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes | None]:
    """All files of a dataset that was collected in one go."""
    directory = tmp_path_factory.mktemp("undisturbed") / "paths"
    run(directory)
    return content(directory)


def forked(function: Callable[[], object]) -> int:
    """Runs a function in a child process, which exits with 0, or with 2 after a TiplError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forks where threads have been
        child = os.fork()
    if child:
        return child
    status = 1
    try:
        function()
        status = 0
    except TiplError as error:
        status = 2
        os.write(2, f"{error}\n".encode())
    finally:
        os._exit(status)


def log_finished_checkpoints(log: Path) -> None:
    """Makes every group note how many checkpoints it has finished, once they are safe."""
    original = TrialGroup._save

    def save(self: TrialGroup, ppo: PPO, writer: PartWriter) -> None:
        original(self, ppo, writer)
        with log.open("ab", buffering=0) as file:
            file.write(f"{self.trials[0]} {writer.finished}\n".encode())

    TrialGroup._save = save  # type: ignore[method-assign]


def kill_in_write(number: int) -> None:
    """Makes the process kill itself at a point inside the writing of files, counted from 0."""
    points = 0

    def counting(function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any) -> Any:
            nonlocal points
            for step in (lambda: None, lambda: function(*args)):  # before the call, and after it
                result = step()
                if points == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                points += 1
            return result

        return counted

    os.fsync, os.replace = counting(os.fsync), counting(os.replace)


def safe_checkpoints(directory: Path, metadata: PathMetadata, first_trial: int) -> int:
    """How many checkpoints of a group are on disk, readable to the last byte."""
    parts = [part for part in part_ranges(metadata) if part.first_trial == first_trial]
    in_parts = 0
    for part in parts:
        if part.path(directory).exists():
            storage.read_tensors(part.path(directory))
            in_parts = part.last_checkpoint + 1
    state_file = directory / "resume" / f"trials-{first_trial:05d}.safetensors"
    in_state = 0
    if state_file.exists():
        _, header = storage.read_tensors(state_file)
        in_state = header["checkpoints"]
    return max(in_parts, in_state)


def assert_nothing_is_lost(directory: Path, log: Path) -> None:
    if not (directory / "metadata.json").exists():
        assert not log.exists()
        return
    metadata = read_metadata(directory)
    finished = {0: 0, 2: 0}
    for line in log.read_text().splitlines() if log.exists() else []:
        trial, number = map(int, line.split())
        finished[trial] = max(finished[trial], number)
    for trial, number in finished.items():
        assert safe_checkpoints(directory, metadata, trial) >= number
    for problem in verify(directory):
        assert "missing" in problem or "never finished" in problem


def test_kill_9_at_any_moment(undisturbed: dict[str, bytes | None], tmp_path: Path) -> None:
    rng = random.Random(0)
    kills, directory, log = 0, tmp_path / "0", tmp_path / "0.log"
    while kills < KILLS:
        inside_a_write, where = kills % 2 == 0, rng.random()

        def child(
            directory: Path = directory,
            log: Path = log,
            point: int | None = int(where * 80) if inside_a_write else None,
        ) -> None:
            log_finished_checkpoints(log)
            if point is not None:
                kill_in_write(point)
            run(directory)

        process = forked(child)
        if not inside_a_write:
            time.sleep(0.02 + 0.12 * where)
            os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        if os.WIFSIGNALED(status):
            kills += 1
            assert_nothing_is_lost(directory, log)
        else:  # it was done before the kill: that dataset is complete, and the next one starts
            assert os.waitstatus_to_exitcode(status) == 0
            assert content(directory) == undisturbed
            directory, log = tmp_path / f"{kills}", tmp_path / f"{kills}.log"
    run(directory)
    assert content(directory) == undisturbed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2])
def test_a_signal_ends_a_collection_with_one_line(number: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tipl", "collect", TASK, "--out", "paths"]
    command += ["--num-trials", "4", "--trials-per-group", "2", "--total-steps", "200000"]
    command += ["--ppo.num-steps", "64", "--ppo.num-minibatches", "2", "--ppo.update-epochs", "1"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        # tests that a shell runs in the background ignore SIGINT, and so would their children
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    resume = tmp_path / "paths" / "resume"
    while len(list(resume.glob("trials-*.safetensors"))) < 2:  # both groups are under way
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert errors.splitlines()[-1] == (
        "tipl: interrupted; finished checkpoints are safe in paths: run the same command again "
        "to go on"
    )
    assert sorted(path.name for path in resume.iterdir()) == [
        "trials-00000.safetensors",
        "trials-00002.safetensors",
    ]
    assert all("missing" in problem for problem in verify(tmp_path / "paths"))


@pytest.mark.parametrize("write", [0, 3, 30, 45])
def test_a_full_disk(
    write: int,
    undisturbed: dict[str, bytes | None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original, calls = os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > write:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(TiplError, match="No space left on device; free some space on the disk"):
            run(tmp_path / "paths")
    leftovers = [name for name in content(tmp_path / "paths") if "unfinished" in name]
    assert leftovers == []
    kept = {k: data for k, data in content(tmp_path / "paths").items() if "trials-" in k}
    for name, data in kept.items():
        if name.startswith("parts"):
            assert data == undisturbed[name]
    run(tmp_path / "paths")
    assert content(tmp_path / "paths") == undisturbed


def test_a_file_that_the_system_refuses_to_let_grow(
    undisturbed: dict[str, bytes | None], tmp_path: Path
) -> None:
    def child() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))  # metadata.json fits
        run(tmp_path / "paths")

    _, status = os.waitpid(forked(child), 0)
    assert os.waitstatus_to_exitcode(status) == 2
    assert set(content(tmp_path / "paths")) == {"metadata.json", "parts", "resume"}
    run(tmp_path / "paths")
    assert content(tmp_path / "paths") == undisturbed


def test_a_group_that_another_process_collects_is_left_to_it(
    undisturbed: dict[str, bytes | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "paths"
    (directory / "resume").mkdir(parents=True)
    (directory / "parts").mkdir()
    storage.write_bytes_atomically(directory / "metadata.json", undisturbed["metadata.json"] or b"")
    lock = FileLock(directory / "resume" / "trials-00002.lock")
    assert lock.acquire()
    message = (
        rf"is not complete yet: process {os.getpid()} on .* is collecting trials 2 to 2.*; wait"
    )
    with pytest.raises(TiplError, match=message):
        run(directory)
    parts = {k: v for k, v in undisturbed.items() if k.startswith("parts/trials-00000")}
    made = {k: v for k, v in content(directory).items() if k.startswith("parts/")}
    assert made == parts
    lock.release()

    updates: list[int] = []
    original = PPO.update

    def counting(self: PPO, rollout: Rollout) -> None:
        updates.append(self.trials[0])
        original(self, rollout)

    monkeypatch.setattr(PPO, "update", counting)
    run(directory)
    assert set(updates) == {2}
    assert content(directory) == undisturbed


def test_two_collectors_share_the_work(
    undisturbed: dict[str, bytes | None], tmp_path: Path
) -> None:
    directory, log = tmp_path / "paths", tmp_path / "log"

    def child() -> None:
        log_finished_checkpoints(log)
        run(directory)

    children = [forked(child) for _ in range(2)]
    codes = [os.waitstatus_to_exitcode(os.waitpid(one, 0)[1]) for one in children]
    assert set(codes) <= {0, 2}
    assert 0 in codes  # whoever ends last has all
    assert content(directory) == undisturbed
    lines = log.read_text().splitlines()
    assert len(lines) == len(set(lines)) == 2 * 20  # each group was collected by one of them


def test_two_collectors_of_different_things_do_not_mix(tmp_path: Path) -> None:
    directory = tmp_path / "paths"
    children = [forked(lambda seed=seed: run(directory, seed=seed)) for seed in range(4)]  # type: ignore[misc]
    codes = sorted(os.waitstatus_to_exitcode(os.waitpid(one, 0)[1]) for one in children)
    assert codes == [0, 2, 2, 2]
    assert verify(directory) == []


# --- locks -----------------------------------------------------------------------------------


def test_one_holds_a_lock_and_its_file_goes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first, second = FileLock(path), FileLock(path)
    assert first.acquire()
    assert not second.acquire()
    assert second.holder.startswith(f"process {os.getpid()} on ")
    second.release()  # not its own: nothing happens
    assert not second.acquire()
    first.release()
    assert not path.exists()
    assert second.acquire()
    second.release()
    assert second.holder == "another process"


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    path = tmp_path / "lock"

    def child() -> None:
        FileLock(path).acquire()
        os.kill(os.getpid(), signal.SIGKILL)

    os.waitpid(forked(child), 0)
    assert path.exists()
    lock = FileLock(path)
    assert lock.acquire()
    lock.release()


def test_a_lock_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    with pytest.raises(TiplError, match=r"cannot lock .*create the folder first"):
        FileLock(tmp_path / "missing" / "lock").acquire()
