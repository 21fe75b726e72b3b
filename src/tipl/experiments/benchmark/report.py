"""The report of a benchmark: what is claimed and found, what rivals do, and what it takes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import numpy as np

from tipl.evaluation.stats import mean_interval, paired_difference_interval
from tipl.experiments import run_report
from tipl.experiments.benchmark.outcome import (
    CLAIMS,
    MARGIN,
    PAY_BACK_SHARE,
    PPO,
    SHARES,
    Benchmark,
    Finding,
)
from tipl.experiments.clearing import FILM_PLACE
from tipl.experiments.films import film_section
from tipl.experiments.path_dimension import dimension_sections
from tipl.experiments.run import TRUE_CHECKPOINT, Run
from tipl.models.kinds import all_kinds
from tipl.report.charts import INTERVAL, STEPS, ZERO, StepsToReach, curve, line_chart
from tipl.report.page import Entry, Report, Section, sections_of
from tipl.report.palette import BLUE, SERIES
from tipl.report.results import Rows, place_label
from tipl.report.tables import Cell, Pivot, Table, format_whole_interval, listed

HEADLINE_STARTS = (0.0, 0.1, 0.25, 0.5)
"""Histories of the headline, as fractions of the path; all forecast its end."""

_SHARED = ", shared initial network"


# --- the paper's claims -----------------------------------------------------------------------


def _claim(
    benchmark: Benchmark, number: int, title: str, sentence: str, details: Table | None = None
) -> Section:
    """The section on a claim: a row a model and experiment, a column a history."""
    findings = [found for found in benchmark.findings if found.claim == CLAIMS[number - 1]]
    starts = list(dict.fromkeys(found.result.start for found in findings))
    rows: dict[str, list[Cell]] = {}
    for found in findings:
        name = f"{found.result.method}{_SHARED if found.shared else ''}"
        row = rows.setdefault(name, [name, *[None] * len(starts)])
        row[1 + starts.index(found.result.start)] = found
    unit = findings[0].result.metric.replace("_", " ") if findings else "nothing measured"
    table = Table(
        f"{unit[0].upper()}{unit[1:]} [95% interval]: ✓ holds, ✗ fails, ~ undecided",
        ["model", *(place_label(start=start) for start in starts)],
        list(rows.values()),
    )
    return Section(f"Claim {number}: {title}", sentence, details=details, table=table)


def _token_errors(benchmark: Benchmark) -> Table:
    """The error of the next token, which PathTransformers are trained for, on held-out paths."""
    rows: list[list[Cell]] = []
    for run in filter(None, (benchmark.run, benchmark.shared)):
        losses = run.results.where(experiment="train")
        for name in losses.values("method"):
            if name.startswith("PathTransformer"):
                metrics = ("held_out_loss", "standing_still_loss")
                error, still = (losses.one(method=name, metric=one).value for one in metrics)
                label = _SHARED if run.shared_network else ""
                rows.append([f"{name}{label}", error, still, error / still])
    return Table(
        "Mean squared error of the next token on held-out paths: what the model is trained for",
        ["model", "error", "standing still's", "ratio"],
        rows,
    )


def _starts(run: Run) -> list[int]:
    """The checkpoints at which histories end, nearest to those of the headline."""
    starts = sorted({case.start for case in run.forecasts.cases})
    return list(
        dict.fromkeys(min(starts, key=lambda s: abs(s - f * run.end)) for f in HEADLINE_STARTS)
    )


def _all_rivals(metric: str, title: str, sentence: str, benchmark: Benchmark) -> Section:
    """The section on a metric of every method, near and at the path's end."""
    run, places = benchmark.run, []
    for start in _starts(run):
        ahead = sorted({case.horizon for case in run.forecasts.cases if case.start == start})
        near = min(ahead, key=lambda h: abs(h - 5))
        places += [(start, horizon) for horizon in ((near, ahead[-1]) if start else ahead[-1:])]
    pivot = Pivot(metric, caption=title, order=[TRUE_CHECKPOINT, *run.methods])
    return Section(title, sentence, table=pivot(_at(run, metric, dict.fromkeys(places))))


def _at(run: Run, metric: str, places: Iterable[tuple[int, int]]) -> Rows:
    """The results of a metric from some checkpoints so many ahead."""
    found = run.results.where(metric=metric)
    return Rows(r for s, h in places for r in found.where(start=s / run.end, horizon=h))


# --- the ledger -------------------------------------------------------------------------------


def _reach(benchmark: Benchmark) -> Section:
    """Environment steps to parts of PPO's improvement."""
    run = benchmark.run
    reached = benchmark.results.where(metric="env_steps_to_reach", share=min(SHARES))
    never = [result.method for result in reached if math.isnan(result.value)]
    steps = run.paths.global_step[sorted({case.start for case in run.forecasts.cases})]
    sentence = (
        "How much of a trial PPO has to run before a forecast brings the mean policy so far; 0 is "
        "an untrained network. For PPO itself, the steps until it is there. Forecasts start from "
        "a few histories only, so what they need is rounded up: "
        f"{listed([f'{step:,}' for step in steps])} steps; standing still is PPO at those."
    )
    if never:
        sentence += f" Not half of the way from any history: {', '.join(never)}."
    table = Pivot(
        "env_steps_to_reach",
        columns="share",
        caption="Environment steps of one trial [95% interval], by share of the improvement from "
        "the untrained networks' return to that of PPO's end; a dash: not from any history tested",
        cell=lambda result: format_whole_interval((result.value, result.low, result.high)),
    )
    made = table(benchmark.results)
    columns = [column.removesuffix(" of PPO's improvement") for column in made.columns]
    return Section(
        "Environment steps to PPO's return",
        sentence,
        chart=StepsToReach("env_steps_to_reach"),
        table=Table(made.caption, columns, made.rows),
    )


def _costs(benchmark: Benchmark) -> Iterator[Section]:
    """What collecting and training take, and what one forecast takes."""
    work: list[list[Cell]] = []
    forecasts: list[list[Cell]] = []
    for cost in benchmark.costs:
        if cost.kind == "forecast":
            per_call = (1000 * cost.cpu_seconds, cost.flops / 1e6)
            forecasts.append([cost.name, *map(_rounded, per_call)])
        else:
            numbers = (cost.env_steps, cost.cpu_seconds, cost.flops / 1e12, cost.peak_rss_mb)
            work.append([cost.work, *map(_rounded, numbers)])
    columns = ["environment steps", "CPU seconds", "teraFLOP", "peak memory, MB"]
    yield Section(
        "What it takes",
        "Processor seconds are of all threads together. Floating-point operations are those of "
        "matrix products, without the physics; a dash: not counted.",
        table=Table("Cost of each piece of work", ["work", *columns], work),
    )
    columns = ["method", "CPU milliseconds", "megaFLOP"]
    yield Section(
        "What one forecast takes",
        "One call for one network on one thread, from a quarter of its path to the end; the "
        "median of five. A dash: not counted, as NumPy's operations are not.",
        table=Table("Cost of a forecast", columns, forecasts),
    )


def _rounded(value: float) -> Cell:
    """A number with three digits, at least."""
    if not math.isfinite(value):
        return value
    return round(value) if abs(value) >= 100 else float(f"{value:.3g}")


PAY_BACK = Section(
    "After how many uses a model has paid for itself",
    "A use brings one network of this task so far without the steps that PPO would have "
    "needed. The training paths and all that training ran are charged to each model in full; "
    "an empty cell: it never pays, since it does not get there or takes longer.",
    table=Pivot(
        {
            "uses_to_pay_back_env_steps": "counted in environment steps",
            "uses_to_pay_back_cpu_seconds": "counted in CPU seconds",
        },
        caption=f"Uses until data and training are paid, at {place_label(share=PAY_BACK_SHARE)}",
        cell=lambda result: None if math.isnan(result.value) else result.value,
    ),
)


def _plug_in(benchmark: Benchmark) -> Iterator[Section]:
    """PPO with trimming and boosting in its loop, beside the same trials without."""
    boosted = benchmark.boosted
    if not boosted:
        return
    plain = benchmark.run.paths.select(next(iter(boosted.values())).trials)
    compared = {PPO: plain} | {f"PPTB, {name}": other for name, other in boosted.items()}
    seen = np.flatnonzero(np.isfinite(plain.deterministic_return()).all(axis=(0, 2)))
    usable = ~np.logical_or.reduce([one.diverged() for one in compared.values()])
    returns = {
        name: one.deterministic_return()[usable][:, seen].astype(np.float64)
        for name, one in compared.items()
    }
    colours = itertools.cycle((BLUE, *(colour for colour in SERIES if colour != BLUE)))
    curves, plain_returns = [], returns[PPO]
    rows: list[list[Cell]] = []
    for colour, (name, values) in zip(colours, returns.items(), strict=False):
        intervals = np.array([mean_interval(own) for own in values.swapaxes(0, 1)])
        curves.append(curve(plain.global_step[seen], intervals, {"color": colour}, name))
        rows.append([name, format_whole_interval(intervals[-1]), None, None])
        if name != PPO:
            end = paired_difference_interval(values[:, -1], plain_returns[:, -1])
            mean = paired_difference_interval(values.mean(axis=1), plain_returns.mean(axis=1))
            rows[-1][2:] = [format_whole_interval(end), format_whole_interval(mean)]
    trials, _, episodes = plain_returns.shape
    yield Section(
        "Path trimming and boosting inside PPO",
        "The same trials, with and without: every few iterations PPTB cuts the path's minor "
        "directions and goes further along the first two.",
        partial(
            line_chart, {"": [*curves, ZERO]}, x_label=STEPS, y_label="episodic return",
            x_axis="steps", also=INTERVAL,
            note=f"{trials} paired trials, {episodes} episodes each by mean actions",
        ),
        table=Table(
            "Mean return [95% interval]: at the end, and its difference from PPO's, paired by "
            "trial, at the end and on average over the training",
            ["method", "at the end", "less PPO's, at the end", "less PPO's, over the training"],
            rows,
        ),
    )  # fmt: skip


ALL_RIVALS = {
    "episodic_return_iqm": (
        "All rivals: interquartile mean of the return",
        "The mean of the middle half of the held-out trials, which one odd trial cannot move.",
    ),
    "probability_of_improvement": (
        "All rivals: probability of improvement",
        "Share of the held-out trials whose forecast policy returns more than the policy at the "
        "history's end; a tie counts one half.",
    ),
    "return_minus_true": (
        "All rivals: return less PPO's own, later",
        "Difference from the true later checkpoint, paired by trial: above 0 the forecast is ahead "
        "of PPO, which has paid for all steps between.",
    ),
    "weight_error": (
        "All rivals: error of the weights",
        "Distance from the true later weights, in units of standing still's.",
    ),
    "action_error": (
        "All rivals: error of the actions",
        "Root mean square difference from the true later policy's actions on states along the "
        "held-out paths, in units of standing still's.",
    ),
    "distance_from_training_ends": (
        "Audit: learning or remembering",
        "Distance of the forecast from the nearest end of a training path, in units of that of the "
        "true end: 0 is a copy. What the nearest path's own continuation returns stands in the "
        "tables above.",
    ),
}
"""Metrics of which every method has a row: title and sentence of the section on each."""

SECTIONS: list[Entry[Benchmark]] = [
    lambda benchmark: film_section(benchmark.directory / FILM_PLACE),
    lambda benchmark: _claim(
        benchmark,
        1,
        "it fits the dynamics",
        "Weight error one checkpoint ahead, in units of standing still's: the claim holds where "
        "the whole interval is below 1. The raw values are those of the tokens that the "
        "PathTransformers predict.",
        _token_errors(benchmark),
    ),
    run_report.WEIGHT_ERRORS_BY_HORIZON,
    lambda benchmark: _claim(
        benchmark,
        2,
        "forecasts do not deteriorate the policy",
        "The change of return that is worst among the horizons tested. A forecast does no harm "
        f"where no interval reaches further down than {MARGIN:.0%} of PPO's whole improvement.",
    ),
    run_report.RETURNS_BY_HORIZON,
    lambda benchmark: _claim(
        benchmark,
        3,
        "it optimises policies by inference",
        "Return of the forecast of the path's end. It holds where the policy is as good as PPO's "
        f"end: the paired difference is no lower than {MARGIN:.0%} of PPO's whole improvement, "
        "interval included. Undecided: better than it was, but below PPO's end.",
    ),
    run_report.OPTIMISED_BY_HORIZON,
    lambda benchmark: run_report.optimized_networks(benchmark.run),
    *(partial(_all_rivals, metric, *said) for metric, said in ALL_RIVALS.items()),
    _reach,
    _costs,
    PAY_BACK,
    _plug_in,
    lambda benchmark: dimension_sections(benchmark.run.paths, benchmark.dimensions),
    lambda benchmark: run_report.learning_curves(benchmark.run),
    lambda benchmark: run_report.training_curves(benchmark.run),
    lambda benchmark: run_report.forecast_coordinates(benchmark.run),
]
"""The figures of a benchmark's report, in order."""


# --- the report -------------------------------------------------------------------------------


def benchmark_report(benchmark: Benchmark) -> Report:
    """The report's content."""
    run = benchmark.run
    return Report(
        title=f"{run.paths.task.env_id}: can policy weights be optimised as trajectories?",
        lead=list(_lead(benchmark)),
        headline=headline(benchmark),
        sections=sections_of(SECTIONS, benchmark, benchmark.results),
        results=benchmark.results,
        commands=[benchmark.command, *run.commands],
        stages=run.stages,
    )


def headline(benchmark: Benchmark) -> Table:
    """Mean return at the path's end, of every method from several histories."""
    run = benchmark.run
    trials, _, episodes = run.returns.checkpoints.shape
    table = Pivot(
        "episodic_return",
        caption="Mean return of the policies that are forecast for the end of PPO's training, "
        f"after a history of that part of it [95% interval over {trials} held-out trials, "
        f"{episodes} episode{'s' * (episodes > 1)} each]. PPO itself had the return of standing "
        "still after the same number of environment steps. A checkpoint is "
        f"{run.paths.metadata.steps_per_checkpoint:,} steps.",
    )
    return table(_at(run, "episodic_return", [(s, run.end - s) for s in _starts(run)]))


def _lead(benchmark: Benchmark) -> Iterator[str]:
    run = benchmark.run
    trials = run.forecasts.paths.num_trials
    yield (
        f"{run.paths.num_trials - trials} PPO trials to learn from, {trials} others to be judged "
        f"by, {int(run.paths.global_step[-1]):,} environment steps each."
    )
    for claim in CLAIMS:
        if about := [finding for finding in benchmark.findings if finding.claim == claim]:
            yield f"“{claim[0].upper()}{claim[1:]}”: {tally(about)}."


def tally(about: Sequence[Finding]) -> str:
    """For how many of its tests a claim holds, model by model."""
    parts = []
    for kind in (kind for kind in all_kinds() if not kind.rival):
        tests = [found for found in about if found.result.method.startswith(tuple(kind.colours))]
        if tests:
            held, failed = (sum(test.holds is holds for test in tests) for holds in (True, False))
            said = f"holds in {held} of {len(tests)} tests and fails in {failed}"
            parts.append(f"{kind.whose} ({kind.title}) {said}")
    return "; ".join(parts)
