"""The report of a comparison: where jumps win, tie or lose, and what they cost."""

from __future__ import annotations

import math
from collections.abc import Iterator

from tipl.experiments.acceleration.measures import reach_metric
from tipl.experiments.acceleration.outcome import Comparison
from tipl.experiments.acceleration.sections import comparison_sections
from tipl.experiments.acceleration.tables import headline_table, layers
from tipl.experiments.acceleration.trials import Architecture
from tipl.experiments.run_report import shown_versions
from tipl.report.page import Report, sections_of
from tipl.report.results import Result
from tipl.report.tables import format_whole, listed

__all__ = ["comparison_report", "lead"]

_BESIDE = {"wins": "above", "loses": "below", "ties": "beside"}
"""Where its return lies then."""


def comparison_report(comparison: Comparison) -> Report:
    """The report's content."""
    return Report(
        title=f"{comparison.config.env_id}: does PPO learn faster when its weights jump?",
        lead=lead(comparison),
        headline=headline_table(comparison),
        sections=sections_of(comparison_sections(comparison), comparison, comparison.results),
        results=comparison.results,
        commands=[stage.command for stage in comparison.stages],
        versions=shown_versions(),
        stages=comparison.stages,
    )


def lead(comparison: Comparison) -> list[str]:
    """What the numbers say, in sentences: of each architecture, and of the model's cost."""
    first = comparison.architectures[0]
    sentences = [
        f"{first.num_trials + first.left_out} trials of each method, paired by their seeds; PPO "
        f"takes {first.end:,} environment steps in each, and tests of forecasts count as steps.",
    ]
    for architecture in comparison.architectures:
        sentences += _of_architecture(comparison, architecture)
    if comparison.cost is not None:
        sentences.append(_of_cost(comparison, comparison.cost.env_steps))
    return sentences


def _of_architecture(comparison: Comparison, architecture: Architecture) -> Iterator[str]:
    gated = architecture.gated
    if architecture.left_out:
        yield (
            f"Left out with layers of {layers(architecture)}, since they diverged under some "
            f"method: {architecture.left_out} of the trials."
        )
    ppo = comparison.find(architecture.ppo, architecture, "final_return")
    own = comparison.find(gated, architecture, "final_return")
    verdict = _verdict(comparison.find(gated, architecture, "final_return_minus_ppo"))
    returns = f"{format_whole(own.value)} {_BESIDE[verdict]} PPO's {format_whole(ppo.value)}"
    yield (
        f"Layers of {layers(architecture)}: {gated.name} {verdict} at equal steps, with a mean "
        f"return of {returns}; {_speed(comparison, architecture)}."
    )
    yield from _beside_rivals(comparison, architecture)


def _speed(comparison: Comparison, architecture: Architecture) -> str:
    """How soon the gated method is where PPO ends."""
    metric, gated = reach_metric(1.0), architecture.gated
    own = comparison.find(gated, architecture, metric)
    ppo = comparison.find(architecture.ppo, architecture, metric)
    if math.isinf(own.value):
        return "it does not come to PPO's final mean return within PPO's steps"
    share = comparison.find(gated, architecture, f"{metric}_relative_to_ppo")
    verdict = "neither faster nor slower beyond doubt"
    if share.high < 1:
        verdict = "faster"
    elif share.low > 1:
        verdict = "slower"
    return (
        f"it comes to PPO's final mean return after {format_whole(own.value)} steps, where PPO "
        f"needs {format_whole(ppo.value)}: {verdict}"
    )


def _beside_rivals(comparison: Comparison, architecture: Architecture) -> Iterator[str]:
    """Whom the gated method beats at equal steps, whom it does not, and who beats it."""
    by_verdict: dict[str, list[str]] = {}
    for one in architecture.trained[1:]:
        if one is not architecture.gated:
            found = comparison.find(
                architecture.gated, architecture, "final_return_difference", beside=one.name
            )
            by_verdict.setdefault(_verdict(found), []).append(f"“{one.name}”")
    parts = [
        f"{verdict} {preposition} {listed(by_verdict[verdict])}"
        for verdict, preposition in (("wins", "against"), ("ties", "with"), ("loses", "to"))
        if verdict in by_verdict
    ]
    if parts:
        yield f"It {'; it '.join(parts)}."


def _of_cost(comparison: Comparison, env_steps: float) -> str:
    """After how many uses the model has paid for itself."""
    parts = []
    for architecture in comparison.architectures:
        metric = "uses_to_pay_back_env_steps"
        uses = comparison.find(architecture.gated, architecture, metric).value
        after = f"are paid after {uses:,.0f} uses" if math.isfinite(uses) else "are never paid"
        parts.append(f"with {layers(architecture)} they {after}")
    return (
        f"Data and training of such a model take {env_steps:,.0f} environment steps: "
        f"{listed(parts)}."
    )


def _verdict(difference: Result) -> str:
    """What a paired difference says of the first of two methods."""
    if difference.low > 0:
        return "wins"
    return "loses" if difference.high < 0 else "ties"
