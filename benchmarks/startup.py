"""How long tipl takes to start: processor time of fresh processes, beside what it may be.

    python benchmarks/startup.py --json out.json

One row each for `import tipl`, for the first action of a stored policy, and for the help of every
command. Each number is the median, over the repetitions, of the user and system time of a process
of its own, with an empty folder for what Numba compiles. Start-up that has crept up is found by
`python -X importtime -m tipl COMMAND --help`.
"""

from __future__ import annotations

import dataclasses
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from measuring import command_line, versions
from tipl import Policy, TiplError
from tipl.cli import COMMANDS
from tipl.core import storage
from tipl.core.progress import progress_bar

IMPORT_TARGET = 0.1
ACT_TARGET = 1.0
HELP_TARGET = 0.7
"""Seconds of processor time, on two cores."""

ACT = """
import sys, numpy, tipl
policy = tipl.Policy.load(sys.argv[1])
policy.act(numpy.zeros(policy.task.observation_size))
"""


@dataclasses.dataclass(frozen=True)
class Args:
    """What to measure."""

    repeats: int = 5
    """processes of each row"""
    json: Path | None = None
    """where to write the rows"""

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise TiplError(f"repeats is {self.repeats}; expected at least 1")


@dataclasses.dataclass(frozen=True)
class Row:
    """What one way to start takes."""

    what: str
    seconds: float
    """of processor time, the median"""
    target: float
    """seconds that it may take"""


def processes(policy: Path) -> dict[str, tuple[Sequence[str], float]]:
    """Arguments of Python, and the seconds that they may take, by what is shown of them.

    Args:
        policy: directory of a policy.
    """
    helps = {
        f"tipl {command} --help": (["-m", "tipl", *command.split(), "--help"], HELP_TARGET)
        for command in COMMANDS
    }
    return {
        "import tipl": (["-c", "import tipl"], IMPORT_TARGET),
        "tipl.Policy.load(...).act(...)": (["-c", ACT, str(policy)], ACT_TARGET),
        **helps,
    }


def processor_seconds(arguments: Sequence[str], environment: Mapping[str, str]) -> float:
    """User and system time of a fresh Python with these arguments.

    Raises:
        TiplError: the process failed.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise TiplError(f"python {' '.join(arguments)} failed: {reason[0]}")
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def measure(args: Args, advance: Callable[[], None] = lambda: None) -> list[Row]:
    """Every row; the repetitions of one are spread over the whole time that all of them take."""
    with tempfile.TemporaryDirectory() as folder:
        policy = Path(folder) / "policy"
        Policy.initial("InvertedPendulum-v4", seed=1).save(policy)
        ways = processes(policy)
        seconds: dict[str, list[float]] = {what: [] for what in ways}
        for repeat in range(args.repeats):
            cache = {"NUMBA_CACHE_DIR": f"{folder}/numba-{repeat}"}
            for what, (arguments, _) in ways.items():
                seconds[what].append(processor_seconds(arguments, os.environ | cache))
                advance()
    return [
        Row(what, statistics.median(seconds[what]), target) for what, (_, target) in ways.items()
    ]


def print_table(rows: Sequence[Row]) -> None:
    """Prints the medians beside the targets."""
    table = Table("start-up", "processor s", "target", "", title="medians of fresh processes")
    for row in rows:
        met = "" if row.seconds <= row.target else "missed"
        table.add_row(row.what, f"{row.seconds:.2f}", f"{row.target:.1f}", met)
    for column in table.columns[1:3]:
        column.justify = "right"
    Console().print(table)


def main(args: Args) -> None:
    """Measures, prints the table and writes the rows."""
    with progress_bar() as bar:
        total = args.repeats * len(processes(Path()))
        job = bar.add_task("measure", total=total, note="")
        rows = measure(args, lambda: bar.advance(job))
    print_table(rows)
    if args.json is not None:
        content = {
            "command": command_line("startup.py", args),
            "versions": versions(),
            "num_repetitions": args.repeats,
            "rows": [dataclasses.asdict(row) for row in rows],
        }
        storage.write_json(args.json, content)


if __name__ == "__main__":
    try:
        main(tyro.cli(Args))
    except TiplError as error:
        sys.exit(f"error: {error}")
