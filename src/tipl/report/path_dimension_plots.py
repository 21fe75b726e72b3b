"""Figures of the dimension of paths: information, coordinates, detours and activity.

As in `tipl.report.plots`, each function takes plain arrays, a `note` and a `width`; NaN is a gap.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Integer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter, PercentFormatter

from tipl.report.style import (
    GREY,
    SERIES,
    WIDE,
    legend,
    log_axis,
    method_colour,
    panel_grid,
    styled,
)
from tipl.report.tables import format_number

__all__ = [
    "activity_of_parameters",
    "coordinates_over_time",
    "detour_ratios",
    "information_by_part",
]

BETA = 0.9  # of the marks D(beta)
FEW = 4  # trials whose single lines a panel of two methods has room for


@styled
def information_by_part(
    panels: Mapping[str, Mapping[str, Float[np.ndarray, "N S"]]],
    *,
    note: str,
    width: float = WIDE,
) -> Figure:
    """Information `a_k` of the first k directions, a panel a part and a line a method.

    Args:
        panels: for each part and method the information of each trial. A method's line is the
            median over trials, its band the middle half, and its mark the D(0.9) of the median.
        note: printed on the figure.
        width: in inches.
    """
    figure, drawn = panel_grid(
        len(panels), width, 2.2, "directions k", "information a_k", note, share_y=True
    )
    handles: dict[str, Line2D | Patch] = {}
    for axes, (part, methods) in zip(drawn, panels.items(), strict=True):
        needed = []
        for name, information in methods.items():
            quartiles = np.quantile(information, [0.25, 0.5, 0.75], axis=0)  # [3, S]
            dimension = int(np.argmax(quartiles[1] >= BETA - 1e-12)) + 1
            needed.append(str(dimension))
            style = _line_style(name)
            ranks = np.arange(1, information.shape[1] + 1)
            axes.fill_between(ranks, *quartiles[::2], color=style["color"], alpha=0.2, lw=0)
            axes.plot(ranks, quartiles[1], **style)
            axes.plot(dimension, quartiles[1, dimension - 1], "o", color=style["color"], ms=6)
            handles[name] = Line2D([], [], **style)
        axes.set_title(f"{part}: D({BETA}) = {' and '.join(needed)}")
        log_axis(axes, "x")
    drawn[0].set_ylim(None, 1.03)
    handles["middle half of the trials"] = Patch(color=GREY, alpha=0.3, lw=0)
    handles[f"D({BETA})"] = Line2D([], [], color=GREY, marker="o", ms=6, lw=0)
    legend(figure, handles)
    return figure


@styled
def coordinates_over_time(
    global_step: Integer[np.ndarray, " T"],
    methods: Mapping[str, Float[np.ndarray, "N T K"]],
    *,
    note: str,
    width: float = WIDE,
) -> Figure:
    """The first coordinates (at most six) over time: the mean over trials and a few of them.

    Each trial's coordinate is drawn relative to its largest size, so that only its shape counts.

    Args:
        global_step: environment steps at each checkpoint.
        methods: for each method its trials' coordinates in their own bases.
        note: printed on the figure.
        width: in inches.
    """
    count = min(6, *(coordinates.shape[2] for coordinates in methods.values()))
    figure, drawn = panel_grid(
        count,
        width,
        1.8,
        "environment steps",
        "coordinate, relative to its largest size",
        note,
        share_y=True,
    )
    for name, coordinates in methods.items():
        style = _line_style(name)
        shapes = _relative(coordinates)
        for k, axes in enumerate(drawn):
            axes.plot(
                global_step,
                shapes[:FEW, :, k].T,
                color=style["color"],
                linestyle=style["linestyle"],
                alpha=0.45,
                lw=0.7,
            )
            axes.plot(global_step, shapes[:, :, k].mean(axis=0), **style)
    for k, axes in enumerate(drawn, 1):
        axes.set_title(f"coordinate {k}")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    drawn[0].set_ylim(-1.08, 1.08)
    handles: dict[str, Line2D | Patch] = {
        f"{name}, mean": Line2D([], [], **_line_style(name)) for name in methods
    }
    handles["one trial"] = Line2D([], [], color=GREY, alpha=0.6, lw=0.7)
    legend(figure, handles)
    return figure


@styled
def detour_ratios(
    panels: Mapping[str, Mapping[str, Float[np.ndarray, " N"]]],
    *,
    note: str,
    width: float = WIDE,
) -> Figure:
    """Detour ratios by part: a dot a trial, a bar at the median, a row a part and method.

    Args:
        panels: for each part and method the ratio of each trial; infinite ones are left out.
        note: printed on the figure.
        width: in inches.
    """
    names = list(dict.fromkeys(name for methods in panels.values() for name in methods))
    height = 0.7 + 0.7 * len(panels)
    label = "detour ratio (length of the path / distance of its ends)"
    figure, (axes,) = panel_grid(1, width, height, label, "", note, grid="x")
    for row, (part, methods) in enumerate(panels.items()):
        medians = []
        for name, ratios in methods.items():
            known = ratios[np.isfinite(ratios)]
            centre = row + 0.06 + 0.24 * (names.index(name) - (len(names) - 1) / 2)
            colour = method_colour(name)
            jitter = (np.arange(len(known)) * 0.618 % 1 - 0.5) * 0.16
            axes.plot(known, centre + jitter, "o", color=colour, alpha=0.45, ms=3.5, mew=0)
            if len(known):
                median = float(np.median(known))
                medians.append(format_number(median))
                axes.vlines(median, centre - 0.12, centre + 0.12, color=colour, lw=2.4)
        text = f"{part}: median {' and '.join(medians) or '–'}"
        written = axes.text(0, row - 0.34, text, transform=axes.get_yaxis_transform())
        written.set_in_layout(False)  # it may be wider than the panel's data
    axes.set_ylim(len(panels) - 0.62, -0.7)  # the first part on top
    axes.set_yticks([])
    log_axis(axes, "x")
    axes.set_xlim(left=min(1, axes.get_xlim()[0]))
    legend(figure, {name: _dot(method_colour(name)) for name in names})
    return figure


@styled
def activity_of_parameters(
    share: Float[np.ndarray, " F"],
    panels: Mapping[str, Mapping[str, Float[np.ndarray, "N F"]]],
    *,
    note: str,
    width: float = WIDE,
) -> Figure:
    """Share of all movement that the most active parameters make, means over trials.

    Args:
        share: shares of the parameters, from 0 to 1.
        panels: for each part and method the movement's share of each trial. The first method is
            drawn in a colour a part, the others in grey, dashed, and for the first part alone:
            random walks of all parts are alike.
        note: printed on the figure.
        width: in inches.
    """
    label = "share of all movement"
    figure, (axes,) = panel_grid(1, width, 3.4, "most active parameters", label, note)
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", lw=1.2)
    handles: dict[str, Line2D | Patch] = {}
    for index, (part, methods) in enumerate(panels.items()):
        for order, (name, curves) in enumerate(methods.items()):
            moved = np.isfinite(curves).all(axis=1)
            if not moved.any() or (order and index):
                continue
            style: dict[str, Any] = {"color": SERIES[index % len(SERIES)]}
            if order:
                style = {"color": GREY, "linestyle": "--", "lw": 1.4}
            axes.plot(share, curves[moved].mean(axis=0), **style)
            handles[name if order else part] = Line2D([], [], **style)
    handles["all alike"] = Line2D([], [], color=GREY, linestyle=":", lw=1.2)
    _percent(axes)
    legend(figure, handles)
    return figure


def _line_style(name: str) -> dict[str, Any]:
    """A walk is dashed: its lines run close to those that it is compared with."""
    colour = method_colour(name)
    walk = colour == GREY
    return {"color": colour, "linestyle": "--" if walk else "-", "lw": 1.4 if walk else 2.0}


def _relative(coordinates: Float[np.ndarray, "N T K"]) -> Float[np.ndarray, "N T K"]:
    largest = np.abs(coordinates).max(axis=1, keepdims=True)
    return np.asarray(coordinates / np.where(largest > 0, largest, 1))


def _dot(colour: str) -> Line2D:
    return Line2D([], [], color=colour, marker="o", ms=5, mew=0, lw=0)


def _percent(axes: Axes) -> None:
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
