"""Figures of a benchmark that no other report has, by the conventions of `tipl.report.plots`."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter

from tipl.report.style import GREY, WIDE, legend, method_colour, panel_grid, styled

__all__ = ["steps_to_reach"]

_SIZES = (4.0, 6.0, 8.0, 10.0)
"""Of the dots of the shares, the smallest share first."""


@styled
def steps_to_reach(
    shares: Sequence[float],
    steps: Mapping[str, Float[np.ndarray, "S 3"]],
    *,
    note: str,
    width: float = WIDE,
) -> Figure:
    """Environment steps that each method needs for each share of PPO's improvement.

    Args:
        shares: parts of the way, rising.
        steps: by method, a row `value, low, high` a share; infinite where it is not reached.
        note: printed on the figure.
        width: in inches.
    """
    labels = [_reach_label(shares, name, rows, width) for name, rows in steps.items()]
    lines = max(1 + label.count("\n") for label in labels)
    height = 0.7 + (0.32 + 0.16 * lines) * len(steps)
    x_label = "environment steps of one trial"
    figure, (axes,) = panel_grid(1, width, height, x_label, "", note, grid="x")
    for row, (name, intervals) in enumerate(steps.items()):
        colour = method_colour(name)
        for size, (value, low, high) in zip(_SIZES[-len(shares) :], intervals, strict=True):
            if np.isfinite(value):
                known = [bound for bound in (low, high) if np.isfinite(bound)]
                axes.plot(known, [row] * len(known), color=colour, alpha=0.3, lw=3)
                axes.plot([value], [row], "o", color=colour, ms=size, alpha=0.6, mew=0)
        text = axes.text(0, row - 0.22, labels[row], transform=axes.get_yaxis_transform())
        text.set_in_layout(False)  # it may be wider than the panel's data
    axes.set_ylim(len(steps) - 0.5, -0.9)
    axes.set_yticks([])
    axes.set_xlim(left=-0.02 * axes.get_xlim()[1])
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    legend(
        figure,
        {
            f"{share:.0%} of PPO's improvement": Line2D(
                [], [], color=GREY, marker="o", ls="", ms=size, alpha=0.7, mew=0
            )
            for share, size in zip(shares, _SIZES[-len(shares) :], strict=True)
        },
    )
    return figure


def _reach_label(
    shares: Sequence[float], name: str, intervals: Float[np.ndarray, "S 3"], width: float
) -> str:
    reached = [share for share, row in zip(shares, intervals, strict=True) if np.isfinite(row[0])]
    most = f"{max(reached):.0%} reached" if reached else "none reached"
    return textwrap.fill(f"{name}: {most}", int(width * 13))
