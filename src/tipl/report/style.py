"""How every figure looks: colours, type, panels, legend, and how a figure becomes SVG and PNG.

Figures are made without pyplot and under `styled`, a style context of their own, so that no global
state is touched and the reader's own Matplotlib settings change nothing. Ink (text, axes) is a
colour that nothing else uses: `figure_svg` turns it into `currentColor`, so that a drawing on its
transparent background follows the page, light or dark.
"""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from tipl.core.arrays import Array
from tipl.core.atomic import write_bytes_atomically
from tipl.core.ownership import DRAWING, MARK, PICTURE, STYLE_OF_DRAWINGS
from tipl.report.files import check_figure
from tipl.report.palette import INK

WIDE, NARROW = 7.6, 3.6
"""Widths in inches of a figure on a page and on a phone."""

ROOM = 3
"""Lines of a legend for which figures have room."""

_FONTS = "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue','Liberation Sans',sans-serif"
_STANDALONE = f"<style>svg{{color:{INK}}}{STYLE_OF_DRAWINGS}</style>"
styled = matplotlib.style.context(
    {
        "svg.fonttype": "none",  # text stays text: small, sharp, in the page's font
        "svg.hashsalt": "tipl",
        "text.parse_math": False,  # a dollar in a name is a dollar
        "font.family": "DejaVu Sans",  # comes with Matplotlib: the same layout everywhere
        "font.size": 9,
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        **dict.fromkeys(
            ["text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"], INK
        ),
        **dict.fromkeys(["axes.spines.top", "axes.spines.right", "axes.spines.left"], False),
        "axes.linewidth": 0.8,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "grid.color": INK,
        "grid.alpha": 0.13,
        "axes.axisbelow": True,
        "axes.titlesize": 9,
        "axes.titlelocation": "left",
        "xtick.major.size": 3,
        "ytick.major.size": 0,
        "lines.linewidth": 1.8,
        "legend.frameon": False,
        "legend.handlelength": 1.6,
        "legend.columnspacing": 1.4,
        "legend.borderpad": 0,
        "legend.borderaxespad": 0.4,
    },
    after_reset=True,
)


@styled
def figure_svg(figure: Figure, *, prefix: str = "") -> str:
    """Draws a figure as an `<svg>` element for a page, its ink being the page's text colour.

    The prefix is put before each id, so that several drawings can share a page.
    """
    buffer = io.StringIO()
    # savefig would draw twice, to the same bytes
    FigureCanvasSVG(figure).print_svg(buffer)  # type: ignore[no-untyped-call]
    figure.set_layout_engine("none")  # laid out now: half of what drawing it again would take
    text = buffer.getvalue()
    text = text[text.index("<svg") :].strip()
    # the date is in there
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # a page-wide style sheet within a drawing would reach out of it: make it an inherited style
    text = re.sub(r"\s*<defs>\s*<style.*?</style>\s*</defs>", "", text, count=1, flags=re.DOTALL)
    text = text.replace("<svg ", '<svg style="stroke-linejoin:round;stroke-linecap:butt" ', 1)
    return re.sub(r"<[^>]+>", lambda tag: _page_tag(tag[0], prefix), text)  # never in a label


def _page_tag(tag: str, prefix: str) -> str:
    tag = tag.replace(INK, "currentColor").replace("'DejaVu Sans'", _FONTS)
    tag = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}", tag)
    # a tenth of a point is finer than any screen, and halves the file
    tag = re.sub(r' d="[^"]*"', lambda outline: _rounded(outline[0], 1), tag)
    return _rounded(tag, 2)


def _rounded(text: str, digits: int) -> str:
    return re.sub(r"\d+\.\d+", lambda number: f"{round(float(number[0]), digits):g}", text)


@styled
def save_figure(figure: Figure, directory: str | Path, name: str) -> tuple[Path, Path]:
    """Writes `name.svg` (follows light and dark) and `name.png` (on white); returns their paths.

    The same figure gives the same bytes. Only figures of tipl are replaced.

    Raises:
        TiplError: the directory is missing or cannot be written, or something else has the names.
    """
    svg, png = check_figure(directory, name)
    drawing = re.sub(r"(<svg[^>]*>)", rf"\g<1>{_STANDALONE}", figure_svg(figure), count=1)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=200, facecolor="white", metadata={"Software": MARK})
    write_bytes_atomically(png, buffer.getvalue(), own=PICTURE)
    text = f'<?xml version="1.0" encoding="utf-8"?>\n{drawing}\n'
    write_bytes_atomically(svg, text.encode(errors="backslashreplace"), own=DRAWING)
    return svg, png


def panel_grid(
    count: int,
    width: float,
    height: float,
    x_label: str,
    y_label: str,
    note: str,
    *,
    grid: str = "y",
    share_y: bool = False,
) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels, each about `height` inches high; one column where narrow."""
    narrow = width < 5
    columns = 1 if count == 1 or narrow else 2
    rows = math.ceil(count / columns)
    height *= 0.8 if narrow and count > 1 else 1  # a panel's width shrinks less than that
    engine = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.07, wspace=0.04, hspace=0.03)
    figure = Figure(figsize=(width, rows * height), layout=engine)
    every = figure.subplots(rows, columns, sharex=True, sharey=share_y, squeeze=False).ravel()
    for unused in every[count:]:
        unused.remove()
    panels = list(every[:count])
    for index, axes in enumerate(panels):
        axes.grid(visible=False)
        axes.grid(axis=grid)
        axes.margins(x=0.02)
        if index + columns >= count:  # the lowest panel of its column
            axes.set_xlabel(x_label)
            axes.tick_params(labelbottom=True)
    figure.supylabel(y_label, fontsize=9)
    wrapped = textwrap.fill(note, int(width * 15))
    figure.supxlabel(wrapped, x=0.03 / width, ha="left", fontsize=8, alpha=0.7)
    return figure, panels


def legend(figure: Figure, handles: Mapping[str, Line2D | Patch]) -> None:
    """A legend above the panels, where it covers no data, in as many columns as fit."""
    width = figure.get_figwidth()
    # a long name breaks, so that there is room for a second column
    labels = [textwrap.fill(name, min(int(width * 12), 34)) for name in handles]
    widest = max(len(line) for label in labels for line in label.split("\n"))
    columns = max(1, int((width - 0.2) / (0.5 + 0.068 * widest)))  # inches a column
    lines = sum(1 + label.count("\n") for label in labels) / columns
    if lines > ROOM:  # the panels keep their height
        figure.set_figheight(figure.get_figheight() + 0.17 * (lines - ROOM))
    figure.legend(list(handles.values()), labels, loc="outside upper left", ncols=columns)


def log_axis(axes: Axes, which: Literal["x", "y"]) -> None:
    """Makes an axis logarithmic, with plain numbers at 1, 2 and 5, or at powers of ten.

    An axis that is too short for these has more of them.
    """
    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = axis.get_view_interval()
    steps: tuple[float, ...] = (1, 2, 5) if high <= 1000 * low else (1,)
    if high <= 6 * low:
        steps = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)
    axis.set_major_locator(LogLocator(subs=steps))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def thin_alpha(lines: Array) -> float:
    """Opacity of one line of many `[N, ...]`: a hundred trials must not become one blot."""
    return float(np.clip(16 / len(lines), 0.14, 0.6))
