"""How fast paths are collected, as a share of the rate at which the physics alone can be stepped.

    python benchmarks/collect.py --task InvertedPendulum-v4 --json out.json

Both are measured in one run, interleaved, on all processors; each number is the median of the
repetitions. The physics alone is `mujoco.batch` stepping as many simulations with random controls,
reset every 100 steps.
"""

from __future__ import annotations

import dataclasses
import os
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

import tipl
from tipl import storage
from tipl.envs import BatchedMujocoEnv


@dataclasses.dataclass(frozen=True)
class Args:
    """What to measure."""

    task: str = "InvertedPendulum-v4"
    """a task that runs on mujoco.batch"""
    trials: int = 128
    """trials of the collection, and simulations of the physics alone"""
    iterations: int = 7
    """PPO iterations of each collection"""
    repeats: int = 3
    """repetitions"""
    threads: int = os.cpu_count() or 1
    """threads of both"""
    json: Path | None = None
    """where to write the rows"""


def raw_steps_per_s(task: str, simulations: int, threads: int, steps: int = 1000) -> float:
    """Environment steps in a second of `mujoco.batch` alone."""
    env = BatchedMujocoEnv(task, simulations, num_threads=threads)
    env.reset(seed=0)
    batch, frame_skip = env._batch, env._task.frame_skip
    controls = batch.bind("ctrl")
    space = env.single_action_space
    noise = np.random.default_rng(0).uniform(space.low, space.high, (100, *controls.shape))
    start = time.perf_counter()
    for step in range(steps):
        controls[:] = noise[step % len(noise)]
        batch.step(nstep=frame_skip)
        if step % 100 == 99:
            batch.reset()
    return simulations * steps / (time.perf_counter() - start)


def collector_steps_per_s(args: Args) -> float:
    """Environment steps in a second of a whole collection, files included."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        tipl.collect(
            args.task,
            num_trials=args.trials,
            total_steps=2048 * args.iterations,
            out=Path(folder) / "paths",
            threads=args.threads,
            progress=False,
        )
        # one rollout more than updates: the last one tells the return of the last weights
        return args.trials * 2048 * (args.iterations + 1) / (time.perf_counter() - start)


def main(args: Args) -> None:
    """Measures, prints the table and writes the rows."""
    raw, collector = [], []
    for _ in range(args.repeats):
        raw.append(raw_steps_per_s(args.task, args.trials, args.threads))
        collector.append(collector_steps_per_s(args))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rows = {
        "raw_steps_per_s": statistics.median(raw),
        "collector_steps_per_s": statistics.median(collector),
        "share_of_raw": statistics.median(c / r for c, r in zip(collector, raw, strict=True)),
        "peak_rss_mb": peak / (1e6 if sys.platform == "darwin" else 1e3),
    }
    table = Table("metric", "median of repetitions", title=f"{args.task}, {args.trials} trials")
    for name, value in rows.items():
        table.add_row(name, f"{value:,.2f}" if value < 10 else f"{value:,.0f}")
    Console().print(table)
    if args.json is not None:
        command = (
            f"python benchmarks/collect.py --task {args.task} --trials {args.trials} "
            f"--iterations {args.iterations} --repeats {args.repeats} --threads {args.threads}"
        )
        storage.write_json(args.json, {"task": args.task, "command": command, "rows": rows})


if __name__ == "__main__":
    main(tyro.cli(Args))
