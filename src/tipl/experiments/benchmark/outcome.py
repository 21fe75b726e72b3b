"""What a benchmark comes to: the paper's claims, the ledger, and every number as a result.

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
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tipl.core import storage
from tipl.core.arrays import Array
from tipl.evaluation.stats import Interval, first_reached, reach_interval, resampling_weights
from tipl.experiments.benchmark.ledger import COSTS, Cost, read_costs, uses_until_paid
from tipl.experiments.benchmark.stages import pptb_directory, pptb_name
from tipl.experiments.config import BenchmarkConfig
from tipl.experiments.forecast_sets import ForecastReturns, ForecastSet
from tipl.experiments.path_dimension import dimension_rows
from tipl.experiments.run import TRUE_CHECKPOINT, Run, load_run
from tipl.paths import PathDataset
from tipl.paths.dimension import PathDimension, measure_dataset
from tipl.report.methods import method_of
from tipl.report.results import Result, Rows

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


FILE = "benchmark.json"

PAY_BACK_SHARE = 0.9
"""Part of PPO's improvement at which a model has to pay for itself."""


@dataclass(frozen=True, eq=False)
class Benchmark:
    """What the stages of a benchmark left; what is made of it is worked out when it is asked for.

    Attributes:
        config: what was done.
        command: the command line that did it.
        directory: where the stages left it.
        run: trials with independent initial networks.
        shared: trials that share one; None if left out.
        boosted: datasets of PPO with trimming and boosting, by name.
        costs: of each piece of work.
    """

    config: BenchmarkConfig
    command: str
    directory: Path
    run: Run
    shared: Run | None
    boosted: Mapping[str, PathDataset]
    costs: Sequence[Cost]

    @cached_property
    def steps(self) -> dict[str, list[Interval]]:
        """Environment steps to each share of PPO's improvement, by method."""
        return steps_to_reach(self.run.forecasts, self.run.returns)

    @cached_property
    def uses(self) -> dict[str, tuple[float, float]]:
        """Uses until a method has paid for itself: see `pay_back_uses`."""
        return pay_back_uses(self.run, self.costs, self.steps)

    @cached_property
    def findings(self) -> list[Finding]:
        """On each claim."""
        runs = [one for one in (self.run, self.shared) if one is not None]
        return [finding for run in runs for finding in findings(run, _model_names(run))]

    @cached_property
    def dimensions(self) -> list[PathDimension]:
        """Of the paths, and of random walks."""
        return measure_dataset(self.run.paths)

    @cached_property
    def results(self) -> Rows:
        """All rows of `results.jsonl`."""
        task = self.run.paths.task.env_id
        rows = [
            *self.run.results,
            *(_of_shared(result) for result in (self.shared.results if self.shared else ())),
            *_ledger_results(self.run, self.costs, self.steps, self.uses, self.command),
            *dimension_rows(self.dimensions, task=task, command=self.command),
        ]
        return Rows(rows)


def write_record(directory: Path, config: BenchmarkConfig, command: str) -> None:
    """Writes what was done, and by which command line, to a benchmark's directory."""
    record = {"config": dataclasses.asdict(config), "command": command}
    storage.write_json(directory / FILE, record)


def load_benchmark(directory: str | Path) -> Benchmark:
    """Reads what the stages of a benchmark left.

    Raises:
        TiplError: a stage's result is missing or damaged.
    """
    directory = Path(directory)
    record = storage.read_json(
        directory / FILE, "the record of a benchmark (made by `tipl benchmark`)"
    )
    config = BenchmarkConfig.from_json(record["config"])
    run = load_run(directory)
    boosted = {
        pptb_name(rank, boost): PathDataset.open(pptb_directory(directory, rank, boost))
        for rank, boost in (config.pptb if config.pptb_trials else ())
    }
    return Benchmark(
        config,
        record["command"],
        directory,
        run,
        load_run(directory / "shared") if config.shared_trials else None,
        boosted,
        read_costs(directory / COSTS),
    )


def _model_names(run: Run) -> list[str]:
    """The methods of a run that are ours or the paper's."""
    return [name for name in run.methods if method_of(name).ours]


def _of_shared(result: Result) -> Result:
    return dataclasses.replace(result, initial="shared")


def pay_back_uses(
    run: Run, costs: Sequence[Cost], steps: Mapping[str, Sequence[Interval]]
) -> dict[str, tuple[float, float]]:
    """Uses until each trained model has paid for its data and training.

    A use brings a network to `PAY_BACK_SHARE` of PPO's improvement. What PPO would have taken, less
    the history and the forecast, is what it saves.

    Args:
        run: the evaluated run.
        costs: of each piece of work.
        steps: of `steps_to_reach`.

    Returns:
        By method, uses counted in environment steps and in processor seconds; infinite where it
        never pays.
    """
    by_work = {(cost.kind, cost.name): cost for cost in costs}
    collected = next(cost for cost in costs if cost.kind == "collect")
    seconds_of_step = collected.cpu_seconds / collected.env_steps
    share = SHARES.index(PAY_BACK_SHARE)
    ppo = steps[PPO][share].value
    uses = {}
    for model in run.models:
        trials = sum(map(len, model.training_trials.values()))
        trained = by_work["train", model.label]
        data = trials / run.paths.num_trials
        for asked in model.all_ways():
            if asked.name not in steps:  # it needs longer histories than there are
                continue
            saved = ppo - steps[asked.name][share].value
            forecast = by_work.get(("forecast", asked.name))
            saved_seconds = saved * seconds_of_step - (forecast.cpu_seconds if forecast else 0.0)
            uses[asked.name] = (
                uses_until_paid(data * collected.env_steps + trained.env_steps, saved),
                uses_until_paid(data * collected.cpu_seconds + trained.cpu_seconds, saved_seconds),
            )
    return uses


def _ledger_results(
    run: Run,
    costs: Sequence[Cost],
    steps: Mapping[str, Sequence[Interval]],
    uses: Mapping[str, tuple[float, float]],
    command: str,
) -> Iterator[Result]:
    task = run.paths.task.env_id
    trials, _, episodes = run.returns.checkpoints.shape

    def row(method: str, metric: str, value: Interval, made_by: str = "", **place: Any) -> Result:
        number, low, high = (bound if math.isfinite(bound) else math.nan for bound in value)
        return Result(
            task, "ledger", method, metric, number, low, high, trials, episodes,
            made_by or command, **place,
        )  # fmt: skip

    for cost in costs:
        for metric in ("env_steps", "cpu_seconds", "flops", "peak_rss_mb"):
            single = Interval(getattr(cost, metric), math.nan, math.nan)
            yield row(cost.work, metric, single, cost.command, part="in all")
    for method, intervals in steps.items():
        for share, interval in zip(SHARES, intervals, strict=True):
            yield row(method, "env_steps_to_reach", interval, share=share)
    for method, values in uses.items():
        for metric, value in zip(("env_steps", "cpu_seconds"), values, strict=True):
            single = Interval(value, math.nan, math.nan)
            yield row(method, f"uses_to_pay_back_{metric}", single, share=PAY_BACK_SHARE)
