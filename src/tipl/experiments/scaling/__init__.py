"""How results grow with data, with the model and with training compute, by one command a task."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from tipl.experiments.pipeline import How, Stage, check_experiment, run_pipeline
from tipl.experiments.scaling.config import ScalingConfig
from tipl.experiments.scaling.points import scaling_stages
from tipl.report.files import check_report

if TYPE_CHECKING:
    from tipl.experiments.scaling.outcome import Scaling

__all__ = ["ScalingConfig", "check_scaling", "report_scaling", "scaling"]


def scaling(config: ScalingConfig, out: str | Path | None = None, **how: Unpack[How]) -> Scaling:
    """Trains and measures models of all sizes, or what is left of them, and writes the report.

    The largest size of each axis is predicted from the smaller ones before it is trained. The
    directory (see `run_pipeline`) then holds `report.html`, `results.jsonl`, the figures as SVG
    and PNG in `figures`, the predictions in `predictions.json`, what was measured of each model in
    `returns`, and all that the stages left.

    Raises:
        TiplError: as `run_pipeline`; or the dataset that is given is missing, of another task, or
            too small.
    """
    check_scaling(config, out, how.get("threads"))

    def measuring(directory: Path, stages: Iterable[Stage]) -> Iterator[Stage]:
        from tipl.experiments.scaling.running import measured_along  # late: it brings PyTorch

        return measured_along(config, directory, stages, **how)

    directory = run_pipeline(config, scaling_stages, out, along=measuring, **how)
    from tipl.experiments.scaling.measuring import Bench

    ppo = Bench(config, directory, how.get("threads")).returns_of_ppo()
    config.write_record(directory, how.get("command"), ppo=ppo)
    return report_scaling(directory)


def check_scaling(config: ScalingConfig, out: str | Path | None, threads: int | None) -> None:
    """Raises a TiplError where an experiment is impossible; nothing heavy is imported."""
    check_experiment(config, out, threads)
    config.check_inputs()


def report_scaling(directory: str | Path) -> Scaling:
    """Writes the report of an experiment on scaling that has been run; returns what it says.

    Raises:
        TiplError: something that was measured is missing or damaged, or a file cannot be written.
    """
    check_report(Path(directory))
    from tipl.experiments.scaling.outcome import load_scaling  # late, as all below

    found = load_scaling(directory)
    from tipl.experiments.scaling.report import scaling_report
    from tipl.report.page import write_report

    write_report(scaling_report(found), found.directory)
    return found
