"""How fast paths are collected: beside the physics alone, and beside the usual ways to run PPO.

    python benchmarks/collect.py --task HalfCheetah-v4 --json out.json

One run measures, one after the other and then all over again:

- raw: `mujoco.batch` stepping as many simulations as there are trials, and nothing else;
- the collector: `tipl.collect`, files included;
- SB3: stable-baselines3's PPO in one single-threaded process for each thread, their rates added up
  (`pip install -e ".[sb3]"`; without it these rows are left out);
- a single trial: `benchmarks/single_trial_ppo.py`, one process with one thread.

All have the same hyperparameters: two hidden layers of 64, 2,048 steps, minibatches of 64, 10
epochs. Each number is the median of the repetitions; a ratio is the median of the repetitions'
ratios. What is counted are whole iterations after a warm-up, timed inside a fresh process. At the
end the collector runs once with each other number of trials. `peak_rss_mb` is the memory of the
process that collects, before its first full part of 8 checkpoints unless `--iterations` is 7.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

import speeds
from measuring import (
    Measured,
    command_line,
    in_fresh_processes,
    medians,
    versions,
    with_ratios,
)
from tipl import TiplError
from tipl.core import storage
from tipl.core.progress import progress_bar
from tipl.envs import BatchedMujocoEnv

RATIOS = {
    "share_of_raw": ("collector_steps_per_s", "raw_steps_per_s"),
    "times_sb3": ("collector_steps_per_s", "sb3_steps_per_s"),
    "times_single_trial": ("collector_steps_per_s", "single_trial_steps_per_s"),
}


@dataclasses.dataclass(frozen=True)
class Args:
    """What to measure."""

    task: str = "InvertedPendulum-v4"
    """a task that runs on mujoco.batch"""
    trials: int = 128
    """trials of the collection, and simulations of the physics alone"""
    iterations: int = 2
    """PPO iterations of each collection"""
    rollouts: int = 3
    """timed PPO iterations of SB3 and of the single trial"""
    repeats: int = 3
    """repetitions"""
    scaling: tuple[int, ...] = (1, 8, 32, 128, 512)
    """numbers of trials of which the collector's speed is measured, too"""
    threads: int = os.cpu_count() or 1
    """threads of the physics and the collector, and processes of SB3"""
    json: Path | None = None
    """where to write the rows"""

    def __post_init__(self) -> None:
        for name in ("trials", "iterations", "rollouts", "repeats", "threads"):
            if getattr(self, name) < 1:
                raise TiplError(f"{name} is {getattr(self, name)}; expected at least 1")
        if min(self.scaling, default=1) < 1:
            raise TiplError(f"scaling is {self.scaling}; expected numbers of trials, at least 1")


def measure_once(args: Args, with_sb3: bool) -> dict[str, float]:
    """One repetition: every way once."""
    measured = {}
    measured["raw_steps_per_s"] = _alone(
        speeds.raw_steps_per_s, args.task, args.trials, args.threads
    )
    collector = _collector(args, args.trials)
    measured["collector_steps_per_s"] = collector.steps_per_s
    if with_sb3:
        rates = in_fresh_processes(
            speeds.sb3_steps_per_s, args.task, args.rollouts, count=args.threads
        )
        measured["sb3_steps_per_s"] = sum(rates)
    measured["single_trial_steps_per_s"] = _alone(
        speeds.single_trial_steps_per_s, args.task, args.rollouts
    )
    measured["peak_rss_mb"] = collector.peak_rss_mb
    return with_ratios(measured, RATIOS)


def _collector(args: Args, trials: int) -> speeds.CollectorSpeed:
    # More trials take longer, and one iteration tells enough.
    iterations = 1 if trials > args.trials else args.iterations
    return _alone(speeds.collector_speed, args.task, trials, iterations, args.threads)


def _alone(function: Callable[..., Measured], *args: object) -> Measured:
    return in_fresh_processes(function, *args)[0]


def scaling_rows(
    args: Args, rows: dict[str, float], advance: Callable[[], None]
) -> list[dict[str, float]]:
    """The collector's speed with each number of trials; that of `args.trials` is known."""
    known = speeds.CollectorSpeed(rows["collector_steps_per_s"], rows["peak_rss_mb"])
    scaling = []
    for n in args.scaling:
        speed = known if n == args.trials else _collector(args, n)
        scaling.append(
            {
                "n": n,
                "steps_per_s": speed.steps_per_s,
                "share_of_raw": speed.steps_per_s / rows["raw_steps_per_s"],
                "peak_rss_mb": speed.peak_rss_mb,
            }
        )
        advance()
    return scaling


def print_tables(args: Args, rows: dict[str, float], scaling: list[dict[str, float]]) -> None:
    """Prints the medians and how the collector scales."""
    metrics = Table("metric", "median", title=f"{args.task}, {args.trials} trials")
    for name, value in rows.items():
        metrics.add_row(name, _shown(value))
    trials = Table("trials", "steps_per_s", "share_of_raw", "peak_rss_mb", title="scaling")
    for row in scaling:
        trials.add_row(*map(_shown, row.values()))
    for table in (metrics, trials):
        for column in table.columns[table is metrics :]:
            column.justify = "right"
        Console().print(table)


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or isinstance(value, int) else f"{value:,.2f}"


def main(args: Args) -> None:
    """Measures, prints the tables and writes the rows."""
    BatchedMujocoEnv(args.task, 1).close()  # an unknown task is an error now, not in a process
    with_sb3 = importlib.util.find_spec("stable_baselines3") is not None
    if not with_sb3:
        print(
            "stable-baselines3 is not installed, so its rows are left out; "
            'install it with: pip install -e ".[sb3]"',
            file=sys.stderr,
        )
    with progress_bar() as bar:
        job = bar.add_task("measure", total=args.repeats + len(args.scaling), note="")
        repetitions = []
        for _ in range(args.repeats):
            repetitions.append(measure_once(args, with_sb3))
            bar.advance(job)
        rows = medians(repetitions)
        scaling = scaling_rows(args, rows, lambda: bar.advance(job))
    print_tables(args, rows, scaling)
    if args.json is not None:
        content = {
            "task": args.task,
            "command": command_line("collect.py", args),
            "versions": versions(),
            "num_repetitions": args.repeats,
            "rows": rows,
            "repetitions": repetitions,
            "scaling": scaling,
        }
        storage.write_json(args.json, content)


if __name__ == "__main__":
    try:
        main(tyro.cli(Args))
    except TiplError as error:
        sys.exit(f"error: {error}")
