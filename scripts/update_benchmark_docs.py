"""Makes the figures and tables of `docs/benchmark.md` from whole benchmarks.

    python scripts/update_benchmark_docs.py runs/benchmark/HalfCheetah-v4 [another ...]

Writes `docs/results/benchmark-TASK/*.png`, `docs/results/benchmark-TASK.jsonl`, and what stands
between the `benchmark` marks of the page.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path

import tyro
from result_pages import markdown, results_folder, section_lines, write_numbers
from tyro.conf import Positional
from update_collection_docs import RESULTS, ROOT, replace_between

from tipl.experiments.benchmark.outcome import Benchmark, load_benchmark
from tipl.experiments.benchmark.report import benchmark_report, headline
from tipl.report.page import Section

SHOWN = (
    "Claim 1: it fits the dynamics",
    "Claim 2: forecasts do not deteriorate the policy",
    "Return of forecast policies against the horizon",
    "Claim 3: it optimises policies by inference",
    "Optimising by inference: return along the forecast",
    "Optimising untrained networks by inference",
    "All rivals: interquartile mean of the return",
    "All rivals: probability of improvement",
    "Audit: learning or remembering",
    "Environment steps to PPO's return",
    "What it takes",
    "After how many uses a model has paid for itself",
    "Path trimming and boosting inside PPO",
    "How many directions a path needs",
    "Monotone first, harmonic after: the coordinates over time",
    "Detours",
    "How unevenly the parameters move",
)
"""The sections of the report that the page repeats."""


def page(found: Benchmark, sections: Sequence[Section], folder: Path) -> str:
    """What `docs/benchmark.md` says of a task."""
    parts = [f"### {found.run.paths.task.env_id}", "", f"`{found.command}`", ""]
    parts += [markdown(headline(found)), ""]
    parts += [line for section in sections for line in section_lines(section, folder)]
    return "\n".join(parts)


def main(runs: Positional[tuple[Path, ...]], /) -> None:
    """Makes the figures and tables.

    Args:
        runs: directories of whole benchmarks, each named by its task
    """
    pages = []
    for run in runs:
        command = shlex.join(["tipl", "benchmark", run.name])  # wherever its directory is
        found = dataclasses.replace(load_benchmark(run), command=command)
        report = benchmark_report(found)
        folder = results_folder(f"benchmark-{run.name}")
        file = RESULTS / f"benchmark-{run.name}.jsonl"
        write_numbers(found.results, found.run.paths.task.env_id, found.command, file)
        wanted = [s for s in report.sections if s.title in SHOWN]
        pages.append(page(found, wanted, folder))
    replace_between(ROOT / "docs" / "benchmark.md", "benchmark", "\n\n".join(pages))


if __name__ == "__main__":
    tyro.cli(main)
