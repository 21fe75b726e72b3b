"""What a comparison comes to: every number of its methods, of pairs, and of the model's cost."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tipl.core import storage
from tipl.core.arrays import Array
from tipl.evaluation.stats import (
    Interval,
    iqm_interval,
    mean_interval,
    paired_difference_interval,
    probability_of_improvement,
    ratio_interval,
    reach_interval,
)
from tipl.experiments.acceleration.trials import (
    Architecture,
    Trained,
    load_architecture,
    steps_to_shares,
    trained_methods,
)
from tipl.experiments.benchmark.ledger import COSTS, read_costs, uses_until_paid
from tipl.experiments.config import AccelerationConfig
from tipl.experiments.pipeline import StageRecord, read_records
from tipl.forecast.hub import model_directory
from tipl.paths import PathDataset
from tipl.paths.parts import JUMP_COUNTS
from tipl.report.results import Result, Rows

USES = (1.0, 10.0, 100.0, math.inf)
"""Trainings among which data and training of a model are shared out; infinitely many: its use."""

COLLECTING_STAGE, TRAINING_STAGE = "collect", "train (elite)"
"""Stages of a benchmark, whose costs are counted."""

TRAINED = "NeuronTransformer (elite)"
"""What that training makes."""


@dataclass(frozen=True)
class ModelCost:
    """What data and training of a model took.

    Attributes:
        env_steps: of all trials of its dataset, and of training itself, if that is known.
        cpu_seconds: of collecting and training.
        own: whether the model of the comparison learned from that very dataset; if not, the costs
            are those of one that is made alike.
    """

    env_steps: float
    cpu_seconds: float
    own: bool


def model_cost(config: AccelerationConfig) -> ModelCost | None:
    """The cost of the model that forecasts, if it is known.

    It is known where the dataset of the comparison lies in a benchmark's directory, whose
    `stages.json` says what collecting it and training an elite model on it took.

    Raises:
        TiplError: the dataset, the record of the stages or that of the costs is damaged.
    """
    if config.paths is None or config.forecaster is None:
        return None
    run = Path(config.paths).parent
    stages = read_records(run)
    if not {COLLECTING_STAGE, TRAINING_STAGE} <= stages.keys():
        return None
    paths = PathDataset.open(config.paths)
    in_training = 0.0
    if (run / COSTS).exists():
        costs = read_costs(run / COSTS)
        of_training = [c for c in costs if (c.kind, c.name) == ("train", TRAINED)]
        in_training = sum(cost.env_steps for cost in of_training)
    return ModelCost(
        float(paths.num_trials * paths.global_step[-1] + in_training),
        stages[COLLECTING_STAGE].cpu_seconds + stages[TRAINING_STAGE].cpu_seconds,
        paths.metadata.digest in _training_datasets(config.forecaster),
    )


def _training_datasets(model: str) -> set[str]:
    """Digests of the datasets that a model learned from."""
    settings = storage.read_json(model_directory(model) / "config.json").get("settings", {})
    return set(settings.get("datasets", {}))


def _shared(own: Interval, unit: float, cost: float, uses: float) -> Interval:
    """What a use costs when a model's cost is shared out among uses.

    Args:
        own: environment steps of one use.
        unit: what one of these steps costs.
        cost: of the model.
        uses: among which it is shared; may be infinite.
    """
    return Interval(*(bound * unit + cost / uses for bound in own))


EXPERIMENT = "accelerate"

SHARES = (0.95, 1.0)
"""Parts of PPO's final mean return."""

COUNTS = dict(zip(JUMP_COUNTS, ("test_steps", "jumps", "rollbacks"), strict=True))
"""What a dataset counts of jumps, and the metrics that are their means."""

DATA_AND_TRAINING = "data and training of the model"
"""Whose costs the rows of a model's cost are."""


def reach_metric(share: float) -> str:
    """The metric of the environment steps to a share of PPO's final return."""
    return f"env_steps_to_{100 * share:g}_percent_of_ppo"


def seconds_metric(share: float) -> str:
    """The metric of the processor seconds of one trial to a share of PPO's final return."""
    return f"cpu_seconds_to_{100 * share:g}_percent_of_ppo"


def architecture_rows(
    architecture: Architecture, task: str, cost: ModelCost | None, command: str
) -> list[Result]:
    """All numbers of one architecture; infinite where a goal is not reached.

    Args:
        architecture: all methods' trials.
        task: the environment.
        cost: of the model that forecasts, if it is known.
        command: of the comparison.
    """

    def row(one: Trained, metric: str, value: Interval, episodes: int, **place: Any) -> Result:
        return Result(
            task, EXPERIMENT, one.name, metric, *value, architecture.num_trials, episodes,
            one.command or command, one.method.key, architecture=architecture.name, **place,
        )  # fmt: skip

    episodes, gated = architecture.episodes, architecture.gated
    reached = steps_to_shares(
        {one.name: one.curves for one in architecture.trained},
        architecture.ppo.name,
        architecture.end,
        SHARES,
    )
    rows = []
    for one in architecture.trained:
        found = _returns(one, architecture)
        found |= _reach(one, architecture, reached)
        rows += [row(one, metric, value, episodes) for metric, value in found.items()]
        rows += [row(one, metric, value, 0) for metric, value in _spent(one, architecture)]
        if one is not gated:
            for metric, value in _differences(gated, one, architecture.end).items():
                rows.append(row(gated, metric, value, episodes, beside=one.name))
    if cost is not None:
        own, ppo = (reach_interval(reached[one.name][:, -1]) for one in (gated, architecture.ppo))
        for uses in USES:
            for metric, value in _amortised(own, gated, cost, uses):
                rows.append(row(gated, metric, value, episodes, uses=uses))
        for metric, value in _paid(own.value, ppo.value, architecture, cost):
            rows.append(row(gated, metric, value, episodes))
    return rows


def cost_rows(task: str, cost: ModelCost, command: str) -> list[Result]:
    """What data and training of the model took."""
    return [
        Result(task, EXPERIMENT, DATA_AND_TRAINING, metric, value, command=command, part="in all")
        for metric, value in (("env_steps", cost.env_steps), ("cpu_seconds", cost.cpu_seconds))
    ]


def _single(value: float) -> Interval:
    """A number that was measured once and has no interval."""
    return Interval(value, math.nan, math.nan)


def _returns(one: Trained, architecture: Architecture) -> dict[str, Interval]:
    """Of one method: returns at equal steps and on average over them, beside PPO's."""
    end, ppo = architecture.end, architecture.ppo
    final = one.final(end)
    found = {
        "final_return": mean_interval(final),
        "final_return_iqm": iqm_interval(final),
        "return_over_training": mean_interval(one.curves.mean_over(end)),
    }
    if one is not ppo:
        difference = _differences(one, ppo, end)
        found |= {
            "final_return_minus_ppo": difference["final_return_difference"],
            "final_return_relative_to_ppo": ratio_interval(final, ppo.final(end)),
            "probability_of_improvement": probability_of_improvement(final, ppo.final(end)),
            "return_over_training_minus_ppo": difference["return_over_training_difference"],
        }
    return found


def _differences(one: Trained, other: Trained, end: int) -> dict[str, Interval]:
    """By how much one method returns more than another, paired by trial."""
    areas = one.curves.mean_over(end), other.curves.mean_over(end)
    return {
        "final_return_difference": paired_difference_interval(one.final(end), other.final(end)),
        "return_over_training_difference": paired_difference_interval(*areas),
    }


def _reach(
    one: Trained, architecture: Architecture, reached: dict[str, Array]
) -> dict[str, Interval]:
    """Steps to each share of PPO's final return, and that in units of PPO's steps."""
    found = {}
    for s, share in enumerate(SHARES):
        own, ppo = (reached[name][:, s] for name in (one.name, architecture.ppo.name))
        found[reach_metric(share)] = reach_interval(own)
        if one is not architecture.ppo:
            # 0 steps of both are equally many; a PPO that is there at once cannot be outrun
            with np.errstate(divide="ignore", invalid="ignore"):
                relative = np.where(own == ppo, 1.0, own / ppo)
            found[f"{reach_metric(share)}_relative_to_ppo"] = reach_interval(relative)
        seconds = own * one.cpu_seconds_per_step
        found[seconds_metric(share)] = reach_interval(seconds)
    return found


def _spent(one: Trained, architecture: Architecture) -> Iterator[tuple[str, Interval]]:
    """Tests, jumps and rollbacks of one method, and its processor time."""
    for name, values in one.counts.items():
        yield COUNTS[name], mean_interval(values)
    yield "cpu_seconds", _single(one.cpu_seconds)
    yield "cpu_seconds_per_env_step", _single(one.cpu_seconds_per_step)
    if one is not architecture.ppo:
        relative = one.cpu_seconds_per_step / architecture.ppo.cpu_seconds_per_step
        yield "cpu_seconds_per_env_step_relative_to_ppo", _single(relative)


def _amortised(
    own: Interval, gated: Trained, cost: ModelCost, uses: float
) -> Iterator[tuple[str, Interval]]:
    """What a use costs until PPO's final return, with its part of the model's cost."""
    yield "env_steps_amortised", _shared(own, 1.0, cost.env_steps, uses)
    seconds = gated.cpu_seconds_per_step
    yield "cpu_seconds_amortised", _shared(own, seconds, cost.cpu_seconds, uses)


def _paid(
    own: float, ppo: float, architecture: Architecture, cost: ModelCost
) -> Iterator[tuple[str, Interval]]:
    """Uses until the model has paid for itself, given the steps to PPO's final return."""
    yield "uses_to_pay_back_env_steps", _single(uses_until_paid(cost.env_steps, ppo - own))
    ours, theirs = architecture.gated, architecture.ppo
    saved = ppo * theirs.cpu_seconds_per_step - own * ours.cpu_seconds_per_step
    yield "uses_to_pay_back_cpu_seconds", _single(uses_until_paid(cost.cpu_seconds, saved))


FILE = "comparison.json"


@dataclass(frozen=True)
class Record:
    """What was compared: all that is needed beside the stages to make the report again.

    Attributes:
        config: the comparison.
        command: its command line.
        cost: of the model that forecasts; None if it is not known.
    """

    config: AccelerationConfig
    command: str
    cost: ModelCost | None


def write_record(directory: Path, record: Record) -> None:
    """Writes what was compared to a comparison's directory."""
    storage.write_json(directory / FILE, dataclasses.asdict(record))


def load_record(directory: Path) -> Record:
    """Reads what `write_record` wrote.

    Raises:
        TiplError: there is no such file, or it is damaged.
    """
    read = storage.read_json(
        directory / FILE, "the record of a comparison (made by `tipl accelerate`)"
    )
    cost = None if read["cost"] is None else ModelCost(**read["cost"])
    return Record(AccelerationConfig.from_json(read["config"]), read["command"], cost)


@dataclass(frozen=True, eq=False)
class Comparison:
    """What the stages of a comparison left; its numbers are worked out when they are asked for.

    Attributes:
        config: what was compared.
        command: its command line.
        directory: where the stages left it.
        architectures: one for each width.
        cost: of the model that forecasts; None if it is not known.
        stages: what each took.
    """

    config: AccelerationConfig
    command: str
    directory: Path
    architectures: Sequence[Architecture]
    cost: ModelCost | None
    stages: Sequence[StageRecord]

    @cached_property
    def rows(self) -> Rows:
        """All numbers, infinite where a goal is not reached."""
        task, cost, command = self.config.env_id, self.cost, self.command
        rows = [
            row
            for architecture in self.architectures
            for row in architecture_rows(architecture, task, cost, command)
        ]
        return Rows(rows + ([] if cost is None else cost_rows(task, cost, command)))

    @cached_property
    def results(self) -> Rows:
        """All rows of `results.jsonl`: NaN where a goal is not reached."""
        return Rows(map(_finite, self.rows))

    @property
    def gated(self) -> str:
        """The method of which most is said: see `Architecture.gated`."""
        return self.architectures[0].gated.name

    def find(self, one: Trained, architecture: Architecture, metric: str, **place: Any) -> Result:
        """One number of a method in an architecture.

        Args:
            one: the method.
            architecture: where it was trained.
            metric: what was measured.
            **place: `beside` and `uses`, where the number has them.

        Raises:
            TiplError: there is no such number.
        """
        where: dict[str, Any] = {"beside": None, "uses": None} | place
        return self.rows.one(
            key=one.method.key, architecture=architecture.name, metric=metric, **where
        )


def load_comparison(directory: str | Path) -> Comparison:
    """Reads what a comparison left.

    Args:
        directory: of the comparison, whose stages are all done.

    Raises:
        TiplError: a stage's result is missing or damaged, the methods' trials are not the same
            ones, or fewer than two of them diverged under no method.
    """
    directory = Path(directory)
    record = load_record(directory)
    stages = read_records(directory)
    architectures = [
        load_architecture(directory, width, methods, stages)
        for width, methods in trained_methods(record.config, directory)
    ]
    return Comparison(
        record.config, record.command, directory, architectures, record.cost, list(stages.values())
    )


def _finite(row: Result) -> Result:
    value, low, high = (x if math.isfinite(x) else math.nan for x in (row.value, row.low, row.high))
    return dataclasses.replace(row, value=value, low=low, high=high)
