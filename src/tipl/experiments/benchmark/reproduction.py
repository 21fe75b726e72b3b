"""What the paper claims, point by point, and what was measured.

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
from collections.abc import Callable, Sequence

from tipl.experiments.forecast_sets import ForecastCase
from tipl.experiments.rows import TRUE_CHECKPOINT
from tipl.experiments.run import Run
from tipl.report.results import Result, place_label

__all__ = ["CLAIMS", "INDEPENDENT", "MARGIN", "Finding", "findings"]

MARGIN = 0.05
"""What counts as no harm, and as PPO's own return: of PPO's whole improvement."""

CLAIMS = (
    "fits the dynamics",
    "forecasts do not deteriorate the policy",
    "optimises policies by inference",
)


INDEPENDENT = "independent initial networks"


@dataclasses.dataclass(frozen=True)
class Finding:
    """What a claim comes to for one model from one history.

    Attributes:
        claim: one of `CLAIMS`.
        experiment: whether trials have independent initial networks or share one.
        model: the model.
        history: where the forecast starts.
        measured: the number that decides.
        beside: the number that it stands beside, if any.
        verdict: what it comes to, in words.
        holds: whether the claim holds there; None is undecided.
    """

    claim: str
    experiment: str
    model: str
    history: str
    measured: Result
    beside: Result | None
    verdict: str
    holds: bool | None


class _Results:
    """The results of a run by what they are of."""

    def __init__(self, run: Run) -> None:
        self._rows, self._end = run.results, run.paths.num_checkpoints - 1

    def of(self, case: ForecastCase, metric: str, method: str | None = None) -> Result:
        """The result of a forecast, or of another method at the same place."""
        place = {"start": case.start / self._end, "horizon": case.horizon}
        return self._rows.one(method=method or case.method, metric=metric, **place)


def findings(run: Run, models: Sequence[str]) -> list[Finding]:
    """What each claim comes to, for each model from each history.

    Args:
        run: the evaluated run.
        models: names of the models.
    """
    results = _Results(run)
    experiment = "shared initial network" if run.shared_network else INDEPENDENT
    gain = float(run.returns.checkpoints[:, -1].mean() - run.returns.checkpoints[:, 0].mean())
    end = run.paths.num_checkpoints - 1
    found = []
    for model in models:
        cases = [case for case in run.forecasts.cases if case.method == model]
        for start in sorted({case.start for case in cases}):
            ahead = sorted((c for c in cases if c.start == start), key=lambda case: case.horizon)
            for test in (_fits, _does_no_harm, _optimises):
                finding = test(results, ahead, MARGIN * gain)
                if finding is not None:
                    history = place_label(start=start / end)
                    found.append(
                        dataclasses.replace(finding, experiment=experiment, history=history)
                    )
    return sorted(found, key=lambda finding: CLAIMS.index(finding.claim))


Test = Callable[[_Results, Sequence[ForecastCase], float], Finding | None]


def _fits(results: _Results, ahead: Sequence[ForecastCase], margin: float) -> Finding | None:
    """Claim 1, at the shortest horizon; the elite is somewhere else, and no later checkpoint."""
    case = ahead[0]
    if case.method == "NeuronTransformer (elite)":
        return None
    error = results.of(case, "weight_error")
    if error.high < 1:
        verdict, holds = "closer than standing still", True
    elif error.low >= 1:
        verdict, holds = "no closer than standing still", False
    else:
        verdict, holds = "undecided", None
    return Finding(CLAIMS[0], "", case.method, "", error, None, verdict, holds)


def _does_no_harm(
    results: _Results, ahead: Sequence[ForecastCase], margin: float
) -> Finding | None:
    """Claim 2, at all horizons; an untrained network has nothing to lose."""
    if ahead[0].start == 0:
        return None
    changes = [results.of(case, "return_minus_standing_still") for case in ahead]
    harmless = [change.low >= -margin for change in changes]
    harmful = [change.high < -margin for change in changes]
    worst = min(range(len(ahead)), key=lambda i: changes[i].value)
    if all(harmless):
        verdict, holds = "no harm at any horizon", True
    elif any(harmful):
        first = ahead[harmful.index(True)].horizon
        verdict, holds = f"harm from {first} ahead on", False
    else:
        verdict, holds = "undecided", None
    true = results.of(ahead[worst], "return_minus_standing_still", TRUE_CHECKPOINT)
    return Finding(CLAIMS[1], "", ahead[0].method, "", changes[worst], true, verdict, holds)


def _optimises(results: _Results, ahead: Sequence[ForecastCase], margin: float) -> Finding | None:
    """Claim 3, at the path's end, from a tenth of the path at most."""
    case = ahead[-1]
    if case.start > 0.11 * case.target:
        return None
    gain = results.of(case, "return_minus_standing_still")
    against = results.of(case, "return_minus_true")
    if gain.low > 0 and against.low >= -margin:
        verdict, holds = "as good as PPO's end", True
    elif gain.low > 0:
        verdict, holds = "better than it was, below PPO's end", None
    else:
        verdict, holds = "no better than it was", False
    reached = results.of(case, "episodic_return")
    true = results.of(case, "episodic_return", TRUE_CHECKPOINT)
    return Finding(CLAIMS[2], "", case.method, "", reached, true, verdict, holds)
