"""The pipeline of an experiment: commands of tipl, each in a process of its own, done once.

A stage is done again when its command or what it reads has changed. What each took is kept in the
`stages.json` of the experiment's directory, which `read_records` reads.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import math
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypedDict, TypeVar, Unpack

import msgspec
from rich.text import Text

from tipl.core import storage
from tipl.core.options import thread_count
from tipl.core.ownership import check_file
from tipl.core.processes import STATUSES, Interrupted, run_on_leash
from tipl.core.schemas import JsonFile, Natural, NotNegative
from tipl.core.system_errors import explained
from tipl.core.terminal import console
from tipl.core.trust import trust_own, trusted_words
from tipl.errors import TiplError, printable
from tipl.experiments.clearing import FILE, RECORD, RECORDS, clear_experiment, clear_stage
from tipl.experiments.config import AccelerationConfig, BenchmarkConfig, DemoConfig
from tipl.report.files import check_report

REFUSED = 2
"""Exit status of a command that was given something impossible."""


Options = tuple[object, ...]
"""Words of a command line: texts, numbers and paths."""


class Command(NamedTuple):
    """What a command of tipl makes."""

    result: str  # a file in its directory that is there when it is done
    threads: bool = False  # whether it takes `--threads`, which change no result
    resumes: bool = False  # whether it goes on with what it finds in its directory


COMMANDS = {
    "collect": Command("metadata.json", threads=True, resumes=True),
    "paths evaluate": Command("evaluation.json", threads=True, resumes=True),
    "paths best": Command("policy.json"),
    "train": Command("config.json", threads=True),
    "optimize": Command("policy.json"),
    "forecast": Command("forecasts.json"),
    "evaluate": Command("returns.safetensors", threads=True),
    "costs": Command("costs.json"),
    "film": Command("film.json"),
}

READ = ("metadata.json", "config.json", "model.safetensors", "policy.json")
"""Files by which a directory from elsewhere is known: of a dataset, a model or a policy."""


@dataclass(frozen=True)
class Stage:
    """A command of tipl, with what it reads and what it makes."""

    name: str
    arguments: Options  # the command line after `tipl`, without `--threads`
    directory: Path  # where its result is when it is done
    reads: tuple[Path, ...] = ()  # that decide on the result: of earlier stages, or from elsewhere
    needed: bool = True  # whether the experiment ends when it fails; if not, it goes on without

    @cached_property
    def words(self) -> list[str]:
        """The arguments as one would type them."""
        return [f"{one:g}" if isinstance(one, float) else str(one) for one in self.arguments]

    @property
    def command(self) -> Command:
        """What the command makes."""
        return COMMANDS.get(" ".join(self.words[:2])) or COMMANDS[self.words[0]]


def running_checkpoints(name: str, paths: Path, episodes: int, *options: object) -> Stage:
    """The stage that runs the checkpoints of a dataset which an earlier stage collects."""
    words = ("paths", "evaluate", paths, "--episodes", episodes, *options)
    return Stage(name, words, paths / "evaluation", (paths,))


def training(
    run: Path, models: Mapping[str, Options], held_out: float, seed: int, label: str = ""
) -> Iterator[Stage]:
    """The stages that train models on a run's paths, by the names of their directories."""
    paths = run / "paths"
    for name, options in models.items():
        model = run / "models" / name
        words = ("train", paths, "--held-out", held_out, *options, "--seed", seed, "--out", model)
        yield Stage(f"train ({name}){label}", words, model, (paths,))


def forecasting(
    run: Path, models: Iterable[str], episodes: int, places: Options = (), label: str = ""
) -> Iterator[Stage]:
    """The stages in which a run's models forecast its held-out trials, and forecasts are run."""
    out, trained = run / "forecasts", tuple(run / "models" / name for name in models)
    words = ("forecast", *trained, "--paths", run / "paths", "--out", out, *places)
    yield Stage(f"forecast{label}", words, out, trained)
    yield Stage(f"evaluate{label}", ("evaluate", out, "--episodes", episodes), out, (out,))


@dataclass(frozen=True)
class StageRecord:
    """What a stage took, also before it was interrupted."""

    name: str
    command: str
    seconds: NotNegative  # wall time
    cpu_seconds: NotNegative = math.nan  # of all threads together; NaN is not known
    peak_rss_mb: Natural = 0  # largest resident memory of its process
    digest: str = ""  # of the command and of the stages that it needs; empty if it is not done
    unfinished: str = ""  # that of a command that was interrupted or failed
    reads: Mapping[str, str] = field(default_factory=dict)  # digests of the directories

    @property
    def note(self) -> str:
        """What a report says of it."""
        return f"peak memory {self.peak_rss_mb:,} MB"

    def to_json(self) -> dict[str, Any]:
        """The record as JSON, without what is not known."""
        values = dataclasses.asdict(self)
        unknown = {"cpu_seconds"} if math.isnan(self.cpu_seconds) else set()
        unknown |= {name for name in ("unfinished", "reads") if not values[name]}
        return {name: values[name] for name in values if name not in unknown}


class _Stages(msgspec.Struct):
    """What `stages.json` says."""

    stages: list[StageRecord]


STAGES = JsonFile(FILE, _Stages, "the record of an experiment's stages")


def read_records(directory: str | Path) -> dict[str, StageRecord]:
    """What the stages in an experiment's directory took, by name, in order of their first run.

    Raises:
        TiplError: the `stages.json` is damaged.
    """
    file = Path(directory) / FILE
    if not file.exists():
        return {}
    return {record.name: record for record in STAGES.read(file).stages}


def prepare_directory(
    directory: Path, fresh: bool, command: str, stages: Iterable[Stage] = ()
) -> None:
    """Makes the directory of `tipl demo`, say; if `fresh`, removes what an earlier one left there.

    What it left is known by its record, and by the stages that are to be done now.

    Raises:
        TiplError: the directory holds something else (nothing has been removed then), or it cannot
            be used.
    """
    records = directory / FILE
    check_free(directory, command)
    with explained("use", directory):
        if fresh and directory.exists():
            commands = [record.command for record in read_records(directory).values()]
            clear_experiment(directory, commands, [stage.directory for stage in stages])
        directory.mkdir(parents=True, exist_ok=True)
    for name in RECORDS:
        check_file(directory / name, RECORD)
    check_report(directory)
    if not records.exists():
        storage.write_json(records, {"stages": []})


def check_free(directory: Path, command: str) -> None:
    """Raises a TiplError if a directory holds more than what `tipl demo`, say, has left there."""
    with explained("use", directory):
        if directory.exists() and any(directory.iterdir()) and not (directory / FILE).exists():
            raise TiplError(
                f"{directory} holds other files than those of `tipl {command}`; choose another "
                "--out, or remove it"
            )


class How(TypedDict, total=False):
    """How an experiment is run, whatever it does."""

    fresh: bool
    """remove an earlier one's results from the directory first"""
    threads: int | None
    """of each stage; by default one for each processor"""
    progress: bool
    """show the stages and their progress bars; by default they are shown"""
    command: str | None
    """the command line, for the record; by default one that does the same"""


AnyConfig: TypeAlias = DemoConfig | BenchmarkConfig | AccelerationConfig

Config = TypeVar("Config", DemoConfig, BenchmarkConfig, AccelerationConfig)


def run_pipeline(
    config: Config,
    stages_of: Callable[[Config, Path], Iterable[Stage]],
    out: str | Path | None,
    **how: Unpack[How],
) -> Path:
    """Does what is left of an experiment; all that can be is checked before the first stage.

    Args:
        config: what to do.
        stages_of: the stages of such an experiment in its directory, in order.
        out: its directory, which is returned; by default `runs/`, the command and the task.
        **how: see `How`.

    Raises:
        TiplError: there is no such task, the number of threads is impossible, or the directory
            holds something else (nothing has been removed then); or a stage failed.
    """
    from tipl.envs import make_task

    directory = check_experiment(config, out, how.get("threads"))
    make_task(config.env_id)
    stages = list(stages_of(config, directory))
    prepare_directory(directory, how.get("fresh", False), config.COMMAND, stages)
    Pipeline(directory, stages, **how).run()
    return directory


def check_experiment(config: AnyConfig, out: str | Path | None, threads: int | None) -> Path:
    """The directory of an experiment that `run_pipeline` would take; nothing heavy is imported.

    Raises:
        TiplError: as `run_pipeline`, before anything is made.
    """
    from tipl.envs.registry import registered_spec

    trust_own(config.env_id)
    registered_spec(config.env_id)
    thread_count(threads)
    directory = Path("runs", config.COMMAND, config.env_id) if out is None else Path(out)
    check_free(directory, config.COMMAND)
    return directory


class Pipeline:
    """The stages of an experiment, in order, in a directory made by `prepare_directory`.

    Each reads directories from elsewhere, or those of stages before it.
    """

    def __init__(self, directory: Path, stages: Iterable[Stage], **how: Unpack[How]) -> None:
        self.directory, self.stages = directory, stages
        self.console = console(stderr=True, quiet=not how.get("progress", True))
        threads = how.get("threads")
        self._threads = () if threads is None else ("--threads", str(threads))
        self._records = read_records(directory)
        self._made: dict[Path, str] = {}  # the digest of what each directory now holds

    def run(self) -> None:
        """Does each stage that is not done yet.

        Raises:
            TiplError: a stage failed, or was interrupted.
        """
        for stage in self.stages:
            self._do(stage)
            self._made[stage.directory] = self._records[stage.name].digest

    def _do(self, stage: Stage) -> None:
        words = [*stage.words, *(self._threads if stage.command.threads else ()), *trusted_words()]
        line = shlex.join(["tipl", *words])
        self.console.print(Text.assemble((stage.name, "bold"), "  ", (printable(line), "dim")))
        digest, reads = self._digest(stage), self._reads(stage)
        before = self._records.get(stage.name) or StageRecord(stage.name, line, 0.0)
        same_reads = before.reads in ({}, reads)
        if (
            before.digest == digest
            and same_reads
            and (stage.directory / stage.command.result).exists()
        ):
            self.console.print("  already there: reused")
            return
        if stage.command.resumes and not same_reads:  # half of it would be made of other things
            clear_stage(stage.directory)
        start = time.monotonic()
        ended = _run_tipl(words, quiet=self.console.quiet)
        earlier = StageRecord(stage.name, line, 0.0, 0.0)  # what it took until now
        if same_reads and before.unfinished == digest:
            earlier = before
        record = dataclasses.replace(
            earlier,
            command=line,
            seconds=round(earlier.seconds + time.monotonic() - start, 1),
            cpu_seconds=round(earlier.cpu_seconds + ended.cpu_seconds, 1),
            peak_rss_mb=max(earlier.peak_rss_mb, round(ended.peak_rss_mb)),
            digest=digest if ended.status == 0 else "",
            unfinished="" if ended.status == 0 else digest,
            reads=reads,
        )
        if not (ended.status == REFUSED and before.digest):
            self._records[stage.name] = record
            written = [one.to_json() for one in self._records.values()]
            storage.write_json(self.directory / FILE, {"stages": written})
        interruption = ended.interruption
        if ended.status in STATUSES:  # somebody has ended the stage alone
            interruption = interruption or Interrupted(STATUSES[ended.status])
        if interruption is not None or ended.status != 0:
            self._failed(stage, line, ended, interruption)

    def _failed(
        self, stage: Stage, line: str, ended: Ended, interruption: KeyboardInterrupt | None
    ) -> None:
        message = f"interrupted after the stage {stage.name!r}"
        if ended.status != 0:
            message = f"the stage {stage.name!r} ended with exit status {ended.status}: "
            message += f"`{line}` says {ended.last_words or 'why above'}"
        if stage.needed or interruption is not None:
            advice = "what was finished is kept: run the same again to go on"
            raise TiplError(f"{message}; {advice}") from interruption
        self.console.print(f"  left out: {message}")

    def _digest(self, stage: Stage) -> str:
        return storage.content_digest(
            {
                "version": importlib.metadata.version("tipl"),
                "arguments": [self._anywhere(word) for word in stage.words],
                "needs": [self._made[read] for read in stage.reads if read in self._made],
            }
        )

    def _reads(self, stage: Stage) -> dict[str, str]:
        """Digest of what each directory holds that a stage reads."""
        return {
            self._anywhere(str(read)): self._made.get(read) or _digest_of_files(read)
            for read in stage.reads
        }

    def _anywhere(self, word: str) -> str:
        """A word of a command that is the same wherever the experiment's directory is."""
        return word.replace(str(self.directory), "RUN")


def _digest_of_files(directory: Path) -> str:
    """SHA-256 of what a directory from elsewhere is known by; if it is lost, its reader says so."""
    with explained("read", directory):
        files = (directory / name for name in READ)
        content = b"".join(file.read_bytes() for file in files if file.is_file())
    return hashlib.sha256(content).hexdigest()


class Ended(NamedTuple):
    """How a command ended, and what its process took."""

    status: int
    cpu_seconds: float
    peak_rss_mb: float
    last_words: str
    interruption: KeyboardInterrupt | None = None  # of the experiment itself, meanwhile


def _run_tipl(words: Sequence[str], quiet: bool) -> Ended:
    """Runs a command of tipl in a process of its own, and keeps its last words if quiet."""
    # `-m` alone adds the current directory, with whatever lies there, to what can be imported
    added = os.getcwd() in map(os.path.abspath, sys.path)
    with tempfile.TemporaryFile() as errors:
        took = run_on_leash(
            [sys.executable, *([] if added else ["-P"]), "-m", "tipl", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # what it made is announced by its stage
            stderr=errors if quiet else None,
        )
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip().rpartition("\n")[2]
    return Ended(took.status, took.cpu_seconds, took.peak_rss_mb, said, took.interruption)
