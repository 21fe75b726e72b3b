"""Returns as step functions of environment steps: what holds at a number of steps, and when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Integer

from tipl.evaluation.stats import CONFIDENCE, first_reached, resampling_weights

__all__ = ["ReturnCurves", "mean_curve", "steps_to_shares"]


MOST_PLACES = 200
"""Places of a drawn curve, about: more are no finer than a pixel."""


@dataclass(frozen=True, eq=False)
class ReturnCurves:
    """Returns of N trials over their environment steps: each checkpoint's holds until the next.

    Attributes:
        steps: environment steps of each trial before each checkpoint, tests of forecasts included,
            `[N, T]`, rising.
        returns: of the policies at the checkpoints, `[N, T]`.
        untrained: return of each trial before its first checkpoint, `[N]`: while forecasts are
            tested before the first rollout, a trial has its untrained policy.
    """

    steps: Integer[np.ndarray, "N T"]
    returns: Float[np.ndarray, "N T"]
    untrained: Float[np.ndarray, " N"]

    def select(self, trials: Bool[np.ndarray, " N"]) -> ReturnCurves:
        """Those of some trials."""
        return ReturnCurves(self.steps[trials], self.returns[trials], self.untrained[trials])

    def at(self, places: Float[np.ndarray, " C"]) -> Float[np.ndarray, "N C"]:
        """Each trial's return at C numbers of environment steps."""
        levels = self._levels()
        passed = [np.searchsorted(steps, places, side="right") for steps in self.steps]
        return np.stack([own[count] for own, count in zip(levels, passed, strict=True)])

    def mean_over(self, end: int) -> Float[np.ndarray, " N"]:
        """Each trial's mean return over its first `end` steps: the area under its curve, per step.

        Args:
            end: environment steps, above 0.
        """
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
    curves: ReturnCurves, end: int, *, seed: int = 0
) -> tuple[Float[np.ndarray, " C"], Float[np.ndarray, "C 3"]]:
    """The mean return over trials, to be drawn as steps.

    Args:
        curves: of the trials.
        end: environment steps at which the curve ends.
        seed: of the resampling of trials.

    Returns:
        Environment steps `[C]`, from 0 to `end`, and rows `value, low, high`.
    """
    places = curves.changes(end)
    if len(places) > MOST_PLACES:
        places = np.linspace(0, end, MOST_PLACES + 1)
    places = np.unique(np.append(places, float(end)))
    values = curves.at(places)
    means = resampling_weights(len(values), seed=seed) @ values  # [R, N] @ [N, C]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means[1:], [tail, 1 - tail], axis=0)
    return places, np.stack([means[0], low, high], axis=1)


def steps_to_shares(
    curves: Mapping[str, ReturnCurves],
    reference: str,
    end: int,
    shares: Sequence[float],
    *,
    seed: int = 0,
) -> dict[str, Float[np.ndarray, "R S"]]:
    """Environment steps until the mean return over trials is that of one method's end, by method.

    Infinite where it is not within `end` steps. A share of 0.95 is a return that is lower by 5% of
    its size, which is 95% of it where it is above 0.

    Args:
        curves: by method, of the same trials.
        reference: the method whose end is the goal.
        end: environment steps of that method.
        shares: S parts of its final return.
        seed: of the resampling of trials: each resample has its own goals.

    Returns:
        By method, a row of steps for the trials themselves, then one for each resample.
    """
    ends = curves[reference].at(np.array([float(end)]))  # [N, 1]
    weights = resampling_weights(len(ends), seed=seed)  # [R, N]
    final = weights @ ends  # [R, 1]
    goals = final - (1 - np.array(shares)) * np.abs(final)  # [R, S]
    found = {}
    for name, own in curves.items():
        places = own.changes(end)
        found[name] = first_reached(weights @ own.at(places), places, goals)
    return found
