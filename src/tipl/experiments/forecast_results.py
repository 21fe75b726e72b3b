"""From forecasts and their returns to rows of results: means over trials, with intervals."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tipl.core.arrays import Array
from tipl.evaluation.stats import (
    Interval,
    iqm_interval,
    mean_interval,
    paired_difference_interval,
    probability_of_improvement,
)
from tipl.experiments.forecast_sets import ForecastCase, ForecastReturns, ForecastSet
from tipl.forecast.lines import StandingStill
from tipl.report.results import Result, Rows

__all__ = ["TRUE_CHECKPOINT", "forecast_results"]


TRUE_CHECKPOINT = "true later checkpoint"
"""The method that PPO's own checkpoints stand for, beside forecasts of them."""


def forecast_results(forecasts: ForecastSet, returns: ForecastReturns, command: str) -> Rows:
    """One row for each case and metric, and for the true checkpoint beside each case.

    Histories of checkpoint 0 alone are the experiment `optimize`, longer ones `forecast`. The
    metrics are:

    - `episodic_return` and `episodic_return_iqm`: mean and interquartile mean over trials;
    - `return_minus_standing_still` and `return_minus_true`, paired by trial with the return at the
      history's end and at the true later checkpoint; `probability_of_improvement` over the former;
    - `weight_error`: distance from the true checkpoint, in units of standing still's distance;
    - `action_error`: the same of actions, where they were measured (see `ForecastReturns`);
    - `distance_from_training_ends` (see `ForecastSet`), to tell learning from remembering.

    Args:
        forecasts: the cases.
        returns: what they returned.
        command: the command line that measured them.
    """
    errors = forecasts.weight_errors()
    n_trials, _, n_episodes = returns.checkpoints.shape
    rows: list[Result] = []

    def add(case: ForecastCase, method: str, metric: str, interval: Interval, runs: int) -> None:
        rows.append(
            Result(
                task=forecasts.paths.task.env_id,
                experiment="forecast" if case.start else "optimize",
                method=method,
                metric=metric,
                value=interval.value,
                low=interval.low,
                high=interval.high,
                n_trials=n_trials,
                n_episodes=runs,
                command=command,
                start=case.start / (forecasts.paths.num_checkpoints - 1),
                horizon=case.horizon,
            )
        )

    for place, cases in _by_place(forecasts.cases):
        still = returns.checkpoints[:, place.start]
        true = returns.checkpoints[:, place.target]
        for metric, interval in _return_intervals(TRUE_CHECKPOINT, true, still).items():
            add(place, TRUE_CHECKPOINT, metric, interval, n_episodes)
        for f, case in cases:
            reached = returns.forecasts[f]
            measured = _return_intervals(case.method, reached, still)
            measured["return_minus_true"] = paired_difference_interval(reached, true)
            for metric, interval in measured.items():
                add(case, case.method, metric, interval, n_episodes)
            distances = {
                "weight_error": errors,
                "action_error": returns.action_errors,
                "distance_from_training_ends": forecasts.end_distances,
            }
            for metric, known in distances.items():
                if known is not None:
                    add(case, case.method, metric, mean_interval(known[f].astype(np.float64)), 0)
    return Rows(rows)


def _return_intervals(method: str, reached: Array, still: Array) -> dict[str, Interval]:
    """What a method's returns say alone, and beside those of standing still."""
    found = {
        "episodic_return": mean_interval(reached),
        "episodic_return_iqm": iqm_interval(reached),
    }
    if method != StandingStill.name:
        found["return_minus_standing_still"] = paired_difference_interval(reached, still)
        found["probability_of_improvement"] = probability_of_improvement(reached, still)
    return found


def _by_place(
    cases: list[ForecastCase],
) -> Iterator[tuple[ForecastCase, list[tuple[int, ForecastCase]]]]:
    """The cases of each start and horizon with their indices, led by the first of them."""
    places: dict[tuple[int, int], list[tuple[int, ForecastCase]]] = {}
    for f, case in enumerate(cases):
        places.setdefault((case.start, case.horizon), []).append((f, case))
    for members in places.values():
        yield members[0][1], members
