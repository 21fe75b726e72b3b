"""PPO with jumps beside PPO alone and everything else that is known, by one command for a task."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Unpack

from tipl.experiments.acceleration.outcome import Comparison, load_comparison, model_cost
from tipl.experiments.acceleration.trials import acceleration_stages
from tipl.experiments.config import AccelerationConfig
from tipl.experiments.pipeline import How, run_pipeline
from tipl.report.files import check_report

__all__ = ["AccelerationConfig", "Comparison", "accelerate", "report_comparison"]


def accelerate(
    config: AccelerationConfig, out: str | Path | None = None, **how: Unpack[How]
) -> Comparison:
    """Runs a comparison, or what is left to do of it, and writes its report.

    Its directory (see `run_pipeline`) then holds `report.html`, `results.jsonl`, the figures as
    SVG and PNG in `figures`, and the datasets of all methods.

    Raises:
        TiplError: as `run_pipeline`; or fewer than two trials diverged under no method.
    """
    directory = run_pipeline(config, acceleration_stages, out, **how)
    cost = model_cost(config)
    config.write_record(directory, how.get("command"), cost=cost and dataclasses.asdict(cost))
    return report_comparison(directory)


def report_comparison(directory: str | Path) -> Comparison:
    """Writes the report of a comparison whose stages are done; returns what it says.

    Raises:
        TiplError: a stage's result is missing or damaged, or a file cannot be written.
    """
    check_report(Path(directory))
    found = load_comparison(directory)
    from tipl.experiments.acceleration.report import comparison_report  # late: it brings what draws
    from tipl.report.page import write_report

    write_report(comparison_report(found), found.directory)
    return found
