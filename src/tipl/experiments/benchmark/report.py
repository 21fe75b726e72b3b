"""The report of a benchmark: what is claimed and found, what rivals do, and what it takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tipl.experiments import run_report
from tipl.experiments.benchmark import sections
from tipl.experiments.benchmark.outcome import PAY_BACK_SHARE, Benchmark
from tipl.experiments.benchmark.reproduction import CLAIMS, MARGIN, Finding
from tipl.experiments.benchmark.stages import FILM
from tipl.experiments.films import film_section
from tipl.experiments.path_dimension import dimension_sections
from tipl.report.page import Report, Section, sections_of
from tipl.report.results import Rows
from tipl.report.tables import Pivot, Table

__all__ = ["benchmark_report", "headline"]

HEADLINE_STARTS = (0.0, 0.1, 0.25, 0.5)
"""Histories of the headline, as fractions of the path; all forecast its end."""


def headline(benchmark: Benchmark) -> Table:
    """Mean return at the path's end, of every method from several histories."""
    run = benchmark.run
    end = run.paths.num_checkpoints - 1
    starts = sorted({case.start for case in run.forecasts.cases})
    chosen = dict.fromkeys(min(starts, key=lambda s: abs(s - f * end)) for f in HEADLINE_STARTS)
    returns = run.results.where(metric="episodic_return")
    at_end = [returns.where(start=start / end, horizon=end - start) for start in chosen]
    trials, _, episodes = run.returns.checkpoints.shape
    return Pivot(
        "episodic_return",
        caption=(
            "Mean return of the policies that are forecast for the end of PPO's training, after a "
            f"history of that part of it [95% interval over {trials} held-out trials, {episodes} "
            f"episode{'s' * (episodes > 1)} each]. PPO itself had the return of standing still "
            "after the same number of environment steps. A checkpoint is "
            f"{run.paths.metadata.steps_per_checkpoint:,} steps."
        ),
    )(Rows(result for results in at_end for result in results))


def benchmark_report(benchmark: Benchmark) -> Report:
    """The report's content."""
    run = benchmark.run
    return Report(
        title=f"{run.paths.task.env_id}: can policy weights be optimised as trajectories?",
        lead=_lead(benchmark),
        headline=headline(benchmark),
        sections=sections_of(
            [
                film_section(benchmark.directory / FILM),
                *_reproduction(benchmark),
                *_rivals(benchmark),
                *_ledger(benchmark),
                *dimension_sections(run.paths, benchmark.dimensions),
                *_training(benchmark),
            ],
            benchmark,
            benchmark.results,
        ),
        results=benchmark.results,
        commands=[benchmark.command, *run.commands],
        versions=run_report.shown_versions(),
        stages=run.stages,
    )


def _lead(benchmark: Benchmark) -> list[str]:
    run = benchmark.run
    trials = run.forecasts.paths.num_trials
    seen = run.paths.num_trials - trials
    sentences = [
        f"{seen} PPO trials to learn from, {trials} others to be judged by, "
        f"{int(run.paths.global_step[-1]):,} environment steps each.",
    ]
    for claim in CLAIMS:
        about = [finding for finding in benchmark.findings if finding.claim == claim]
        if about:
            sentences.append(f"“{claim[0].upper()}{claim[1:]}”: {_tally(about)}.")
    return sentences


def _tally(about: Sequence[Finding]) -> str:
    """For how many of its tests a claim holds, model by model."""
    parts = []
    for kind, label in (("PathTransformer", "the paper's model"), ("NeuronTransformer", "ours")):
        tests = [finding for finding in about if finding.model.startswith(kind)]
        if tests:
            held = sum(finding.holds is True for finding in tests)
            failed = sum(finding.holds is False for finding in tests)
            parts.append(
                f"{label} ({kind}) holds in {held} of {len(tests)} tests and fails in {failed}"
            )
    return "; ".join(parts)


def _reproduction(benchmark: Benchmark) -> Iterator[Section]:
    """The paper's claims, one after the other, each with its picture."""
    by_claim = {
        claim: [finding for finding in benchmark.findings if finding.claim == claim]
        for claim in CLAIMS
    }
    run = benchmark.run
    yield sections.claim_section(
        by_claim[CLAIMS[0]],
        "Claim 1: it fits the dynamics",
        "Weight error one checkpoint ahead, in units of standing still's: the claim holds where "
        "the whole interval is below 1. The raw values are those of the tokens that the "
        "PathTransformers predict.",
        sections.token_error_table([one for one in (run, benchmark.shared) if one]),
    )
    yield run_report.WEIGHT_ERRORS_BY_HORIZON
    yield sections.claim_section(
        by_claim[CLAIMS[1]],
        "Claim 2: forecasts do not deteriorate the policy",
        "The change of return that is worst among the horizons tested. A forecast does no harm "
        f"where no interval reaches further down than {MARGIN:.0%} of PPO's "
        "whole improvement.",
    )
    yield run_report.RETURNS_BY_HORIZON
    yield sections.claim_section(
        by_claim[CLAIMS[2]],
        "Claim 3: it optimises policies by inference",
        "Return of the forecast of the path's end. It holds where the policy is as good as PPO's "
        f"end: the paired difference is no lower than {MARGIN:.0%} of PPO's whole improvement, "
        "interval included. Undecided: better than it was, but below PPO's end.",
    )
    yield run_report.OPTIMISED_BY_HORIZON


METRICS = {
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


def _rivals(benchmark: Benchmark) -> Iterator[Section]:
    yield run_report.optimized_networks(benchmark.run)
    for metric, (title, sentence) in METRICS.items():
        yield sections.metric_section(benchmark.run, metric, title, sentence)


def _ledger(benchmark: Benchmark) -> Iterator[Section]:
    yield sections.reach_section(benchmark.run, benchmark.steps)
    yield sections.costs_section(benchmark.costs)
    yield sections.forecast_costs_section(benchmark.costs)
    yield sections.pay_back_section(benchmark.uses, PAY_BACK_SHARE)
    if benchmark.boosted:
        yield sections.plug_in_section(benchmark.run.paths, benchmark.boosted)


def _training(benchmark: Benchmark) -> Iterator[Section]:
    run = benchmark.run
    yield run_report.learning_curves(run)
    yield from run_report.training_curves(run)
    yield from run_report.forecast_coordinates(run)
