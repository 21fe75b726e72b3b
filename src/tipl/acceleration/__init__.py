"""PPO with jumps beside PPO alone and everything else that is known, by one command for a task."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from tipl.acceleration.config import AccelerationConfig, acceleration_config
from tipl.acceleration.job import AccelerationJob
from tipl.envs import make_task
from tipl.options import thread_count
from tipl.stages import CommandStages, prepare_run

__all__ = ["AccelerationConfig", "accelerate", "acceleration_config"]


def accelerate(
    config: AccelerationConfig,
    out: str | Path | None = None,
    *,
    fresh: bool = False,
    threads: int | None = None,
    progress: bool = True,
    command: str | None = None,
) -> None:
    """Runs a comparison, or what is left to do of it, and writes its report."""
    make_task(config.env_id)
    thread_count(threads)  # before the first stage, not after minutes of work
    directory = Path("runs") / "accelerate" / config.env_id if out is None else Path(out)
    prepare_run(directory, fresh, "comparison")
    stages = CommandStages(directory, Console(stderr=True, quiet=not progress))
    AccelerationJob(directory, config, stages, threads).run()
