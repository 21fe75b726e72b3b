"""What a model costs before it is of use, and what a use costs when the uses share that."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from tipl.core import storage
from tipl.evaluation.stats import Interval
from tipl.experiments.benchmark.ledger import COSTS, read_costs
from tipl.experiments.config import AccelerationConfig
from tipl.experiments.pipeline import read_records
from tipl.forecast.hub import model_directory
from tipl.paths import PathDataset

__all__ = ["USES", "ModelCost", "model_cost", "shared"]

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


def shared(own: Interval, unit: float, cost: float, uses: float) -> Interval:
    """What a use costs when a model's cost is shared out among uses.

    Args:
        own: environment steps of one use.
        unit: what one of these steps costs.
        cost: of the model.
        uses: among which it is shared; may be infinite.
    """
    return Interval(*(bound * unit + cost / uses for bound in own))
