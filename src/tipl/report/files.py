"""Where reports and figures are written: what lies there already must be one that tipl has made."""

from __future__ import annotations

from pathlib import Path

from tipl.core.ownership import DRAWING, PAGE, PICTURE, ROWS, check_file, refuse_links


def check_report(directory: Path) -> None:
    """Raises a TiplError if no report can be written into a directory, for what is in there."""
    refuse_links(directory, "figures")
    check_file(directory / "results.jsonl", ROWS)
    check_file(directory / "report.html", PAGE)


def check_figure(directory: str | Path, name: str) -> tuple[Path, Path]:
    """The paths of `save_figure`; raises a TiplError if something else than a figure has them."""
    svg, png = Path(directory) / f"{name}.svg", Path(directory) / f"{name}.png"
    check_file(png, PICTURE)
    check_file(svg, DRAWING)
    return svg, png
