"""`tipl demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from tipl.experiments import demo as main_job

__all__ = ["demo"]


def demo(
    config: Annotated[main_job.DemoConfig, arg(name="")],
    out: Path = Path("runs/demo"),
    fresh: bool = False,
    threads: int | None = None,
) -> None:
    """Collect, train, forecast, optimise, evaluate and report, on real physics.

    Running it again reuses what is there, and goes on with what is not.

    Args:
        config: what to do
        out: directory of the run
        fresh: start over
        threads: default: one for each processor
    """
    main_job.demo(out, config, fresh=fresh, threads=threads)
