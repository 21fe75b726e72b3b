"""What a dataset of ten thousand trials takes: seconds and memory of opening, splitting, training.

    python benchmarks/scale.py --place /some/disk

Makes a dataset of random paths in the format that `tipl collect` writes (5 GB of small networks;
removed at the end), and does each thing to it in a process of its own. Memory is the most that the
process ever held, in which Python and its libraries are counted, and the pages of files that were
mapped into it.
"""

from __future__ import annotations

import dataclasses
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from tipl.core.progress import progress_bar
from tipl.paths import PathDataset, PathMetadata, create_dataset, part_ranges, summarize
from tipl.paths.metadata import library_versions, networks_layout
from tipl.paths.parts import PartFiles
from tipl.policies.tasks import get_task

HIDDEN = (32, 32)


@dataclasses.dataclass(frozen=True)
class Args:
    """What to measure."""

    place: Path = Path(tempfile.gettempdir())
    """where the dataset lies for a while"""
    trials: int = 10_000
    checkpoints: int = 100
    steps: int = 200
    """of each training"""
    keep: bool = False
    """leave the dataset there, and use the one that is there"""
    only: tuple[str, ...] = ()
    """names of what to measure; by default everything"""
    measure: str = ""
    """(what a process of its own does)"""


def make(directory: Path, trials: int, checkpoints: int) -> None:
    """Makes a dataset of random walks, part by part."""
    task = get_task("InvertedPendulum-v4")
    metadata = PathMetadata(
        task=task, layout=networks_layout(task, HIDDEN, "actor"), hidden_sizes=HIDDEN,
        networks="actor", initial="independent", normaliser="frozen", num_trials=trials,
        num_checkpoints=checkpoints, trials_per_part=64, checkpoints_per_part=8,
        checkpoint_interval=1, steps_per_checkpoint=2048, seed=0, ppo={},
        versions=library_versions(),
    )  # fmt: skip
    create_dataset(directory, metadata)
    files, rng = PartFiles(directory, metadata), np.random.default_rng(0)
    start = np.zeros((0, 0))
    with progress_bar(True) as bar:
        rows = bar.add_task("make the dataset", total=len(files.parts), note="")
        for part in part_ranges(metadata):
            if part.first_checkpoint == 0:
                start = rng.standard_normal((part.num_trials, 1, metadata.layout.size), np.float32)
            grid = part.num_trials, part.num_checkpoints
            changes = rng.standard_normal((*grid, metadata.layout.size), np.float32)
            params = start + 0.01 * changes.cumsum(axis=1, dtype=np.float32)
            start = params[:, -1:]
            at = np.arange(part.first_checkpoint, part.last_checkpoint + 1)
            tensors = {
                "params": params, "episodic_return": rng.random(grid, np.float32),
                "num_episodes": np.ones(grid, np.int32), "diverged": np.zeros(grid, bool),
                "global_step": at * metadata.steps_per_checkpoint, "iteration": at,
            }  # fmt: skip
            files.write(part, tensors, sync=False)
            bar.advance(rows)


def _train(directory: Path, model: str, steps: int) -> None:
    from tipl import train

    split = PathDataset.open(directory).split()
    train(split.train, model=model, num_steps=steps, held_out=split.held_out, threads=1)


def measures(directory: Path, steps: int) -> dict[str, Callable[[], object]]:
    """What is measured, by name."""
    return {
        "import": lambda: None,
        "open": lambda: PathDataset.open(directory),
        "one trial": lambda: PathDataset.open(directory)[7],
        "split": lambda: PathDataset.open(directory).split(),
        "returns": lambda: PathDataset.open(directory).episodic_return(),
        "summary": lambda: summarize(directory),
        "train neuron": lambda: _train(directory, "neuron", steps),
        "train path": lambda: _train(directory, "path", steps),
    }


def measured(directory: Path, name: str, steps: int) -> tuple[float, float, float]:
    """Seconds, processor seconds and MB of one thing, done in a process of its own."""
    command = [
        sys.executable, __file__, "--measure", name, "--place", str(directory), "--steps",
        str(steps),
    ]  # fmt: skip
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        sys.exit(ended.stderr)
    seconds, processor, megabytes = json.loads(ended.stdout.splitlines()[-1])
    return seconds, processor, megabytes


def main(args: Args) -> None:
    """Makes the dataset, prints the table, and removes the dataset."""
    if args.measure:
        do = measures(args.place, args.steps)[args.measure]
        start, start_of_process = time.perf_counter(), time.process_time()
        do()
        seconds = time.perf_counter() - start, time.process_time() - start_of_process
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
        print(json.dumps([*seconds, most]))
        return
    directory = args.place / "tipl-scale"
    try:
        if not (args.keep and directory.exists()):
            make(directory, args.trials, args.checkpoints)
        table = Table("what", "seconds", "processor seconds", "MB at most")
        for name in args.only or measures(directory, args.steps):
            *seconds, megabytes = measured(directory, name, args.steps)
            table.add_row(name, *(f"{one:.1f}" for one in seconds), f"{megabytes:,.0f}")
        Console().print(table)
    finally:
        if not args.keep:
            for file in sorted(directory.rglob("*"), reverse=True):
                file.rmdir() if file.is_dir() else file.unlink()
            directory.rmdir()


if __name__ == "__main__":
    main(tyro.cli(Args))
