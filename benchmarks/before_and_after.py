"""Two versions of tipl beside each other: opening, reading, collecting and training.

    git worktree add ../before OLD_COMMIT
    python benchmarks/before_and_after.py --before ../before/src --after src

Each version has a process, in which it does a piece of work when it is told to; the two do the same
piece one right after the other, in turns the one and the other first. What else runs on a computer
changes from one second to the next and so disturbs both alike. Ratios are of processor seconds
within a pair; beside their median stands its 95% interval.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from tipl.core.progress import progress_bar

_WORKER = """
import json, sys, time
from pathlib import Path
import tipl
from tipl.ppo.config import PPOConfig

place = Path(sys.argv[1])
numbers = iter(range(1_000_000))

def collect(trials=8, steps=2 * 512):
    return tipl.collect(
        "InvertedPendulum-v4", out=place / f"paths-{next(numbers)}", num_trials=trials,
        total_steps=steps, threads=1, progress=False,
        ppo=PPOConfig(num_steps=512, num_minibatches=8, update_epochs=4),
    )

paths = collect(32, 16 * 512)
training, _ = paths.split()
policy = tipl.Policy.initial("InvertedPendulum-v4")

def train(kind, steps):
    return lambda: tipl.train(training, model=kind, num_steps=steps, threads=1, progress=False)

policy.save(place / "policy")

work = {  # by name: what is done, and how often in a row
    "collect": (collect, 1),
    "open": (lambda: tipl.PathDataset.open(paths.directory), 40),
    "open and read": (lambda: tipl.PathDataset.open(paths.directory).params(), 10),
    "train (path)": (train("path", 20), 1),
    "train (neuron)": (train("neuron", 2), 1),
    "train (nino)": (train("nino", 6), 1),
    "open a policy": (lambda: tipl.Policy.load(place / "policy"), 100),
    "save a policy": (lambda: policy.save(place / "policy"), 10),
}
for function, _ in work.values():
    function()  # imports, compiles and fills caches
print(json.dumps(list(work)), flush=True)
for name in sys.stdin:
    function, repetitions = work[name.strip()]
    start = time.process_time()
    for _ in range(repetitions):
        function()
    print((time.process_time() - start) / repetitions, flush=True)
"""


@dataclasses.dataclass(frozen=True)
class Args:
    """Which versions."""

    before: Path
    """the `src` of one version"""
    after: Path
    """the `src` of the other"""
    pairs: int = 30
    """of each piece of work"""


class Worker:
    """A version of tipl, in a process of its own."""

    def __init__(self, source: Path, place: str) -> None:
        environment = os.environ | {"PYTHONPATH": str(source.resolve()), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _WORKER, place],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )  # fmt: skip
        self.work: list[str] = json.loads(self._answer())

    def seconds(self, name: str) -> float:
        """Processor seconds that a piece of work takes."""
        assert self._process.stdin is not None
        print(name, file=self._process.stdin, flush=True)
        return float(self._answer())

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def end(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()


@contextlib.contextmanager
def worker(source: Path) -> Iterator[Worker]:
    """Starts a version, and ends it."""
    with tempfile.TemporaryDirectory() as place:
        found = Worker(source, place)
        try:
            yield found
        finally:
            found.end()


def median_interval(ratios: np.ndarray) -> tuple[float, float, float]:
    """The median, and the ends of its 95% bootstrap interval."""
    draws = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
    low, high = np.quantile(np.median(draws, axis=1), (0.025, 0.975))
    return float(np.median(ratios)), float(low), float(high)


def main(args: Args) -> None:
    """Prints the medians of both, and of their ratios."""
    with worker(args.before) as before, worker(args.after) as after, progress_bar() as bar:
        pairs: dict[str, list[tuple[float, float]]] = {name: [] for name in before.work}
        job = bar.add_task("measure", total=args.pairs * len(pairs), note="")
        for number in range(args.pairs):
            for name, found in pairs.items():
                if number % 2:
                    late, early = after.seconds(name), before.seconds(name)
                else:
                    early, late = before.seconds(name), after.seconds(name)
                found.append((early, late))
                bar.advance(job)
    table = Table("work", "before, s", "after, s", "ratio", "95% interval")
    for name, found in pairs.items():
        sides = np.array(found)  # [pairs, 2]
        middle, low, high = median_interval(sides[:, 1] / sides[:, 0])
        seconds = (f"{one:.4f}" for one in np.median(sides, axis=0))
        table.add_row(name, *seconds, f"{middle:.3f}", f"{low:.3f} to {high:.3f}")
    Console().print(table)


if __name__ == "__main__":
    main(tyro.cli(Args))
