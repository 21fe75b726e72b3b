"""`tipl benchmark`."""

from __future__ import annotations

from pathlib import Path

from tyro.conf import Positional

from tipl.cli import given_command
from tipl.experiments import benchmark as the_benchmark

__all__ = ["benchmark"]


def benchmark(
    env_id: Positional[str],
    /,
    out: Path | None = None,
    quick: bool = False,
    fresh: bool = False,
    threads: int | None = None,
    num_trials: int | None = None,
    total_steps: int | None = None,
    shared_trials: int | None = None,
    pptb_trials: int | None = None,
    episodes: int | None = None,
    seed: int | None = None,
) -> None:
    """Test the paper's claims on a task, beside all rivals, and count what everything takes.

    Collects paths, trains every model, forecasts and runs the held-out trials, and writes
    report.html, results.jsonl and the figures. Running it again goes on with what is not done.

    Args:
        env_id: a Gymnasium id: InvertedPendulum-v4 (under an hour) or HalfCheetah-v4 (hours)
        out: directory of the benchmark (default: runs/benchmark/ and the task)
        quick: a smoke run of minutes, whose numbers show nothing
        fresh: start over
        threads: of each stage (default: one for each processor)
        num_trials: PPO trials to collect (default: as the task has it)
        total_steps: environment steps of each trial (default: as the task has it)
        shared_trials: trials from one shared initial network; 0 for none (default: as the task)
        pptb_trials: trials of PPO with path trimming and boosting; 0 for none (default: as the
            task has it)
        episodes: episodes of each policy (default: 2)
        seed: of the collections and of the training (default: 0)
    """
    config = the_benchmark.benchmark_config(
        env_id,
        quick=quick,
        num_trials=num_trials,
        total_steps=total_steps,
        shared_trials=shared_trials,
        pptb_trials=pptb_trials,
        episodes=episodes,
        seed=seed,
    )
    found = the_benchmark.benchmark(
        config, out, fresh=fresh, threads=threads, command=given_command()
    )
    directory = out or Path("runs") / "benchmark" / env_id
    print(f"{directory / 'report.html'}: the report; {len(found.results)} numbers beside it")
