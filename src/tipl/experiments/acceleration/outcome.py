"""What a comparison comes to: every number of its methods, of pairs, and of the model's cost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tipl.core import storage
from tipl.core.addresses import is_address
from tipl.core.arrays import Array
from tipl.evaluation import stats
from tipl.evaluation.stats import Interval
from tipl.experiments.acceleration.trials import (
    Architecture,
    Trained,
    comparison_methods,
    load_architecture,
)
from tipl.experiments.benchmark.ledger import COSTS, finite, read_costs, uses_until_paid
from tipl.experiments.config import COMPARISON, AccelerationConfig, ModelCost
from tipl.experiments.stage_records import StageRecord, read_records
from tipl.forecast.hub import model_directory
from tipl.paths import PathDataset
from tipl.paths.values import JUMP_COUNTS
from tipl.report.results import Result, Rows

SHARES = (0.95, 1.0)
"""Parts of PPO's final mean return."""

COUNTS = dict(zip(JUMP_COUNTS, ("test_steps", "jumps", "rollbacks"), strict=True))
"""What a dataset counts of jumps, and the metrics that are their means."""

USES = (1.0, 10.0, 100.0, math.inf)
"""Trainings among which data and training of a model are shared out; infinitely many: its use."""


def model_cost(config: AccelerationConfig) -> ModelCost | None:
    """The cost of the model that forecasts, if it is known.

    It is known where the dataset of the comparison lies in a benchmark's directory, whose
    `stages.json` says what collecting it and training an elite model on it took.

    Raises:
        TiplError: the dataset, the record of the stages or that of the costs is damaged.
    """
    if config.paths is None or config.forecaster is None or is_address(config.paths):
        return None
    run = Path(config.paths).parent
    stages = read_records(run)
    if not {"collect", "train (elite)"} <= stages.keys():
        return None
    paths = PathDataset.open(config.paths)
    costs = read_costs(run / COSTS) if (run / COSTS).exists() else []
    in_training = sum(
        cost.env_steps
        for cost in costs
        if (cost.kind, cost.name) == ("train", "NeuronTransformer (elite)")
    )
    model = storage.read_json(model_directory(config.forecaster) / "config.json")
    return ModelCost(
        float(paths.num_trials * paths.global_step[-1] + in_training),
        stages["collect"].cpu_seconds + stages["train (elite)"].cpu_seconds,
        paths.metadata.digest in model.get("settings", {}).get("datasets", {}),
    )


def to_share(unit: str, share: float) -> str:
    """The metric of how many of a unit one trial takes to a share of PPO's final return."""
    return f"{unit}_to_{100 * share:g}_percent_of_ppo"


def _rows_of(comparison: Comparison, architecture: Architecture) -> Iterator[Result]:
    """All numbers of one architecture; infinite where a goal is not reached."""
    gated, ppo, cost = architecture.gated, architecture.ppo, comparison.cost

    def row(one: Trained, metric: str, value: Interval, **columns: Any) -> Result:
        usual: dict[str, Any] = {"n_episodes": architecture.episodes, "key": one.method.key}
        return comparison.row(
            one.name, metric, value, n_trials=architecture.num_trials,
            command=one.stage.command or comparison.command, architecture=architecture.name,
            **usual | columns,
        )  # fmt: skip

    curves = {one.name: one.curves for one in architecture.trained}
    reached = stats.steps_to_shares(curves, ppo.name, architecture.end, SHARES)
    for one in architecture.trained:
        for metric, value in (_returns(one, ppo) | _reach(one, ppo, reached)).items():
            yield row(one, metric, value)
        for metric, value in _spent(one, ppo):
            yield row(one, metric, value, n_episodes=0)
        if one is not gated:
            for metric, value in _differences(gated, one).items():
                yield row(gated, metric, value, beside=one.name)
    if cost is not None:
        own, theirs = (stats.reach_interval(reached[one.name][:, -1]) for one in (gated, ppo))
        units = {
            "env_steps": (cost.env_steps, 1.0, 1.0),
            "cpu_seconds": (
                cost.cpu_seconds, gated.cpu_seconds_per_step, ppo.cpu_seconds_per_step,
            ),
        }  # fmt: skip
        for uses in USES:
            for unit, (whole, a_step, _) in units.items():
                shared = Interval(*(bound * a_step + whole / uses for bound in own))
                yield row(gated, f"{unit}_amortised", shared, uses=uses)
        for unit, (whole, a_step, of_ppo) in units.items():
            saved = theirs.value * of_ppo - own.value * a_step
            uses = uses_until_paid(whole, saved)
            yield row(gated, f"uses_to_pay_back_{unit}", Interval(uses))


def _returns(one: Trained, ppo: Trained) -> dict[str, Interval]:
    """Returns at equal steps and on average over them, beside PPO's."""
    found = {
        "final_return": stats.mean_interval(one.final),
        "final_return_iqm": stats.iqm_interval(one.final),
        "return_over_training": stats.mean_interval(one.over_training),
    }
    if one is not ppo:
        final, over_training = _differences(one, ppo).values()
        found |= {
            "final_return_minus_ppo": final,
            "final_return_relative_to_ppo": stats.ratio_interval(one.final, ppo.final),
            "probability_of_improvement": stats.probability_of_improvement(one.final, ppo.final),
            "return_over_training_minus_ppo": over_training,
        }
    return found


def _differences(one: Trained, other: Trained) -> dict[str, Interval]:
    """By how much one method returns more than another, paired by trial."""
    difference = stats.paired_difference_interval
    return {
        "final_return_difference": difference(one.final, other.final),
        "return_over_training_difference": difference(one.over_training, other.over_training),
    }


def _reach(one: Trained, ppo: Trained, reached: dict[str, Array]) -> dict[str, Interval]:
    """Steps to each share of PPO's final return, and that in units of PPO's steps."""
    found = {}
    for share, own, theirs in zip(SHARES, reached[one.name].T, reached[ppo.name].T, strict=True):
        metric = to_share("env_steps", share)
        found[metric] = stats.reach_interval(own)
        if one is not ppo:
            # 0 steps of both are equally many; a PPO that is there at once cannot be outrun
            with np.errstate(divide="ignore", invalid="ignore"):
                relative = np.where(own == theirs, 1.0, own / theirs)
            found[f"{metric}_relative_to_ppo"] = stats.reach_interval(relative)
        found[to_share("cpu_seconds", share)] = stats.reach_interval(own * one.cpu_seconds_per_step)
    return found


def _spent(one: Trained, ppo: Trained) -> Iterator[tuple[str, Interval]]:
    """Tests, jumps and rollbacks of one method, and its processor time."""
    for name, values in one.counts.items():
        yield COUNTS[name], stats.mean_interval(values)
    yield "cpu_seconds", Interval(one.stage.cpu_seconds)
    yield "cpu_seconds_per_env_step", Interval(one.cpu_seconds_per_step)
    if one is not ppo:
        relative = one.cpu_seconds_per_step / ppo.cpu_seconds_per_step
        yield "cpu_seconds_per_env_step_relative_to_ppo", Interval(relative)


@dataclass(frozen=True, eq=False)
class Comparison:
    """What the stages of a comparison left; its numbers are worked out when they are asked for."""

    config: AccelerationConfig
    command: str
    directory: Path
    architectures: Sequence[Architecture]  # one for each width
    cost: ModelCost | None  # of the model that forecasts, if it is known
    stages: Sequence[StageRecord]

    @cached_property
    def rows(self) -> Rows:
        """All numbers, infinite where a goal is not reached."""
        rows = [row for one in self.architectures for row in _rows_of(self, one)]
        for metric in ("env_steps", "cpu_seconds") if self.cost is not None else ():
            value, made = Interval(getattr(self.cost, metric)), "data and training of the model"
            rows.append(self.row(made, metric, value, command=self.command, part="in all"))
        return Rows(rows)

    def row(self, method: str, metric: str, value: Interval, **columns: Any) -> Result:
        """One number of the comparison."""
        return Result(self.config.env_id, self.config.COMMAND, method, metric, *value, **columns)

    @cached_property
    def results(self) -> Rows:
        """All rows of `results.jsonl`: NaN where a goal is not reached."""
        return Rows(map(finite, self.rows))

    def find(self, one: Trained, metric: str, **place: Any) -> Result:
        """One number of a method in an architecture; `place` is `beside` and `uses`, if it has any.

        Raises:
            TiplError: there is no such number.
        """
        where = {"key": one.method.key, "architecture": one.method.architecture, "metric": metric}
        return self.rows.one(**{"beside": None, "uses": None} | where | place)


def load_comparison(directory: str | Path) -> Comparison:
    """Reads what the stages of a comparison left, which are all done.

    Raises:
        TiplError: a stage's result is missing or damaged, the methods' trials are not the same
            ones, or fewer than two of them diverged under no method.
    """
    directory = Path(directory)
    record = COMPARISON.read(directory / COMPARISON.name)
    config = record.config
    stages = read_records(directory)
    architectures = [
        load_architecture(directory, list(comparison_methods(config, directory, width)), stages)
        for width in config.widths
    ]
    done = list(stages.values())
    return Comparison(config, record.command, directory, architectures, record.cost, done)
