"""Makes the figures and tables of `docs/scaling.md` from finished experiments.

    python scripts/update_scaling_docs.py runs/scaling/HalfCheetah-v4 [another ...]

Writes `docs/results/scaling-TASK/*.png`, `docs/results/scaling-TASK.jsonl`, and what stands between
the `scaling` marks of the page.
"""

from __future__ import annotations

import shlex
from pathlib import Path

import tyro
from result_pages import markdown, results_folder, section_lines, write_numbers
from tyro.conf import Positional
from update_collection_docs import RESULTS, ROOT, replace_between

from tipl.experiments.scaling.outcome import AXIS_NAMES, Scaling, load_scaling
from tipl.experiments.scaling.report import scaling_report

PROTOCOL = {"trials": (8, 512), "widths": (1e5, 1e7), "num_steps": (125, 4000)}
"""Between which ends each axis is to be measured: trials, parameters, steps."""


def command_of(found: Scaling) -> str:
    """The command line of an experiment, wherever its directory was."""
    words = shlex.split(found.config.command_line(Path("OUT")))
    return shlex.join(words[: words.index("--out")])


def not_run(found: Scaling) -> str:
    """Which axes have not been run from end to end."""
    missing = []
    for axis, (low, high) in PROTOCOL.items():
        sizes = [point.size for point in found.known]
        values = {float(getattr(size, axis)) for size in sizes}
        if axis == "widths":
            values = {float(one.num_parameters) for one in found.known.values()}
        if min(values) > 1.2 * low or max(values) < 0.8 * high:
            ends = f"{min(values):,.0f} to {max(values):,.0f} instead of {low:,.0f} to {high:,.0f}"
            missing.append(f"{AXIS_NAMES[axis]} ({ends})")
    if not missing:
        return "All axes have been run at full size."
    return f"**Not run at full size:** {'; '.join(missing)}."


def page(found: Scaling, folder: Path) -> str:
    """What `docs/scaling.md` says of a task."""
    report = scaling_report(found)
    parts = [f"### {found.config.env_id}", "", f"`{command_of(found)}`", "", not_run(found), ""]
    parts += [" ".join(report.lead), "", *(f"- {point}" for point in report.points), ""]
    if report.headline.rows:
        parts += [markdown(report.headline), ""]
    for section in report.sections:
        parts += section_lines(section, folder)
    return "\n".join(parts)


def main(runs: Positional[tuple[Path, ...]], /) -> None:
    """Makes the figures and tables.

    Args:
        runs: directories of finished experiments
    """
    pages = []
    for run in runs:
        found = load_scaling(run)
        task = found.config.env_id
        folder = results_folder(f"scaling-{task}")
        write_numbers(found.rows, task, command_of(found), RESULTS / f"scaling-{task}.jsonl")
        pages.append(page(found, folder))
    replace_between(ROOT / "docs" / "scaling.md", "scaling", "\n\n".join(pages))


if __name__ == "__main__":
    tyro.cli(main)
