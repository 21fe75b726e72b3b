"""Forecasts of the trials that no model was trained on, by models and their rivals."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from tipl.core.arrays import Array
from tipl.errors import TiplError, check_text
from tipl.evaluation.forecast_sets import ForecastCase, ForecastSet
from tipl.experiments.config import HORIZONS, STARTS, check_places
from tipl.experiments.rivals import Given, rivals_of, seen_trials
from tipl.forecast.base import Forecaster
from tipl.forecast.memory import nearest_distances
from tipl.forecast.trained import TrainedForecaster
from tipl.paths import PathDataset


def held_out_trials(paths: PathDataset, forecasters: Sequence[Forecaster]) -> PathDataset:
    """The trials of a dataset that none of the models was trained on and that did not diverge.

    Raises:
        TiplError: there is no such trial.
    """
    seen = seen_trials(forecasters, paths)
    unseen = [trial for trial in paths.usable_trials().tolist() if trial not in seen]
    if not unseen:
        raise TiplError(
            f"the models were trained on all {paths.num_trials} usable trials of "
            f"{paths.directory}; train on a part of them (`tipl train --held-out 0.25`) or give "
            "another dataset"
        )
    return paths.select(unseen)


def forecast_held_out(
    forecasters: Sequence[Forecaster],
    paths: PathDataset,
    starts: Sequence[float] = STARTS,
    horizons: Sequence[int] = HORIZONS,
) -> ForecastSet:
    """Forecasts every trial by every forecaster, from several histories, several horizons ahead.

    A forecaster takes part where the history is long enough. Histories end at the `starts`, which
    are fractions of the path; 0 is the untrained network alone, and the last one ends one
    checkpoint before the path. `horizons` are checkpoints ahead; those past the path's end are left
    out, and the jump to the end is always added.

    Raises:
        TiplError: a fraction is outside [0, 1), a horizon below 1, a forecaster was trained on
            another architecture or forecasts what is not finite, or none can forecast any of the
            histories.
    """
    check_places(starts, horizons)
    check_text(str(paths.directory.resolve()))  # by which they are found again
    for forecaster in forecasters:
        forecaster.check_layout(paths.layout)
    params, end = paths.params(), paths.num_checkpoints - 1
    cases: list[ForecastCase] = []
    forecasts: list[Array] = []
    for start in sorted({min(round(fraction * end), end - 1) for fraction in starts}):
        reach = sorted({h for h in horizons if start + h <= end} | {end - start})
        for forecaster in forecasters:
            if start + 1 < forecaster.min_history:
                continue
            history = params[:, : start + 1]
            # [N, H, P]; the set of them says which trial's is not finite
            ahead = forecaster.forecast(history, reach, layout=paths.layout, finite=False)
            cases += [ForecastCase(forecaster.name, start, horizon) for horizon in reach]
            forecasts += list(ahead.swapaxes(0, 1))
    if not cases:
        raise TiplError(
            "each of the forecasters given needs a longer history than the starts "
            f"{list(starts)} give; expected one at least to take part: give later starts"
        )
    settings = {"starts": list(starts), "horizons": list(horizons)}
    return ForecastSet(paths, cases, np.stack(forecasts), settings)


def make_forecasts(
    models: Sequence[TrainedForecaster],
    paths: PathDataset,
    starts: Sequence[float] = STARTS,
    horizons: Sequence[int] = HORIZONS,
) -> ForecastSet:
    """Forecasts of the trials that no model was trained on, by the models and their rivals.

    A model takes part in all ways that it can be asked: `TrainedForecaster.all_ways`.

    Raises:
        TiplError: as `held_out_trials` and `forecast_held_out`.
    """
    held_out = held_out_trials(paths, models)
    ours = [asked for model in models for asked in model.all_ways()]
    given = Given(models, paths)
    forecasts = forecast_held_out([*rivals_of(given), *ours], held_out, starts, horizons)
    if given.training is None:
        return forecasts
    settings = forecasts.settings | ({"best_checkpoint": given.best} if given.best else {})
    ends = given.training.params()[:, -1]
    unit = nearest_distances(forecasts.paths.params()[:, -1], ends)
    if not unit.all():  # a trial ends where a training path does: no distance to compare with
        return dataclasses.replace(forecasts, settings=settings)
    distances = [nearest_distances(params, ends) / unit for params in forecasts.params]
    return dataclasses.replace(
        forecasts, settings=settings, end_distances=np.array(distances, np.float32)
    )
