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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tipl.evaluation.forecast_sets import ForecastReturns, ForecastSet
from tipl.evaluation.stats import Interval, first_reached, reach_interval, resampling_weights
from tipl.experiments.benchmark.ledger import COSTS, Cost, finite, read_costs, uses_until_paid
from tipl.experiments.benchmark.stages import pptb_directory, pptb_name
from tipl.experiments.config import BENCHMARK, BenchmarkConfig
from tipl.experiments.run import Run, load_run
from tipl.paths import PathDataset
from tipl.paths.dimension import PathDimension, measure_dataset
from tipl.report.methods import method_of
from tipl.report.results import Result, Rows
from tipl.report.tables import Judged

MARGIN = 0.05
"""What counts as no harm, and as PPO's own return: of PPO's whole improvement."""

SHARES = (0.5, 0.75, 0.9, 1.0)
"""Parts of the way from the untrained networks' return to that of PPO's end."""

PPO = "PPO"


@dataclass(frozen=True)
class Finding(Judged):
    """What a claim comes to for one model from one history: the number that decides, judged."""

    claim: str  # one of `CLAIMS`
    shared: bool = False  # whether trials share an initial network


Rule = tuple[bool, str, bool | None]
"""Whether it applies, and then the verdict, and whether the claim holds; None is undecided."""


def _fits(results: Rows, margin: float) -> tuple[Result, list[Rule]] | None:
    """Claim 1, at the shortest horizon; the elite is somewhere else, and no later checkpoint."""
    if method_of(results[0].method).elsewhere:
        return None
    error = results.one(metric="weight_error", horizon=min(results.values("horizon")))
    return error, [
        (error.high < 1, "closer than standing still", True),
        (error.low >= 1, "no closer than standing still", False),
    ]


def _does_no_harm(results: Rows, margin: float) -> tuple[Result, list[Rule]] | None:
    """Claim 2, at all horizons; an untrained network has nothing to lose."""
    if results[0].start == 0:
        return None
    changes = results.where(metric="return_minus_standing_still")
    harmful = [change.horizon or 0 for change in changes if change.high < -margin]
    worst = min(changes, key=lambda change: (change.value, change.horizon or 0))
    return worst, [
        (all(change.low >= -margin for change in changes), "no harm at any horizon", True),
        (bool(harmful), f"harm from {min(harmful, default=0)} ahead on", False),
    ]


def _optimises(results: Rows, margin: float) -> tuple[Result, list[Rule]] | None:
    """Claim 3, at the path's end, from a tenth of the path at most."""
    if (results[0].start or 0) > 0.11:
        return None
    end = results.where(horizon=max(results.values("horizon")))
    gains = end.one(metric="return_minus_standing_still").low > 0
    comes_near = end.one(metric="return_minus_true").low >= -margin
    return end.one(metric="episodic_return"), [
        (gains and comes_near, "as good as PPO's end", True),
        (gains, "better than it was, below PPO's end", None),
        (True, "no better than it was", False),
    ]


_TESTS = {
    "fits the dynamics": _fits,
    "forecasts do not deteriorate the policy": _does_no_harm,
    "optimises policies by inference": _optimises,
}
"""Each gives, for the results of a model from one history, the number that decides, and rules of
which the first that applies does so; or nothing, where the claim is silent."""

CLAIMS = tuple(_TESTS)


def findings(run: Run) -> list[Finding]:
    """What each claim comes to in a run, for each model from each history."""
    gain = float(run.returns.checkpoints[:, -1].mean() - run.returns.checkpoints[:, 0].mean())
    forecasts = run.results.where(experiment=["forecast", "optimize"])
    by_model = [forecasts.where(method=name) for name in run.methods if method_of(name).ours]
    places = [own.where(start=start) for own in by_model for start in sorted(own.values("start"))]
    found = []
    for claim, test in _TESTS.items():
        for measured, rules in filter(None, (test(place, MARGIN * gain) for place in places)):
            rules.append((True, "undecided", None))
            verdict, holds = next((words, holds) for applies, words, holds in rules if applies)
            found.append(Finding(measured, holds, verdict, claim, run.shared_network))
    return found


def steps_to_reach(forecasts: ForecastSet, returns: ForecastReturns) -> dict[str, list[Interval]]:
    """For PPO and each method, the environment steps of one trial until a share is reached.

    PPO has reached a share at its first checkpoint with that mean return over trials. A method has
    reached it at the first history from which its forecasts do, at the best of the horizons that
    were made: what it then costs is the history. Infinite: no history was long enough. Standing
    still is PPO itself where histories end: what a forecast must beat to be worth anything.

    Returns:
        By method, PPO first, an interval for each of `SHARES`; each resample has its own goals.
    """
    weights = resampling_weights(len(returns.checkpoints))  # [R, N]
    true = weights @ returns.checkpoints.mean(axis=2)  # [R, N] @ [N, T]
    reached = weights @ returns.forecasts.mean(axis=2).T  # [R, N] @ [N, F]
    steps = forecasts.paths.global_step.astype(np.float64)
    first, final = true[:, :1], true[:, -1:]
    goals = first + np.array(SHARES) * (final - first)  # [R, S]
    found = {PPO: first_reached(true, steps, goals)}
    cases: dict[str, dict[int, list[int]]] = {}  # their numbers, by method and start
    for f, case in enumerate(forecasts.cases):
        cases.setdefault(case.method, {}).setdefault(case.start, []).append(f)
    for method, by_start in cases.items():
        starts = sorted(by_start)
        best = np.stack([reached[:, by_start[start]].max(axis=1) for start in starts], axis=1)
        found[method] = first_reached(best, steps[starts], goals)
    return {method: [reach_interval(column) for column in rows.T] for method, rows in found.items()}


PAY_BACK_SHARE = 0.9
"""Part of PPO's improvement at which a model has to pay for itself."""


@dataclass(frozen=True, eq=False)
class Benchmark:
    """What the stages of a benchmark left; the rest is worked out when it is asked for."""

    config: BenchmarkConfig
    command: str
    directory: Path
    run: Run  # trials with independent initial networks
    shared: Run | None  # trials that share one; None if left out
    boosted: Mapping[str, PathDataset]  # datasets of PPO with trimming and boosting, by name
    costs: Sequence[Cost]  # of each piece of work

    @cached_property
    def findings(self) -> list[Finding]:
        """On each claim."""
        return findings(self.run) + (findings(self.shared) if self.shared else [])

    @cached_property
    def dimensions(self) -> list[PathDimension]:
        """Of the paths, and of random walks."""
        return measure_dataset(self.run.paths)

    @cached_property
    def results(self) -> Rows:
        """All rows of `results.jsonl`."""
        from tipl.experiments.path_dimension import dimension_rows  # late: it brings what draws

        shared = self.shared.results if self.shared else ()
        task, command = self.run.paths.task.env_id, self.command
        return Rows(
            [
                *self.run.results,
                *(dataclasses.replace(result, initial="shared") for result in shared),
                *map(finite, _ledger_rows(self)),
                *dimension_rows(self.dimensions, task=task, command=command),
            ]
        )


def load_benchmark(directory: str | Path) -> Benchmark:
    """Reads what the stages of a benchmark left.

    Raises:
        TiplError: a stage's result is missing or damaged.
    """
    directory = Path(directory)
    record = BENCHMARK.read(directory / BENCHMARK.name)
    config = record.config
    boosted = {
        pptb_name(rank, boost): PathDataset.open(pptb_directory(directory, rank, boost))
        for rank, boost in (config.pptb if config.pptb_trials else ())
    }
    shared = load_run(directory / "shared") if config.shared_trials else None
    costs = read_costs(directory / COSTS)
    run = load_run(directory)
    return Benchmark(config, record.command, directory, run, shared, boosted, costs)


def pay_back_uses(
    run: Run, costs: Sequence[Cost], steps: Mapping[str, Sequence[Interval]]
) -> dict[str, tuple[float, float]]:
    """Uses until each trained model has paid for its data and training.

    A use brings a network to `PAY_BACK_SHARE` of PPO's improvement. What PPO would have taken, less
    the history and the forecast, is what it saves.

    Returns:
        By method, uses counted in environment steps and in processor seconds; infinite where it
        never pays.
    """
    by_work = {(cost.kind, cost.name): cost for cost in costs}
    collected = next(cost for cost in costs if cost.kind == "collect")
    seconds_of_step = collected.cpu_seconds / collected.env_steps
    # what needs longer histories than there are has no steps
    reached = {name: shares[SHARES.index(PAY_BACK_SHARE)].value for name, shares in steps.items()}
    uses = {}
    for model in run.models.values():
        data = sum(map(len, model.training_trials.values())) / run.paths.num_trials
        trained = by_work["train", model.label]
        env_steps = data * collected.env_steps + trained.env_steps
        cpu_seconds = data * collected.cpu_seconds + trained.cpu_seconds
        for name in (asked.name for asked in model.all_ways() if asked.name in reached):
            saved = reached[PPO] - reached[name]
            forecast = by_work.get(("forecast", name))
            saved_seconds = saved * seconds_of_step - (forecast.cpu_seconds if forecast else 0.0)
            uses[name] = (
                uses_until_paid(env_steps, saved), uses_until_paid(cpu_seconds, saved_seconds)
            )  # fmt: skip
    return uses


def _ledger_rows(benchmark: Benchmark) -> Iterator[Result]:
    """Costs, steps and uses, infinite where there are none."""
    run = benchmark.run
    trials, _, episodes = run.returns.checkpoints.shape
    steps = steps_to_reach(run.forecasts, run.returns)

    def row(
        method: str, metric: str, value: Interval, command: str = benchmark.command, **place: Any
    ) -> Result:
        task = run.paths.task.env_id
        return Result(task, "ledger", method, metric, *value, trials, episodes, command, **place)

    for cost in benchmark.costs:
        command = cost.command or benchmark.command
        for metric in ("env_steps", "cpu_seconds", "flops", "peak_rss_mb"):
            yield row(cost.work, metric, Interval(getattr(cost, metric)), command, part="in all")
    for method, intervals in steps.items():
        for share, interval in zip(SHARES, intervals, strict=True):
            yield row(method, "env_steps_to_reach", interval, share=share)
    for method, values in pay_back_uses(run, benchmark.costs, steps).items():
        for unit, value in zip(("env_steps", "cpu_seconds"), values, strict=True):
            yield row(method, f"uses_to_pay_back_{unit}", Interval(value), share=PAY_BACK_SHARE)
