"""Two versions of tipl beside each other: opening, reading, collecting and training.

    git worktree add ../before OLD_COMMIT
    python benchmarks/before_and_after.py --before ../before/src --after src

Each repetition runs both in fresh processes, one after the other, in turns the one and the other
first; the ratios are of processor seconds within a repetition, which what else runs disturbs least.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

_MEASURE = """
import json, sys, time
from pathlib import Path
import tipl
from tipl.paths import summarize
from tipl.ppo.config import PPOConfig

place, took = Path(sys.argv[1]), {}

def timed(name, function, repetitions=1):
    function()  # imports, compiles and fills caches
    start = time.process_time()
    for _ in range(repetitions):
        function()
    took[name] = (time.process_time() - start) / repetitions

numbers = iter(range(100))

def collect(trials=8, steps=8 * 512):
    return tipl.collect(
        "InvertedPendulum-v4", out=place / f"paths-{next(numbers)}", num_trials=trials,
        total_steps=steps, threads=1, progress=False,
        ppo=PPOConfig(num_steps=512, num_minibatches=8, update_epochs=4),
    )

timed("collect", collect)
paths = collect(32, 16 * 512)
timed("open", lambda: tipl.PathDataset.open(paths.directory), 40)
timed("open and read", lambda: tipl.PathDataset.open(paths.directory).params(), 10)
training, _ = paths.split()
for kind, steps in (("path", 60), ("neuron", 8), ("nino", 30)):
    timed(f"train ({kind})", lambda: tipl.train(
        training, model=kind, num_steps=steps, threads=1, progress=False))
policy = tipl.Policy.initial("InvertedPendulum-v4")


def save_and_load():
    policy.save(place / "policy")
    tipl.Policy.load(place / "policy")

timed("save and load a policy", save_and_load, 20)
print(json.dumps(took))
"""


@dataclasses.dataclass(frozen=True)
class Args:
    """Which versions."""

    before: Path
    """the `src` of one version"""
    after: Path
    """the `src` of the other"""
    repetitions: int = 5
    """of each"""


def measure(source: Path) -> dict[str, float]:
    """Processor seconds of each piece of work, in a fresh process of a version."""
    environment = os.environ | {"PYTHONPATH": str(source.resolve()), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as place:
        done = subprocess.run(
            [sys.executable, "-c", _MEASURE, place],
            env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(args: Args) -> None:
    """Prints the medians of both, and of their ratios."""
    pairs = []
    for number in range(args.repetitions):
        order = [args.before, args.after][:: 1 if number % 2 else -1]
        found = {source: measure(source) for source in order}
        pairs.append((found[args.before], found[args.after]))
    table = Table("work", "before, s", "after, s", "ratio", "of each repetition")
    for name in pairs[0][0]:
        ratios = [after[name] / before[name] for before, after in pairs]
        seconds = [
            statistics.median(one[name] for one in side) for side in zip(*pairs, strict=True)
        ]
        table.add_row(
            name, *(f"{one:.4f}" for one in seconds), f"{statistics.median(ratios):.3f}",
            ", ".join(f"{ratio:.3f}" for ratio in sorted(ratios)),
        )  # fmt: skip
    Console().print(table)


if __name__ == "__main__":
    main(tyro.cli(Args))
