"""What a benchmark comes to: its runs, findings and ledger, and every number as a result."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tipl.core import storage
from tipl.evaluation.stats import Interval
from tipl.experiments.benchmark.claims import PPO, SHARES, Finding, findings, steps_to_reach
from tipl.experiments.benchmark.ledger import COSTS, Cost, read_costs, uses_until_paid
from tipl.experiments.benchmark.stages import pptb_directory, pptb_name
from tipl.experiments.config import BenchmarkConfig
from tipl.experiments.path_dimension import dimension_rows
from tipl.experiments.run import Run, load_run
from tipl.paths import PathDataset
from tipl.paths.dimension import PathDimension, measure_dataset
from tipl.report.methods import method_of
from tipl.report.results import Result, Rows

__all__ = ["PAY_BACK_SHARE", "Benchmark", "load_benchmark", "pay_back_uses", "write_record"]

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
