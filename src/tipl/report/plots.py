"""The figures: each function takes plain arrays and returns a Matplotlib `Figure`.

Every function takes a `note`, printed on the figure (the numbers of trials and episodes), and its
`width` in inches, for which it lays out its panels: the same picture serves a page (`WIDE`) and a
phone (`NARROW`). NaN is a gap. The look is in `tipl.report.style`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Integer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter

from tipl.errors import TiplError
from tipl.report.style import (
    ACCENT,
    BLUE,
    GREY,
    INK,
    NARROW,
    SERIES,
    WIDE,
    figure_svg,
    legend,
    log_axis,
    method_colour,
    panel_grid,
    save_figure,
    styled,
    thin_alpha,
)
from tipl.report.tables import format_number

__all__ = [
    "NARROW",
    "WIDE",
    "figure_svg",
    "forecast_error_against_horizon",
    "learning_curves",
    "optimize_distribution",
    "return_against_horizon",
    "save_figure",
    "svd_coordinates",
    "svd_spectrum",
    "training_curve",
    "true_against_forecast_coordinates",
]

_DASHES = ("-", "--", ":", "-.")  # tells methods of one colour apart


@styled
def learning_curves(
    global_step: Integer[np.ndarray, " T"],
    episodic_return: Float[np.ndarray, "N T"],
    *,
    note: str,
    width: float = WIDE,
) -> Figure:
    """PPO's episodic return over a trial: a thin line a trial, the median and the middle half."""
    figure, (axes,) = panel_grid(1, width, 3.4, "environment steps", "episodic return", note)
    axes.plot(global_step, episodic_return.T, color=BLUE, alpha=thin_alpha(episodic_return), lw=0.7)
    seen = np.isfinite(episodic_return).any(axis=0)  # quantiles of nothing would warn
    quartiles = np.nanquantile(episodic_return[:, seen], [0.25, 0.5, 0.75], axis=0)  # [3, T]
    axes.fill_between(global_step[seen], quartiles[0], quartiles[2], color=BLUE, alpha=0.25, lw=0)
    axes.plot(global_step[seen], quartiles[1], color=BLUE, lw=2.4)
    _start_at_zero([axes])
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    legend(
        figure,
        {
            "median": Line2D([], [], color=BLUE, lw=2.4),
            "middle half of the trials": Patch(color=BLUE, alpha=0.25, lw=0),
            "one trial": Line2D([], [], color=BLUE, alpha=0.6, lw=0.7),
        },
    )
    return figure


@styled
def svd_spectrum(
    cumulative_information: Mapping[str, Float[np.ndarray, " K"]],
    *,
    note: str,
    width: float = WIDE,
) -> Figure:
    """Information `a_k` (sum of the first k singular values over the sum of all) against rank k.

    Each fit may have its own number of ranks. Markers show D(0.9) and D(0.99), the lowest ranks
    with that much information.
    """
    figure, (axes,) = panel_grid(1, width, 3.2, "rank k", "information a_k", note)
    handles: dict[str, Line2D | Patch] = {}
    for fit, (name, information) in enumerate(cumulative_information.items()):
        ranks = np.arange(1, len(information) + 1)
        colour = SERIES[fit % len(SERIES)]
        (line,) = axes.plot(ranks, information, color=colour)
        found = []
        for beta in (0.9, 0.99):
            enough = np.flatnonzero(information >= beta)[:1]  # index of D(beta), if it is reached
            axes.plot(ranks[enough], information[enough], "o", color=colour, ms=6, mew=0)
            rank = str(ranks[enough][0]) if len(enough) else f"> {len(information)}"
            found.append(f"D({beta})\u00a0=\u00a0{rank}")
        handles[f"{name}: {', '.join(found)}"] = line
    axes.set_ylim(None, 1.02)
    log_axis(axes, "x")
    legend(figure, handles)
    return figure


@styled
def svd_coordinates(
    global_step: Integer[np.ndarray, " T"],
    coordinates: Float[np.ndarray, "N T K"],
    *,
    note: str,
    width: float = WIDE,
) -> Figure:
    """The first coordinates (at most six) of each path over time, one line a path."""
    figure, panels = _coordinate_panels(coordinates.shape[2], width, note)
    for k, axes in enumerate(panels):
        lines = coordinates[:, :, k].T  # [T, N]
        axes.plot(global_step, lines, color=BLUE, alpha=thin_alpha(coordinates), lw=0.9)
    return figure


@styled
def true_against_forecast_coordinates(
    global_step: Integer[np.ndarray, " T"],
    true: Float[np.ndarray, "T K"],
    forecasts: Sequence[tuple[int, Float[np.ndarray, "_ K"]]],
    *,
    note: str,
    width: float = WIDE,
) -> Figure:
    """One path's first coordinates (at most six) and the forecasts of them.

    Args:
        global_step: environment steps at each checkpoint.
        true: the coordinates of the path's checkpoints.
        forecasts: for each forecast, the index of the last checkpoint in its history and the
            coordinates `[H, K]` of the H checkpoints after it.
        note: printed on the figure.
        width: in inches.

    Raises:
        TiplError: a forecast ends after the path does.
    """
    figure, panels = _coordinate_panels(true.shape[1], width, note)
    for k, axes in enumerate(panels):
        axes.plot(global_step, true[:, k], color=BLUE, alpha=0.75)
    for start, ahead in forecasts:
        if start < 0 or start + len(ahead) >= len(true):
            raise TiplError(
                f"a forecast of {len(ahead)} checkpoints after checkpoint {start} was given for a "
                f"path of {len(true)}; expected it to end within the path"
            )
        steps = global_step[start : start + len(ahead) + 1]
        values = np.concatenate([true[start : start + 1], ahead])  # [H + 1, K]
        for k, axes in enumerate(panels):
            axes.plot(steps, values[:, k], color=ACCENT, linestyle="--")
            axes.plot(steps[:1], values[:1, k], "o", color=ACCENT, ms=5, mew=0)
    legend(
        figure,
        {
            "true path": Line2D([], [], color=BLUE, alpha=0.75),
            "forecast, from the last known checkpoint": Line2D(
                [], [], color=ACCENT, linestyle="--", marker="o", ms=5, mew=0, markevery=[0]
            ),
        },
    )
    return figure


@styled
def return_against_horizon(
    horizons: Integer[np.ndarray, " H"],
    panels: Mapping[str, Mapping[str, Float[np.ndarray, "H 3"]]],
    *,
    note: str,
    width: float = WIDE,
) -> Figure:
    """The return of forecast policies against how far ahead they were forecast.

    Args:
        horizons: checkpoints ahead.
        panels: for each panel's title (as "history: 50% of the path") and method, a row `value,
            low, high` a horizon: an array of `stats.Interval`.
        note: printed on the figure.
        width: in inches.
    """
    figure, drawn = _horizon_panels(horizons, panels, "episodic return", note, width)
    _start_at_zero(drawn)
    return figure


@styled
def forecast_error_against_horizon(
    horizons: Integer[np.ndarray, " H"],
    panels: Mapping[str, Mapping[str, Float[np.ndarray, "H 3"]]],
    *,
    note: str,
    width: float = WIDE,
) -> Figure:
    """Weight error relative to standing still, on a log scale, against the horizon.

    Takes what `return_against_horizon` takes. The dashed line at 1 is standing still: below it a
    forecast is closer to the true later weights than the last known weights are.
    """
    label = "weight error relative to standing still"
    figure, drawn = _horizon_panels(horizons, panels, label, note, width)
    for axes in drawn:
        axes.axhline(1, color=INK, alpha=0.6, lw=1, linestyle="--")
    log_axis(drawn[0], "y")
    return figure


@styled
def optimize_distribution(
    groups: Mapping[str, Float[np.ndarray, " _"]], *, note: str, width: float = WIDE
) -> Figure:
    """The returns of many policies for each method: a dot a policy, the median, the middle half."""
    finite = {name: returns[np.isfinite(returns)] for name, returns in groups.items()}
    labels = [textwrap.fill(_group_label(*group), int(width * 13)) for group in finite.items()]
    height = 0.5 + 0.6 * len(groups) + 0.15 * sum(1 + label.count("\n") for label in labels)
    figure, (axes,) = panel_grid(1, width, height, "episodic return", "", note, grid="x")
    for row, (name, returns) in enumerate(finite.items()):
        colour = method_colour(name)
        jitter = (np.arange(len(returns)) * 0.618 % 1 - 0.5) * 0.3
        axes.plot(returns, row + jitter, "o", color=colour, alpha=0.45, ms=4, mew=0)
        if len(returns):
            low, median, high = np.quantile(returns, [0.25, 0.5, 0.75])
            axes.fill_between([low, high], row - 0.2, row + 0.2, color=colour, alpha=0.22, lw=0)
            axes.vlines(median, row - 0.22, row + 0.22, color=colour, lw=2.6)
        label = axes.text(0, row - 0.28, labels[row], transform=axes.get_yaxis_transform())
        label.set_in_layout(False)  # it may be wider than the panel's data
    axes.set_ylim(len(groups) - 0.6, -0.8)  # the first group on top
    axes.set_yticks([])
    axes.set_xlim(left=min(0, axes.get_xlim()[0]))
    return figure


@styled
def training_curve(
    step: Integer[np.ndarray, " S"],
    train_loss: Float[np.ndarray, " S"],
    held_out_loss: Float[np.ndarray, " S"],
    standing_still_loss: float,
    *,
    note: str,
    data: str = "paths",
    width: float = WIDE,
) -> Figure:
    """The model's loss over its training, beside the loss of standing still.

    Where a loss was not measured it is NaN: the known values are joined. `data` is what the model
    learns from.
    """
    figure, (axes,) = panel_grid(1, width, 3.0, "optimiser steps", "mean squared error", note)
    axes.plot(step, train_loss, color=ACCENT, alpha=0.55, lw=1)
    known = np.isfinite(held_out_loss)
    axes.plot(step[known], held_out_loss[known], color=ACCENT, lw=2.2)
    axes.axhline(standing_still_loss, color=GREY, linestyle="--", lw=1.4)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    log_axis(axes, "y")
    legend(
        figure,
        {
            f"training {data}": Line2D([], [], color=ACCENT, alpha=0.55, lw=1),
            f"held-out {data}": Line2D([], [], color=ACCENT, lw=2.2),
            "standing still": Line2D([], [], color=GREY, linestyle="--", lw=1.4),
        },
    )
    return figure


def _group_label(name: str, returns: Float[np.ndarray, " _"]) -> str:
    if not len(returns):
        return f"{name}: no finite return"
    return f"{name}: median {format_number(float(np.median(returns)))}, {len(returns)} policies"


def _start_at_zero(panels: Sequence[Axes]) -> None:
    """Puts the foot of a shared axis at zero, unless something is below it."""
    if min(axes.dataLim.y0 for axes in panels) >= 0:
        panels[0].set_ylim(bottom=0)


def _coordinate_panels(ranks: int, width: float, note: str) -> tuple[Figure, list[Axes]]:
    count = min(ranks, 6)
    figure, panels = panel_grid(
        count, width, 1.9, "environment steps", "coordinate (weight units)", note
    )
    for k, axes in enumerate(panels):
        axes.set_title(f"coordinate {k + 1}")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    return figure, panels


def _horizon_panels(
    horizons: Integer[np.ndarray, " H"],
    panels: Mapping[str, Mapping[str, Float[np.ndarray, "H 3"]]],
    y_label: str,
    note: str,
    width: float,
) -> tuple[Figure, list[Axes]]:
    figure, drawn = panel_grid(
        len(panels), width, 2.4, "horizon (checkpoints ahead)", y_label, note, share_y=True
    )
    names = list(dict.fromkeys(name for methods in panels.values() for name in methods))
    styles: dict[str, dict[str, Any]] = {}
    for name in names:
        colour = method_colour(name)
        same = sum(style["color"] == colour for style in styles.values())
        styles[name] = {"color": colour, "linestyle": _DASHES[same % len(_DASHES)]}
        if colour == ACCENT:
            styles[name] |= {"lw": 2.3, "zorder": 3}
    for axes, (title, methods) in zip(drawn, panels.items(), strict=True):
        axes.set_title(title)
        for name, intervals in methods.items():
            known = np.isfinite(intervals[:, 0])  # a panel has values at some of the horizons
            value, low, high = intervals[known].T  # [3, known]
            at = horizons[known]
            axes.fill_between(at, low, high, color=method_colour(name), alpha=0.14, lw=0)
            axes.plot(at, value, **styles[name], marker="o", ms=4, mew=0)
        log_axis(axes, "x")
    handles: dict[str, Line2D | Patch] = {
        name: Line2D([], [], **style) for name, style in styles.items()
    }
    handles["95% interval"] = Patch(color=GREY, alpha=0.3, lw=0)
    legend(figure, handles)
    return figure, drawn
