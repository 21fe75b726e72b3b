"""Stages of a run: done once, measured, and taken up again after an interruption."""

from __future__ import annotations

import io
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from path_data import make_dataset
from tipl.core import storage
from tipl.errors import TiplError
from tipl.experiments import stages as stages_module
from tipl.experiments.stages import CommandStages, prepare_run


def records(directory: Path) -> dict[str, dict[str, Any]]:
    found = storage.read_json(directory / "stages.json")["stages"]
    return {stage["name"]: stage for stage in found}


class Runner:
    """Stands for the processes of commands: each writes its output, unless it shall fail."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.status = 0

    def __call__(
        self, words: Sequence[str], quiet: bool
    ) -> tuple[int, resource.struct_rusage, str]:
        self.commands.append(list(words))
        if self.status == 0:
            Path(words[words.index("--out") + 1]).write_text("made")
        usage = resource.struct_rusage([2.0, 1.0, 5000 * len(self.commands), *[0] * 13])
        return self.status, usage, "what went wrong"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Runner:
    runner = Runner()
    monkeypatch.setattr(stages_module, "_run_tipl", runner)
    monkeypatch.setattr(stages_module, "_megabytes", lambda peak: peak // 1000)
    return runner


def make(directory: Path) -> CommandStages:
    prepare_run(directory, False, "benchmark")
    return CommandStages(directory, Console(file=io.StringIO(), quiet=True))


def step(stages: CommandStages, name: str, *options: str, needs: Sequence[str] = ()) -> None:
    out = stages.directory / name
    stages.run(name, ["make", *options, "--out", out], out, needs, effort=["--threads", "3"])


def test_a_command_is_run_once_and_measured(tmp_path: Path, run: Runner) -> None:
    step(make(tmp_path), "first")
    step(make(tmp_path), "first")
    out = str(tmp_path / "first")
    assert run.commands == [["make", "--out", out, "--threads", "3"]]
    record = records(tmp_path)["first"]
    assert record["command"] == f"tipl make --out {out} --threads 3"
    assert (record["cpu_seconds"], record["peak_rss_mb"]) == (3.0, 5)


@pytest.mark.parametrize(
    ("change", "again"),
    [
        (lambda directory: (directory / "first").unlink(), ["first"]),
        (lambda directory: (directory / "second").unlink(), ["second"]),
    ],
)
def test_what_was_removed_is_made_again(
    change: Any, again: list[str], tmp_path: Path, run: Runner
) -> None:
    def both() -> None:
        stages = make(tmp_path)
        step(stages, "first")
        step(stages, "second", needs=["first"])

    both()
    change(tmp_path)
    run.commands.clear()
    both()
    assert [Path(words[2]).name for words in run.commands] == again


def test_a_stage_is_due_again_when_one_that_it_needs_was_done_otherwise(
    tmp_path: Path, run: Runner
) -> None:
    for option in ("--a", "--b"):
        stages = make(tmp_path)
        step(stages, "first", option)
        step(stages, "second", needs=["first"])
        step(stages, "alone")
    made = [Path(words[words.index("--out") + 1]).name for words in run.commands]
    assert made == ["first", "second", "alone", "first", "second"]


def test_threads_and_the_place_change_nothing(tmp_path: Path, run: Runner) -> None:
    step(make(tmp_path / "one"), "first")
    (tmp_path / "one").rename(tmp_path / "two")
    stages = make(tmp_path / "two")
    out = tmp_path / "two" / "first"
    stages.run("first", ["make", "--out", out], out, effort=["--threads", "1"])
    assert len(run.commands) == 1


def test_time_of_an_interrupted_command_is_kept_and_added(tmp_path: Path, run: Runner) -> None:
    run.status = 130
    with pytest.raises(TiplError, match=r"'first' ended with exit status 130.*what went wrong"):
        step(make(tmp_path), "first")
    assert records(tmp_path)["first"]["cpu_seconds"] == 3.0
    run.status = 0
    step(make(tmp_path), "first")
    record = records(tmp_path)["first"]
    assert (record["cpu_seconds"], record["peak_rss_mb"]) == (6.0, 10)
    run.commands.clear()
    step(make(tmp_path), "first")
    assert run.commands == []
    step(make(tmp_path), "first", "--other")  # is another stage, whose time starts at nothing
    assert records(tmp_path)["first"]["cpu_seconds"] == 3.0


def test_a_real_command_is_a_process_with_its_own_time_and_memory(tmp_path: Path) -> None:
    make_dataset(tmp_path / "paths")
    stages = make(tmp_path / "run")
    stages.run("verify", ["paths", "verify", tmp_path / "paths"], tmp_path / "paths")
    record = records(tmp_path / "run")["verify"]
    assert 0.05 < record["cpu_seconds"] < 100
    assert 20 < record["peak_rss_mb"] < 2000
    with pytest.raises(TiplError, match=r"status 2: `tipl paths verify .*` says tipl: there is no"):
        stages.run("lost", ["paths", "verify", tmp_path / "nowhere"], tmp_path / "nowhere")


def test_a_place_that_is_taken(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for fresh in (False, True):
        with pytest.raises(TiplError, match="holds other files than those of `tipl benchmark`"):
            prepare_run(tmp_path, fresh, "benchmark")
    assert (tmp_path / "notes.txt").read_text() == "mine"
