"""Groups of trials give the same bytes wherever they run, and a failure ends no other one.

Engines on Ray and submitit have tests of their own (`tests/test_ray_engine.py`,
`tests/test_submitit_engine.py`); here are shards, threads, and what drives jobs.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from test_collection import content
from test_losing_nothing import forked
from tipl.cli import main
from tipl.collection.collect import collect, collect_shard
from tipl.core.engines import driver
from tipl.core.engines.config import EngineConfig
from tipl.core.engines.driver import Driver, LostError
from tipl.core.engines.shards import Shard
from tipl.core.engines.work import Outcome, Report, Work, raise_failures, run_pieces
from tipl.core.progress import CollectionProgress
from tipl.errors import TiplError
from tipl.paths import verify
from tipl.ppo.config import PPOConfig
from tipl.ppo.ppo import PPO, Rollout

TASK = "HalfCheetah-v4"
OPTIONS: dict[str, Any] = {
    "num_trials": 5,
    "trials_per_group": 1,
    "total_steps": 80,
    "hidden_sizes": (4,),
    "ppo": PPOConfig(num_steps=4, num_minibatches=2, update_epochs=1),
}
SAME = (
    *("--num-trials", "5", "--trials-per-group", "1", "--total-steps", "80", "--hidden-sizes", "4"),
    *("--ppo.num-steps", "4", "--ppo.num-minibatches", "2", "--ppo.update-epochs", "1"),
)
"""The same as words of `tipl collect`."""


def shard(out: Path, which: str) -> None:
    collect_shard(TASK, which, out=out, threads=1, progress=False, **OPTIONS)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes | None]:
    """All files of a dataset that was collected in one go."""
    directory = tmp_path_factory.mktemp("undisturbed") / "paths"
    collect(TASK, out=directory, threads=2, progress=False, **OPTIONS)
    return content(directory)


# --- shards ----------------------------------------------------------------------------------

SLURM = "SLURM_ARRAY_TASK_"
SHARDS: dict[str, tuple[str, dict[str, str], str]] = {
    "given": ("3/16", {}, "3/16"),
    "the first": ("0/1", {f"{SLURM}ID": "7"}, "0/1"),
    "of SLURM": (
        "auto",
        {f"{SLURM}ID": "3", f"{SLURM}COUNT": "16", f"{SLURM}MIN": "0", f"{SLURM}MAX": "15"},
        "3/16",
    ),
    "of SLURM, counted from 1": (
        "auto",
        {f"{SLURM}ID": "16", f"{SLURM}COUNT": "16", f"{SLURM}MIN": "1", f"{SLURM}MAX": "16"},
        "15/16",
    ),
    "of a part of an array": (
        "auto/16",
        {f"{SLURM}ID": "9", f"{SLURM}COUNT": "2", f"{SLURM}MIN": "3", f"{SLURM}MAX": "9"},
        "9/16",
    ),
    "of Kubernetes": ("auto/16", {"JOB_COMPLETION_INDEX": "3"}, "3/16"),
    "of AWS Batch": (
        "auto",
        {"AWS_BATCH_JOB_ARRAY_INDEX": "3", "AWS_BATCH_JOB_ARRAY_SIZE": "16"},
        "3/16",
    ),
}


@pytest.mark.parametrize("name", SHARDS)
def test_a_shard_is_given_or_told_by_the_environment(name: str) -> None:
    text, environment, expected = SHARDS[name]
    assert str(Shard.parse(text, environment)) == expected


NO_SHARDS = [
    ("16/16", {}, "shard 16/16 was given; expected an index from 0 to one less"),
    ("-1/4", {}, "shard -1/4 was given"),
    ("0/0", {}, "shard 0/0 was given; expected .* such as 0/2"),
    ("3", {}, "'3' was given as a shard"),
    ("a/b", {}, "'a/b' was given as a shard"),
    ("auto", {}, "none of SLURM_ARRAY_TASK_ID, JOB_COMPLETION_INDEX, AWS_BATCH_JOB_ARRAY_INDEX"),
    ("auto", {"JOB_COMPLETION_INDEX": "3"}, "give the number, such as --shard auto/16"),
    ("auto", {"AWS_BATCH_JOB_ARRAY_INDEX": "3"}, "give the number, such as --shard auto/16"),
    ("auto/4", {"JOB_COMPLETION_INDEX": "4"}, "shard 4/4 was given"),
    ("auto/4", {"JOB_COMPLETION_INDEX": "x"}, "JOB_COMPLETION_INDEX is 'x' in the environment"),
    (
        "auto",
        {f"{SLURM}ID": "9", f"{SLURM}COUNT": "2", f"{SLURM}MIN": "3", f"{SLURM}MAX": "9"},
        "an array of 2 from 3 to 9, which is a part of one",
    ),
]


@pytest.mark.parametrize(("text", "environment", "message"), NO_SHARDS)
def test_what_is_no_shard_is_refused(text: str, environment: dict[str, str], message: str) -> None:
    with pytest.raises(TiplError, match=message):
        Shard.parse(text, environment)


@pytest.mark.parametrize(("pieces", "count"), [(5, 2), (5, 5), (3, 16), (64, 7)])
def test_every_piece_is_in_one_shard(pieces: int, count: int) -> None:
    shares = [Shard(index, count).of(pieces) for index in range(count)]
    assert sorted(itertools.chain(*shares)) == list(range(pieces))


def test_shards_in_any_order_and_again_are_the_same_dataset(
    undisturbed: dict[str, bytes | None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "paths"
    for which in ("2/3", "0/3", "2/3"):
        main(["collect", TASK, *SAME, "--out", str(out), "--threads", "1", "--shard", which])
    assert "of 15" in capsys.readouterr().out  # parts, of which there are not all
    assert sorted(content(out)) != sorted(undisturbed)
    shard(out, "1/3")
    assert content(out) == undisturbed


def test_two_shards_at_once_are_the_same_dataset(
    undisturbed: dict[str, bytes | None], tmp_path: Path
) -> None:
    out = tmp_path / "paths"
    children = [forked(lambda which=which: shard(out, which)) for which in ("0/2", "1/2")]
    for child in children:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert content(out) == undisturbed


def test_shards_that_are_killed_lose_nothing(
    undisturbed: dict[str, bytes | None], tmp_path: Path
) -> None:
    rng, kills, datasets = random.Random(0), 0, 0
    while kills < 20:
        datasets += 1
        out = tmp_path / f"{datasets}"

        def started(which: str, out: Path = out) -> int:
            return forked(lambda: shard(out, which))

        running = {started(which): which for which in ("0/2", "1/2")}
        while running:
            if kills < 20 and rng.random() < 0.7:
                time.sleep(0.15 * rng.random())
                os.kill(rng.choice(list(running)), signal.SIGKILL)
            child, status = os.waitpid(-1, 0)
            which = running.pop(child)
            if os.WIFSIGNALED(status):  # the same shard once more
                kills += 1
                running[started(which)] = which
            else:
                assert os.waitstatus_to_exitcode(status) == 0
        assert content(out) == undisturbed


# --- failures --------------------------------------------------------------------------------


def test_a_fault_in_one_group_is_written_down_and_the_others_go_on(
    undisturbed: dict[str, bytes | None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, original = tmp_path / "paths", PPO.update

    def update(self: PPO, rollout: Rollout) -> None:
        if self.trials == [3] and self.iteration == 9:
            raise ZeroDivisionError("a bug")
        original(self, rollout)

    with monkeypatch.context() as patch:
        patch.setattr(PPO, "update", update)
        with pytest.raises(SystemExit) as end:
            main(["collect", TASK, *SAME, "--out", str(out), "--threads", "1"])
    assert end.value.code == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(
        f"tipl: 1 of 5 failed (tracebacks are in {out}/resume): trials 3 to 3 on"
    )
    assert "ZeroDivisionError: a bug. All else went on" in said
    assert said.endswith("run the same command again to go on")
    record = out / "resume" / "trials-00003.failure.txt"
    assert "in update" in record.read_text()
    assert any("tells of a failure: trials 3 to 3 on" in problem for problem in verify(out))
    kept = {name for name in undisturbed if "trials-00003" not in name}
    assert kept <= set(content(out))

    shard(out, "3/5")
    assert content(out) == undisturbed


def test_a_group_that_diverges_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = PPO.update

    def update(self: PPO, rollout: Rollout) -> None:
        if self.trials == [3]:
            self.params[:] = np.nan
        original(self, rollout)

    monkeypatch.setattr(PPO, "update", update)
    for i in range(2):
        shard(tmp_path / "paths", f"{i}/2")
    assert verify(tmp_path / "paths") == []


# --- jobs elsewhere --------------------------------------------------------------------------


class Counting:
    """A work of pieces of 8 steps, whose progress is here instead of on a disk."""

    directory, memory = Path("nowhere"), 1

    def __init__(self, pieces: int) -> None:
        self.done = dict.fromkeys(range(pieces), 0)
        self.holders: dict[int, list[str]] = {}  # what `holder` says, one time after the other

    def unfinished(self) -> list[int]:
        return [piece for piece in self.done if not self.is_done(piece)]

    def name(self, piece: int) -> str:
        return f"piece {piece}"

    def is_done(self, piece: int) -> bool:
        return self.done[piece] == 8

    def extent(self, piece: int) -> int:
        return 8

    def reached(self, piece: int) -> int:
        return self.done[piece]

    def holder(self, piece: int) -> str | None:
        return self.holders.get(piece, ["", ""]).pop(0) or None

    def record(self, piece: int) -> Path:
        return self.directory / "record"

    def bar(self, pieces: Sequence[int], shown: bool) -> CollectionProgress:
        return CollectionProgress(len(pieces), 8 * len(pieces), shown)

    def check_machine(self) -> None:
        pass

    def run(self, piece: int, stop: threading.Event, report: Report) -> str | None:
        raise NotImplementedError


class Scripted:
    """Machines whose jobs end as a script says, by piece: one entry for each job.

    `+n` makes n steps and is lost, `done` makes all, `held` finds another process at it, and
    anything else fails with these words.
    """

    def __init__(self, work: Counting, script: dict[int, list[str]]) -> None:
        self.work, self.script, self.most, self.running = work, script, 0, 0

    def submit(self, work: Work, pieces: Sequence[int]) -> list[ScriptedJob]:
        self.running += len(pieces)
        self.most = max(self.most, self.running)
        return [ScriptedJob(self, piece, self.script[piece].pop(0)) for piece in pieces]


class ScriptedJob:
    def __init__(self, machines: Scripted, piece: int, does: str) -> None:
        self.machines, self.piece, self.does = machines, piece, does

    def is_over(self) -> bool:
        return True

    def outcome(self) -> Outcome:
        self.machines.running -= 1
        done = self.machines.work.done
        if self.does.startswith("+"):
            done[self.piece] += int(self.does)
            raise LostError("killed for memory")
        if self.does == "done":
            done[self.piece] = 8
            return Outcome("b")
        if self.does == "held":
            return Outcome("b", holder="process 5 on a")
        return Outcome("b", self.does)

    def cancel(self) -> None:
        pass


def drive(script: dict[int, list[str]], at_once: int | None = None) -> tuple[Scripted, str]:
    """What is said in the end of jobs that go as a script says."""
    work = Counting(len(script))
    machines = Scripted(work, script)
    engine = Driver(machines, at_once, pause=0.001)
    try:
        run_pieces(engine, work, list(script), progress=False)
    except TiplError as error:
        return machines, str(error)
    return machines, ""


def test_lost_jobs_run_again_as_long_as_they_get_further() -> None:
    machines, said = drive({0: ["+1", "+0", "+1", "+0", "+0", "+6"], 1: ["done"]})
    assert said == ""
    assert machines.work.done == {0: 8, 1: 8}


def test_a_job_that_is_always_lost_is_given_up() -> None:
    script = {0: ["+0"] * 9, 1: ["+2"] + ["+0"] * 9, 2: ["done"]}
    machines, said = drive(script)
    assert [len(script[piece]) for piece in script] == [9 - driver.TRIES, 9 - driver.TRIES, 0]
    assert "2 of 3 failed: piece 0 and 1 more on a machine that was lost: killed for memory" in said
    assert "given up after 3 jobs without a new checkpoint" in said
    assert machines.work.done[2] == 8


def test_a_failure_is_tried_once_and_said_with_its_place() -> None:
    script = {0: ["No space left on device", "done"], 1: ["done"]}
    _, said = drive(script)
    assert script[0] == ["done"]
    assert "1 of 2 failed: piece 0 on b: No space left on device. All else went on" in said


def test_no_more_jobs_than_asked_for_run_at_once() -> None:
    machines, said = drive({piece: ["done"] for piece in range(7)}, at_once=3)
    assert (machines.most, said) == (3, "")


def test_what_another_process_is_at_is_waited_for() -> None:
    script = {0: ["held", "done"]}
    work = Counting(1)
    work.holders[0] = ["process 5 on a"] * 3 + [""]
    engine = Driver(Scripted(work, script), None, pause=0.001)
    run_pieces(engine, work, [0], progress=False)
    assert (work.done, work.holders) == ({0: 8}, {0: []})


def test_what_somebody_else_has_done_since_is_no_failure() -> None:
    work = Counting(2)
    work.done[0] = 8
    raise_failures(work, {0: Outcome("b", "lost")})
    with pytest.raises(TiplError, match="piece 1 on b: lost"):
        raise_failures(work, {0: Outcome("b", "lost"), 1: Outcome("b", "lost")})


# --- what is asked for -----------------------------------------------------------------------

REFUSED = {
    "--engine threads --address here:1": "which runs here; give an engine that has one",
    "--engine ray --slurm time=5": "were given with the engine ray",
    "--engine submitit --slurm time": "expected a name and a value, such as partition=cpu",
    "--engine submitit --address nowhere": "expected one of slurm, local",
    "--engine submitit": "there is no SLURM here",
    "--engine ray --address nowhere": "expected auto, local, or a host and a port",
    "--engine ray --address 127.0.0.1:1": "no Ray cluster answers at 127.0.0.1:1",
    "--shard 5/5": "shard 5/5 was given",
    "--shard 0/5 --engine ray": "was given with --engine ray",
    "--shard 0/5 --evaluation-episodes 3": "`tipl paths evaluate` evaluates",
    "--shard 0/5 --from-sb3": "was given with --from-sb3",
    "--engine ray --from-sb3": "runs its trials here",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_no_engine_does_is_refused(
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("tipl.core.engines.ray.find_spec", lambda name: name)
    monkeypatch.setattr("tipl.core.engines.submitit.find_spec", lambda name: name)
    with pytest.raises(SystemExit) as end:
        main(["collect", TASK, *words.split(), "--out", str(tmp_path / "new")])
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert REFUSED[words] in said
    assert said.count("\n") == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("engine", "extra"), [("ray", "ray"), ("submitit", "slurm")])
def test_an_engine_that_is_not_installed_says_what_to_install(
    engine: Any, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"tipl.core.engines.{engine}.find_spec", lambda name: None)
    with pytest.raises(TiplError, match=rf"pip install 'tipl\[{extra}\]'"):
        collect(TASK, out=tmp_path / "new", engine=EngineConfig(engine=engine), **OPTIONS)
    assert not (tmp_path / "new").exists()
