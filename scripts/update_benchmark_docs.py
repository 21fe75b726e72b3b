"""Makes the figures and tables of `docs/benchmark.md` and of the README from whole benchmarks.

    python scripts/update_benchmark_docs.py runs/benchmark/HalfCheetah-v4 [another ...]

Writes `docs/results/benchmark-TASK/*.png`, `docs/results/benchmark-TASK.jsonl`, and what stands
between the `benchmark` marks of both pages. The first task is the one that the README shows.
"""

from __future__ import annotations

import json
import math
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

import tyro
from tyro.conf import Positional
from update_collection_docs import RESULTS, ROOT, replace_between

from tipl.atomic import write_bytes_atomically
from tipl.benchmark import benchmark_config
from tipl.benchmark.outcome import Benchmark, load_benchmark
from tipl.benchmark.report import benchmark_report, headline
from tipl.plots import save_figure
from tipl.report import Cell, Judged, Section, Table
from tipl.results import Result, format_result

WIDTH = 7.2
README_FIGURE = "Environment steps to PPO's return"

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
    README_FIGURE,
    "What it takes",
    "After how many uses a model has paid for itself",
    "Path trimming and boosting inside PPO",
    "How many directions a path needs",
)
"""The sections of the report that the page repeats, with those on the dimension of paths."""


def cell(content: Cell) -> str:
    """A cell of a table in Markdown."""
    if content is None:
        return ""
    if isinstance(content, Judged):
        return f"{content.mark} {format_result(content.result)}"
    if isinstance(content, Result):
        return format_result(content)
    if isinstance(content, str):
        return content
    value = float(content)
    if value != value:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:,.3g}"


def markdown(table: Table) -> str:
    """A table in Markdown, its caption below."""
    lines = [f"| {' | '.join(table.columns)} |", f"|---|{'---:|' * (len(table.columns) - 1)}"]
    lines += [f"| {' | '.join(map(cell, row))} |" for row in table.rows]
    return "\n".join([*lines, "", table.caption])


def slug(title: str) -> str:
    """A file's name from a title."""
    return "-".join("".join(c if c.isalnum() else " " for c in title.lower()).split())


def page(found: Benchmark, sections: Sequence[Section], folder: Path) -> str:
    """What `docs/benchmark.md` says of a task."""
    parts = [f"### {found.run.paths.task.env_id}", "", f"`{found.command}`", ""]
    parts += [markdown(headline(found)), ""]
    for section in sections:
        parts += [f"#### {section.title}", "", section.sentence, ""]
        if section.figure is not None:
            save_figure(section.figure(width=WIDTH), folder, slug(section.title))
            (folder / f"{slug(section.title)}.svg").unlink()  # pages show the PNG
            parts += [f"![{section.title}](results/{folder.name}/{slug(section.title)}.png)", ""]
        if section.table is not None:
            parts += [markdown(section.table), ""]
    return "\n".join(parts)


COLUMNS = ("experiment", "method", "setting", "metric", "value", "low", "high", "n_trials")


def write_numbers(found: Benchmark, path: Path) -> None:
    """Every number on a line of its own, to six digits, below a line that names the columns."""
    head = {"task": found.run.paths.task.env_id, "command": found.command, "columns": COLUMNS}
    lines = [json.dumps(head)]
    for result in found.results:
        row = [getattr(result, column) for column in COLUMNS]
        values = [float(f"{x:.6g}") if isinstance(x, float) else x for x in row]
        known = [None if isinstance(x, float) and math.isnan(x) else x for x in values]
        lines.append(json.dumps(known, ensure_ascii=False, separators=(",", ":")))
    write_bytes_atomically(path, ("\n".join(lines) + "\n").encode())


def main(runs: Positional[tuple[Path, ...]], /) -> None:
    """Makes the figures and tables.

    Args:
        runs: directories of whole benchmarks, each named by its task
    """
    pages = []
    for number, run in enumerate(runs):
        config = benchmark_config(run.name)
        found = load_benchmark(run, config, shlex.join(["tipl", "benchmark", run.name]))
        report = benchmark_report(found)
        folder = RESULTS / f"benchmark-{run.name}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_numbers(found, RESULTS / f"benchmark-{run.name}.jsonl")
        wanted = [s for s in report.sections if s.title in SHOWN or s in found.dimension]
        pages.append(page(found, wanted, folder))
        if number == 0:
            caption = markdown(headline(found))
            replace_between(ROOT / "README.md", "benchmark", f"{caption} `{found.command}`")
    replace_between(ROOT / "docs" / "benchmark.md", "benchmark", "\n\n".join(pages))


if __name__ == "__main__":
    tyro.cli(main)
