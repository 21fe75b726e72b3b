"""The dimension of paths: its rows and figures. Is PPO more than a random walk?

`measure_dataset` measures; each function here makes one figure of what it found, whose sentence is
computed from the numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Integer
from matplotlib.patches import Patch

from tipl.core.arrays import Array
from tipl.evaluation.stats import Interval, mean_interval, paired_difference_interval
from tipl.experiments.run_report import coordinate_chart
from tipl.paths import PathDataset
from tipl.paths.dimension import (
    ACTIVITY_SHARES,
    BETAS,
    CENTERS,
    PPO_PATH,
    RANDOM_WALK,
    WHOLE_ACTOR,
    PathDimension,
)
from tipl.paths.svd import information_dimension
from tipl.report.charts import Handle, Line, handle, line_chart, ratio_strips
from tipl.report.methods import line_styles
from tipl.report.page import Section
from tipl.report.palette import GREY, SERIES
from tipl.report.results import Result
from tipl.report.tables import Table, format_number

REPORTED_SHARES = (0.01, 0.1, 0.5)
"""Shares of the most active parameters whose part in all movement is reported."""

BETA = 0.9
"""Of the marks D(beta), and of the comparison with a random walk."""

SHAPE = ("monotonicity", "half_waves", "harmonic_share")
"""What a `Spectrum` says of the shape of coordinates over time."""

FEW = 4  # trials whose single lines a panel of two methods has room for


def dimension_rows(measured: Sequence[PathDimension], *, task: str, command: str) -> list[Result]:
    """All measured numbers as results: means over trials with their intervals.

    Trials in which a number is not finite (the detour of a path that ends where it started) are
    left out of it, and `n_trials` counts the rest.
    """
    return [
        Result(
            task, "low dimension", part.method, metric, *_mean(known), len(known),
            command=command, part=part.part, center=center,
        )
        for part in measured
        for center, metric, values in _numbers(part)
        if len(known := np.asarray(values, np.float64)[np.isfinite(values)])
    ]  # fmt: skip


def _mean(known: Array) -> Interval:
    if (known == known[0]).all() and len(known) > 1:  # 10,000 resamplings would say the same
        return Interval(*[float(known[0])] * 3)
    return mean_interval(known)


def _numbers(part: PathDimension) -> Iterator[tuple[str | None, str, Array]]:
    """Centre, metric and the trials' values `[N]`."""
    for center, name in CENTERS.items():
        spectrum = part.spectra[center]
        yield from ((name, f"D({beta})", spectrum.dimension(beta)) for beta in BETAS)
        for metric in SHAPE:
            for k, values in enumerate(getattr(spectrum, metric).T, 1):
                yield name, f"{metric}_{k}", values
    yield None, "detour_ratio", part.detour_ratio
    yield None, "parameter_detour_ratio", part.parameter_detour
    for share in REPORTED_SHARES:
        yield None, f"activity_top_{share:.0%}", part.activity_of(share)


def dimension_sections(paths: PathDataset, measured: Sequence[PathDimension]) -> list[Section]:
    """All four figures of what `measure_dataset(paths)` found."""
    return [
        information_section(measured),
        coordinates_section(paths.global_step, measured),
        detour_section(measured),
        activity_section(measured),
    ]


def information_section(measured: Sequence[PathDimension]) -> Section:
    """Information of the first directions of each part, beside a random walk's.

    Lines are medians over trials, bands the middle half, and marks the D(0.9) of the median.
    """
    parts = _parts(measured)
    panels: dict[str, list[Line]] = {}
    for name, methods in parts.items():
        lines, needed = [], []
        for method, part in methods.items():
            information = part.spectra["initial"].information
            low, median, high = np.quantile(information, [0.25, 0.5, 0.75], axis=0)
            rank = information_dimension(median, BETA)
            needed.append(str(rank))
            look, ranks = _walk_style(method), np.arange(1, len(median) + 1)
            lines.append(Line(ranks, median, look, method, (low, high), shade=0.2))
            lines.append(Line([rank], [median[rank - 1]], _DOT | {"color": look["color"]}))
        panels[f"{name}: D({BETA}) = {' and '.join(needed)}"] = lines
    also: dict[str, Handle] = {
        "middle half of the trials": Patch(color=GREY, alpha=0.3, lw=0),
        f"D({BETA})": handle(**_DOT | {"color": GREY}),
    }
    mean = {name: f"{_dimension(part).mean():.1f}" for name, part in parts[WHOLE_ACTOR].items()}
    lower = [part for part, methods in parts.items() if _is_lower(methods)]
    return Section(
        "How many directions a path needs",
        f"90% of the information in a path's displacements lies in {mean[PPO_PATH]} directions "
        f"(mean over trials); a random walk with steps of the same lengths needs "
        f"{mean[RANDOM_WALK]}. Fewer than the walk's, beyond chance: "
        f"{', '.join(lower) or 'no part'}.",
        partial(
            line_chart, panels, x_label="directions k", y_label="information a_k", height=2.2,
            x_axis="log", share_y=True, limits={"ylim": (None, 1.03)}, also=also,
            note=f"displacements; {_trials(measured)}; medians of PPO path and random walk in the "
            "titles",
        ),
        Table(
            "Directions D(beta) that hold the share beta of the information, mean over trials. In "
            "raw weights, as in PPTB, the first direction is mostly that of the initial network.",
            ["part, centre, method", *(f"D({beta})" for beta in BETAS)],
            [
                [
                    f"{name}, {words}, {method}",
                    *(float(part.spectra[center].dimension(beta).mean()) for beta in BETAS),
                ]
                for name, methods in parts.items()
                for center, words in CENTERS.items()
                for method, part in methods.items()
            ],
        ),
    )  # fmt: skip


def coordinates_section(
    global_step: Integer[np.ndarray, " T"], measured: Sequence[PathDimension]
) -> Section:
    """The whole actor's first coordinates over time: monotone, then harmonic, as a walk's are.

    Each trial's coordinate is drawn relative to its largest size, so that only its shape counts.
    """
    methods = _parts(measured)[WHOLE_ACTOR]
    ppo, walk = (methods[name].spectra["initial"] for name in (PPO_PATH, RANDOM_WALK))
    count = int(np.isfinite(ppo.half_waves).all(axis=0).sum())  # coordinates that all trials have
    waves = [one.half_waves[:, :count].mean(axis=0) for one in (ppo, walk)]
    swings = [", ".join(f"{mean:.1f}" for mean in means) for means in waves]
    explained = [f"{one.harmonic_share[:, :count].mean():.0%}" for one in (ppo, walk)]
    panels: list[list[Line]] = [[] for _ in range(count)]
    for method, part in methods.items():
        coordinates, look = part.spectra["initial"].coordinates, _walk_style(method)
        largest = np.abs(coordinates).max(axis=1, keepdims=True)
        shapes = coordinates / np.where(largest > 0, largest, 1)  # [N, T, K]
        for k, lines in enumerate(panels):
            lines.append(Line(global_step, shapes[:FEW, :, k].T, look | _THIN))
            mean = shapes[:, :, k].mean(axis=0)
            lines.append(Line(global_step, mean, look, f"{method}, mean"))
    return Section(
        "Monotone first, harmonic after: the coordinates over time",
        "The rank correlation of the first coordinate with time is "
        f"{ppo.monotonicity[:, 0].mean():.3f} (random walk: {walk.monotonicity[:, 0].mean():.3f}). "
        f"The first {count} coordinates swing with {swings[0]} half-waves (random walk: "
        f"{swings[1]}); one sine wave explains {explained[0]} of their variance on average (random "
        f"walk: {explained[1]}). A random walk has harmonics of its own: such shapes alone are no "
        "sign of learning.",
        coordinate_chart(
            panels, y_label="coordinate, relative to its largest size", height=1.8, share_y=True,
            limits={"ylim": (-1.08, 1.08)},
            also={"one trial": handle(color=GREY, alpha=0.6, lw=0.7)},
            note=f"displacements of the whole actor, each trial in its own basis; "
            f"{_trials(measured)}, a few of them drawn",
        ),
        Table(
            "Shape of the whole actor's coordinates over time, mean over trials",
            ["centre, method, coordinate", "monotonicity", "half-waves", "explained by one wave"],
            [
                [
                    f"{words}, {method}, {k + 1}",
                    *(_mean_of_known(getattr(part.spectra[center], of)[:, k]) for of in SHAPE),
                ]
                for center, words in CENTERS.items()
                for method, part in methods.items()
                for k in range(count)
            ],
        ),
    )  # fmt: skip


def detour_section(measured: Sequence[PathDimension]) -> Section:
    """How much longer paths are than the distance of their ends, by part."""
    found = {(one.part, one.method): _median(one.detour_ratio) for one in measured}
    whole = {method: ratio for (part, method), ratio in found.items() if part == WHOLE_ACTOR}
    layers = {p: ratio for (p, m), ratio in found.items() if m == PPO_PATH and p != WHOLE_ACTOR}
    straightest, most = min(layers, key=layers.__getitem__), max(layers, key=layers.__getitem__)
    drawn: dict[str, dict[str, Array]] = {}
    for one in measured:
        # the walk of a single parameter ends anywhere, often at home
        if one.method == PPO_PATH or one.num_parameters > 1:
            drawn.setdefault(one.part, {})[one.method] = one.detour_ratio
    return Section(
        "Detours",
        f"A path is {format_number(whole[PPO_PATH])} times as long as the distance of its ends "
        f"(median over trials; a random walk with steps of the same lengths: "
        f"{format_number(whole[RANDOM_WALK])}). The straightest part is {straightest} "
        f"({format_number(layers[straightest])}), the largest detours are in {most} "
        f"({format_number(layers[most])}).",
        partial(
            ratio_strips, drawn,
            x_label="detour ratio (length of the path / distance of its ends)",
            note=f"{_trials(measured)}; dots are trials, bars medians",
        ),
        Table(
            "Detour ratio of a part as a whole, and of its single parameters (in a trial, the "
            "median over those that moved); medians over trials",
            ["part, method", "parameters", "whole", "single parameters"],
            [
                [
                    f"{one.part}, {one.method}", one.num_parameters,
                    found[one.part, one.method], _median(one.parameter_detour),
                ]
                for one in measured
            ],
        ),
    )  # fmt: skip


def activity_section(measured: Sequence[PathDimension]) -> Section:
    """How unevenly the parameters move: paths in a colour a part, and one walk for all."""
    parts = _parts(measured)
    lines = [Line([0, 1], [0, 1], {"color": GREY, "linestyle": ":", "lw": 1.2})]
    for index, (name, methods) in enumerate(parts.items()):
        looks: dict[str, dict[str, Any]] = {PPO_PATH: {"color": SERIES[index % len(SERIES)]}}
        if not index:  # random walks of all parts are alike
            looks[RANDOM_WALK] = {"color": GREY, "linestyle": "--", "lw": 1.4}
        for method, look in looks.items():
            activity = methods[method].activity
            moved = np.isfinite(activity).all(axis=1)
            if moved.any():
                label = name if method == PPO_PATH else method
                lines.append(Line(ACTIVITY_SHARES, activity[moved].mean(axis=0), look, label))
    moved_by = {
        name: f"{_mean_of_known(part.activity_of(0.1)):.0%}"
        for name, part in parts[WHOLE_ACTOR].items()
    }
    return Section(
        "How unevenly the parameters move",
        f"The most active tenth of the actor's parameters makes {moved_by[PPO_PATH]} of all "
        f"movement (mean over trials; a random walk's makes {moved_by[RANDOM_WALK]}, and 10% would "
        "be even).",
        partial(
            line_chart, {"": lines}, x_label="most active parameters",
            y_label="share of all movement", x_axis="share", y_axis="share",
            limits={"xlim": (0.0, 1.0), "ylim": (0.0, 1.02)},
            also={"all alike": handle(**lines[0].look)},
            note=f"sums of absolute changes between checkpoints; {_trials(measured)}, means",
        ),
        Table(
            "Share of all movement that the most active parameters of a part make, mean over "
            "trials",
            ["part, method", *(f"top {share:.0%}" for share in REPORTED_SHARES)],
            [
                [
                    f"{one.part}, {one.method}",
                    *(_mean_of_known(one.activity_of(share)) for share in REPORTED_SHARES),
                ]
                for one in measured
                if one.num_parameters > 1
            ],
        ),
    )  # fmt: skip


_DOT = {"marker": "o", "ms": 6, "ls": ""}
_THIN = {"alpha": 0.45, "lw": 0.7}


def _walk_style(name: str) -> dict[str, Any]:
    """A walk is dashed and thin: its lines run close to those that it is compared with."""
    (style,) = line_styles([name]).values()
    return style | {"lw": 2.0 if style["linestyle"] == "-" else 1.4}


def _parts(measured: Sequence[PathDimension]) -> dict[str, dict[str, PathDimension]]:
    """Measurements by part and method; parts of a single parameter are left out."""
    parts: dict[str, dict[str, PathDimension]] = {}
    for one in measured:
        if one.num_parameters > 1:
            parts.setdefault(one.part, {})[one.method] = one
    return parts


def _dimension(part: PathDimension) -> Array:
    return part.spectra["initial"].dimension(BETA)


def _is_lower(methods: dict[str, PathDimension]) -> bool:
    """Whether PPO's D(0.9) is below the walk's, by the interval of their paired difference."""
    ppo, walk = (_dimension(methods[name]).astype(float) for name in (PPO_PATH, RANDOM_WALK))
    return paired_difference_interval(ppo, walk).high < 0  # NaN for one trial: not shown


def _mean_of_known(values: Array) -> float:
    """The mean over the trials that have a finite value; NaN if none has."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else math.nan


def _median(values: Array) -> float:
    """The median over trials; a closed path's infinite ratio counts, a part at rest does not."""
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else math.nan


def _trials(measured: Sequence[PathDimension]) -> str:
    count = len(measured[0].detour_ratio)
    return f"{count} trial{'s' * (count != 1)}"
