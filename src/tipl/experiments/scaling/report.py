"""The report of an experiment on scaling: curves, their laws, and what these foretold."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from rich.console import Console

from tipl.experiments.scaling.config import AXES
from tipl.experiments.scaling.fit import FEWEST
from tipl.experiments.scaling.outcome import (
    AXIS_NAMES,
    METHODS,
    PARAMETERS,
    Scaling,
    measured_interval,
)
from tipl.experiments.scaling.points import Size, largest, seeds, sizes
from tipl.experiments.scaling.predicting import METRICS, Metric
from tipl.report.charts import Handle, Line, handle, line_chart
from tipl.report.methods import method_of
from tipl.report.page import Report, Section
from tipl.report.palette import BLUE, GREY, INK
from tipl.report.results import Result
from tipl.report.tables import Cell, Judged, Table, format_number, format_result, results_table

PLACES = 60
"""Of a drawn law."""

TITLES = {
    "trials": "Over the number of training trials",
    "widths": "Over the size of the model",
    "num_steps": "Over training compute",
}

SENTENCES = {
    "trials": "Subsets of the training trials are nested: the larger contain the smaller ones.",
    "widths": "What grows is the width of the model's states; the axis counts parameters.",
    "num_steps": "What grows is the number of optimiser steps, with which operations and processor "
    "time grow in proportion; the learning rate's schedule ends with the steps.",
}

MEASURED_DOT = {"linestyle": "", "marker": "o", "ms": 4.5, "mew": 0}
RUN_DOT = {"linestyle": "", "marker": "o", "ms": 2.8, "mew": 0, "alpha": 0.45}
PREDICTED_DOT = {"linestyle": "", "marker": "D", "ms": 6, "mfc": "none", "mew": 1.4, "color": BLUE}


def grown(found: Scaling) -> list[str]:
    """The axes that have more than one size."""
    return [axis for axis in AXES if len(getattr(found.config, axis)) > 1]


# --- the curves -------------------------------------------------------------------------------


def _lines(found: Scaling, axis: str, metric: Metric) -> Iterator[Line]:
    """One quantity along an axis: its law, its runs, their means, and what was foretold."""
    series = found.series(axis, metric)
    colour = method_of(METHODS[metric.target]).colour
    x = np.geomspace(series.x.min(), series.x.max(), PLACES)
    one = found.prediction(axis, metric)
    law = found.fit(axis, metric, foretelling=one is not None)
    if law is not None:
        look = {"color": GREY, "lw": 1.4, "linestyle": "--"}
        yield Line(x, law.law.at(x), look, band=law.band(x), shade=0.2)
    if metric.name == "episodic_return" and metric.target == "own":
        yield Line(None, found.ppo.value, {"color": BLUE, "lw": 1, "linestyle": ":"}, "PPO itself")
    if not metric.rising:
        still = {"color": INK, "alpha": 0.5, "lw": 0.8, "linestyle": ":"}
        yield Line(None, 1.0, still, "standing still")
    counts = [len(those) for those in series.runs]
    by_seed = np.concatenate([those.mean(axis=1) for those in series.runs])
    yield Line(np.repeat(series.x, counts), by_seed, {**RUN_DOT, "color": colour})
    means = np.array([measured_interval(those) for those in series.runs])
    yield _bars(series.x, means[:, 1], means[:, 2], colour)
    yield Line(series.x, means[:, 0], {**MEASURED_DOT, "color": colour})
    if one is not None:
        end = series.x[-1:]
        yield _bars(end, np.array([one.low]), np.array([one.high]), BLUE, width=4.0, alpha=0.35)
        yield Line(end, np.array([one.value]), PREDICTED_DOT)


def _bars(
    x: np.ndarray, low: np.ndarray, high: np.ndarray, colour: str, width: float = 1.3,
    alpha: float = 0.9,
) -> Line:  # fmt: skip
    """Vertical bars, drawn as one line with gaps."""
    gap = np.full(len(x), np.nan)
    places = np.stack([x, x, gap], axis=1).ravel()  # [C, 3] -> [3 C]
    ends = np.stack([low, high, gap], axis=1).ravel()  # [C, 3] -> [3 C]
    return Line(places, ends, {"color": colour, "lw": width, "alpha": alpha})


def _legend() -> dict[str, Handle]:
    """What the marks of all panels mean."""
    dark = {"color": INK}
    return {
        "mean of the seeds and 95% interval": handle(**MEASURED_DOT, **dark),
        "one seed": handle(**RUN_DOT, **dark),
        "law of the smaller sizes, 95% interval": handle(color=GREY, linestyle="--"),
        "predicted for the largest size": handle(**PREDICTED_DOT),
    }


def _curves(found: Scaling, axis: str) -> Section:
    panels = {metric.label: list(_lines(found, axis, metric)) for metric in METRICS}
    base = Size(**found.config.base)
    fixed = {
        "trials": f"width {base.widths}, {base.num_steps:,} steps",
        "widths": f"{base.trials} trials, {base.num_steps:,} steps",
        "num_steps": f"{base.trials} trials, width {base.widths}",
    }[axis]
    return Section(
        TITLES[axis],
        f"{SENTENCES[axis]} All else stays as it is: {fixed}. {_too_few(found, axis)}".strip(),
        partial(
            line_chart, panels, x_label=AXIS_NAMES[axis], y_label="", x_axis="log steps",
            height=2.6, also=_legend(), note=_note(found),
        ),
        table=_points_table(found, axis),
    )  # fmt: skip


def _too_few(found: Scaling, axis: str) -> str:
    """What is said where nothing can be foretold."""
    along = sizes(found.config, axis)
    if found.prediction(axis, METRICS[0]) is not None:
        return ""
    smaller = len(along) - (largest(found.config, axis) is not None)
    return (
        f"There is no prediction: the number of smaller sizes is {smaller}, and a law of three "
        f"parameters takes {FEWEST}."
    )


def _note(found: Scaling) -> str:
    config, episodes = found.config, found.config.episodes
    counts = {
        target: next(len(one.returns) for p, one in found.known.items() if p.target == target)
        for target in METHODS
    }
    return (
        f"own: {counts['own']} held-out trials; elite: {counts['elite']} fresh networks; "
        f"{episodes} episode{'s' * (episodes > 1)} each; errors after {config.history:.0%} of the "
        f"path, {config.horizon} checkpoints ahead, in units of standing still's"
    )


# --- the tables -------------------------------------------------------------------------------


def _points_table(found: Scaling, axis: str) -> Table:
    """A row a size: what it is, what it took, and what it does."""
    rows: list[list[Cell]] = []
    for size in sizes(found.config, axis):
        models = found.models(size)
        parameters = max(one.num_parameters for _, one in models)
        seconds = sum(one.cpu_seconds for p, _ in models if (one := found.took(p)) is not None)
        count = len(seeds(found.config, size))
        flops = sum(one.flops for _, one in models) / count
        cells: list[Cell] = []
        for metric in METRICS:
            series = found.series(axis, metric)
            runs = series.runs[series.sizes.index(size)]
            interval = measured_interval(runs)
            cells.append(Result(found.config.env_id, "", "", metric.name, *interval))
        value = f"{getattr(size, axis):,}"
        name = f"{value} ({parameters:,})" if axis == "widths" else value
        rows.append([name, count, *cells, format_number(seconds / count), f"{flops:.2g}"])
    labels = [metric.label for metric in METRICS]
    return Table(
        "Means over seeds [95% interval over held-out trials or fresh networks, and seeds]; "
        "processor seconds (whole processes, their start included) and floating-point operations "
        "(estimated from a few steps) of one seed, own and elite together",
        [_COLUMNS[axis], "seeds", *labels, "CPU s", "operations"],
        rows,
    )


def _foretold(found: Scaling) -> Table:
    """What was predicted of the largest sizes, beside what was measured of them."""
    rows: list[list[Cell]] = []
    for axis in grown(found):
        for metric in METRICS:
            one = found.prediction(axis, metric)
            if one is None:
                continue
            measured = found.last(axis, metric)
            said = _result(found, metric, (one.value, one.low, one.high))
            inside = one.low <= measured.value <= one.high
            found_there = _result(found, metric, measured)
            judged = Judged(found_there, inside, "inside" if inside else "outside")
            when = "before it was run" if one.foretold else "afterwards"
            rows.append([f"{metric.label}, {one.at:,} {_AT[axis]}", said, judged, when])
    caption = (
        "The largest size of each axis, predicted from the smaller ones [95% interval of one run], "
        "and measured [95% interval]: ✓ inside what was predicted, ✗ outside"
    )
    return Table(
        caption if rows else "Nothing was predicted: no axis has enough sizes for a law",
        ["largest size", "predicted", "measured", "when"],
        rows,
    )


_COLUMNS = {"trials": "trials", "widths": "width (parameters)", "num_steps": "steps"}
"""What the first column of an axis' table is called."""

_AT = {"trials": "trials", "widths": "units wide", "num_steps": "steps"}


def _result(found: Scaling, metric: Metric, interval: tuple[float, float, float]) -> Result:
    return Result(found.config.env_id, found.config.COMMAND, "", metric.name, *interval)


def _laws(found: Scaling) -> Section:
    rows: list[list[Cell]] = []
    for axis in grown(found):
        for metric in METRICS:
            law = found.fit(axis, metric)
            cells: list[Cell] = [None] * len(PARAMETERS)
            if law is not None:
                cells = [_result(found, metric, law.parameter(name)) for name in PARAMETERS]
            rows.append([f"{metric.label} over {AXIS_NAMES[axis]}", *cells])
    return Section(
        "The laws",
        "y = c + a · x^−b, by robust least squares (soft L1) on the means of all sizes, the "
        "largest included. a is negative where y rises to c. Where the interval of b is wide, or "
        "that of c reaches far, the sizes say little of where the curve ends.",
        table=Table(
            "Parameters [95% interval: refitted to resampled seeds and held-out trials or fresh "
            f"networks]; empty: fewer than {FEWEST} sizes",
            ["quantity", "c", "a", "b"],
            rows,
        ),
    )


# --- the report -------------------------------------------------------------------------------


def scaling_report(found: Scaling) -> Report:
    """The report's content."""
    return Report(
        title=f"{found.config.env_id}: how results grow with data, model and compute",
        lead=lead(found),
        points=said_points(found),
        headline=_foretold(found),
        sections=[*(_curves(found, axis) for axis in grown(found)), _laws(found)],
        results=found.rows,
        commands=[found.command, *(stage.command for stage in found.stages)],
        stages=found.stages,
    )


def print_headline(found: Scaling, console: Console) -> None:
    """Prints what was predicted and measured, as far as a terminal has room for it."""
    console.print(results_table(_foretold(found)))


def lead(found: Scaling) -> list[str]:
    """What was done, in sentences."""
    config = found.config
    return [
        "NeuronTransformers for both targets were trained on nested subsets of the trials of one "
        "dataset, in several sizes, for several numbers of steps: one axis at a time.",
        f"Models up to the base have {config.seeds} seed{'s' * (config.seeds > 1)}, larger ones "
        f"{config.large_seeds}; each seed has its own order of the trials, its own initial model "
        "and its own batches.",
        f"PPO itself brings the held-out networks to {format_number(found.ppo.value)}.",
    ]


def said_points(found: Scaling) -> list[str]:
    """What the numbers say, axis by axis: from the smallest size to the largest."""
    said = []
    for axis in grown(found):
        along, parts = sizes(found.config, axis), []
        for metric in METRICS:
            runs = found.series(axis, metric).runs
            first, last = (
                format_result(_result(found, metric, measured_interval(one)))
                for one in (runs[0], runs[-1])
            )
            parts.append(f"{metric.label} from {first} to {last}")
        ends = [getattr(one, axis) for one in (along[0], along[-1])]
        said.append(f"From {ends[0]:,} to {ends[1]:,} {_AT[axis]}: {'; '.join(parts)}.")
    return said
