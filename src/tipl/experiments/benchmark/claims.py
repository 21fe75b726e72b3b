"""What the paper claims, point by point, and what was measured; and how soon PPO's end is reached.

Tang (arXiv 2503.04074) gives no numbers, so each claim is read as a statement that can be tested,
with a rule for its verdict that was fixed before the measurement:

1. *It fits the dynamics*: one checkpoint ahead, the forecast is closer to the true weights than
   standing still is.
2. *Forecasts do not deteriorate the policy*: the return of the forecast policy is not below that
   of the policy at the history's end, by more than a margin.
3. *It optimises policies by inference*: from an untrained or hardly trained network, the forecast
   of the path's end returns more than the network does; and as much as PPO's end, to a margin.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from tipl.core.arrays import Array
from tipl.evaluation.stats import Interval, first_reached, reach_interval, resampling_weights
from tipl.experiments.forecast_sets import ForecastReturns, ForecastSet
from tipl.experiments.run import TRUE_CHECKPOINT, Run
from tipl.report.methods import method_of
from tipl.report.results import Result, Rows

__all__ = ["CLAIMS", "INDEPENDENT", "MARGIN", "PPO", "SHARES", "Finding", "findings",
           "steps_to_reach"]  # fmt: skip

MARGIN = 0.05
"""What counts as no harm, and as PPO's own return: of PPO's whole improvement."""

CLAIMS = (
    "fits the dynamics",
    "forecasts do not deteriorate the policy",
    "optimises policies by inference",
)

INDEPENDENT = "independent initial networks"

SHARES = (0.5, 0.75, 0.9, 1.0)
"""Parts of the way from the untrained networks' return to that of PPO's end."""

PPO = "PPO"


@dataclasses.dataclass(frozen=True)
class Finding:
    """What a claim comes to for one model from one history.

    Attributes:
        claim: one of `CLAIMS`.
        experiment: whether trials have independent initial networks or share one.
        model: the model.
        start: part of the path that the history covers.
        measured: the number that decides.
        beside: the number that it stands beside, if any.
        verdict: what it comes to, in words.
        holds: whether the claim holds there; None is undecided.
    """

    claim: str
    experiment: str
    model: str
    start: float
    measured: Result
    beside: Result | None
    verdict: str
    holds: bool | None


@dataclasses.dataclass(frozen=True)
class _Place:
    """The results of one model from one history, and of the truth beside it."""

    model: str
    start: float
    horizons: Sequence[int]
    results: Rows
    margin: float

    def of(self, metric: str, horizon: int, method: str | None = None) -> Result:
        """A number of the model, or of another method, so far ahead."""
        return self.results.one(method=method or self.model, metric=metric, horizon=horizon)


def findings(run: Run, models: Sequence[str]) -> list[Finding]:
    """What each claim comes to, for each model from each history.

    Args:
        run: the evaluated run.
        models: names of the models.
    """
    experiment = "shared initial network" if run.shared_network else INDEPENDENT
    gain = float(run.returns.checkpoints[:, -1].mean() - run.returns.checkpoints[:, 0].mean())
    forecasts = run.results.where(experiment=["forecast", "optimize"])
    found = []
    for model in models:
        own = forecasts.where(method=model, metric="episodic_return")
        for start in sorted(own.values("start")):
            horizons = sorted(own.where(start=start).values("horizon"))
            results = forecasts.where(start=start, method=[model, TRUE_CHECKPOINT])
            place = _Place(model, start, horizons, results, MARGIN * gain)
            for claim, test in zip(CLAIMS, (_fits, _does_no_harm, _optimises), strict=True):
                tested = test(place)
                if tested is not None:
                    found.append(Finding(claim, experiment, model, start, *tested))
    return sorted(found, key=lambda finding: CLAIMS.index(finding.claim))


Tested = tuple[Result, Result | None, str, bool | None]
"""The number that decides, that beside it, the verdict, and whether the claim holds."""


def _fits(place: _Place) -> Tested | None:
    """Claim 1, at the shortest horizon; the elite is somewhere else, and no later checkpoint."""
    if method_of(place.model).elsewhere:
        return None
    error = place.of("weight_error", place.horizons[0])
    if error.high < 1:
        return error, None, "closer than standing still", True
    if error.low >= 1:
        return error, None, "no closer than standing still", False
    return error, None, "undecided", None


def _does_no_harm(place: _Place) -> Tested | None:
    """Claim 2, at all horizons; an untrained network has nothing to lose."""
    if place.start == 0:
        return None
    metric, margin = "return_minus_standing_still", place.margin
    changes = [place.of(metric, horizon) for horizon in place.horizons]
    harmful = [change.high < -margin for change in changes]
    worst = min(range(len(changes)), key=lambda i: changes[i].value)
    true = place.of(metric, place.horizons[worst], TRUE_CHECKPOINT)
    if all(change.low >= -margin for change in changes):
        return changes[worst], true, "no harm at any horizon", True
    if any(harmful):
        first = place.horizons[harmful.index(True)]
        return changes[worst], true, f"harm from {first} ahead on", False
    return changes[worst], true, "undecided", None


def _optimises(place: _Place) -> Tested | None:
    """Claim 3, at the path's end, from a tenth of the path at most."""
    if place.start > 0.11:
        return None
    end = place.horizons[-1]
    gain, against = (place.of(f"return_minus_{name}", end) for name in ("standing_still", "true"))
    reached = place.of("episodic_return", end)
    true = place.of("episodic_return", end, TRUE_CHECKPOINT)
    if gain.low > 0 and against.low >= -place.margin:
        return reached, true, "as good as PPO's end", True
    if gain.low > 0:
        return reached, true, "better than it was, below PPO's end", None
    return reached, true, "no better than it was", False


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
    weights = resampling_weights(len(returns.checkpoints), seed=seed)  # [R, N]
    true = weights @ returns.checkpoints.mean(axis=2)  # [R, N] @ [N, T]
    reached = weights @ returns.forecasts.mean(axis=2).T  # [R, N] @ [N, F]
    steps = forecasts.paths.global_step.astype(np.float64)
    first, final = true[:, :1], true[:, -1:]
    goals = first + np.array(SHARES) * (final - first)  # [R, S]
    found = {PPO: first_reached(true, steps, goals)}
    for method in dict.fromkeys(case.method for case in forecasts.cases):
        by_start: dict[int, list[Array]] = {}
        for f, case in enumerate(forecasts.cases):
            if case.method == method:
                by_start.setdefault(case.start, []).append(reached[:, f])
        starts = sorted(by_start)
        best = np.stack([np.max(by_start[start], axis=0) for start in starts], axis=1)
        found[method] = first_reached(best, steps[starts], goals)
    return {method: [reach_interval(column) for column in rows.T] for method, rows in found.items()}
