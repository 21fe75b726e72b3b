"""From forecasts and their returns to rows of results: means over trials, with intervals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tipl.baselines import StandingStill
from tipl.forecast_sets import ForecastCase, ForecastReturns, ForecastSet
from tipl.results import Result
from tipl.stats import Interval, mean_interval, paired_difference_interval

__all__ = ["TRUE_CHECKPOINT", "forecast_results", "history_label"]

Array = np.ndarray[Any, np.dtype[Any]]

TRUE_CHECKPOINT = "true later checkpoint"
"""The method that PPO's own checkpoints stand for, beside forecasts of them."""


def history_label(start: int, num_checkpoints: int) -> str:
    """How tables name a history that ends at checkpoint `start`."""
    if start == 0:
        return "untrained network"
    return f"history {start / (num_checkpoints - 1):.0%}"


def forecast_results(
    forecasts: ForecastSet, returns: ForecastReturns, command: str
) -> list[Result]:
    """One row for each case and metric, and for the true checkpoint beside each case.

    Histories of checkpoint 0 alone are the experiment `optimize`, longer ones `forecast`. The
    metrics are `episodic_return`, `return_minus_standing_still` (paired by trial) and
    `weight_error` (distance from the true checkpoint, in units of standing still's distance) and,
    to tell learning from remembering, `distance_from_training_ends` (see `ForecastSet`).

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
                setting=(
                    f"{history_label(case.start, forecasts.paths.num_checkpoints)}, "
                    f"horizon {case.horizon}"
                ),
                metric=metric,
                value=interval.value,
                low=interval.low,
                high=interval.high,
                n_trials=n_trials,
                n_episodes=runs,
                command=command,
            )
        )

    for place, cases in _by_place(forecasts.cases):
        still = returns.checkpoints[:, place.start]
        true = returns.checkpoints[:, place.target]
        add(place, TRUE_CHECKPOINT, "episodic_return", mean_interval(true), n_episodes)
        change = paired_difference_interval(true, still)
        add(place, TRUE_CHECKPOINT, "return_minus_standing_still", change, n_episodes)
        for f, case in cases:
            mean = mean_interval(returns.forecasts[f])
            add(case, case.method, "episodic_return", mean, n_episodes)
            if case.method != StandingStill.name:
                change = paired_difference_interval(returns.forecasts[f], still)
                add(case, case.method, "return_minus_standing_still", change, n_episodes)
            add(case, case.method, "weight_error", mean_interval(errors[f]), 0)
            if forecasts.end_distances is not None:
                away = mean_interval(forecasts.end_distances[f].astype(np.float64))
                add(case, case.method, "distance_from_training_ends", away, 0)
    return rows


def _by_place(
    cases: list[ForecastCase],
) -> Iterator[tuple[ForecastCase, list[tuple[int, ForecastCase]]]]:
    """The cases of each start and horizon with their indices, led by the first of them."""
    places: dict[tuple[int, int], list[tuple[int, ForecastCase]]] = {}
    for f, case in enumerate(cases):
        places.setdefault((case.start, case.horizon), []).append((f, case))
    for members in places.values():
        yield members[0][1], members
