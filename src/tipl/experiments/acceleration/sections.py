"""The sections of a comparison's report, in order; those that are tables are made here."""

from __future__ import annotations

from collections.abc import Iterator

from tipl.experiments.acceleration.curve_sections import (
    amortised_return,
    return_over_seconds,
    return_over_steps,
)
from tipl.experiments.acceleration.measures import COUNTS, SHARES, reach_metric
from tipl.experiments.acceleration.outcome import Comparison
from tipl.experiments.acceleration.tables import layers, numbers_table
from tipl.report.methods import method_with_key
from tipl.report.page import Section
from tipl.report.tables import Cell, Table

__all__ = ["comparison_sections"]


def comparison_sections(comparison: Comparison) -> Iterator[Section]:
    """All sections, in order."""
    yield _methods(comparison)
    yield return_over_steps(comparison)
    yield _final_returns(comparison)
    yield _shares_of_steps(comparison)
    yield _over_training(comparison)
    yield _rivals(comparison)
    yield _jumps(comparison)
    yield return_over_seconds(comparison)
    if comparison.cost is not None:
        yield amortised_return(comparison, comparison.cost)


def _methods(comparison: Comparison) -> Section:
    keys = {one.name: one.method.key for one in comparison.architectures[0].trained}
    return Section(
        "What is compared",
        "Every method trains the same trials, with the same initial networks and seeds. The "
        "environment steps of tests count as a trial's own.",
        table=Table(
            "The methods",
            ["method", "what it is"],
            [[name, method_with_key(key).sentence] for name, key in keys.items()],
        ),
    )


def _final_returns(comparison: Comparison) -> Section:
    return Section(
        "Return at equal steps",
        "The last checkpoint within as many environment steps as PPO takes in all; methods that "
        "test forecasts have learned from fewer of them.",
        table=numbers_table(
            comparison,
            "Interquartile mean of the return; mean return in units of PPO's (a dash: PPO's is not "
            "above 0); share of the trials that return more than under PPO, where a tie counts one "
            "half [95% interval over trials]",
            {
                "final_return_iqm": "interquartile mean",
                "final_return_relative_to_ppo": "times PPO's",
                "probability_of_improvement": "better trials",
            },
        ),
    )


def _shares_of_steps(comparison: Comparison) -> Section:
    return Section(
        "Steps to PPO's return, as a share of PPO's own",
        "Below 1 a method is faster than PPO. PPO's own mean return may reach that of its end "
        "before the end.",
        table=numbers_table(
            comparison,
            "Environment steps until 95% and 100% of PPO's final mean return, in units of the "
            "steps that PPO itself needs; a dash: not within PPO's steps",
            {f"{reach_metric(share)}_relative_to_ppo": f"to {share:.0%}" for share in SHARES},
        ),
    )


def _over_training(comparison: Comparison) -> Section:
    return Section(
        "Area under the curve",
        "The mean of the return over all of PPO's environment steps: it rewards what is good early "
        "as well as what is good in the end.",
        table=numbers_table(
            comparison,
            "Mean return over the environment steps, and its difference from PPO's, paired by "
            "trial",
            {
                "return_over_training": "mean return",
                "return_over_training_minus_ppo": "less PPO's",
            },
        ),
    )


def _rivals(comparison: Comparison) -> Section:
    labels = {
        "final_return_difference": "at equal steps",
        "return_over_training_difference": "over the training",
    }
    name = comparison.gated
    rows: list[list[Cell]] = [
        [
            f"less {rival.name}",
            layers(a),
            *(comparison.find(a.gated, a, metric, beside=rival.name) for metric in labels),
        ]
        for a in comparison.architectures
        for rival in a.trained
        if rival is not a.gated
    ]
    return Section(
        f"{name}, beside each other method",
        "By how much it returns more than each other method: above 0, interval included, it wins; "
        "below 0 it loses; else it is a tie.",
        table=Table(
            "Difference of mean returns, paired by trial [95% interval]",
            ["method", "layers", *labels.values()],
            rows,
        ),
    )


def _jumps(comparison: Comparison) -> Section:
    labels = dict(zip(COUNTS.values(), ("steps of tests", "jumps", "undone"), strict=True))
    return Section(
        "Tests, jumps and rollbacks",
        "What forecasts did in a trial until the end of its training. Jumps without a test take no "
        "steps of their own; those that were undone are among the jumps.",
        table=numbers_table(comparison, "Means over trials", labels),
    )
