"""The sections of a benchmark's report that no other report has."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from tipl.evaluation.stats import Interval, mean_interval, paired_difference_interval
from tipl.experiments.benchmark.ledger import Cost
from tipl.experiments.benchmark.reach import PPO, SHARES
from tipl.experiments.benchmark.reproduction import INDEPENDENT, Finding
from tipl.experiments.rows import TRUE_CHECKPOINT
from tipl.experiments.run import Run
from tipl.models.path_transformer.forecaster import PathTransformerForecaster
from tipl.paths import PathDataset
from tipl.report.charts import INTERVAL, STEPS, ZERO, StepsToReach, curve, line_chart
from tipl.report.page import Section
from tipl.report.results import Rows
from tipl.report.style import BLUE, SERIES
from tipl.report.tables import (
    Cell,
    Judged,
    Pivot,
    Table,
    format_whole_interval,
    listed,
)

__all__ = [
    "claim_section",
    "compared_places",
    "costs_section",
    "forecast_costs_section",
    "metric_section",
    "pay_back_section",
    "plug_in_section",
    "reach_section",
    "token_error_table",
]


def claim_section(
    findings: Sequence[Finding], title: str, sentence: str, details: Table | None = None
) -> Section:
    """What one claim comes to: a row a model and experiment, a column a history."""
    histories = list(dict.fromkeys(finding.history for finding in findings))
    rows: dict[str, list[Cell]] = {}
    for finding in findings:
        name = finding.model
        if finding.experiment != INDEPENDENT:
            name += f", {finding.experiment}"
        row = rows.setdefault(name, [name, *[None] * len(histories)])
        judged = Judged(finding.measured, finding.holds, finding.verdict)
        row[1 + histories.index(finding.history)] = judged
    unit = findings[0].measured.metric.replace("_", " ") if findings else "nothing measured"
    caption = f"{unit[0].upper()}{unit[1:]} [95% interval]: ✓ holds, ✗ fails, ~ undecided"
    table = Table(caption, ["model", *histories], list(rows.values()))
    return Section(title, sentence, details=details, table=table)


def token_error_table(runs: Sequence[Run]) -> Table:
    """The error of the next token, which PathTransformers are trained for, on held-out paths."""
    rows: list[list[Cell]] = []
    for run in runs:
        label = ", shared initial network" if run.shared_network else ""
        losses = run.results.where(experiment="train")
        for model in run.models:
            if isinstance(model, PathTransformerForecaster):
                values = [
                    losses.one(method=model.name, metric=f"{name}_loss").value
                    for name in ("held_out", "standing_still")
                ]
                rows.append([f"{model.name}{label}", *values, values[0] / values[1]])
    return Table(
        "Mean squared error of the next token on held-out paths: what the model is trained for",
        ["model", "error", "standing still's", "ratio"],
        rows,
    )


def compared_places(run: Run) -> list[tuple[int, int]]:
    """Starts and horizons that tables of all rivals show: near, and to the path's end."""
    end = run.paths.num_checkpoints - 1
    places = {(case.start, case.horizon) for case in run.forecasts.cases}
    starts = sorted({start for start, _ in places})
    wanted = []
    for fraction in (0.0, 0.1, 0.25, 0.5):
        start = min(starts, key=lambda s: abs(s - fraction * end))
        ahead = sorted(h for s, h in places if s == start)
        near = min(ahead, key=lambda h: abs(h - 5))
        wanted += [(start, near)] if start else []
        wanted.append((start, ahead[-1]))
    return list(dict.fromkeys(wanted))


def metric_section(run: Run, metric: str, title: str, sentence: str) -> Section:
    """A metric of every method at the compared places."""
    end, measured = run.paths.num_checkpoints - 1, run.results.where(metric=metric)
    found = [measured.where(start=s / end, horizon=h) for s, h in compared_places(run)]
    order = [TRUE_CHECKPOINT, *dict.fromkeys(case.method for case in run.forecasts.cases)]
    table = Pivot(metric, caption=title, order=order)
    return Section(title, sentence, table=table(Rows(r for rows in found for r in rows)))


def reach_section(run: Run, steps: Mapping[str, Sequence[Interval]]) -> Section:
    """Environment steps to parts of PPO's improvement."""
    never = [name for name, (first, *_) in steps.items() if not math.isfinite(first.value)]
    sentence = (
        "How much of a trial PPO has to run before a forecast brings the mean policy so far; 0 is "
        "an untrained network. For PPO itself, the steps until it is there. Forecasts start from "
        f"a few histories only, so what they need is rounded up: {_listed_starts(run)} steps; "
        "standing still is PPO at those."
    )
    if never:
        sentence += f" Not half of the way from any history: {', '.join(never)}."
    return Section(
        "Environment steps to PPO's return",
        sentence,
        chart=StepsToReach("env_steps_to_reach"),
        table=Table(
            "Environment steps of one trial [95% interval], by share of the improvement from the "
            "untrained networks' return to that of PPO's end; a dash: not from any history tested",
            ["method", *(f"{share:.0%}" for share in SHARES)],
            [[name, *map(format_whole_interval, intervals)] for name, intervals in steps.items()],
        ),
    )


def _listed_starts(run: Run) -> str:
    """Environment steps of the histories from which forecasts start."""
    steps = run.paths.global_step
    return listed([f"{steps[s]:,}" for s in sorted({c.start for c in run.forecasts.cases})])


def costs_section(costs: Sequence[Cost]) -> Section:
    """What collecting and training take."""
    rows: list[list[Cell]] = [
        [
            cost.work,
            _number(cost.env_steps),
            _number(cost.cpu_seconds),
            _number(cost.flops / 1e12),
            _number(cost.peak_rss_mb),
        ]
        for cost in costs
        if cost.kind != "forecast"
    ]
    return Section(
        "What it takes",
        "Processor seconds are of all threads together. Floating-point operations are those of "
        "matrix products, without the physics; a dash: not counted.",
        table=Table(
            "Cost of each piece of work",
            ["work", "environment steps", "CPU seconds", "teraFLOP", "peak memory, MB"],
            rows,
        ),
    )


def forecast_costs_section(costs: Sequence[Cost]) -> Section:
    """What one forecast takes."""
    rows: list[list[Cell]] = [
        [
            cost.name,
            _number(1000 * cost.cpu_seconds),
            _number(cost.flops / 1e6),
        ]
        for cost in costs
        if cost.kind == "forecast"
    ]
    return Section(
        "What one forecast takes",
        "One call for one network on one thread, from a quarter of its path to the end; the "
        "median of five. A dash: not counted, as NumPy's operations are not.",
        table=Table("Cost of a forecast", ["method", "CPU milliseconds", "megaFLOP"], rows),
    )


def _number(value: float) -> Cell:
    """A number with three digits, at least."""
    if not math.isfinite(value):
        return value
    return round(value) if abs(value) >= 100 else float(f"{value:.3g}")


def pay_back_section(uses: Mapping[str, tuple[float, float]], share: float) -> Section:
    """After how many uses a model has paid for its data and its training."""
    rows: list[list[Cell]] = [
        [name, *(None if math.isinf(value) else value for value in values)]
        for name, values in uses.items()
    ]
    return Section(
        "After how many uses a model has paid for itself",
        "A use brings one network of this task so far without the steps that PPO would have "
        "needed. The training paths and all that training ran are charged to each model in full; "
        "an empty cell: it never pays, since it does not get there or takes longer.",
        table=Table(
            f"Uses until data and training are paid, at {share:.0%} of PPO's improvement",
            ["method", "counted in environment steps", "counted in CPU seconds"],
            rows,
        ),
    )


def plug_in_section(paths: PathDataset, boosted: Mapping[str, PathDataset]) -> Section:
    """PPO with trimming and boosting in its loop, beside the same trials without."""
    first = next(iter(boosted.values()))
    plain = paths.select(first.trials)
    returns = {PPO: plain.deterministic_return()}
    returns |= {f"PPTB, {name}": other.deterministic_return() for name, other in boosted.items()}
    seen = np.flatnonzero(np.isfinite(returns[PPO]).all(axis=(0, 2)))
    usable = ~plain.diverged()
    for other in boosted.values():
        usable &= ~other.diverged()
    returns = {name: values[usable][:, seen].astype(np.float64) for name, values in returns.items()}
    colours = (BLUE, *(colour for colour in SERIES if colour != BLUE))
    curves = [
        curve(
            paths.global_step[seen],
            np.array([mean_interval(values[:, c]) for c in range(len(seen))]),
            {"color": colours[n % len(colours)]},
            name,
        )
        for n, (name, values) in enumerate(returns.items())
    ]
    rows: list[list[Cell]] = []
    for name, values in returns.items():
        end = mean_interval(values[:, -1])
        row: list[Cell] = [name, format_whole_interval(end)]
        if name != PPO:
            row += [
                format_whole_interval(
                    paired_difference_interval(values[:, -1], returns[PPO][:, -1])
                ),
                format_whole_interval(
                    paired_difference_interval(values.mean(axis=1), returns[PPO].mean(axis=1))
                ),
            ]
        rows.append(row if name != PPO else [*row, None, None])
    trials, _, episodes = returns[PPO].shape
    return Section(
        "Path trimming and boosting inside PPO",
        "The same trials, with and without: every few iterations PPTB cuts the path's minor "
        "directions and goes further along the first two.",
        partial(
            line_chart,
            {"": [*curves, ZERO]},
            x_label=STEPS,
            y_label="episodic return",
            x_axis="steps",
            also=INTERVAL,
            note=f"{trials} paired trials, {episodes} episodes each by mean actions",
        ),
        table=Table(
            "Mean return [95% interval]: at the end, and its difference from PPO's, paired by "
            "trial, at the end and on average over the training",
            ["method", "at the end", "less PPO's, at the end", "less PPO's, over the training"],
            rows,
        ),
    )
