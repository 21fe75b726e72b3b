"""A run: what the stages from collection to evaluation left in its directory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from tipl.experiments.forecast_sets import ForecastReturns, ForecastSet
from tipl.experiments.pipeline import StageRecord, read_records
from tipl.experiments.rivals import rivals
from tipl.experiments.rows import forecast_rows, model_rows, path_rows, stage_rows
from tipl.forecast.base import Forecaster
from tipl.forecast.trained import TrainedForecaster
from tipl.paths import PathDataset
from tipl.paths.svd import information, information_dimension, singular_vectors
from tipl.report.results import Rows

__all__ = ["OwnBasis", "Run", "load_run"]

NUM_COORDINATES = 6
"""Coordinates that figures show."""


class OwnBasis(NamedTuple):
    """A path in the basis of its own displacements from its start.

    Attributes:
        information: `a_k` of the first k directions `[S]`.
        basis: the first directions `[K, P]`.
        coordinates: of the checkpoints `[T, K]`.
    """

    information: Float[np.ndarray, " S"]
    basis: Float[np.ndarray, "K P"]
    coordinates: Float[np.ndarray, "T K"]


@dataclass(frozen=True, eq=False)
class Run:
    """What the stages of a run left: everything that its report is made from.

    Attributes:
        paths: all collected trials.
        models: the trained models.
        model_names: of their directories.
        forecasts: of the held-out trials.
        returns: of the forecasts and the true checkpoints.
        command: the command line that ran these.
        stages: what each stage took.
    """

    paths: PathDataset
    models: Sequence[TrainedForecaster]
    model_names: Sequence[str]
    forecasts: ForecastSet
    returns: ForecastReturns
    command: str
    stages: Sequence[StageRecord]

    @cached_property
    def results(self) -> Rows:
        """All rows of `results.jsonl`."""
        commands = {stage.name: stage.command for stage in self.stages}
        dimensions = {
            beta: [information_dimension(own.information, beta) for own in self.held_out]
            for beta in (0.9, 0.99)
        }
        return Rows(
            [
                *path_rows(self.forecasts, self.returns, dimensions, self.command),
                *(
                    row
                    for name, model in zip(self.model_names, self.models, strict=True)
                    for row in model_rows(model, commands.get(f"train ({name})", "tipl train"))
                ),
                *forecast_rows(self.forecasts, self.returns, self.command),
                *stage_rows(self.stages, self.paths.task.env_id, self.paths.num_trials),
            ]
        )

    @cached_property
    def held_out(self) -> list[OwnBasis]:
        """The held-out paths in their own bases; one singular value decomposition each."""
        found = []
        for path in self.forecasts.paths:
            displacements = path.params - path.params[:1].astype(np.float64)
            basis, values = singular_vectors(displacements, NUM_COORDINATES)
            found.append(OwnBasis(information(values), basis, displacements @ basis.T))
        return found

    @property
    def end(self) -> int:
        """The last checkpoint of a path."""
        return self.paths.num_checkpoints - 1

    @property
    def methods(self) -> list[str]:
        """The names of all that forecast, in order."""
        return list(dict.fromkeys(case.method for case in self.forecasts.cases))

    @property
    def commands(self) -> list[str]:
        """The command line of each stage."""
        return [stage.command for stage in self.stages] or [self.command]

    @property
    def shared_network(self) -> bool:
        """Whether all trials started from the same network, so that held-out ones did, too."""
        return self.paths.metadata.initial == "shared"

    def forecasters(self) -> list[Forecaster]:
        """All methods that forecast the held-out trials: the rivals, and the models in all ways."""
        ways = [asked for model in self.models for asked in model.all_ways()]
        best = self.forecasts.settings.get("best_checkpoint")
        known = None if best is None else (best[0], best[1])
        return [*rivals(self.models, self.paths, known), *ways]


def load_run(directory: str | Path) -> Run:
    """Reads what the stages of a run left in its directory.

    Args:
        directory: holds `paths` (a dataset), `models` (a directory for each) and `forecasts` (with
            their returns); and `stages.json`, with times and commands, if one command made it all.

    Raises:
        TiplError: a stage's result is missing or damaged.
    """
    directory = Path(directory)
    forecasts = ForecastSet.load(directory / "forecasts")
    returns, settings = ForecastReturns.load(directory / "forecasts")
    saved = [
        config.parent
        for config in sorted((directory / "models").glob("*/config.json"), reverse=True)
    ]
    return Run(
        PathDataset.open(directory / "paths"),
        [Forecaster.from_pretrained(model) for model in saved],
        [model.name for model in saved],
        forecasts,
        returns,
        settings["command"],
        list(read_records(directory).values()),
    )
