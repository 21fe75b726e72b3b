"""Environment steps that it takes to get a part of the way to PPO's final return."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from tipl.forecast_sets import ForecastReturns, ForecastSet
from tipl.stats import CONFIDENCE, RESAMPLES, Interval

__all__ = ["PPO", "SHARES", "steps_to_reach"]

Array = np.ndarray[Any, np.dtype[Any]]

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
    found = {PPO: _first_reached(true, steps, goals)}
    for method in dict.fromkeys(case.method for case in forecasts.cases):
        by_start: dict[int, list[Array]] = {}
        for f, case in enumerate(forecasts.cases):
            if case.method == method:
                by_start.setdefault(case.start, []).append(means["forecasts"][:, f])
        starts = sorted(by_start)
        best = np.stack([np.max(by_start[start], axis=0) for start in starts], axis=1)
        found[method] = _first_reached(best, steps[starts], goals)
    return {method: [_interval(column) for column in rows.T] for method, rows in found.items()}


def _resampled_means(returns: ForecastReturns, seed: int) -> dict[str, Array]:
    """Means over trials: of the trials themselves first, then of trials drawn with replacement."""
    trials = len(returns.checkpoints)
    drawn = np.random.default_rng(seed).integers(trials, size=(RESAMPLES, trials))
    rows = np.repeat(np.arange(RESAMPLES), trials)
    counts = np.zeros((RESAMPLES, trials))
    np.add.at(counts, (rows, drawn.ravel()), 1.0)
    weights = np.concatenate([np.ones((1, trials)), counts]) / trials  # [R, N]
    return {
        PPO: weights @ returns.checkpoints.mean(axis=2),  # [R, N] @ [N, T]
        "forecasts": weights @ returns.forecasts.mean(axis=2).T,  # [R, N] @ [N, F]
    }


def _first_reached(
    reached: Float[np.ndarray, "R C"],
    steps: Float[np.ndarray, " C"],
    goals: Float[np.ndarray, "R S"],
) -> Float[np.ndarray, "R S"]:
    """The steps of the first of C places whose return is as high as each goal."""
    # means of equal returns may differ in the last digits
    enough = reached[:, :, None] >= goals[:, None] - 1e-9 * np.abs(goals[:, None])  # [R, C, S]
    first = steps[enough.argmax(axis=1)]
    return np.where(enough.any(axis=1), first, np.inf)


def _interval(values: Float[np.ndarray, " R"]) -> Interval:
    """The value of the trials themselves, which comes first, in that of the resampled ones."""
    if np.ptp(np.nan_to_num(values, posinf=-1.0)) == 0:
        return Interval(*[float(values[0])] * 3)
    tail = (1 - CONFIDENCE) / 2
    # no means between a number of steps and infinitely many
    low, high = np.quantile(values[1:], [tail, 1 - tail], method="inverted_cdf")
    return Interval(float(values[0]), float(low), float(high))
