"""Statistics of trials: what a number is worth when they are few, and curves of their returns.

Every interval is a 95% percentile bootstrap. The unit of resampling is the trial, because the
episodes of one trial share their policy and are not independent: they are averaged within the
trial first, and whole trials are then drawn with replacement. All trials of one call belong to
one task, that is to one stratum, so that this is the stratified bootstrap of Agarwal et al.,
"Deep Reinforcement Learning at the Edge of the Statistical Precipice" (NeurIPS 2021), for a single
task. The draws are seeded: the same values give the same interval.

Intervals take one value a trial `[N]`, or one a trial and episode `[N, E]`, and the seed of the
resampling; those of two methods take the values of the same trials in the same order. They raise a
`TiplError` where there is no trial, a value is not finite, or one method has more trials.

Two limits to know. A percentile interval is a little too narrow when the trials are few (it covers
about 93% instead of 95% with 20 trials). And one trial says nothing about the spread between
trials: its interval has NaN bounds rather than a width of zero.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Integer

from tipl.core.arrays import Array
from tipl.errors import TiplError

CONFIDENCE = 0.95
RESAMPLES = 10_000
_TAIL = (1 - CONFIDENCE) / 2

MOST_PLACES = 200
"""Places of a drawn curve, about: more are no finer than a pixel."""

# the underscores leave the comparison of two arguments' trials to the error of `_pair`
TrialValues = Float[np.ndarray, " _N"] | Float[np.ndarray, "_N _E"]


class Interval(NamedTuple):
    """An estimate and its 95% bootstrap interval; without bounds if it has none, as of a trial."""

    value: float
    low: float = math.nan
    high: float = math.nan


def mean_interval(values: TrialValues, *, seed: int = 0) -> Interval:
    """The mean over trials."""
    return _bootstrap(_per_trial(values), _mean, seed)


def iqm_interval(values: TrialValues, *, seed: int = 0) -> Interval:
    """Returns the interquartile mean over trials: the mean without the lowest and highest quarter.

    A quarter of `N` trials is rounded down, as in `scipy.stats.trim_mean(values, 0.25)`.
    """
    return _bootstrap(_per_trial(values), _interquartile_mean, seed)


def worst_interval(values: TrialValues, share: float = 0.1, *, seed: int = 0) -> Interval:
    """Returns the mean over the lowest share of the trials, of one trial at least (rounded up)."""
    return _bootstrap(_per_trial(values), functools.partial(_lowest_mean, share=share), seed)


def paired_difference_interval(a: TrialValues, b: TrialValues, *, seed: int = 0) -> Interval:
    """Returns the mean of `a - b` over trials, where row `n` of both is the same trial.

    Pairing removes what the trials have in common, such as an initial network that is easy to
    improve. An interval that excludes zero is a difference between the methods.
    """
    first, second = _pair(a, b)
    return _bootstrap(first - second, _mean, seed)


def probability_of_improvement(a: TrialValues, b: TrialValues, *, seed: int = 0) -> Interval:
    """Returns the fraction of trials in which `a` is larger than `b`; a tie counts one half."""
    first, second = _pair(a, b)
    return _bootstrap((first > second) + 0.5 * (first == second), _mean, seed)


def ratio_interval(a: TrialValues, b: TrialValues, *, seed: int = 0) -> Interval:
    """Returns the mean of `a` in units of the mean of `b`, where row `n` of both is the same trial.

    It says nothing where the mean of `b` is not above 0: there it is NaN, and so are both bounds if
    that is so of any resample.
    """
    first, second = _pair(a, b)
    weights = resampling_weights(len(first), seed=seed)
    above, below = weights @ first, weights @ second  # [R + 1], the trials themselves first
    ratios = above / np.where(below > 0, below, np.nan)
    return Interval(float(ratios[0])) if len(first) == 1 else _interval(ratios[0], ratios[1:])


def resampling_weights(num_trials: int, *, seed: int = 0) -> Float[np.ndarray, "R N"]:
    """Weights of means over trials: a row that weighs all alike, then one for each resample.

    `resampling_weights(N) @ values` are the mean of `values` `[N]` over the trials themselves, and
    its means over trials that are drawn with replacement. They are read-only: the calls for as many
    trials and the same seed share them.
    """
    return _resamples(num_trials, seed, RESAMPLES)[1]


@functools.lru_cache(maxsize=4)
def _resamples(num_trials: int, seed: int, resamples: int) -> tuple[Array, Array]:
    """Numbers of the trials in each resample `[R, N]`, and the weights that they stand for.

    To draw them takes longer than an interval's other arithmetic, and the intervals of a report are
    of equally many trials: they share them, so they are read-only.
    """
    drawn = np.random.default_rng(seed).integers(num_trials, size=(resamples, num_trials))
    # cell r * N + n counts how often resample r has drawn trial n
    cells = (drawn + num_trials * np.arange(resamples)[:, None]).ravel()
    counts = np.bincount(cells, minlength=drawn.size).reshape(drawn.shape)
    weights = np.concatenate([np.ones((1, num_trials)), counts]) / num_trials
    drawn.flags.writeable = weights.flags.writeable = False
    return drawn, weights


def first_reached(
    reached: Float[np.ndarray, "R C"],
    steps: Float[np.ndarray, " C"],
    goals: Float[np.ndarray, "R S"],
) -> Float[np.ndarray, "R S"]:
    """The steps of the first of C places whose mean return is as high as each of S goals.

    For each resample of the trials; infinite where no place's is. `steps` rise from place to place.
    """
    # means of equal returns may differ in the last digits
    enough = reached[:, :, None] >= goals[:, None] - 1e-9 * np.abs(goals[:, None])  # [R, C, S]
    first = steps[enough.argmax(axis=1)]
    return np.where(enough.any(axis=1), first, np.inf)


def reach_interval(values: Float[np.ndarray, " R"]) -> Interval:
    """The first number of steps, of the trials themselves, in the interval of the others after it.

    They may be infinite: as `first_reached` finds them for the rows of `resampling_weights`.
    """
    if np.ptp(np.nan_to_num(values, posinf=-1.0)) == 0:
        return Interval(*[float(values[0])] * 3)
    # no means between a number of steps and infinitely many
    return _interval(values[0], values[1:], "inverted_cdf")


@dataclass(frozen=True, eq=False)
class ReturnCurves:
    """Returns of N trials over their environment steps: each checkpoint's holds until the next."""

    steps: Integer[np.ndarray, "N T"]
    """of a trial before a checkpoint, tests of forecasts included"""
    returns: Float[np.ndarray, "N T"]
    """of the policies at the checkpoints"""
    untrained: Float[np.ndarray, " N"]
    """while forecasts are tested before the first rollout, a trial has its untrained policy"""

    def select(self, trials: Bool[np.ndarray, " N"]) -> ReturnCurves:
        """Those of some trials."""
        return ReturnCurves(self.steps[trials], self.returns[trials], self.untrained[trials])

    def at(self, places: Float[np.ndarray, " C"]) -> Float[np.ndarray, "N C"]:
        """Each trial's return at C numbers of environment steps."""
        passed = [np.searchsorted(steps, places, side="right") for steps in self.steps]
        return np.take_along_axis(self._levels(), np.stack(passed), axis=1)

    def mean_over(self, end: int) -> Float[np.ndarray, " N"]:
        """Each trial's mean return over its first `end` steps: the area under its curve, a step."""
        inner = np.clip(self.steps, 0, end)
        edges = np.pad(inner, ((0, 0), (1, 1)), constant_values=((0, 0), (0, end)))  # [N, T + 2]
        return np.asarray((self._levels() * np.diff(edges)).sum(axis=1) / end)

    def changes(self, end: int) -> Float[np.ndarray, " C"]:
        """Numbers of environment steps up to `end` at which any trial's return changes, and 0."""
        inside = self.steps[self.steps <= end]
        return np.unique(np.append(inside, 0)).astype(np.float64)

    def _levels(self) -> Float[np.ndarray, "N U"]:
        """Each trial's returns `[N, T + 1]`, the untrained one first."""
        return np.concatenate([self.untrained[:, None], self.returns], axis=1)


def mean_curve(
    curves: ReturnCurves, end: int
) -> tuple[Float[np.ndarray, " C"], Float[np.ndarray, "C 3"]]:
    """The mean return over trials, to be drawn as steps.

    Returns:
        Environment steps `[C]`, from 0 to `end`, and rows `value, low, high`.
    """
    places = curves.changes(end)
    if len(places) > MOST_PLACES:
        places = np.linspace(0, end, MOST_PLACES + 1)
    places = np.unique(np.append(places, float(end)))
    values = curves.at(places)
    means = resampling_weights(len(values)) @ values  # [R, N] @ [N, C]
    low, high = np.quantile(means[1:], [_TAIL, 1 - _TAIL], axis=0)
    return places, np.stack([means[0], low, high], axis=1)


def steps_to_shares(
    curves: Mapping[str, ReturnCurves], reference: str, end: int, shares: Sequence[float]
) -> dict[str, Float[np.ndarray, "R S"]]:
    """Environment steps until the mean return over trials is that of one method's end, by method.

    Infinite where it is not within `end` steps. A share of 0.95 is a return that is lower by 5% of
    its size, which is 95% of it where it is above 0.

    Args:
        curves: by method, of the same trials; each resample of them has its own goals.
        reference: the method whose end is the goal.
        end: environment steps of that method.
        shares: S parts of its final return.

    Returns:
        By method, a row of steps for the trials themselves, then one for each resample.
    """
    ends = curves[reference].at(np.array([float(end)]))  # [N, 1]
    weights = resampling_weights(len(ends))  # [R, N]
    final = weights @ ends  # [R, 1]
    goals = final - (1 - np.array(shares)) * np.abs(final)  # [R, S]
    changes = {name: own.changes(end) for name, own in curves.items()}
    return {
        name: first_reached(weights @ own.at(changes[name]), changes[name], goals)
        for name, own in curves.items()
    }


def _bootstrap(values: Array, statistic: Callable[[Array], Array], seed: int) -> Interval:
    value = float(statistic(values))
    if len(values) == 1:
        return Interval(value)
    drawn, _ = _resamples(len(values), seed, RESAMPLES)
    return _interval(value, statistic(values[drawn]))  # [R, N] -> [R]


def _interval(value: float, resampled: Array, method: Any = "linear") -> Interval:
    low, high = np.quantile(resampled, [_TAIL, 1 - _TAIL], method=method)
    return Interval(float(value), float(low), float(high))


def _mean(values: Array) -> Array:
    return np.asarray(values.mean(axis=-1))


def _interquartile_mean(values: Array) -> Array:
    count = values.shape[-1]
    cut = count // 4  # of each end
    parted = np.partition(values, (cut, count - cut - 1), axis=-1)
    return np.asarray(parted[..., cut : count - cut].mean(axis=-1))


def _lowest_mean(values: Array, share: float) -> Array:
    count = math.ceil(share * values.shape[-1] - 1e-9)
    return np.asarray(np.sort(values)[..., : max(1, count)].mean(axis=-1))


def _per_trial(values: TrialValues) -> Array:
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


def _pair(a: TrialValues, b: TrialValues) -> tuple[Array, Array]:
    first, second = _per_trial(a), _per_trial(b)
    if len(first) != len(second):
        raise TiplError(
            f"{len(first)} trials were given against {len(second)}; a paired comparison needs the "
            "same trials in the same order on both sides"
        )
    return first, second
