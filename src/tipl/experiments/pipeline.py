"""The pipeline of an experiment: commands of tipl, each in a process of its own, done once.

A stage is done again when its command or what it reads has changed. One that was begun goes on, if
nothing has. What each took is kept in the `stages.json` of the experiment's directory.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, TypeAlias, TypedDict, TypeVar, Unpack

from rich.text import Text

from tipl.core import storage
from tipl.core.options import thread_count
from tipl.core.ownership import check_file
from tipl.core.processes import STATUSES, Interrupted, run_on_leash
from tipl.core.system_errors import explained
from tipl.core.terminal import console
from tipl.core.trust import trust_own, trusted_words
from tipl.errors import TiplError, printable
from tipl.experiments.clearing import (
    FILE,
    RECORD,
    RECORDS,
    clear_experiment,
    clear_stage,
    clear_state,
)
from tipl.experiments.config import DemoConfig, ExperimentConfig
from tipl.experiments.stage_records import StageRecord, read_records
from tipl.models import TRAINING_STATE
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
    state: str = ""  # or how a file beside its directory ends, from which `--resume` goes on


COMMANDS = {
    "collect": Command("metadata.json", threads=True, resumes=True),
    "paths evaluate": Command("evaluation.json", threads=True, resumes=True),
    "paths best": Command("policy.json"),
    "train": Command("config.json", threads=True, state=TRAINING_STATE),
    "optimize": Command("policy.json"),
    "forecast": Command("forecasts.json"),
    "evaluate": Command("returns.safetensors", threads=True),
    "worlds make": Command("worlds.json"),
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

    @property
    def state(self) -> Path | None:
        """The file, if there is one, from which the command goes on when it is told to."""
        file = self.directory.with_name(self.directory.name + self.command.state)
        return file if self.command.state and os.path.lexists(file) else None


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


def prepare_directory(
    directory: Path, fresh: bool, command: str, stages: Iterable[Stage] = (),
    places: Collection[str] = (),
) -> None:  # fmt: skip
    """Makes the directory of `tipl demo`, say; if `fresh`, removes what an earlier one left there.

    What it left is known by its record, and by the stages that are to be done now. For `places`
    see `check_free`.

    Raises:
        TiplError: the directory holds something else (nothing has been removed then), or it cannot
            be used.
    """
    records = directory / FILE
    check_free(directory, command, places)
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


def check_free(directory: Path, command: str, places: Collection[str] = ()) -> None:
    """Raises a TiplError if a directory holds more than what `tipl demo`, say, has left there.

    Results of some `places` may have been put there before it began.
    """
    with explained("use", directory):
        if not directory.exists() or (directory / FILE).exists():
            return
        if any(entry.name not in places for entry in directory.iterdir()):
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


AnyConfig: TypeAlias = DemoConfig | ExperimentConfig

Config = TypeVar("Config", bound=AnyConfig)


def run_pipeline(
    config: Config,
    stages_of: Callable[[Config, Path], Iterable[Stage]],
    out: str | Path | None,
    along: Callable[[Path, Iterable[Stage]], Iterable[Stage]] = lambda _, stages: stages,
    **how: Unpack[How],
) -> Path:
    """Does what is left of an experiment; all that can be is checked before the first stage.

    Args:
        config: what to do.
        stages_of: the stages of such an experiment in its directory, in order.
        out: its directory, which is returned; by default `runs/`, the command and the task.
        along: passes the stages on, each when the one before it is done, and works in between.
        **how: see `How`.

    Raises:
        TiplError: there is no such task, the number of threads is impossible, or the directory
            holds something else (nothing has been removed then); or a stage failed.
    """
    from tipl.envs import make_task

    directory = check_experiment(config, out, how.get("threads"))
    make_task(config.env_id)
    stages = list(stages_of(config, directory))
    fresh = how.get("fresh", False)
    prepare_directory(directory, fresh, config.COMMAND, stages, config.PLACES)
    Pipeline(directory, along(directory, stages), **how).run()
    return directory


def check_experiment(config: AnyConfig, out: str | Path | None, threads: int | None) -> Path:
    """The directory of an experiment that `run_pipeline` would take; nothing heavy is imported.

    Raises:
        TiplError: as `run_pipeline`, before anything is made.
    """
    trust_own(config.env_id)
    thread_count(threads)
    group = config.COMMAND.split()[0]
    directory = Path("runs", group, config.env_id) if out is None else Path(out)
    check_free(directory, config.COMMAND, config.PLACES)
    from tipl.envs.registry import registered_spec  # late: it brings Gymnasium

    registered_spec(config.env_id)
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
        begun = same_reads and before.unfinished == digest
        going_on = self._going_on(stage, begun, same_reads)
        earlier = before if begun else StageRecord(stage.name, line, 0.0, 0.0)
        record = dataclasses.replace(
            earlier, command=line, digest="", unfinished=digest, reads=reads
        )
        self._keep(record)  # before anything is made, whoever may be killed then
        start = time.monotonic()
        ended = _run_tipl([*words, *going_on], quiet=self.console.quiet)
        record = dataclasses.replace(
            record,
            seconds=round(record.seconds + time.monotonic() - start, 1),
            cpu_seconds=round(record.cpu_seconds + ended.cpu_seconds, 1),
            peak_rss_mb=max(record.peak_rss_mb, round(ended.peak_rss_mb)),
            digest=digest if ended.status == 0 else "",
            unfinished="" if ended.status == 0 else digest,
        )
        self._keep(before if ended.status == REFUSED and before.digest else record)
        interruption = ended.interruption
        if ended.status in STATUSES:  # somebody has ended the stage alone
            interruption = interruption or Interrupted(STATUSES[ended.status])
        if interruption is not None or ended.status != 0:
            self._failed(stage, line, ended, interruption)

    def _going_on(self, stage: Stage, begun: bool, same_reads: bool) -> list[str]:
        """The option by which a command goes on; removes what it must not go on with."""
        if stage.command.resumes and not same_reads:  # half of it would be made of other things
            clear_stage(stage.directory)
        if (state := stage.state) is None:
            return []
        if begun:
            self.console.print(f"  begun before: goes on from {state.name}")
            return ["--resume"]
        clear_state(state)
        return []

    def _keep(self, record: StageRecord) -> None:
        self._records[record.name] = record
        written = [one.to_json() for one in self._records.values()]
        storage.write_json(self.directory / FILE, {"stages": written})

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
            self._anywhere(str(read)): self._made.get(read) or digest_of_files(read)
            for read in stage.reads
        }

    def _anywhere(self, word: str) -> str:
        """A word of a command that is the same wherever the experiment's directory is."""
        return word.replace(str(self.directory), "RUN")


def digest_of_files(directory: Path) -> str:
    """SHA-256 of what a directory from elsewhere is known by; if it is lost, its reader says so.

    Or of a file.
    """
    with explained("read", directory):
        files = [directory, *(directory / name for name in READ)]
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
