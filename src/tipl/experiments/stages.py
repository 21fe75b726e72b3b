"""The stages of a run: each is done once, measured, and reused while nothing that it needs changes.

A stage is a call in this process, or a command of tipl in a process of its own, whose processor
time and memory the operating system counts. The records are in the run's `stages.json`.
"""

from __future__ import annotations

import importlib.metadata
import os
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.text import Text

from tipl.core import storage
from tipl.core.atomic import explained
from tipl.core.options import thread_count
from tipl.envs import make_task
from tipl.errors import TiplError

__all__ = ["CommandStages", "Stages", "begin_commands", "prepare_run"]

Made = TypeVar("Made")

FILE = "stages.json"


def prepare_run(directory: Path, fresh: bool, command: str) -> None:
    """Makes a run's directory; with `fresh`, removes what an earlier run left in it.

    Args:
        directory: of the run.
        fresh: start over.
        command: of tipl that makes such runs, for the message: `"demo"` or `"benchmark"`.

    Raises:
        TiplError: the directory holds something else, or cannot be used. Nothing has been removed
            then.
    """
    stages = directory / FILE
    with explained("use", directory):
        if directory.exists() and any(directory.iterdir()) and not stages.exists():
            raise TiplError(
                f"{directory} holds other files than those of `tipl {command}`; choose another "
                "--out, or remove it"
            )
        if fresh and directory.exists():
            shutil.rmtree(directory)
        directory.mkdir(parents=True, exist_ok=True)
    if not stages.exists():
        storage.write_json(stages, {"stages": []})


class _Records:
    """The records of a run's stages, by name, in the order in which they were first done."""

    def __init__(self, directory: Path, console: Console) -> None:
        self.path, self.console = directory / FILE, console
        record = storage.read_json(self.path, "the record of a run's stages")
        self.records: dict[str, dict[str, Any]] = {
            stage["name"]: stage for stage in record["stages"]
        }

    def _announce(self, name: str, command: str, digest: str, output: Path) -> bool:
        """Says which stage comes; returns whether it is done already."""
        self.console.print(Text.assemble((name, "bold"), "  ", (command, "dim")))
        done = self.records.get(name, {}).get("digest") == digest and output.exists()
        if done:
            self.console.print("  already there: reused")
        return done

    def _write(self, record: dict[str, Any]) -> None:
        self.records[record["name"]] = record
        storage.write_json(self.path, {"stages": list(self.records.values())})


class Stages(_Records):
    """Does the stages of a run that are not done yet in this process.

    Args:
        directory: of the run, made by `prepare_run`.
        console: is told of each stage.
    """

    def run(
        self,
        name: str,
        command: str,
        depends: dict[str, Any],
        output: Path,
        work: Callable[[], Made],
        load: Callable[[], Made],
    ) -> Made:
        """What a stage makes: loaded if it was made from the same before, or made now.

        Args:
            name: the stage.
            command: the command line that does the same.
            depends: all that the result depends on; each stage's contains those before it.
            output: a file that is there when the stage is done.
            work: makes the result.
            load: reads it.
        """
        digest = storage.content_digest(depends)
        if self._announce(name, command, digest, output):
            return load()
        start = time.monotonic()
        made = work()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        self._write(
            {
                "name": name,
                "command": command,
                "seconds": round(time.monotonic() - start, 1),
                "peak_rss_mb": _megabytes(peak),
                "digest": digest,
            }
        )
        return made


class CommandStages(_Records):
    """Does the stages of a run that are not done yet, each as a command in a process of its own.

    Of a command that was interrupted, time and memory are kept and added to those of the command
    that goes on with it.

    Args:
        directory: of the run, made by `prepare_run`.
        console: is told of each stage.
    """

    def __init__(self, directory: Path, console: Console) -> None:
        super().__init__(directory, console)
        self.directory = directory

    def run(
        self,
        name: str,
        arguments: Sequence[str | Path],
        output: Path,
        needs: Sequence[str] = (),
        *,
        effort: Sequence[str] = (),
    ) -> None:
        """Runs a command of tipl, unless its result is there.

        Args:
            name: the stage.
            arguments: of the command, after `tipl`.
            output: a file that is there when the stage is done.
            needs: the stages whose results it reads: done again, they make it due again.
            effort: further arguments, which do not change the result, such as threads.

        Raises:
            TiplError: the command failed, or was interrupted.
        """
        words = [str(argument) for argument in arguments]
        command = shlex.join(["tipl", *words, *effort])
        digest = self._digest(words, needs)
        if self._announce(name, command, digest, output):
            return
        before = self.records.get(name, {})
        if before.get("unfinished") != digest:
            before = {}
        start = time.monotonic()
        status, usage, said = _run_tipl([*words, *effort], quiet=self.console.quiet)
        record = {
            "name": name,
            "command": command,
            "seconds": round(before.get("seconds", 0.0) + time.monotonic() - start, 1),
            "cpu_seconds": round(
                before.get("cpu_seconds", 0.0) + usage.ru_utime + usage.ru_stime, 1
            ),
            "peak_rss_mb": max(before.get("peak_rss_mb", 0), _megabytes(usage.ru_maxrss)),
            "digest": digest if status == 0 else "",
        }
        if status != 0:
            record["unfinished"] = digest
        self._write(record)
        if status != 0:
            raise TiplError(
                f"the stage {name!r} ended with exit status {status}: `{command}` says "
                f"{said or 'why above'}; what was finished is kept: run the same again to go on"
            )

    def _digest(self, words: list[str], needs: Sequence[str]) -> str:
        return storage.content_digest(
            {
                "version": importlib.metadata.version("tipl"),
                # the same run in another place is the same
                "arguments": [word.replace(str(self.directory), "RUN") for word in words],
                "needs": [self.records[need]["digest"] for need in needs],
            }
        )


def _run_tipl(words: list[str], quiet: bool) -> tuple[int, resource.struct_rusage, str]:
    """The exit status of a command of tipl, what its process used, and its last words if quiet."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tipl", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # what it made is announced by its stage
            stderr=errors if quiet else None,
        )
        while True:
            try:
                _, status, usage = os.wait4(process.pid, 0)
            except KeyboardInterrupt:  # the command is told as well, and ends by itself
                continue
            process.returncode = os.waitstatus_to_exitcode(status)
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip().rpartition("\n")[2]
            return process.returncode, usage, said


def _megabytes(peak: int) -> int:
    """The largest resident memory, which macOS counts in bytes and others in kilobytes."""
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3))


def begin_commands(
    command: str,
    env_id: str,
    out: str | Path | None,
    *,
    fresh: bool,
    threads: int | None,
    progress: bool,
) -> CommandStages:
    """What does the stages of a long command of tipl on a task; all that can be is checked first.

    Args:
        command: such as `"benchmark"`.
        env_id: the task.
        out: directory; by default `runs/`, the command and the task.
        fresh: remove an earlier run's results from the directory first.
        threads: of each stage.
        progress: show the stages.

    Raises:
        TiplError: there is no such task, the number of threads is impossible, or the directory
            holds something else. Nothing has been removed then.
    """
    make_task(env_id)
    thread_count(threads)
    directory = Path("runs") / command / env_id if out is None else Path(out)
    prepare_run(directory, fresh, command)
    return CommandStages(directory, Console(stderr=True, quiet=not progress))
