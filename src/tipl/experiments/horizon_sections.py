"""The figures of a run's report against the horizon: returns and errors, a panel a history."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from tipl.core.arrays import Array
from tipl.experiments.forecast_results import TRUE_CHECKPOINT
from tipl.experiments.runs import Run
from tipl.forecast.dynamic_modes import DynamicModeDecomposition
from tipl.forecast.extrapolation import RELEX, PathTrimmingAndBoosting
from tipl.forecast.lines import StandingStill, TwoPointLine
from tipl.forecast.memory import BestStoredPolicy, MatchedNoise, MeanDisplacement, NearestPath
from tipl.forecast.return_regression import PartialLeastSquares
from tipl.models.readout import FittedOutputLayer
from tipl.report import plots
from tipl.report.page import Section
from tipl.report.results import place_label
from tipl.report.tables import Pivot, Table

__all__ = ["optimized_by_horizon", "returns_by_horizon", "weight_errors_by_horizon"]


def _panels(
    run: Run, metric: str, methods: Sequence[str], starts: Sequence[int]
) -> tuple[Array, dict[str, Any]]:
    """Horizons, and for each history and method the rows `value, low, high` of a metric."""
    cases, end = run.forecasts.cases, run.paths.num_checkpoints - 1
    horizons = sorted({case.horizon for case in cases if case.start in starts})
    panels: dict[str, dict[str, Array]] = {}
    for start in starts:
        found = run.results.where(metric=metric, start=start / end)
        lines: dict[str, Array] = {}
        for method in methods:
            rows = [found.find(method=method, horizon=horizon) for horizon in horizons]
            if any(rows):
                lines[method] = np.array(
                    [(r.value, r.low, r.high) if r else (np.nan,) * 3 for r in rows]
                )
        history = place_label(start=start / end)
        panels[f"{history} of the path" if start else history] = lines
    return np.array(horizons), panels


def _panel_values(run: Run, metric: str, methods: Sequence[str], starts: Sequence[int]) -> Table:
    """The values of such panels, a row a method and a column a history and horizon."""
    end = run.paths.num_checkpoints - 1
    where = {"method": methods, "start": [start / end for start in starts]}
    return Pivot(metric, where=where)(run.results)


TABLES_ONLY = (
    BestStoredPolicy.name,
    DynamicModeDecomposition.name,
    FittedOutputLayer.name,
    MatchedNoise.name,
    MeanDisplacement.name,
    NearestPath.name,
    PartialLeastSquares.name,
    PathTrimmingAndBoosting.name,
    RELEX.name,
    TwoPointLine.name,
)
"""Rivals for which curves over the horizon have no room; the tables have them."""


def _methods(run: Run) -> list[str]:
    """The methods that curves over the horizon show."""
    methods = dict.fromkeys(case.method for case in run.forecasts.cases)
    return [method for method in methods if method not in TABLES_ONLY]


def _histories(run: Run) -> list[int]:
    """Where histories end that cover a good part of a path: a tenth of it at least."""
    end = run.paths.num_checkpoints - 1
    return sorted({case.start for case in run.forecasts.cases if case.start >= 0.09 * end})


def _horizon_section(
    run: Run,
    title: str,
    sentence: str,
    metric: str,
    methods: Sequence[str],
    starts: Sequence[int],
) -> Section:
    """A metric of methods against the horizon, a panel a history, with its values."""
    drawings = {
        "episodic_return": (plots.return_against_horizon, run.trials_note),
        "weight_error": (
            plots.forecast_error_against_horizon,
            f"{run.forecasts.paths.num_trials} held-out trials",
        ),
    }
    drawing, trials = drawings[metric]
    horizons, panels = _panels(run, metric, methods, starts)
    return Section(
        title,
        sentence,
        partial(drawing, horizons, panels, note=f"{trials}, mean and 95% interval"),
        _panel_values(run, metric, methods, starts),
    )


def optimized_by_horizon(run: Run) -> Section:
    """Return along forecasts that start at an untrained or hardly trained network."""
    end = run.paths.num_checkpoints - 1
    return _horizon_section(
        run,
        "Optimising by inference: return along the forecast",
        "Each panel starts from the little that PPO has done by then, and follows the forecast to "
        "the path's end with no further step in the environment; the blue line is PPO, with all of "
        "its steps.",
        "episodic_return",
        [TRUE_CHECKPOINT, *_methods(run)],
        sorted({case.start for case in run.forecasts.cases if case.start <= 0.11 * end}),
    )


def returns_by_horizon(run: Run) -> Section:
    """Return of the forecast policies against the horizon."""
    return _horizon_section(
        run,
        "Return of forecast policies against the horizon",
        "Above the grey line of standing still, a forecast has improved the policy with no step in "
        "the environment; the blue line is where PPO itself went, with all of its steps.",
        "episodic_return",
        [TRUE_CHECKPOINT, *_methods(run)],
        _histories(run),
    )


def weight_errors_by_horizon(run: Run) -> Section:
    """Weight error of the forecasts against the horizon."""
    # the elite is somewhere else: no forecast of these weights
    left_out = (StandingStill.name, "NeuronTransformer (elite)")
    return _horizon_section(
        run,
        "Weight error of forecasts against the horizon",
        "Distance of the forecast from the true later weights, over that of standing still: below "
        "1 the forecast is closer.",
        "weight_error",
        [name for name in _methods(run) if name not in left_out],
        _histories(run),
    )
