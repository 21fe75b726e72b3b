"""Policies for worlds that nobody has trained in, beside all rivals, by one command for a task."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from tipl.errors import TiplError
from tipl.experiments.pipeline import How, check_experiment, run_pipeline
from tipl.experiments.worlds.config import WorldsConfig
from tipl.experiments.worlds.stages import was_put_there, worlds_stages
from tipl.report.files import check_report

if TYPE_CHECKING:
    from tipl.experiments.worlds.outcome import WorldsBenchmark

__all__ = ["WorldsConfig", "benchmark_worlds", "check_worlds", "report_worlds"]


def benchmark_worlds(
    config: WorldsConfig, out: str | Path | None = None, **how: Unpack[How]
) -> WorldsBenchmark:
    """Runs a benchmark of worlds, or what is left to do of it, and writes its report.

    Its directory (see `run_pipeline`) then holds `report.html`, `results.jsonl`, in `figures` the
    figures as SVG and PNG and a film, what every method returns in every world in `returns`, and
    all that its stages left. Results of stages that are put there beforehand, under their names,
    are used.

    Raises:
        TiplError: as `run_pipeline`; or something that is given by its place is missing.
    """
    check_worlds(config, out, how.get("threads"), fresh=how.get("fresh", False))
    directory = run_pipeline(config, worlds_stages, out, **how)
    from tipl.experiments.worlds.film import film_world
    from tipl.experiments.worlds.material import Material  # late: they bring what runs policies
    from tipl.experiments.worlds.measuring import measure

    material = Material(config, directory, how.get("threads"))
    measure(material, progress=how.get("progress", True))
    film_world(material)
    config.write_record(directory, how.get("command"))
    return report_worlds(directory)


def check_worlds(
    config: WorldsConfig, out: str | Path | None, threads: int | None, *, fresh: bool = False
) -> None:
    """Raises a TiplError where a benchmark is impossible; nothing heavy is imported."""
    directory = check_experiment(config, out, threads).resolve()
    config.check_inputs()
    given = [one for one in (config.worlds, config.elite, config.carrier) if one is not None]
    inside = [one for one in given if Path(one).resolve().is_relative_to(directory)]
    inside += [name for name in ("worlds.json", "elite") if was_put_there(directory, name)]
    if fresh and inside:
        raise TiplError(
            f"{inside[0]} was given, and lies in {directory}, which was to be cleared; move it "
            "elsewhere first"
        )


def report_worlds(directory: str | Path) -> WorldsBenchmark:
    """Writes the report of a benchmark of worlds that has been measured; returns what it says.

    Raises:
        TiplError: something that was measured is missing or damaged, or a file cannot be written.
    """
    check_report(Path(directory))
    from tipl.experiments.worlds.outcome import load_worlds  # late, as all below

    found = load_worlds(directory)
    from tipl.experiments.worlds.report import worlds_report
    from tipl.report.page import write_report

    write_report(worlds_report(found), found.directory)
    return found
