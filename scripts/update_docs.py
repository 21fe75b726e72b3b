"""Makes the figures and the numbers of the documentation from a run.

    python scripts/update_docs.py runs/demo

Writes `docs/images/*.png` and the table between the `results` marks of `README.md`.
"""

from __future__ import annotations

import re
from pathlib import Path

import tyro
from tyro.conf import Positional

from tipl import report_sections
from tipl.plots import save_figure
from tipl.report import Section
from tipl.results import format_result, pivot
from tipl.run_report import headline_results
from tipl.runs import Run, load_run

ROOT = Path(__file__).parents[1]
MARKS = re.compile(r"(<!-- results:begin -->\n).*?(<!-- results:end -->)", re.DOTALL)


def figures(run: Run) -> dict[str, Section]:
    """The figures of the documentation by file name."""
    return {
        "learning_curves": report_sections.learning_curves(run),
        "path_coordinates": report_sections.path_coordinates(run),
        "return_by_horizon": report_sections.returns_by_horizon(run),
        "weight_error_by_horizon": report_sections.weight_errors_by_horizon(run),
    }


def table(run: Run) -> str:
    """The headline as a Markdown table, with the command that made it."""
    headline = headline_results(run.results, run.paths.num_checkpoints)
    settings, rows = pivot(headline)
    lines = [f"| method | {' | '.join(settings)} |", f"|---|{'---:|' * len(settings)}"]
    lines += [
        f"| {method} | {' | '.join(format_result(r) if r else '' for r in row)} |"
        for method, row in rows.items()
    ]
    count, episodes = headline[0].n_trials, headline[0].n_episodes
    caption = (
        f"Mean episodic return [95% bootstrap interval] of the policies on {count} held-out "
        f"trials, {episodes} episodes each, after a history of that part of PPO's training. Made "
        "by `make demo`; all numbers are in its `results.jsonl`, all figures in its report."
    )
    return "\n".join([*lines, "", caption, ""])


def main(run: Positional[Path], /) -> None:
    """Makes the figures and numbers of the documentation.

    Args:
        run: the run's directory
    """
    loaded = load_run(run)
    for name, section in figures(loaded).items():
        save_figure(section.figure(width=7.2), ROOT / "docs" / "images", name)
        (ROOT / "docs" / "images" / f"{name}.svg").unlink()  # the pages show the PNG
    readme = ROOT / "README.md"
    made = table(loaded)
    text = MARKS.sub(lambda match: match[1] + made + match[2], readme.read_text(encoding="utf-8"))
    readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    tyro.cli(main)
