"""Environment steps that it takes to get a part of the way to PPO's final return."""

from __future__ import annotations

import numpy as np

from tipl.core.arrays import Array
from tipl.evaluation.stats import Interval, first_reached, reach_interval, resampling_weights
from tipl.experiments.forecast_sets import ForecastReturns, ForecastSet

__all__ = ["PPO", "SHARES", "steps_to_reach"]


SHARES = (0.5, 0.75, 0.9, 1.0)
"""Parts of the way from the untrained networks' return to that of PPO's end."""

PPO = "PPO"


def steps_to_reach(
    forecasts: ForecastSet, returns: ForecastReturns, *, seed: int = 0
) -> dict[str, list[Interval]]:
    """For PPO and each method, the environment steps of one trial until a share is reached.

    PPO has reached a share at its first checkpoint with that mean return over trials. A method has
    reached it at the first history from which its forecasts do, at the best of the horizons that
    were made: what it then costs is the history. Infinite: no history was long enough. Standing
    still is PPO itself where histories end: what a forecast must beat to be worth anything.

    Args:
        forecasts: of the held-out trials.
        returns: what they returned.
        seed: of the resampling of trials: each resample has its own goals.

    Returns:
        By method, PPO first, an interval for each of `SHARES`.
    """
    means = _resampled_means(returns, seed)
    true, steps = means[PPO], forecasts.paths.global_step.astype(np.float64)
    first, final = true[:, :1], true[:, -1:]
    goals = first + np.array(SHARES) * (final - first)  # [R, S]
    found = {PPO: first_reached(true, steps, goals)}
    for method in dict.fromkeys(case.method for case in forecasts.cases):
        by_start: dict[int, list[Array]] = {}
        for f, case in enumerate(forecasts.cases):
            if case.method == method:
                by_start.setdefault(case.start, []).append(means["forecasts"][:, f])
        starts = sorted(by_start)
        best = np.stack([np.max(by_start[start], axis=0) for start in starts], axis=1)
        found[method] = first_reached(best, steps[starts], goals)
    return {method: [reach_interval(column) for column in rows.T] for method, rows in found.items()}


def _resampled_means(returns: ForecastReturns, seed: int) -> dict[str, Array]:
    """Means over trials: of the trials themselves first, then of trials drawn with replacement."""
    weights = resampling_weights(len(returns.checkpoints), seed=seed)  # [R, N]
    return {
        PPO: weights @ returns.checkpoints.mean(axis=2),  # [R, N] @ [N, T]
        "forecasts": weights @ returns.forecasts.mean(axis=2).T,  # [R, N] @ [N, F]
    }
