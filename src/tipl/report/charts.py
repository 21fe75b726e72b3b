"""The charts: each draws results, or lines and dots of plain arrays, as a Matplotlib `Figure`.

Every chart takes its `width` in inches, for which it lays out its panels: the same picture serves a
page (`WIDE`) and a phone (`NARROW`). Those of arrays print a `note` (the numbers of trials and
episodes); those of `Rows` find it in the results. NaN is a gap. The look is in `tipl.report.style`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Integer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter, PercentFormatter

from tipl.core.arrays import Array
from tipl.report.methods import drawn_methods, line_styles, method_of
from tipl.report.palette import ACCENT, BLUE, GREY, INK
from tipl.report.results import Rows, place_label
from tipl.report.style import WIDE, legend, log_axis, panel_grid, styled, thin_alpha
from tipl.report.tables import format_number

STEPS = "environment steps"
"""What most charts are over."""

INTERVAL = {"95% interval": Patch(color=GREY, alpha=0.3, lw=0)}
"""What legends say of bands."""
DOT_SIZES = (4.0, 6.0, 8.0, 10.0)  # of shares, the smallest share first

Handle = Line2D | Patch
Axis = Literal["plain", "steps", "log", "log steps", "share"]


@dataclass(frozen=True, eq=False)
class Line:
    """A line of a panel, or many alike."""

    x: Any  # C places; None for a line across the panel
    y: Any  # its values [C], or those of N lines [C, N]; one number for a line across
    look: Mapping[str, Any]  # Matplotlib's keywords of a line
    label: str = ""  # what the legend calls it; nothing leaves it out
    band: tuple[Any, Any] | None = None  # lower and upper bounds [C] of a band around it
    shade: float = 0.14  # opacity of the band
    in_legend: Mapping[str, Any] = field(default_factory=dict)  # keywords that differ there

    def draw(self, axes: Axes) -> None:
        """Adds it to a panel."""
        if self.band is not None:
            step: Any = "post" if self.look.get("drawstyle") == "steps-post" else None
            color = self.look["color"]
            axes.fill_between(self.x, *self.band, color=color, alpha=self.shade, lw=0, step=step)
        if self.x is None:
            axes.axhline(self.y, **self.look)
        else:
            axes.plot(self.x, self.y, **self.look)


@styled
def line_chart(
    panels: Mapping[str, Sequence[Line]],
    *,
    x_label: str,
    y_label: str,
    note: str,
    height: float = 3.4,
    x_axis: Axis = "plain",
    y_axis: Axis = "plain",
    share_y: bool = False,
    from_zero: bool = False,
    limits: Mapping[str, tuple[float | None, float | None]] = MappingProxyType({}),
    also: Mapping[str, Handle] = MappingProxyType({}),
    width: float = WIDE,
) -> Figure:
    """Lines in panels, by the panels' titles (a panel alone needs none: `""`), with one legend.

    The figure's width and a panel's height are in inches. Axes are of steps ("10k"), of shares
    ("10%"), logarithmic or plain; the vertical one may be the same for all panels, and may begin at
    zero unless something is below. `limits` say where axes begin and end, by `xlim` and `ylim`, and
    `also` what the legend has beside the lines.
    """
    figure, drawn = panel_grid(len(panels), width, height, x_label, y_label, note, share_y=share_y)
    handles: dict[str, Handle] = {}
    for axes, (title, lines) in zip(drawn, panels.items(), strict=True):
        if title:
            axes.set_title(title)
        for line in lines:
            line.draw(axes)
            if line.label:
                handles[line.label] = handle(**{**line.look, **line.in_legend})
        _scale(axes, "x", x_axis)
    if from_zero and min(axes.dataLim.y0 for axes in drawn) >= 0:
        drawn[0].set_ylim(bottom=0)
    drawn[0].set(**limits)
    for axes in drawn[:1] if share_y else drawn:
        _scale(axes, "y", y_axis)
    if handles or also:
        legend(figure, {**handles, **also})
    return figure


def _scale(axes: Axes, which: Literal["x", "y"], kind: Axis) -> None:
    axis = axes.xaxis if which == "x" else axes.yaxis
    if kind == "log":
        log_axis(axes, which)
    elif kind == "log steps":
        axes.set(**{f"{which}scale": "log"})
        low, high = axis.get_view_interval()
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high <= 100 * low else (1,)))
        axis.set_minor_formatter(NullFormatter())
    if kind in ("steps", "log steps"):
        axis.set_major_formatter(EngFormatter(sep=""))
    elif kind == "share":
        axis.set_major_formatter(PercentFormatter(1))


ZERO = Line(None, 0, {"color": INK, "alpha": 0.25, "lw": 0.8})
"""A thin line at zero."""


def handle(**look: Any) -> Handle:
    """A line of the legend that stands for others."""
    return Line2D([], [], **look)


def curve(
    x: Array,
    intervals: Float[np.ndarray, "C 3"],
    look: Mapping[str, Any],
    label: str = "",
    *,
    stepped: bool = False,
) -> Line:
    """A line in its intervals (rows `value, low, high`), with marks at its places.

    Or `stepped`, where a value holds until the next place. For `look` and `label` see `Line`.
    """
    drawn = {"drawstyle": "steps-post"} if stepped else {"marker": "o", "ms": 4, "mew": 0}
    value, low, high = intervals.T
    return Line(x, value, {**look, **drawn}, label, (low, high), in_legend={"marker": ""})


@dataclass(frozen=True)
class Lines:
    """Draws a metric of methods over the horizon, with intervals: a panel a history."""

    metric: str
    y_label: str = ""  # by default the metric's name
    where: Mapping[str, Any] = field(default_factory=dict)  # see `Rows.where`
    methods: Callable[[Sequence[str]], list[str]] = drawn_methods
    """which of the names that the results have are drawn, in order"""
    y_axis: Axis = "plain"
    reference: float | None = None  # where a dashed line is drawn

    def drawn(self, results: Rows) -> Rows:
        """Those of some results that are drawn."""
        measured = results.where(metric=self.metric, horizon=bool)
        return measured.where(method=self.methods(measured.values("method")), **self.where)

    def __call__(self, results: Rows, *, width: float = WIDE) -> Figure:
        """The figure of some results."""
        measured, found = results.where(metric=self.metric, horizon=bool), self.drawn(results)
        present = set(found.values("method"))
        styles = line_styles([name for name in measured.values("method") if name in present])
        for style in styles.values():
            if style["color"] == ACCENT:
                style |= {"lw": 2.3, "zorder": 3}
        panels: dict[str, list[Line]] = {}
        for start in sorted(found.values("start")):
            lines = panels[place_label(start=start) + (" of the path" if start else "")] = []
            for name, style in styles.items():
                rows = sorted(found.where(start=start, method=name), key=lambda r: r.horizon or 0)
                if rows:
                    intervals = np.array([(row.value, row.low, row.high) for row in rows])
                    horizons = np.array([row.horizon for row in rows])
                    lines.append(curve(horizons, intervals, style, name))
            if self.reference is not None:
                across = {"color": INK, "alpha": 0.6, "lw": 1, "linestyle": "--"}
                lines.append(Line(None, self.reference, across))
        return line_chart(
            panels, x_label="horizon (checkpoints ahead)", x_axis="log", height=2.4, share_y=True,
            y_label=self.y_label or self.metric.replace("_", " "), y_axis=self.y_axis,
            from_zero=self.y_axis == "plain", also=INTERVAL, width=width,
            note=f"{episodes_note(found)}, mean and 95% interval",
        )  # fmt: skip


@dataclass(frozen=True)
class StepsToReach:
    """Draws a dot at the steps that each method needs for each share of PPO's improvement.

    Methods that reach none are left out.
    """

    metric: str  # the number of steps, NaN where a share is not reached
    where: Mapping[str, Any] = field(default_factory=dict)  # see `Rows.where`

    def drawn(self, results: Rows) -> Rows:
        """Those of some results that are drawn."""
        found = results.where(metric=self.metric, **self.where)
        return found.where(method=found.where(value=np.isfinite).values("method"))

    @styled
    def __call__(self, results: Rows, *, width: float = WIDE) -> Figure:
        """The figure of some results."""
        found = self.drawn(results)
        shares, reached = sorted(found.values("share")), found.where(value=np.isfinite)
        sizes = dict(zip(shares, DOT_SIZES[-len(shares) :], strict=True))
        rows = [reached.where(method=name) for name in found.values("method")]
        labels = [f"{own[0].method}: {max(own.values('share')):.0%} reached" for own in rows]
        labels = [textwrap.fill(label, int(width * 13)) for label in labels]
        lines = max(1 + label.count("\n") for label in labels)
        height = 0.7 + (0.32 + 0.16 * lines) * len(labels)
        note = f"{episodes_note(found)}; 95% interval over resampled trials"
        figure, axes = _strips(labels, 0.22, height, f"{STEPS} of one trial", note, width)
        for row, own in enumerate(rows):
            for result in own:
                colour = method_of(result.method).colour
                known = [b for b in (result.low, result.high) if np.isfinite(b)]
                axes.plot(known, [row] * len(known), color=colour, alpha=0.3, lw=3)
                dot = {"color": colour, "ms": sizes[result.share], "alpha": 0.6, "mew": 0}
                axes.plot([result.value], [row], "o", **dot)
        axes.set_ylim(len(rows) - 0.5, -0.9)
        axes.set_xlim(left=-0.02 * axes.get_xlim()[1])
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        dot = {"color": GREY, "marker": "o", "ls": "", "alpha": 0.7, "mew": 0}
        legend(figure, {place_label(share=s): handle(ms=ms, **dot) for s, ms in sizes.items()})
        return figure


def episodes_note(results: Rows) -> str:
    """What results rest on: "32 held-out trials, 1 episode each"."""
    trials, episodes = (max(results.values(name), default=0) for name in ("n_trials", "n_episodes"))
    note = f"{trials} held-out trials"
    return f"{note}, {episodes} episode{'s' * (episodes > 1)} each" if episodes else note


def learning_curves(
    global_step: Integer[np.ndarray, " T"],
    episodic_return: Float[np.ndarray, "N T"],
    *,
    note: str,
    width: float = WIDE,
) -> Figure:
    """PPO's episodic return over a trial: a thin line a trial, the median and the middle half."""
    seen = np.isfinite(episodic_return).any(axis=0)  # quantiles of nothing would warn
    low, median, high = np.full((3, seen.sum()), np.nan)
    if seen.any():  # an episode of some trial has ended
        low, median, high = np.nanquantile(episodic_return[:, seen], [0.25, 0.5, 0.75], axis=0)
    thin, bold = {"alpha": thin_alpha(episodic_return), "lw": 0.7}, {"color": BLUE, "lw": 2.4}
    every = Line(global_step, episodic_return.T, {"color": BLUE, **thin})
    middle = Line(global_step[seen], median, bold, "median", (low, high), shade=0.25)
    also = {
        "middle half of the trials": Patch(color=BLUE, alpha=0.25, lw=0),
        "one trial": handle(color=BLUE, alpha=0.6, lw=0.7),
    }
    return line_chart(
        {"": [every, middle]}, x_label=STEPS, y_label="episodic return", note=note,
        x_axis="steps", from_zero=True, also=also, width=width,
    )  # fmt: skip


@styled
def return_strips(
    groups: Mapping[str, Float[np.ndarray, " _"]], *, note: str, width: float = WIDE
) -> Figure:
    """The returns of many policies for each method: a dot a policy, the median, the middle half."""
    finite = {name: returns[np.isfinite(returns)] for name, returns in groups.items()}
    labels = []
    for name, returns in finite.items():
        text = "no finite return"
        if len(returns):
            text = f"median {format_number(np.median(returns))}, {len(returns)} policies"
        labels.append(textwrap.fill(f"{name}: {text}", int(width * 13)))
    height = 0.5 + 0.6 * len(groups) + 0.15 * sum(1 + label.count("\n") for label in labels)
    figure, axes = _strips(labels, 0.28, height, "episodic return", note, width)
    for row, (name, returns) in enumerate(finite.items()):
        _dots(axes, returns, name, float(row), spread=0.3, size=4.0, half=0.22, lw=2.6)
        if len(returns):
            middle, colour = np.quantile(returns, [0.25, 0.75]), method_of(name).colour
            axes.fill_between(middle, row - 0.2, row + 0.2, color=colour, alpha=0.22, lw=0)
    axes.set_ylim(len(groups) - 0.6, -0.8)  # the first group on top
    axes.set_xlim(left=min(0, axes.get_xlim()[0]))
    return figure


@styled
def ratio_strips(
    panels: Mapping[str, Mapping[str, Float[np.ndarray, " N"]]],
    *,
    x_label: str,
    note: str,
    width: float = WIDE,
) -> Figure:
    """Ratios on a logarithmic axis: a dot a trial, a bar at the median, a row a part and method.

    The panels hold for each part and method the ratio of each trial; infinite ones are left out.
    """
    names = list(dict.fromkeys(name for methods in panels.values() for name in methods))
    known = {
        part: {name: ratios[np.isfinite(ratios)] for name, ratios in methods.items()}
        for part, methods in panels.items()
    }
    labels = []
    for part, methods in known.items():
        medians = [format_number(np.median(m)) for m in methods.values() if len(m)]
        labels.append(f"{part}: median {' and '.join(medians) or '–'}")
    figure, axes = _strips(labels, 0.34, 0.7 + 0.7 * len(panels), x_label, note, width)
    for row, methods in enumerate(known.values()):
        for name, ratios in methods.items():
            centre = row + 0.06 + 0.24 * (names.index(name) - (len(names) - 1) / 2)
            _dots(axes, ratios, name, centre, spread=0.16, size=3.5, half=0.12, lw=2.4)
    axes.set_ylim(len(panels) - 0.62, -0.7)  # the first part on top
    log_axis(axes, "x")
    axes.set_xlim(left=min(1, axes.get_xlim()[0]))
    dot = {"marker": "o", "ms": 5, "mew": 0, "lw": 0}
    legend(figure, {n: handle(color=method_of(n).colour, **dot) for n in names})
    return figure


def _strips(
    labels: Sequence[str], lift: float, height: float, x_label: str, note: str, width: float
) -> tuple[Figure, Axes]:
    """A figure of rows below their labels."""
    figure, (axes,) = panel_grid(1, width, height, x_label, "", note, grid="x")
    for row, label in enumerate(labels):
        text = axes.text(0, row - lift, label, transform=axes.get_yaxis_transform())
        text.set_in_layout(False)  # it may be wider than the panel's data
    axes.set_yticks([])
    return figure, axes


def _dots(
    axes: Axes, values: Array, name: str, row: float, *,
    spread: float, size: float, half: float, lw: float,
) -> None:  # fmt: skip
    """A dot a value of a method, so that no two of many hide each other, and the median's bar."""
    colour = method_of(name).colour
    jitter = (np.arange(len(values)) * 0.618 % 1 - 0.5) * spread
    axes.plot(values, row + jitter, "o", color=colour, ms=size, alpha=0.45, mew=0)
    if len(values):
        axes.vlines(np.median(values), row - half, row + half, color=colour, lw=lw)
