"""`tipl accelerate`."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from tyro.conf import Positional

from tipl.cli import given_command
from tipl.experiments import acceleration

__all__ = ["accelerate"]


def accelerate(
    env_id: Positional[str],
    /,
    out: Path | None = None,
    quick: bool = False,
    fresh: bool = False,
    threads: int | None = None,
    num_trials: int | None = None,
    total_steps: int | None = None,
    widths: tuple[int, ...] | None = None,
    episodes: int | None = None,
    seed: int | None = None,
    model: str | None = None,
    nino: str | None = None,
    paths: str | None = None,
) -> None:
    """Train by PPO with jumps to forecasts of the weights, beside PPO alone and rivals.

    Writes report.html, results.jsonl and the figures; the trained policies are in the datasets
    beside them. Running it again goes on with what is not done. For jumps alone, without the
    comparison: `tipl collect ... --jumps.forecaster MODEL`.

    Args:
        env_id: a Gymnasium id, such as HalfCheetah-v4
        out: directory of the comparison (default: runs/accelerate/ and the task)
        quick: a smoke run of minutes, whose numbers show nothing
        fresh: start over
        threads: of each stage (default: one for each processor)
        num_trials: trials of each method (default: as the task has it)
        total_steps: environment steps of PPO in each trial (default: as the task has it)
        widths: units of both hidden layers; one architecture a number (default: 64 48)
        episodes: episodes of each checkpoint (default: as the task has it)
        seed: of the trials (default: one that no shipped model was trained with)
        model: the model that forecasts (default: the one that ships for the task, if any)
        nino: directory of a neural-graph nowcaster, a rival (default: left out)
        paths: dataset whose best policy is copied, a rival (default: left out)
    """
    config = acceleration.acceleration_config(
        env_id,
        quick=quick,
        num_trials=num_trials,
        total_steps=total_steps,
        widths=widths,
        episodes=episodes,
        seed=seed,
        model=model,
        nino=nino,
        paths=paths,
    )
    found = acceleration.accelerate(
        config, out, fresh=fresh, threads=threads, command=given_command()
    )
    acceleration.print_headline(found, Console())
    directory = out or Path("runs") / "accelerate" / env_id
    print(f"{directory / 'report.html'}: the report; {len(found.results)} numbers beside it")
