"""Makes the figures of the documentation from a run of the demo.

    python scripts/update_docs.py runs/demo

Writes `docs/images/*.png`.
"""

from __future__ import annotations

from pathlib import Path

import tyro
from tyro.conf import Positional

from tipl import horizon_sections, report_sections
from tipl.plots import save_figure
from tipl.report import Section
from tipl.runs import Run, load_run

ROOT = Path(__file__).parents[1]


def figures(run: Run) -> dict[str, Section]:
    """The figures of the documentation by file name."""
    return {
        "learning_curves": report_sections.learning_curves(run),
        "path_coordinates": report_sections.path_coordinates(run),
        "return_by_horizon": horizon_sections.returns_by_horizon(run),
        "weight_error_by_horizon": horizon_sections.weight_errors_by_horizon(run),
    }


def main(run: Positional[Path], /) -> None:
    """Makes the figures of the documentation.

    Args:
        run: the run's directory
    """
    loaded = load_run(run)
    for name, section in figures(loaded).items():
        save_figure(section.figure(width=7.2), ROOT / "docs" / "images", name)
        (ROOT / "docs" / "images" / f"{name}.svg").unlink()  # the pages show the PNG


if __name__ == "__main__":
    tyro.cli(main)
