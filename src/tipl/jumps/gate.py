"""The gate: whether one of several forecasts is worth a jump, by running them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Float32

from tipl.core.arrays import Array
from tipl.evaluation.returns import Episodes

Evaluate = Callable[[Array, Array, int], Episodes]
"""Runs policies for an episode each, given their weights `[M, P]`, the runs `[M]` that they belong
to, and a number that fixes the episodes' seeds; NaN where something went wrong."""

DOUBT = 1.0
"""Standard errors above which a gain that is not enough for a jump is worth another episode."""

MOST = 3
"""Episodes of a policy at most, in units of those that a jump needs."""

APART = 1_000_000
"""Between the seeds' numbers of two episodes: more than there are rollouts in a run."""


@dataclasses.dataclass
class ForecastTest:
    """What the present policy of a run, in row 0, and forecasts of it returned so far."""

    run: int
    horizons: list[int]  # checkpoints ahead of each of the C policies; 0 of the present one
    weights: Float32[np.ndarray, "C P"]
    returns: Float[np.ndarray, "C E"] = dataclasses.field(init=False)  # NaN: it cannot act
    steps: int = 0  # of the environment, in all episodes

    def __post_init__(self) -> None:
        self.returns = np.empty((len(self.weights), 0))

    def keep(self, row: int) -> None:
        """Forgets all policies but the present one and another one."""
        rows = [0, row]
        self.horizons = [self.horizons[i] for i in rows]
        self.weights, self.returns = self.weights[rows], self.returns[rows]


def run_tests(
    tests: Sequence[ForecastTest], evaluate: Evaluate, episodes: int, margin: float, when: int
) -> None:
    """Runs the policies of some tests, as often as it takes to see which one is worth a jump.

    All are run for an episode. Then the present policy and the best forecast go on in turns: until
    the forecast has lost; until it has won by the margin, in as many episodes as a jump needs; or
    until it gains no more than a standard error after so many. After three times as many it is
    over.

    The tests, whose returns and steps are written, are of different runs; `episodes` and `margin`
    are those of `JumpConfig`, and `when` fixes the episodes' seeds.
    """
    _run(tests, evaluate, when)
    for done in range(1, MOST * episodes):
        undecided = []
        for test in tests:
            if test.returns.shape[1] < done:
                continue  # it was over before
            best, errors = best_forecast(test.returns)
            doubt = DOUBT < errors <= margin if done >= episodes else errors > 0
            if doubt:
                test.keep(best)
                undecided.append(test)
        _run(undecided, evaluate, when + done * APART)


def _run(tests: Sequence[ForecastTest], evaluate: Evaluate, when: int) -> None:
    """Runs all policies of some tests for one episode more."""
    if not tests:
        return
    weights = np.concatenate([test.weights for test in tests])
    runs = np.repeat([test.run for test in tests], [len(test.weights) for test in tests])
    usable = np.isfinite(weights).all(axis=1)
    returns = np.full((len(weights), 1), np.nan)
    lengths = np.zeros(returns.shape, np.int64)
    returns[usable], lengths[usable] = evaluate(weights[usable], runs[usable], when)
    ends = np.cumsum([len(test.weights) for test in tests])[:-1]
    for test, own, steps in zip(
        tests, np.split(returns, ends), np.split(lengths, ends), strict=True
    ):
        test.returns = np.concatenate([test.returns, own], axis=1)
        test.steps += int(steps.sum())


def best_forecast(returns: Float[np.ndarray, "C E"]) -> tuple[int, float]:
    """The forecast with the highest mean return, and how surely it is better than staying.

    What it gains is in standard errors of the difference of two means of E episodes, whose variance
    is pooled over all rows. Of single episodes nothing is known of the variance: any gain is
    infinitely many standard errors.

    Args:
        returns: episodic returns: row 0 of the present policy, the others of forecasts. A row with
            a value that is not finite is out of the question.

    Returns:
        Its row, and standard errors: minus infinity if no forecast is usable, infinity if the
        present policy is not.
    """
    E = returns.shape[1]
    usable = np.isfinite(returns).all(axis=1)
    means = np.where(usable, np.where(usable[:, None], returns, 0.0).mean(axis=1), -np.inf)
    best = int(means[1:].argmax()) + 1
    if not usable[0] or not usable[best]:
        return best, np.inf if usable[best] else -np.inf
    gain = float(means[best] - means[0])
    variance = float(returns[usable].var(axis=1, ddof=1).mean()) if E > 1 else 0.0
    if gain == 0 or variance == 0:
        return best, np.inf * np.sign(gain) if gain else 0.0
    return best, gain / float(np.sqrt(2 * variance / E))
