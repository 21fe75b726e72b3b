"""Stages of an experiment: done once, measured, and taken up again after an interruption."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from path_data import make_dataset
from tipl.core import storage
from tipl.errors import TiplError
from tipl.experiments import pipeline
from tipl.experiments.pipeline import (
    Command,
    Ended,
    Pipeline,
    Stage,
    prepare_directory,
)
from tipl.experiments.stage_records import StageRecord, read_records


class Runner:
    """Stands for the processes of commands: each writes its output, unless it shall fail."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.status = 0

    def __call__(self, words: Sequence[str], quiet: bool) -> Ended:
        self.commands.append(list(words))
        if self.status == 0:
            out = Path(words[words.index("--out") + 1])
            out.mkdir(exist_ok=True)
            (out / "result").write_text("made")
        return Ended(self.status, 3.0, 5.0 * len(self.commands), "what went wrong")

    @property
    def made(self) -> list[str]:
        """The names of what the commands were to make."""
        return [Path(words[words.index("--out") + 1]).name for words in self.commands]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Runner:
    runner = Runner()
    monkeypatch.setattr(pipeline, "_run_tipl", runner)
    made = {
        "make": Command("result", threads=True),
        "go on": Command("result", resumes=True),
        "learn": Command("result", state=".state.safetensors"),
    }
    monkeypatch.setattr(pipeline, "COMMANDS", made)
    return runner


def stage(
    directory: Path, name: str, *options: str, command: str = "make", reads: Sequence[str] = (),
    needed: bool = True,
) -> Stage:  # fmt: skip
    """A stage that makes a folder of its name in the directory."""
    out = directory / name
    arguments = (*command.split(), *options, "--out", out)
    return Stage(name, arguments, out, tuple(directory / read for read in reads), needed)


def do(directory: Path, *stages: Stage, threads: int | None = 3) -> None:
    prepare_directory(directory, False, "benchmark")
    Pipeline(directory, stages, threads=threads, progress=False).run()


def test_a_command_is_run_once_and_measured(tmp_path: Path, run: Runner) -> None:
    for _ in range(2):
        do(tmp_path, stage(tmp_path, "first"))
    out = str(tmp_path / "first")
    assert run.commands == [["make", "--out", out, "--threads", "3"]]
    record = read_records(tmp_path)["first"]
    assert record.command == f"tipl make --out {out} --threads 3"
    assert (record.cpu_seconds, record.peak_rss_mb) == (3.0, 5)


@pytest.mark.parametrize("removed", ["first", "second"])
def test_what_was_removed_is_made_again(removed: str, tmp_path: Path, run: Runner) -> None:
    both = stage(tmp_path, "first"), stage(tmp_path, "second", reads=["first"])
    do(tmp_path, *both)
    (tmp_path / removed / "result").unlink()
    run.commands.clear()
    do(tmp_path, *both)
    assert run.made == [removed]


def test_a_stage_is_due_again_when_one_that_it_reads_was_done_otherwise(
    tmp_path: Path, run: Runner
) -> None:
    second, alone = stage(tmp_path, "second", reads=["first"]), stage(tmp_path, "alone")
    for option in ("--a", "--b"):
        do(tmp_path, stage(tmp_path, "first", option), second, alone)
    assert run.made == ["first", "second", "alone", "first", "second"]


def test_a_stage_is_due_again_when_what_comes_from_elsewhere_has_changed(
    tmp_path: Path, run: Runner
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    first = stage(tmp_path / "run", "first", reads=["../model"])
    for weights in ("some", "some", "others"):
        (model / "model.safetensors").write_text(weights)
        do(tmp_path / "run", first)
    assert len(run.commands) == 2
    (model / "notes").write_text("no part of it")
    do(tmp_path / "run", first)
    assert len(run.commands) == 2
    (model / "model.safetensors").unlink()
    do(tmp_path / "run", first)  # its reader will say what is wrong
    assert len(run.commands) == 3


def test_nothing_of_other_reads_is_gone_on_with(tmp_path: Path, run: Runner) -> None:
    (tmp_path / "model").mkdir()
    directory = tmp_path / "run"
    goes_on = stage(directory, "goes on", command="go on", reads=["../model"])
    kept = goes_on.directory
    for half in ("one half", "the other"):
        (tmp_path / "model" / "config.json").write_text("some")
        run.status = 130
        with pytest.raises(TiplError, match="exit status 130"):
            do(directory, goes_on)
        kept.mkdir(exist_ok=True)
        storage.write_json(kept / f"{half}.json", {"kept": half})
    assert sorted(path.name for path in kept.iterdir()) == ["one half.json", "the other.json"]
    (tmp_path / "model" / "config.json").write_text("others")
    run.status = 0
    do(directory, goes_on)
    assert [path.name for path in kept.iterdir()] == ["result"]
    assert read_records(directory)["goes on"].cpu_seconds == 3.0


class Killed(BaseException):
    """Ends the experiment and its command at once: neither writes another byte."""


def killed_while_learning(directory: Path, *options: str, state: bool = True) -> list[str]:
    """The command that was under way when the experiment was killed; leaves a state."""
    given: list[str] = []

    def die(words: Sequence[str], quiet: bool) -> Ended:
        given.extend(words)
        if state:
            storage.write_tensors(directory / "model.state.safetensors", {}, {"kind": "training"})
        raise Killed

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):  # noqa: PT012
        patch.setattr(pipeline, "_run_tipl", die)
        do(directory, learning(directory, *options))
    return given


def learning(directory: Path, *options: str) -> Stage:
    return stage(directory, "model", *options, command="learn", reads=["../data"])


def test_what_was_begun_goes_on_from_its_state(tmp_path: Path, run: Runner) -> None:
    out = tmp_path / "model"
    begun = ["learn", "--out", str(out)]
    assert killed_while_learning(tmp_path) == begun
    assert read_records(tmp_path)["model"].digest == ""
    assert killed_while_learning(tmp_path) == [*begun, "--resume"]
    run.status = 130
    with pytest.raises(TiplError, match=f"`tipl learn --out {out}` says"):
        do(tmp_path, learning(tmp_path))
    run.status = 0
    do(tmp_path, learning(tmp_path))
    assert run.commands == [[*begun, "--resume"]] * 2
    record = read_records(tmp_path)["model"]
    assert (record.command, record.cpu_seconds) == (f"tipl learn --out {out}", 6.0)
    do(tmp_path, learning(tmp_path))
    assert len(run.commands) == 2  # it is done


@pytest.mark.parametrize("changed", ["options", "data", "version"])
def test_another_one_starts_over(
    changed: str, tmp_path: Path, run: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "run"
    killed_while_learning(directory)
    options = ["--more"] if changed == "options" else []
    if changed == "data":
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "metadata.json").write_text("others")
    elif changed == "version":
        monkeypatch.setattr(pipeline.importlib.metadata, "version", lambda name: "other")
    assert "--resume" not in killed_while_learning(directory, *options, state=False)
    assert not (directory / "model.state.safetensors").exists()  # nothing goes on with it later
    do(directory, learning(directory, *options))
    assert "--resume" not in run.commands[-1]


def test_a_file_that_is_no_state_stays(tmp_path: Path, run: Runner) -> None:
    do(tmp_path, stage(tmp_path, "first"))
    theirs = tmp_path / "model.state.safetensors"
    theirs.write_text("my thesis")
    with pytest.raises(TiplError, match=r"model\.state\.safetensors is not a file of training"):
        do(tmp_path, learning(tmp_path))
    assert theirs.read_text() == "my thesis"


def test_what_was_killed_is_not_what_was_done_before(tmp_path: Path, run: Runner) -> None:
    do(tmp_path, learning(tmp_path))
    killed_while_learning(tmp_path, "--other")  # which may have made something
    do(tmp_path, learning(tmp_path))
    assert len(run.commands) == 2


def test_a_directory_is_read_as_the_last_stage_left_it(tmp_path: Path, run: Runner) -> None:
    """As the forecasts, whose returns come to lie beside them."""
    out = tmp_path / "first"
    changes = Stage("changes", ("go", "on", "--out", out), out, (out,))
    second = stage(tmp_path, "second", reads=["first"])
    do(tmp_path, stage(tmp_path, "first"), changes, second)
    again = Stage("changes", ("go", "on", "--more", "--out", out), out, (out,))
    run.commands.clear()
    do(tmp_path, stage(tmp_path, "first"), again, second)
    assert run.made == ["first", "second"]


def test_threads_and_the_place_change_nothing(tmp_path: Path, run: Runner) -> None:
    do(tmp_path / "one", stage(tmp_path / "one", "first"))
    (tmp_path / "one").rename(tmp_path / "two")
    do(tmp_path / "two", stage(tmp_path / "two", "first"), threads=1)
    assert len(run.commands) == 1


def test_time_of_an_interrupted_command_is_kept_and_added(tmp_path: Path, run: Runner) -> None:
    first = stage(tmp_path, "first")
    run.status = 130
    with pytest.raises(TiplError, match=r"'first' ended with exit status 130.*what went wrong"):
        do(tmp_path, first)
    assert read_records(tmp_path)["first"].cpu_seconds == 3.0
    run.status = 0
    do(tmp_path, first)
    record = read_records(tmp_path)["first"]
    assert (record.cpu_seconds, record.peak_rss_mb) == (6.0, 10)
    run.commands.clear()
    do(tmp_path, first)
    assert run.commands == []
    do(tmp_path, stage(tmp_path, "first", "--other"))  # another one, whose time starts at nothing
    assert read_records(tmp_path)["first"].cpu_seconds == 3.0


def test_what_is_done_stays_done_when_a_command_refuses(tmp_path: Path, run: Runner) -> None:
    do(tmp_path, stage(tmp_path, "first"))
    before = read_records(tmp_path)
    run.status = 2
    with pytest.raises(TiplError, match="ended with exit status 2"):
        do(tmp_path, stage(tmp_path, "first", "--impossible"))
    assert read_records(tmp_path) == before


def test_an_experiment_goes_on_without_what_it_does_not_need(tmp_path: Path, run: Runner) -> None:
    def extra() -> None:
        do(tmp_path, stage(tmp_path, "extra", needed=False))

    for run.status in (1, 2):
        extra()
    assert read_records(tmp_path)["extra"].digest == ""
    run.status = 130
    with pytest.raises(TiplError, match="exit status 130"):
        extra()
    run.status = 0
    extra()
    assert run.made == ["extra"] * 4


def test_each_stage_is_told(tmp_path: Path, run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    told = Console(file=io.StringIO(), width=200)
    for _ in range(2):
        prepare_directory(tmp_path, False, "benchmark")
        experiment = Pipeline(tmp_path, [stage(tmp_path, "first")])
        monkeypatch.setattr(experiment, "console", told)
        experiment.run()
    assert isinstance(told.file, io.StringIO)
    line = f"first  tipl make --out {tmp_path / 'first'}"
    assert [text.strip() for text in told.file.getvalue().splitlines()] == [
        line,
        line,
        "already there: reused",
    ]


# --- the records -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "record",
    [
        StageRecord("a", "tipl a", 1.5, 0.0, 7, "digest"),
        StageRecord("a", "tipl a", 0.0, 2.0, 0, "", "digest", {"file": "digest"}),
    ],
)
def test_a_record_comes_back(record: StageRecord) -> None:
    assert StageRecord(**record.to_json()) == record


def test_records_of_earlier_versions_are_read_and_written(tmp_path: Path, run: Runner) -> None:
    demo = {"name": "collect", "command": "tipl collect", "seconds": 1.5, "peak_rss_mb": 9,
            "digest": "d"}  # fmt: skip
    killed = demo | {"name": "train", "cpu_seconds": 2.0, "digest": "", "unfinished": "d"}
    storage.write_json(tmp_path / "stages.json", {"stages": [demo, killed]})
    records = read_records(tmp_path)
    assert list(records) == ["collect", "train"]
    assert np.isnan(records["collect"].cpu_seconds)
    assert (records["train"].cpu_seconds, records["train"].unfinished) == (2.0, "d")
    do(tmp_path, stage(tmp_path, "new"))
    written = storage.read_json(tmp_path / "stages.json")["stages"]
    assert written[:2] == [demo, killed]


def test_a_stage_of_an_earlier_version_is_reused(tmp_path: Path, run: Runner) -> None:
    first = stage(tmp_path / "run", "first", reads=["../model"])
    do(tmp_path / "run", first)
    (record,) = storage.read_json(tmp_path / "run" / "stages.json")["stages"]
    del record["reads"]  # which were not kept
    storage.write_json(tmp_path / "run" / "stages.json", {"stages": [record]})
    do(tmp_path / "run", first)
    assert len(run.commands) == 1


def test_without_a_file_there_are_no_records(tmp_path: Path) -> None:
    assert read_records(tmp_path) == {}


def test_damaged_records_are_noticed(tmp_path: Path) -> None:
    (tmp_path / "stages.json").write_text('{"stages": []}')
    with pytest.raises(TiplError, match=r"stages\.json is damaged"):
        read_records(tmp_path)


# --- real processes --------------------------------------------------------------------------


def test_a_real_command_is_a_process_with_its_own_time_and_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_dataset(tmp_path / "paths")
    held = np.ones(100_000_000)  # 800 MB of this process, which no stage has a part in
    monkeypatch.setitem(pipeline.COMMANDS, "paths verify", Command("metadata.json"))
    verify = Stage("verify", ("paths", "verify", tmp_path / "paths"), tmp_path / "paths")
    do(tmp_path / "run", verify)
    record = read_records(tmp_path / "run")["verify"]
    assert 0.05 < record.cpu_seconds < 100
    assert 20 < record.peak_rss_mb < held.nbytes / 1e6
    lost = Stage("lost", ("paths", "verify", tmp_path / "nowhere"), tmp_path / "nowhere")
    with pytest.raises(TiplError, match=r"status 2: `tipl paths verify .*` says tipl: there is no"):
        do(tmp_path / "run", lost)


def test_a_place_that_is_taken(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for fresh in (False, True):
        with pytest.raises(TiplError, match="holds other files than those of `tipl benchmark`"):
            prepare_directory(tmp_path, fresh, "benchmark")
    assert (tmp_path / "notes.txt").read_text() == "mine"
