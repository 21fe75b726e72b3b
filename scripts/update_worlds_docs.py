"""Makes the figures and tables of `docs/worlds-benchmark.md` from whole benchmarks of worlds.

    python scripts/update_worlds_docs.py runs/worlds/HalfCheetah-v4 [another ...]

Writes `docs/results/worlds-TASK/*.png`, `docs/results/worlds-TASK.jsonl`, and what stands between
the `worlds` marks of the page.
"""

from __future__ import annotations

from pathlib import Path

import tyro
from result_pages import markdown, results_folder, section_lines, write_numbers
from tyro.conf import Positional
from update_collection_docs import RESULTS, ROOT, replace_between

from tipl.experiments.worlds.outcome import WorldsBenchmark, load_worlds
from tipl.experiments.worlds.report import worlds_report

LEFT_OUT = ("What is compared",)
"""Sections of the report that the page says in its own words."""


def page(found: WorldsBenchmark, folder: Path) -> str:
    """What the page says of a task."""
    report = worlds_report(found)
    parts = [f"### {found.config.env_id}", "", f"`{command_of(found)}`", ""]
    parts += [" ".join(report.lead), "", *(f"- {point}" for point in report.points), ""]
    parts += [markdown(report.headline), ""]
    for section in report.sections:
        if section.title not in LEFT_OUT:
            parts += section_lines(section, folder)
    return "\n".join(parts)


def command_of(found: WorldsBenchmark) -> str:
    """The command line of a benchmark, wherever its directory was."""
    words = found.command.split()
    return " ".join(
        word for i, word in enumerate(words) if not {word, words[max(i - 1, 0)]} & PLACES
    )


PLACES = {"--out", "--threads"}
"""Options of a command line that change no number."""


def main(runs: Positional[tuple[Path, ...]], /) -> None:
    """Makes the figures and tables.

    Args:
        runs: directories of whole benchmarks of worlds
    """
    pages = []
    for run in runs:
        found = load_worlds(run)
        task = found.config.env_id
        folder = results_folder(f"worlds-{task}")
        write_numbers(found.rows, task, command_of(found), RESULTS / f"worlds-{task}.jsonl")
        pages.append(page(found, folder))
    replace_between(ROOT / "docs" / "worlds-benchmark.md", "worlds", "\n\n".join(pages))


if __name__ == "__main__":
    tyro.cli(main)
