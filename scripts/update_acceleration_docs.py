"""Makes the figures and tables of `docs/acceleration.md` from whole comparisons.

    python scripts/update_acceleration_docs.py runs/accelerate/HalfCheetah-v4 [another ...]

Writes `docs/results/accelerate-TASK/*.png`, `docs/results/accelerate-TASK.jsonl`, and what stands
between the `acceleration` marks of the page.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import tyro
from result_pages import markdown, results_folder, section_lines, write_numbers
from tyro.conf import Positional
from update_collection_docs import RESULTS, ROOT, replace_between

from tipl.experiments.acceleration.outcome import Comparison, load_comparison
from tipl.experiments.acceleration.report import comparison_report
from tipl.experiments.config import AccelerationConfig

LEFT_OUT = ("What is compared",)
"""Sections of the report that the page says in its own words."""


def command_of(found: Comparison) -> str:
    """The command line of a comparison, wherever its directory was."""
    config = found.config
    options = {"--model": config.model, "--nino": config.nino, "--paths": config.paths}
    given = [word for pair in options.items() if pair[1] is not None for word in pair]
    if config.widths != AccelerationConfig.for_task(config.env_id).widths:
        given += ["--widths", *config.widths]
    return shlex.join(["tipl", "accelerate", config.env_id, *map(str, given)])


def page(found: Comparison, folder: Path) -> str:
    """What `docs/acceleration.md` says of a task."""
    report = comparison_report(found)
    parts = [f"### {found.config.env_id}", "", f"`{command_of(found)}`", ""]
    parts += [" ".join(report.lead), "", markdown(report.headline), ""]
    for section in report.sections:
        if section.title not in LEFT_OUT:
            parts += section_lines(section, folder)
    return "\n".join(parts)


def main(runs: Positional[tuple[Path, ...]], /) -> None:
    """Makes the figures and tables.

    Args:
        runs: directories of whole comparisons
    """
    pages = []
    for run in runs:
        found = load_comparison(run)
        task = found.config.env_id
        folder = results_folder(f"accelerate-{task}")
        write_numbers(found.results, task, command_of(found), RESULTS / f"accelerate-{task}.jsonl")
        pages.append(page(found, folder))
    replace_between(ROOT / "docs" / "acceleration.md", "acceleration", "\n\n".join(pages))


if __name__ == "__main__":
    tyro.cli(main)
