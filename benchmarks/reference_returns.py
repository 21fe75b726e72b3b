"""Whether many trials in one batched loop return what single trials of the same algorithm return.

    python benchmarks/reference_returns.py --task HalfCheetah-v4 --seeds 8 --steps 200000 \
        --json out.json

Runs `benchmarks/single_trial_ppo.py` once for each seed and `tipl.collect` with the same
hyperparameters and steps. The statistic is a trial's final training return: the mean return of the
episodes that ended in the last fifth of its rollouts. With Welch's t-test, which lets the two sides
have variances of their own (`scipy.stats.ttest_ind(equal_var=False)`), the 95% interval of the
difference of the means should contain 0 for `--normaliser running`, which is CleanRL's.

What is finished is kept in `--cache`: the same command goes on where it was interrupted. Give
another one when the code has changed. `--seeds 0` runs tipl's side alone, for example
`--seeds 0 --normaliser running frozen` to compare the normalisers.
"""

from __future__ import annotations

import dataclasses
import math
import multiprocessing
import os
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import scipy.stats
import tyro
from rich.console import Console
from rich.table import Table

import tipl
from measuring import command_line, versions
from single_trial_ppo import DEFAULTS, Episode, be_single_and_quiet, iterations
from tipl import CollectConfig, PathDataset, PPOConfig, TiplError
from tipl.core import storage
from tipl.core.progress import progress_bar
from tipl.envs import make_task

CONFIDENCE = 0.95

_steps_done: Any = None
"""In a process of single trials: the steps that all of them have made, in shared memory."""


@dataclasses.dataclass(frozen=True)
class Args:
    """What to run."""

    task: str = "HalfCheetah-v4"
    """a Gymnasium id"""
    seeds: int = 8
    """single trials; 0 leaves them out"""
    steps: int = 200_000
    """environment steps of each trial (rounded down to whole PPO iterations)"""
    trials: int = 32
    """trials of tipl"""
    normaliser: tuple[Literal["running", "frozen"], ...] = ("running",)
    """observation normalisers of tipl's trials"""
    threads: int = os.cpu_count() or 1
    """processes of the single trials, threads of tipl"""
    cache: Path = Path("runs/reference")
    """where to keep what is finished"""
    json: Path | None = None
    """where to write the rows"""

    def __post_init__(self) -> None:
        smallest = {"seeds": 0, "trials": 2, "threads": 1, "steps": DEFAULTS.num_steps}
        for name, least in smallest.items():
            if getattr(self, name) < least:
                raise TiplError(f"{name} is {getattr(self, name)}; expected at least {least}")
        if self.seeds == 1:
            raise TiplError("one seed has no spread; give at least 2, or 0 for none")

    @property
    def num_iterations(self) -> int:
        """PPO iterations of each trial."""
        return self.steps // DEFAULTS.num_steps


# --- the statistic -------------------------------------------------------------------------


def last_rollouts(num_iterations: int) -> slice:
    """The last fifth of the rollouts that PPO learned from, rounded up."""
    return slice(num_iterations - math.ceil(num_iterations / 5), num_iterations)


def final_return_of_episodes(
    episodes: Sequence[Episode], num_iterations: int, num_steps: int
) -> float:
    """Mean return of the episodes of a single trial that ended in its last rollouts; or NaN."""
    last = last_rollouts(num_iterations)
    returns = [
        episode.episodic_return
        for episode in episodes
        # step 1 to num_steps are rollout 0
        if last.start <= (episode.global_step - 1) // num_steps < last.stop
    ]
    return float(np.mean(returns)) if returns else math.nan


def final_returns_of_paths(episodic_return: np.ndarray, num_episodes: np.ndarray) -> np.ndarray:
    """Mean return `[N]` of the episodes that ended in each trial's last rollouts; NaN if none.

    Args:
        episodic_return: mean return `[N, T]` of the episodes that ended in each rollout. The last
            rollout is of the weights after the last update: no single trial has it, it is left out.
        num_episodes: their number `[N, T]`.
    """
    last = last_rollouts(episodic_return.shape[1] - 1)
    counts = num_episodes[:, last].astype(np.float64)
    sums = np.where(counts > 0, episodic_return[:, last] * counts, 0.0).sum(axis=1)
    total = counts.sum(axis=1)
    return np.where(total > 0, sums / np.maximum(total, 1), np.nan)


class Comparison(NamedTuple):
    """A difference of means and its 95% interval."""

    difference: float
    low: float
    high: float
    contains_0: bool


def compare(first: Sequence[float], second: Sequence[float]) -> Comparison:
    """The mean of the first values less that of the second, with Welch's interval."""
    difference = float(np.mean(first) - np.mean(second))
    if np.ptp(first) == 0 and np.ptp(second) == 0:  # nothing varies: no t statistic
        return Comparison(difference, difference, difference, difference == 0)
    test = scipy.stats.ttest_ind(first, second, equal_var=False)
    low, high = map(float, test.confidence_interval(CONFIDENCE))
    return Comparison(difference, low, high, low <= 0 <= high)


def summary(values: Sequence[float]) -> dict[str, float]:
    """Mean of one side's trials with its 95% t interval, and their spread."""
    mean, std = float(np.mean(values)), float(np.std(values, ddof=1))
    margin = scipy.stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * std / len(values) ** 0.5
    return {
        "n": len(values),
        "mean": mean,
        "low": mean - float(margin),
        "high": mean + float(margin),
        "std": std,
        "min": float(np.min(values)),
        "max": float(np.max(values)),
    }


# --- the single trials ---------------------------------------------------------------------


def single_trials(args: Args) -> list[float]:
    """The final return of each seed's single trial."""
    files = {seed: _seed_file(args, seed) for seed in range(1, args.seeds + 1)}
    missing = [seed for seed, file in files.items() if not file.exists()]
    if missing:
        args.cache.mkdir(parents=True, exist_ok=True)
        _run_single_trials(args, {seed: files[seed] for seed in missing})
    finals = []
    for file in files.values():
        episodes = [Episode(*pair) for pair in storage.read_json(file)["episodes"]]
        finals.append(final_return_of_episodes(episodes, args.num_iterations, DEFAULTS.num_steps))
    return finals


def _seed_file(args: Args, seed: int) -> Path:
    config = storage.content_digest(dataclasses.asdict(DEFAULTS))[:8]
    task = args.task.replace("/", "-")
    return args.cache / f"{task}-{args.steps}-{config}-seed{seed}.json"


def _run_single_trials(args: Args, files: dict[int, Path]) -> None:
    context = multiprocessing.get_context("spawn")
    steps_done = context.Value("q", 0)
    pool = ProcessPoolExecutor(args.threads, context, _prepare_process, (steps_done,))
    with pool, progress_bar() as bar:
        total = len(files) * args.num_iterations * DEFAULTS.num_steps
        job = bar.add_task("single trials", total=total, note="")
        running: set[Future[None]] = {
            pool.submit(_run_seed, args.task, args.steps, seed, file)
            for seed, file in files.items()
        }
        while running:
            finished, running = wait(running, timeout=0.5)
            left = f"{len(running)} of {len(files)} seeds left"
            bar.update(job, completed=steps_done.value, note=left)
            for future in finished:
                future.result()


def _prepare_process(steps_done: Any) -> None:
    global _steps_done
    _steps_done = steps_done
    be_single_and_quiet()


def _run_seed(task: str, steps: int, seed: int, file: Path) -> None:
    """Runs one single trial and writes its episodes."""
    episodes: list[Episode] = []
    for ended in iterations(task, steps, seed):
        episodes += ended
        with _steps_done.get_lock():
            _steps_done.value += DEFAULTS.num_steps
    content = {
        "task": task,
        "seed": seed,
        "steps": steps,
        "hyperparameters": dataclasses.asdict(DEFAULTS),
        "episodes": [list(episode) for episode in episodes],
        "versions": versions(),
    }
    storage.write_json(file, content)


# --- tipl's trials -------------------------------------------------------------------------


def same_hyperparameters() -> PPOConfig:
    """The single trials' hyperparameters as tipl's."""
    ours = {field.name for field in dataclasses.fields(PPOConfig)}
    theirs = dataclasses.asdict(DEFAULTS)
    return PPOConfig(**{name: value for name, value in theirs.items() if name in ours})


def collect(args: Args, normaliser: Literal["running", "frozen"]) -> PathDataset:
    """The paths of tipl's trials."""
    # few trials are shared out among all threads; a dataset of other groups is another dataset
    default = CollectConfig(num_trials=args.trials).group_size
    group = min(default, math.ceil(args.trials / args.threads))
    name = f"{args.task}-{args.trials}x{args.steps}-{normaliser}-groups-of-{group}"
    return tipl.collect(
        args.task,
        num_trials=args.trials,
        total_steps=args.steps,
        normaliser=normaliser,
        trials_per_group=group,
        hidden_sizes=(DEFAULTS.hidden_size, DEFAULTS.hidden_size),
        ppo=same_hyperparameters(),
        out=args.cache / name.replace("/", "-"),
        threads=args.threads,
    )


# --- the report ----------------------------------------------------------------------------


def measure(args: Args) -> list[dict[str, Any]]:
    """A row for each side; those of tipl are compared with the single trials."""
    rows: list[dict[str, Any]] = []
    single: list[float] = []
    if args.seeds:
        single = _finite(single_trials(args), "a single trial")
        rows.append({"method": "single trial", "normaliser": "running", **summary(single)})
    for normaliser in args.normaliser:
        paths = collect(args, normaliser)
        finals = final_returns_of_paths(paths.episodic_return(), paths.num_episodes())
        ours = _finite(finals.tolist(), "a trial of tipl")
        row: dict[str, Any] = {"method": "tipl", "normaliser": normaliser}
        row |= summary(ours)
        row["num_diverged"] = int(paths.diverged().sum())  # they count with what they returned
        if single:
            row["against_single_trial"] = compare(ours, single)._asdict()
        rows.append(row)
    return rows


def _finite(finals: list[float], whose: str) -> list[float]:
    if not np.isfinite(finals).all():
        raise TiplError(f"no episode of {whose} ended in the last fifth of its steps; give more")
    return finals


def print_report(args: Args, rows: list[dict[str, Any]]) -> None:
    """Prints the rows, and a sentence for each comparison."""
    title = f"{args.task}: final training return after {args.steps:,} steps"
    table = Table("method", "trials", "mean \\[95%]", "std", "min", "max", title=title)
    sentences = []
    for row in rows:
        method = f"{row['method']}, {row['normaliser']}"
        mean = _interval(row["mean"], row["low"], row["high"])
        spread = [f"{row[name]:,.1f}" for name in ("std", "min", "max")]
        table.add_row(method, str(row["n"]), mean, *spread)
        if "against_single_trial" in row:
            against = Comparison(**row["against_single_trial"])
            verdict = "contains 0" if against.contains_0 else "does not contain 0"
            difference = _interval(against.difference, against.low, against.high)
            sentences.append(f"{method}, less the single trials: {difference} {verdict}")
    console = Console()
    for shown in (table, *sentences):
        console.print(shown, highlight=False)


def _interval(value: float, low: float, high: float) -> str:
    return f"{value:,.1f} \\[{low:,.1f}, {high:,.1f}]"  # the backslash: not rich's markup


def main(args: Args) -> None:
    """Runs what is missing, prints the table and writes the rows."""
    make_task(args.task)  # an unknown task is an error now, not in a process
    rows = measure(args)
    print_report(args, rows)
    if args.json is not None:
        content = {
            "task": args.task,
            "command": command_line("reference_returns.py", args),
            "versions": versions(),
            "statistic": "mean return of the training episodes that ended in the last fifth of "
            "the rollouts, one value a trial; differences with Welch's t-test",
            "rows": rows,
        }
        storage.write_json(args.json, content)


if __name__ == "__main__":
    try:
        main(tyro.cli(Args))
    except TiplError as error:
        sys.exit(f"error: {error}")
