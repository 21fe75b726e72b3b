"""Intervals for returns and errors: what a number is worth when the trials are few.

Every interval is a 95% percentile bootstrap. The unit of resampling is the trial, because the
episodes of one trial share their policy and are not independent: they are averaged within the
trial first, and whole trials are then drawn with replacement. All trials of one call belong to
one task, that is to one stratum, so that this is the stratified bootstrap of Agarwal et al.,
"Deep Reinforcement Learning at the Edge of the Statistical Precipice" (NeurIPS 2021), for a single
task. The draws are seeded: the same values give the same interval.

Two limits to know. A percentile interval is a little too narrow when the trials are few (it covers
about 93% instead of 95% with 20 trials). And one trial says nothing about the spread between
trials: its interval has NaN bounds rather than a width of zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import scipy.stats
from jaxtyping import Float

from tipl.errors import TiplError

__all__ = [
    "Interval",
    "iqm_interval",
    "mean_interval",
    "paired_difference_interval",
    "probability_of_improvement",
]

CONFIDENCE = 0.95
RESAMPLES = 10_000

# the underscores leave the comparison of two arguments' trials to the error of `_pair`
TrialValues = Float[np.ndarray, " _N"] | Float[np.ndarray, "_N _E"]
_Statistic = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]


class Interval(NamedTuple):
    """An estimate and its 95% bootstrap interval; `low` and `high` are NaN for one trial."""

    value: float
    low: float
    high: float


def mean_interval(values: TrialValues, *, seed: int = 0) -> Interval:
    """Returns the mean over trials.

    Args:
        values: one value a trial `[N]`, or one a trial and episode `[N, E]`.
        seed: seed of the resampling.

    Raises:
        TiplError: there is no trial, or a value is not finite.
    """
    return _bootstrap(_per_trial(values), _mean, seed)


def iqm_interval(values: TrialValues, *, seed: int = 0) -> Interval:
    """Returns the interquartile mean over trials: the mean without the lowest and highest quarter.

    A quarter of `N` trials is rounded down, as in `scipy.stats.trim_mean(values, 0.25)`.

    Args:
        values: one value a trial `[N]`, or one a trial and episode `[N, E]`.
        seed: seed of the resampling.

    Raises:
        TiplError: there is no trial, or a value is not finite.
    """
    return _bootstrap(_per_trial(values), _interquartile_mean, seed)


def paired_difference_interval(a: TrialValues, b: TrialValues, *, seed: int = 0) -> Interval:
    """Returns the mean of `a - b` over trials, where row `n` of both is the same trial.

    Pairing removes what the trials have in common, such as an initial network that is easy to
    improve. An interval that excludes zero is a difference between the methods.

    Args:
        a: values of the first method, `[N]` or `[N, E]`.
        b: values of the second method for the same trials in the same order.
        seed: seed of the resampling.

    Raises:
        TiplError: the numbers of trials differ or are zero, or a value is not finite.
    """
    first, second = _pair(a, b)
    return _bootstrap(first - second, _mean, seed)


def probability_of_improvement(a: TrialValues, b: TrialValues, *, seed: int = 0) -> Interval:
    """Returns the fraction of trials in which `a` is larger than `b`; a tie counts one half.

    Args:
        a: values of the first method, `[N]` or `[N, E]`.
        b: values of the second method for the same trials in the same order.
        seed: seed of the resampling.

    Raises:
        TiplError: the numbers of trials differ or are zero, or a value is not finite.
    """
    first, second = _pair(a, b)
    return _bootstrap((first > second) + 0.5 * (first == second), _mean, seed)


def _bootstrap(values: npt.NDArray[np.float64], statistic: _Statistic, seed: int) -> Interval:
    value = float(statistic(values))
    if len(values) == 1:
        return Interval(value, float("nan"), float("nan"))
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(values), size=(RESAMPLES, len(values)))  # [R, N] trial indices
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(statistic(values[drawn]), [tail, 1 - tail])
    return Interval(value, float(low), float(high))


def _mean(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(values.mean(axis=-1))


def _interquartile_mean(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(scipy.stats.trim_mean(values, 0.25, axis=-1))


def _per_trial(values: TrialValues) -> npt.NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim not in (1, 2) or array.size == 0:
        raise TiplError(
            f"values of shape {list(array.shape)} were given; expected one value a trial [N] or "
            "one a trial and episode [N, E], with at least one trial and one episode"
        )
    unusable = int(np.size(array) - np.isfinite(array).sum())
    if unusable:
        raise TiplError(
            f"{unusable} of {array.size} values are not finite; an interval needs finite values: "
            "leave those trials out and say how many they were"
        )
    return array if array.ndim == 1 else array.mean(axis=1)  # [N, E] -> [N]


def _pair(
    a: TrialValues, b: TrialValues
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    first, second = _per_trial(a), _per_trial(b)
    if len(first) != len(second):
        raise TiplError(
            f"{len(first)} trials were given against {len(second)}; a paired comparison needs the "
            "same trials in the same order on both sides"
        )
    return first, second
