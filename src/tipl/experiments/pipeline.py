"""The pipeline of an experiment: commands of tipl, each in a process of its own, done once.

A stage is done again when its command or what it reads has changed. What each took is kept in the
`stages.json` of the experiment's directory, which `read_records` reads.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import math
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from rich.console import Console
from rich.text import Text

from tipl.core import storage
from tipl.core.atomic import explained
from tipl.core.options import thread_count
from tipl.envs import make_task
from tipl.errors import TiplError
from tipl.experiments.config import AccelerationConfig, BenchmarkConfig, DemoConfig

__all__ = [
    "Pipeline",
    "Stage",
    "StageRecord",
    "prepare_directory",
    "read_records",
    "run_pipeline",
]

Config = TypeVar("Config", DemoConfig, BenchmarkConfig, AccelerationConfig)

FILE = "stages.json"

REFUSED, INTERRUPTED = 2, 130
"""Exit statuses: the command was given something impossible, or somebody has interrupted it."""


@dataclass(frozen=True)
class Stage:
    """A command of tipl, with what it reads and what it makes.

    Attributes:
        name: what the stage is called.
        words: the command line after `tipl`, without `--threads`.
        output: a file that is there when the stage is done.
        reads: files that decide on the result: outputs of earlier stages, or of other experiments.
        threads: whether the command takes `--threads`, which change no result.
        resumes: a directory in which the command goes on with what it finds there, and which is
            removed first when what the stage reads has changed; None if it always starts anew.
        needed: whether the experiment ends when the stage fails; if not, it goes on without.
    """

    name: str
    words: tuple[str, ...]
    output: Path
    reads: tuple[Path, ...] = ()
    threads: bool = False
    resumes: Path | None = None
    needed: bool = True


@dataclass(frozen=True)
class StageRecord:
    """What a stage took.

    Attributes:
        name: of the stage.
        command: its command line.
        seconds: wall time; that of an interrupted command is added to that of the next.
        cpu_seconds: of all threads together, by the operating system; NaN is not known.
        peak_rss_mb: largest resident memory of its process.
        digest: of the command and of the stages that it needs; empty if it is not done.
        unfinished: that of a command that was interrupted or failed.
        reads: digest of each file that it read.
    """

    name: str
    command: str
    seconds: float
    cpu_seconds: float = math.nan
    peak_rss_mb: int = 0
    digest: str = ""
    unfinished: str = ""
    reads: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> StageRecord:
        """Reads what `to_json` made, now or in an earlier version."""
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})

    def to_json(self) -> dict[str, Any]:
        """The record as JSON, without what is empty or not known."""
        values = dataclasses.asdict(self)
        unknown = {"cpu_seconds"} if math.isnan(self.cpu_seconds) else set()
        unknown |= {name for name in ("unfinished", "reads") if not values[name]}
        return {name: values[name] for name in values if name not in unknown}


def read_records(directory: str | Path) -> dict[str, StageRecord]:
    """What the stages of an experiment took, by name, in the order in which they were first done.

    Args:
        directory: of the experiment; without a `stages.json` there are no records.

    Raises:
        TiplError: the file is damaged.
    """
    file = Path(directory) / FILE
    if not file.exists():
        return {}
    found = storage.read_json(file, "the record of an experiment's stages")["stages"]
    return {record["name"]: StageRecord.from_json(record) for record in found}


def prepare_directory(directory: Path, fresh: bool, command: str) -> None:
    """Makes an experiment's directory; with `fresh`, removes what an earlier one left in it.

    Args:
        directory: of the experiment.
        fresh: start over.
        command: of tipl that makes such directories, for the message: `"demo"` or `"benchmark"`.

    Raises:
        TiplError: the directory holds something else, or cannot be used. Nothing has been removed
            then.
    """
    records = directory / FILE
    with explained("use", directory):
        if directory.exists() and any(directory.iterdir()) and not records.exists():
            raise TiplError(
                f"{directory} holds other files than those of `tipl {command}`; choose another "
                "--out, or remove it"
            )
        if fresh and directory.exists():
            shutil.rmtree(directory)
        directory.mkdir(parents=True, exist_ok=True)
    if not records.exists():
        storage.write_json(records, {"stages": []})


def run_pipeline(
    command: str,
    config: Config,
    stages_of: Callable[[Config, Path], Sequence[Stage]],
    directory: Path | None,
    *,
    fresh: bool,
    threads: int | None,
    progress: bool,
) -> Path:
    """Does what is left of an experiment; all that can be is checked before the first stage.

    Args:
        command: of tipl, such as `"benchmark"`.
        config: what to do.
        stages_of: the stages of such an experiment in its directory.
        directory: of the experiment; by default `runs/`, the command and the task.
        fresh: remove an earlier one's results from the directory first.
        threads: of each stage; by default one for each processor.
        progress: show the stages.

    Returns:
        The directory.

    Raises:
        TiplError: there is no such task, the number of threads is impossible, or the directory
            holds something else (nothing has been removed then); or a stage failed.
    """
    make_task(config.env_id)
    thread_count(threads)
    directory = directory or Path("runs") / command / config.env_id
    prepare_directory(directory, fresh, command)
    stages = stages_of(config, directory)
    Pipeline(directory, stages, threads=threads, progress=progress).run()
    return directory


class Pipeline:
    """The stages of an experiment, in order.

    Args:
        directory: of the experiment, made by `prepare_directory`.
        stages: each reads files from elsewhere, or outputs of those before it.
        threads: of each stage; by default one for each processor.
        progress: say which stage comes, and show its progress bars.
    """

    def __init__(
        self,
        directory: Path,
        stages: Sequence[Stage],
        *,
        threads: int | None = None,
        progress: bool = True,
    ) -> None:
        self.directory, self.stages = directory, stages
        self.console = Console(stderr=True, quiet=not progress)
        self._threads = () if threads is None else ("--threads", str(threads))
        self._records = read_records(directory)
        self._makers = {stage.output: stage.name for stage in stages}

    def run(self) -> None:
        """Does each stage that is not done yet.

        Raises:
            TiplError: a stage failed, or was interrupted.
        """
        for stage in self.stages:
            self._do(stage)

    def _do(self, stage: Stage) -> None:
        words = [*stage.words, *(self._threads if stage.threads else ())]
        command = shlex.join(["tipl", *words])
        self.console.print(Text.assemble((stage.name, "bold"), "  ", (command, "dim")))
        digest, reads = self._digest(stage), self._digests_of_files(stage)
        before = self._records.get(stage.name) or StageRecord(stage.name, command, 0.0)
        as_before = before.reads in ({}, reads)  # earlier versions kept none
        if before.digest == digest and as_before and stage.output.exists():
            self.console.print("  already there: reused")
            return
        if stage.resumes is not None and not as_before:
            shutil.rmtree(stage.resumes, ignore_errors=True)  # half of it would be of other files
        start = time.monotonic()
        ended = _run_tipl(words, quiet=self.console.quiet)
        goes_on = as_before and before.unfinished == digest
        record = StageRecord(
            stage.name,
            command,
            round((before.seconds if goes_on else 0.0) + time.monotonic() - start, 1),
            round((before.cpu_seconds if goes_on else 0.0) + ended.cpu_seconds, 1),
            max(before.peak_rss_mb if goes_on else 0, round(ended.peak_rss_mb)),
            digest if ended.status == 0 else "",
            "" if ended.status == 0 else digest,
            reads,
        )
        if not (ended.status == REFUSED and before.digest):
            self._write(record)
        if ended.status != 0:
            self._failed(stage, command, ended)

    def _failed(self, stage: Stage, command: str, ended: Ended) -> None:
        why = ended.last_words or "why above"
        message = f"the stage {stage.name!r} ended with exit status {ended.status}: "
        message += f"`{command}` says {why}"
        if stage.needed or ended.status == INTERRUPTED:
            raise TiplError(f"{message}; what was finished is kept: run the same again to go on")
        self.console.print(f"  left out: {message}", highlight=False)

    def _write(self, record: StageRecord) -> None:
        self._records[record.name] = record
        written = [one.to_json() for one in self._records.values()]
        storage.write_json(self.directory / FILE, {"stages": written})

    def _digest(self, stage: Stage) -> str:
        needs = [self._makers[file] for file in stage.reads if file in self._makers]
        return storage.content_digest(
            {
                "version": importlib.metadata.version("tipl"),
                "arguments": [self._anywhere(word) for word in stage.words],
                "needs": [self._records[need].digest for need in needs],
            }
        )

    def _digests_of_files(self, stage: Stage) -> dict[str, str]:
        """Of each file that a stage reads: of its maker, or of the bytes of one from elsewhere."""
        return {
            self._anywhere(str(file)): (
                self._records[self._makers[file]].digest
                if file in self._makers
                else _digest_of_file(file)
            )
            for file in stage.reads
        }

    def _anywhere(self, word: str) -> str:
        """A word of a command that is the same wherever the experiment's directory is."""
        return word.replace(str(self.directory), "RUN")


def _digest_of_file(file: Path) -> str:
    """SHA-256 of a file's bytes; of one that is not there, nothing: its reader will say so."""
    if not file.is_file():
        return ""
    with explained("read", file), file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


class Ended(NamedTuple):
    """How a command ended, and what its process took."""

    status: int
    cpu_seconds: float
    peak_rss_mb: float
    last_words: str


# A process is charged with the memory of the one that started it until it has become another
# program. So one that is small starts the command, waits for it, and says what it took.
_MEASURE = """
import json, os, signal, sys
signal.signal(signal.SIGINT, lambda *_: None)  # the command is told as well, and ends by itself
_, status, used = os.wait4(os.posix_spawn(sys.argv[2], sys.argv[2:], os.environ), 0)
took = [os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, used.ru_maxrss]
with open(sys.argv[1], "w") as file:
    json.dump(took, file)
"""


def _run_tipl(words: Sequence[str], quiet: bool) -> Ended:
    """Runs a command of tipl in a process of its own, and keeps its last words if quiet."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as errors:
        took = Path(folder) / "took.json"
        measured = [sys.executable, "-I", "-S", "-c", _MEASURE, str(took)]
        process = subprocess.Popen(
            [*measured, sys.executable, "-m", "tipl", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # what it made is announced by its stage
            stderr=errors if quiet else None,
        )
        while True:
            try:
                process.wait()
                break
            except KeyboardInterrupt:  # the command is told as well, and ends by itself
                continue
        status, cpu_seconds, peak = json.loads(took.read_text()) if took.exists() else (-1, 0, 0)
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip().rpartition("\n")[2]
    # macOS counts memory in bytes, others in kilobytes
    return Ended(status, cpu_seconds, peak / (1e6 if sys.platform == "darwin" else 1e3), said)
