"""How long tipl takes to refuse bad input, and how much memory: beside what it may be.

    python benchmarks/refusals.py

One row for each command line of `refusals`, which all end in one sentence. Each is run in a process
of its own, with what it needs compiled; seconds are wall time.
"""

from __future__ import annotations

import dataclasses
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from tipl import Experience, Policy, PPOConfig, TiplError, Worlds, collect
from tipl.core.progress import progress_bar

SECONDS, MEGABYTES = 1.0, 100.0
"""What a refusal may take."""

TASK = "InvertedPendulum-v4"


@dataclasses.dataclass(frozen=True)
class Args:
    """What to measure."""

    repeats: int = 3
    """processes of each command line"""


def make_inputs(place: Path) -> None:
    """Makes what the command lines name: a dataset, a policy, and a damaged copy of each."""
    ppo = PPOConfig(num_steps=8, num_minibatches=2, update_epochs=1)
    for name in ("paths", "damaged-paths"):
        collect(
            TASK, out=place / name, num_trials=2, total_steps=32, hidden_sizes=(3,), ppo=ppo,
            threads=1, progress=False,
        )  # fmt: skip
    for name in ("policy", "damaged-policy"):
        Policy.initial(TASK, 1, (3,)).save(place / name)
    for file in [
        *(place / "damaged-paths").rglob("*.safetensors"),
        place / "damaged-policy" / "policy.safetensors",
    ]:
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
    for name, size in {"damaged-experience": 4, "experience-of-another-task": 3}.items():
        seen = np.ones((2, size))
        Experience.of(seen, np.ones((2, 1)), seen).save(place / name)
    damaged = (place / "damaged-experience").read_bytes()
    (place / "damaged-experience").write_bytes(damaged[:-1])
    worlds = place / "worlds.json"
    Worlds.from_factors(TASK, {"training": [{"gravity": 0.5}, {"gravity": 2.0}]}).save(worlds)
    (place / "damaged-worlds.json").write_text(worlds.read_text().replace("0.5", "0.6"))
    (place / "other").mkdir()
    (place / "other" / "thesis.txt").write_text("not tipl's")


def refusals() -> list[str]:
    """Command lines after `tipl` that are refused, run where `make_inputs` has put its files."""
    lines = f"""
        train none --out out
        train damaged-paths --out out
        train paths --out other
        train paths --out out --held-out 7
        train paths --out out --model none
        train paths --out out --num-steps -3
        train paths --out out --order 1
        forecast none --paths paths --out out
        forecast {TASK} --paths none --out out
        forecast {TASK} --paths damaged-paths --out out
        forecast {TASK} --paths paths --out other
        forecast {TASK} --paths paths --out out --starts 7
        optimize none --out out
        optimize {TASK} --out other
        optimize {TASK} --out out --policy damaged-policy
        optimize {TASK} --out out --hidden -3
        optimize {TASK} --out out --steps 0
        adapt none --out out
        adapt {TASK} --out other
        adapt {TASK} --out out --steps 3
        adapt {TASK} --out out --env {TASK} --episodes -1
        adapt {TASK} --out out --env {TASK} --env-physics gravity=2
        adapt {TASK} --out out --env None-v4
        adapt {TASK} --out out --env-physics gravty=2
        adapt {TASK} --out out --physics gravity=0
        adapt {TASK} --out out --physics gravity=2 --unknown gravity
        adapt {TASK} --out out --policy damaged-policy
        adapt {TASK} --out out --hidden -3
        adapt {TASK} --out out --experience none
        adapt {TASK} --out out --experience damaged-experience
        adapt {TASK} --out out --experience experience-of-another-task
        evaluate none
        evaluate paths
        evaluate damaged-policy
        evaluate policy --episodes 0
        evaluate policy --physics gravty=1.3
        evaluate policy --physics gravity=0
        evaluate policy --physics gravity
        film none --out out.gif
        film damaged-policy --out out.gif
        film policy --out out.mp4
        collect None-v4
        collect none:None-v4
        collect {TASK} --out other
        collect {TASK} --num-trials -1
        collect {TASK} --worlds none
        collect {TASK} --worlds worlds.json --num-trials 3
        collect {TASK} --worlds worlds.json --vary gravity=1..2
        collect {TASK} --worlds damaged-worlds.json
        collect {TASK} --shard 16/16
        collect {TASK} --shard auto
        collect {TASK} --engine submitit --address nowhere
        collect {TASK} --engine ray --address nowhere
        collect {TASK} --engine ray --address 127.0.0.1:1
        worlds make {TASK} --vary gravty=1..2 --splits training=2 --out new.json
        worlds make {TASK} --vary gravity=2..1 --splits training=2 --out new.json
        worlds make {TASK} --preset cadm --out new.json
        worlds make {TASK} --preset v1 --out other/thesis.txt
        worlds benchmark None-v4
        worlds benchmark {TASK} --out other
        worlds benchmark {TASK} --worlds damaged-worlds.json
        worlds benchmark {TASK} --worlds worlds.json
        worlds benchmark Hopper-v4
        worlds show none
        worlds show damaged-worlds.json
        worlds check damaged-worlds.json
        worlds check None-v4
        worlds check {TASK} --physics gravity=0
        paths show none
        paths show damaged-paths
        paths evaluate none
        paths evaluate damaged-paths
        paths evaluate paths --episodes 0
        paths best damaged-paths --out out
        paths best paths --out other
        report none
        report other
        costs none
        demo --out other
        benchmark None-v4
        benchmark {TASK} --out other
        accelerate None-v4
        accelerate {TASK} --out other
        scaling None-v4
        scaling {TASK} --out other
        scaling {TASK} --trials 8 4
        scaling {TASK} --paths none
        scaling {TASK} --paths damaged-paths
    """
    return [line.strip() for line in lines.strip().splitlines()]


# Of a process that is forked the memory is at first its parent's: the parent has to be small.
_MEASURE = """
import os, sys, time
start = time.monotonic()
words = [sys.executable, "-m", "tipl", *sys.argv[1:]]
child = os.posix_spawn(words[0], words, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, 2, 1)])
_, status, used = os.wait4(child, 0)
print(os.waitstatus_to_exitcode(status), time.monotonic() - start, used.ru_maxrss)
"""


@dataclasses.dataclass(frozen=True)
class Refusal:
    """What one took."""

    seconds: float
    megabytes: float
    """of memory at most"""
    said: str


def refuse(arguments: Sequence[str], place: Path) -> Refusal:
    """Runs a command line that is refused.

    Raises:
        TiplError: it was not, or not in one sentence.
    """
    command = [sys.executable, "-c", _MEASURE, *arguments]
    with tempfile.TemporaryFile("w+") as words:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=words, cwd=place, text=True, check=True
        )
        words.seek(0)
        said = words.read().strip()
    status, seconds, kilobytes = map(float, done.stdout.split()[-3:])
    if status != 2 or "\ntipl: " not in f"\n{said}":
        raise TiplError(f"`tipl {' '.join(arguments)}` was not refused: {said}")
    return Refusal(seconds, kilobytes / 1024, said)


def main(args: Args) -> None:
    """Measures, and prints the medians beside what they may be."""
    table = Table("tipl", "wall s", "MB", "", title="refusals: medians of fresh processes")
    with tempfile.TemporaryDirectory() as folder, progress_bar() as bar:
        place, lines = Path(folder), refusals()
        make_inputs(place)
        job = bar.add_task("measure", total=args.repeats * len(lines), note="")
        found: dict[str, list[Refusal]] = {line: [] for line in lines}
        for _ in range(args.repeats):
            for line in lines:
                found[line].append(refuse(line.split(), place))
                bar.advance(job)
    for line, those in found.items():
        seconds = statistics.median(one.seconds for one in those)
        megabytes = max(one.megabytes for one in those)
        missed = "missed" if seconds > SECONDS or megabytes > MEGABYTES else ""
        table.add_row(line, f"{seconds:.2f}", f"{megabytes:.0f}", missed)
    Console(width=100).print(table)


if __name__ == "__main__":
    main(tyro.cli(Args))
