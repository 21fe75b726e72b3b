"""`tipl paths show`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text
from tyro.conf import Positional

from tipl.paths import EvaluationSummary, PathDataset, PathSummary, ReturnRange, summarize

__all__ = ["paths_show", "print_summary"]


def paths_show(directory: Positional[Path], /, figure: Path | None = None) -> None:
    """Say what is in a dataset of policy learning paths.

    Args:
        directory: the dataset
        figure: where to draw its learning curves, such as curves.png (an SVG comes with it)
    """
    print_summary(directory)
    if figure is not None:
        _draw_learning_curves(PathDataset.open(directory), figure)


def _draw_learning_curves(paths: PathDataset, figure: Path) -> None:
    # here, so that a summary need not wait for Matplotlib
    from tipl.report.plots import learning_curves, save_figure

    note = f"{paths.task.env_id}, {paths.num_trials} trials"
    returns = paths.episodic_return().astype(np.float64)
    drawing = learning_curves(paths.global_step, returns, note=note)
    svg, png = save_figure(drawing, figure.parent, figure.stem)
    print(f"drew {png} and {svg}")


def print_summary(directory: Path) -> None:
    """Prints what is in a dataset, complete or not, as a table on standard output."""
    summary = summarize(directory)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in _rows(summary):
        table.add_row(Text(name, style="bold"), Text(value))
    Console().print(table)


def _rows(summary: PathSummary) -> list[tuple[str, str]]:
    metadata = summary.metadata
    missing = len(summary.missing_parts)
    parts = f"{summary.num_parts} of {summary.num_parts + missing}"
    diverged = ", ".join(map(str, summary.diverged_trials)) or "none"
    return [
        ("dataset", str(summary.directory)),
        ("task", metadata.task.env_id),
        ("trials", f"{metadata.num_trials:,} from {metadata.initial} initial networks"),
        ("checkpoints", f"{metadata.num_checkpoints:,} each"),
        (
            "parameters",
            f"{summary.num_parameters:,} ({metadata.networks}, hidden layers of "
            f"{', '.join(map(str, metadata.hidden_sizes))})",
        ),
        (
            "environment steps",
            f"{summary.steps_per_trial:,} each, {summary.total_steps:,} in all, "
            f"{metadata.steps_per_checkpoint:,} between checkpoints",
        ),
        ("return at the start", _range(summary.first_return)),
        ("return at the end", _range(summary.last_return)),
        *_evaluation_rows(summary.evaluation),
        ("diverged trials", diverged),
        ("normaliser", metadata.normaliser),
        *(
            ("physics", f"{name} differs between trials by factors from {low:g} to {high:g}")
            for name, (low, high) in metadata.vary.items()
        ),
        ("seed", str(metadata.seed)),
        *(
            (title, ", ".join(f"{name} {value}" for name, value in values.items()))
            for title, values in (
                ("PPO", metadata.ppo),
                ("PPTB", metadata.pptb),
                ("jumps", metadata.jumps),
                ("versions", metadata.versions),
            )
            if values
        ),
        ("parts", parts + (" (run `tipl collect` again to make the rest)" if missing else "")),
        ("size on disk", f"{summary.size_on_disk / 1e6:,.1f} MB"),
    ]


def _evaluation_rows(evaluation: EvaluationSummary | None) -> list[tuple[str, str]]:
    if evaluation is None:
        return []
    count = evaluation.episodes
    value = f"{_range(evaluation.last_return)} ({count} episode{'s' * (count > 1)} each)"
    if evaluation.missing_files:
        total = evaluation.num_files + len(evaluation.missing_files)
        value += (
            f"; {evaluation.num_files} of {total} files are there (run `tipl paths evaluate` again "
            "to make the rest)"
        )
    return [("deterministic return at the end", value)]


def _range(returns: ReturnRange | None) -> str:
    if returns is None:
        return "unknown"
    lowest, highest = returns.lowest, returns.highest
    return f"mean {returns.mean:,.1f}, from {lowest:,.1f} to {highest:,.1f} over trials"
