"""The report of a run: a list of its figures in the order of the data flow, and its first words.

Each entry of `SECTIONS` is one figure: a `Section` over the results of any run, or a function that
makes one (or several) of a run. Who appends an entry has it in every report from then on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from tipl.errors import TiplError
from tipl.experiments.run import Run, load_run
from tipl.forecast.extrapolation import StandingStill
from tipl.models.kinds import loss_sentence
from tipl.paths.svd import information, information_dimension
from tipl.report import charts
from tipl.report.charts import STEPS, Line, Lines, episodes_note, line_chart, return_strips
from tipl.report.files import check_report
from tipl.report.methods import drawn_methods, method_of
from tipl.report.page import (
    Drawing,
    Entry,
    Report,
    Section,
    sections_of,
    write_report,
)
from tipl.report.palette import ACCENT, BLUE, GREY, SERIES
from tipl.report.results import Result, Rows
from tipl.report.style import thin_alpha
from tipl.report.tables import Pivot, Table, format_whole, results_table

HISTORIES = {"initial": None, "start": lambda start: start >= 0.09}
"""Results from histories that cover a good part of a path."""

FROM_LITTLE = {"initial": None, "start": lambda start: start <= 0.11}
"""Results from networks that are untrained or hardly trained."""


def learning_curves(run: Run) -> Section:
    """Return of every trial over its training."""
    returns, steps = run.paths.episodic_return().astype(np.float64), run.paths.global_step
    known = np.isfinite(returns)
    mean = np.where(known, returns, 0).sum(0) / np.maximum(known.sum(0), 1)
    return Section(
        "PPO's learning curves",
        "Each thin line is one trial; the bold line is the median and the band holds the middle "
        "half. These are returns of training episodes, with exploration noise.",
        partial(charts.learning_curves, steps, returns, note=f"{run.paths.num_trials} trials"),
        Table(
            "Mean return of training episodes",
            [STEPS, "mean episodic return"],
            [[f"{step:,}", float(value)] for step, value in zip(steps, mean, strict=True)],
        ),
    )


def svd_spectrum(run: Run) -> Section:
    """Information in the first directions of the temporal SVD; dots are D(0.9) and D(0.99)."""
    held_out = np.median([own.information for own in run.held_out], axis=0)
    spectra = {"one held-out path (median)": held_out}
    for basis in filter(None, (model.joint_basis for model in run.models.values())):
        spectra["all training paths together"] = information(basis.singular_values)
    lines, needed = [], []
    for colour, (name, known) in zip(SERIES, spectra.items(), strict=False):
        look, dot = {"color": colour}, {"marker": "o", "ls": "", "ms": 6, "mew": 0}
        found = {beta: information_dimension(known, beta) for beta in (0.9, 0.99)}
        ranks = ", ".join(f"D({beta})\u00a0=\u00a0{rank}" for beta, rank in found.items())
        lines.append(Line(np.arange(1, len(known) + 1), known, look, f"{name}: {ranks}"))
        lines += [Line([rank], [known[rank - 1]], dot | look) for rank in found.values()]
        needed.append(f"{found[0.9]:,} for {name}")
    apart = "" if run.shared_network else " Different random networks have few in common."
    return Section(
        "Information in the first directions of the temporal SVD",
        f"Directions that hold 90% of the information: {' and '.join(needed)}.{apart}",
        partial(
            line_chart, {"": lines}, x_label="rank k", y_label="information a_k", height=3.2,
            x_axis="log", limits={"ylim": (None, 1.02)},
            note="displacements from each path's start",
        ),
        Table(
            "Information a_k of the first k directions",
            ["k", *spectra],
            [
                [k, *(float(a[k - 1]) if k <= len(a) else None for a in spectra.values())]
                for k in (1, 2, 3, 4, 5, 10, 20, 50, 100, 200, 500)
                if any(k <= len(a) for a in spectra.values())
            ],
        ),
    )  # fmt: skip


def coordinate_chart(panels: list[list[Line]], **options: Any) -> Drawing:
    """Draws coordinates over environment steps, a panel each."""
    titled = {f"coordinate {k}": lines for k, lines in enumerate(panels, 1)}
    usual: dict[str, Any] = {"y_label": "coordinate (weight units)", "height": 1.9}
    return partial(line_chart, titled, x_label=STEPS, x_axis="steps", **usual | options)


def path_coordinates(run: Run) -> Section:
    """The held-out paths in their own bases."""
    paths, shown = run.forecasts.paths, min(own.coordinates.shape[1] for own in run.held_out)
    coordinates = np.stack([own.coordinates[:, :shown] for own in run.held_out])  # [N, T, K]
    look = {"color": BLUE, "alpha": thin_alpha(coordinates), "lw": 0.9}
    return Section(
        "The paths in their own coordinates",
        "In each held-out path's own basis the first coordinate grows steadily, and the later "
        "ones swing ever faster, as harmonics do: this is the regularity that can be forecast.",
        coordinate_chart(
            [[Line(paths.global_step, lines.T, look)] for lines in np.moveaxis(coordinates, 2, 0)],
            note=f"{paths.num_trials} held-out trials, one line each",
        ),
    )


def training_curves(run: Run) -> Iterator[Section]:
    """Every model's loss over its training, for each target."""
    for model in run.models.values():
        note = f"{sum(map(len, model.training_trials.values()))} training trials"
        for target in [target for target in model.targets if target in model.curves]:
            curves = {  # None, where nothing was measured, becomes NaN
                name: np.array(values, dtype=float) for name, values in model.curves[target].items()
            }
            step, held_out = curves["step"], curves["held_out_loss"]
            known = np.isfinite(held_out)
            data = "random networks" if target == "elite" else "paths"
            still = float(curves["standing_still_loss"][-1])
            thin, bold = {"color": ACCENT, "alpha": 0.55, "lw": 1}, {"color": ACCENT, "lw": 2.2}
            dashed = {"color": GREY, "linestyle": "--", "lw": 1.4}
            lines = [
                Line(step, curves["train_loss"], thin, f"training {data}"),
                Line(step[known], held_out[known], bold, f"held-out {data}"),
                Line(None, still, dashed, "standing still"),
            ]
            yield Section(
                f"Training the {model.with_options(target=target).name}",
                loss_sentence(model.kind, target),
                partial(
                    line_chart, {"": lines}, x_label="optimiser steps", height=3.0,
                    y_label="mean squared error", x_axis="steps", y_axis="log", note=note,
                ),
            )  # fmt: skip


def forecast_coordinates(run: Run) -> Iterator[Section]:
    """A held-out path beside its autoregressive forecasts, for models that read single paths."""
    path, own = run.forecasts.paths[0], run.held_out[0]
    steps = run.paths.global_step
    for model in run.models.values():
        if getattr(model, "basis", None) != "path":
            continue
        look = {"color": BLUE, "alpha": 0.75}
        panels = [[Line(steps, true, look, "true path")] for true in own.coordinates.T]
        for start in sorted({case.start for case in run.forecasts.cases}):
            if start + 1 < max(model.min_history, 3):
                continue
            ahead = model.forecast(path.params[: start + 1], range(1, run.end - start + 1))
            forecast = (ahead - path.params[0].astype(float)) @ own.basis.T
            values = np.concatenate([own.coordinates[start : start + 1], forecast])  # [H + 1, K]
            dashed: dict[str, Any] = {"color": ACCENT, "linestyle": "--"}
            dashed |= {"marker": "o", "ms": 5, "mew": 0, "markevery": [0]}
            for lines, coordinate in zip(panels, values.T, strict=True):
                label = "forecast, from the last known checkpoint"
                lines.append(Line(steps[start:], coordinate, dashed, label))
        yield Section(
            f"One held-out path and its forecasts by the {model.name}",
            "Solid: the true path in its own coordinates. Dashed: autoregressive forecasts to the "
            "end, each from the history before it. Where they part, the horizon has been passed.",
            coordinate_chart(panels, note=f"trial {path.trial}"),
        )


def _of_these_weights(names: Sequence[str]) -> list[str]:
    """Methods that aim at the true later weights, and move at all."""
    still = StandingStill.name
    return [n for n in drawn_methods(names) if n != still and not method_of(n).elsewhere]


def _over_horizons(title: str, sentence: str, chart: Lines) -> Section:
    """A metric of methods over the horizon, and its raw values."""
    details = Pivot(chart.metric, where=chart.where, methods=chart.methods)
    return Section(title, sentence, chart=chart, details=details)


RETURNS_BY_HORIZON = _over_horizons(
    "Return of forecast policies against the horizon",
    "Above the grey line of standing still, a forecast has improved the policy with no step in "
    "the environment; the blue line is where PPO itself went, with all of its steps.",
    Lines("episodic_return", where=HISTORIES),
)

WEIGHT_ERRORS_BY_HORIZON = _over_horizons(
    "Weight error of forecasts against the horizon",
    "Distance of the forecast from the true later weights, over that of standing still: below "
    "1 the forecast is closer.",
    Lines(
        "weight_error", "weight error relative to standing still", HISTORIES, _of_these_weights,
        y_axis="log", reference=1.0,
    ),
)  # fmt: skip

OPTIMISED_BY_HORIZON = _over_horizons(
    "Optimising by inference: return along the forecast",
    "Each panel starts from the little that PPO has done by then, and follows the forecast to "
    "the path's end with no further step in the environment; the blue line is PPO, with all of "
    "its steps.",
    Lines("episodic_return", where=FROM_LITTLE),
)


def optimized_networks(run: Run) -> Section:
    """Returns of untrained networks, optimised ones and PPO."""
    groups = {"untrained": run.returns.checkpoints[:, 0].mean(axis=1)}
    away: dict[str, float] = {}
    for f, case in enumerate(run.forecasts.cases):
        if case.start == 0 and case.horizon == run.end and case.method != StandingStill.name:
            groups[case.method] = run.returns.forecasts[f].mean(axis=1)
            if run.forecasts.end_distances is not None:
                away[case.method] = float(run.forecasts.end_distances[f].mean())
    groups["PPO's own end"] = run.returns.checkpoints[:, -1].mean(axis=1)
    dot = (
        "All trials, the held-out ones too, start from the same network, so the forecast "
        "from it is one and the same policy"
        if run.shared_network
        else "Each dot is a held-out random network, moved to the end of its path by forecasts "
        "from its untrained weights alone"
    )
    note = episodes_note(run.results.where(metric="episodic_return"))
    rows = [
        [name, float(returns.mean()), float(returns.min()), float(returns.max()), away.get(name)]
        for name, returns in groups.items()
    ]
    return Section(
        "Optimising untrained networks by inference",
        f"{dot}, with no step in the environment; below, what PPO made of the networks.",
        partial(return_strips, groups, note=f"{note}; median and middle half"),
        Table(
            "Mean episodic return. To tell learning from remembering, the last column gives the "
            "distance of the policies from the nearest end of a training path, in units of the "
            "distance of PPO's own end from it: 0 is a copy.",
            ["policies", "mean", "lowest", "highest", "distance from training ends"],
            rows,
        ),
    )


SECTIONS: list[Entry[Run]] = [
    learning_curves, svd_spectrum, path_coordinates, training_curves, forecast_coordinates,
    RETURNS_BY_HORIZON, WEIGHT_ERRORS_BY_HORIZON, optimized_networks,
]  # fmt: skip
"""The figures of a run's report, in order."""


# --- the report -------------------------------------------------------------------------------


def report_run(directory: str | Path, run: Run | None = None) -> Rows:
    """Writes `results.jsonl` and `report.html` of a run, or of what `load_run` found; returns rows.

    Raises:
        TiplError: a stage's result is missing or damaged, or the report cannot be written.
    """
    check_report(Path(directory))
    run = run or load_run(directory)
    write_report(run_report(run), Path(directory), figures=False)
    return run.results


def headline_rows(results: Rows, num_checkpoints: int) -> Rows:
    """The returns that come first: one step and all steps ahead, from short and long histories."""
    end = num_checkpoints - 1
    returns = results.where(metric="episodic_return", experiment=["forecast", "optimize"])
    starts = (round(0.5 * end), round(0.25 * end), 0)
    # which a short path has in common
    places = dict.fromkeys((start, ahead) for start in starts for ahead in (1, end - start))
    return Rows(
        result
        for start, horizon in places
        if start or horizon > 1
        for result in returns.where(start=start / end, horizon=horizon)
    )


def print_headline(results: Rows, num_checkpoints: int, console: Console) -> None:
    """Prints the headline as two tables: forecasts from histories, and from untrained networks."""
    headline = headline_rows(results, num_checkpoints)
    titles = {
        "forecast": "Forecast from histories of held-out trials",
        "optimize": "Optimise the untrained networks of held-out trials",
    }
    for experiment, title in titles.items():
        if rows := headline.where(experiment=experiment):
            caption = f"{title}: mean episodic return ({rows[0].n_trials} trials)"
            console.print(results_table(Pivot("episodic_return", caption=caption)(rows)))


def run_report(run: Run) -> Report:
    """The report's content.

    Raises:
        TiplError: the run holds no model.
    """
    if not run.models:
        raise TiplError("the run holds no trained model; run `tipl train` first")
    headline = Pivot(
        "episodic_return",
        caption="Mean episodic return of the forecast policies on held-out trials, with 95% "
        "bootstrap intervals over trials. Horizons are in checkpoints of "
        f"{run.paths.metadata.steps_per_checkpoint:,} environment steps.",
    )
    return Report(
        title=f"{run.paths.task.label}: forecasting the weights of PPO policies",
        lead=list(_lead(run)),
        headline=headline(headline_rows(run.results, run.paths.num_checkpoints)),
        sections=sections_of(SECTIONS, run, run.results),
        results=run.results,
        commands=run.commands,
        stages=run.stages,
    )


def _lead(run: Run) -> Iterator[str]:
    paths, trials = run.paths, run.forecasts.paths.num_trials
    networks = "one and the same network" if run.shared_network else "random initial networks"
    yield (
        f"{paths.num_trials} independent PPO trials from {networks} made "
        f"{paths.num_trials} paths of {paths.num_checkpoints} checkpoints of {paths.layout.size:,} "
        f"weights each. {trials} trials were held out: no model saw anything of them."
    )

    returns = run.results.where(metric="episodic_return")
    if end := returns.find(experiment="collect", method="PPO"):
        yield (
            "At the end of training, PPO's own policies return "
            f"{format_whole(end.value)} on the held-out trials{_interval(end)}."
        )
    optimised = returns.where(start=0, horizon=run.end)
    made = [
        f"{asked.name} {format_whole(found.value)}{_interval(found)}"
        for asked in run.ways
        if (found := optimised.find(method=asked.name))
    ]
    if made:
        yield (
            "From their untrained networks, in one call and with no step in the environment, come "
            f"policies that return: {'; '.join(made)}."
        )


def _interval(result: Result) -> str:
    """The interval in words; nothing for a single trial, which has none."""
    low, high = format_whole(result.low), format_whole(result.high)
    return f" (95% interval {low} to {high})" if math.isfinite(result.low) else ""
