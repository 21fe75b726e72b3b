"""Mean returns of several ways to train, by the conventions of `tipl.report.plots`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Integer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter

from tipl.report.style import BLUE, GREY, INK, SERIES, WIDE, legend, panel_grid, styled

__all__ = ["Curve", "paired_learning_curves"]


@dataclass(frozen=True, eq=False)
class Curve:
    """Mean return of one way to train.

    Attributes:
        x: what it had cost at each of C places, such as environment steps, `[C]`.
        intervals: a row `value, low, high` a place, `[C, 3]`.
    """

    x: Integer[np.ndarray, " C"] | Float[np.ndarray, " C"]
    intervals: Float[np.ndarray, "C 3"]


@styled
def paired_learning_curves(
    panels: Mapping[str, Mapping[str, Curve]],
    *,
    note: str,
    x_label: str = "environment steps",
    looks: Mapping[str, tuple[str, str]] | None = None,
    stepped: bool = False,
    log: bool = False,
    width: float = WIDE,
) -> Figure:
    """Mean returns of several ways to train over what they cost, with intervals.

    Args:
        panels: curves by name, for each panel by its title; a panel alone needs none (`""`).
        note: printed on the figure.
        x_label: what the curves are over.
        looks: colour and dashes by name; by default the first curve of a panel is PPO's, blue, and
            the others have the colours of a series.
        stepped: a return holds from its place to the next one; else places are marked and joined.
        log: whether the axis of costs is logarithmic.
        width: in inches.
    """
    figure, axes = panel_grid(
        len(panels), width, 3.4, x_label, "episodic return", note, share_y=len(panels) > 1
    )
    handles: dict[str, Line2D | Patch] = {}
    drawn: dict[str, Any] = {"drawstyle": "steps-post"}
    if not stepped:
        drawn = {"marker": "o", "ms": 4, "mew": 0}
    for panel, (title, curves) in zip(axes, panels.items(), strict=True):
        if title:
            panel.set_title(title)
        for n, (name, curve) in enumerate(curves.items()):
            colour, dashes = _look(n) if looks is None else looks[name]
            value, low, high = curve.intervals.T
            panel.fill_between(
                curve.x, low, high, color=colour, alpha=0.14, lw=0, step="post" if stepped else None
            )
            (handles[name],) = panel.plot(curve.x, value, color=colour, ls=dashes, **drawn)
        panel.axhline(0, color=INK, alpha=0.25, lw=0.8)
        if log:
            panel.set_xscale("log")
        panel.xaxis.set_major_formatter(EngFormatter(sep=""))
    handles["95% interval"] = Patch(color=GREY, alpha=0.3, lw=0)
    legend(figure, handles)
    return figure


def _look(n: int) -> tuple[str, str]:
    """Colour and dashes of the n-th curve of a panel."""
    others = [colour for colour in SERIES if colour != BLUE]
    colour = BLUE if n == 0 else others[(n - 1) % len(others)]
    return colour, "-" if n <= len(others) else "--"
