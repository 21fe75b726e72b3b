"""A run: what the stages from collection to evaluation left, and its results with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from tipl.core.arrays import Array
from tipl.evaluation.stats import (
    Interval,
    iqm_interval,
    mean_interval,
    paired_difference_interval,
    probability_of_improvement,
)
from tipl.experiments.forecast_sets import ForecastCase, ForecastReturns, ForecastSet
from tipl.experiments.pipeline import StageRecord, read_records
from tipl.experiments.rivals import rivals
from tipl.forecast.base import Forecaster
from tipl.forecast.extrapolation import StandingStill
from tipl.forecast.trained import TrainedForecaster
from tipl.paths import PathDataset
from tipl.paths.svd import TemporalSVD, information, information_dimension, singular_vectors
from tipl.report.results import Result, Rows

TRUE_CHECKPOINT = "true later checkpoint"
"""The method that PPO's own checkpoints stand for, beside forecasts of them."""


def forecast_rows(forecasts: ForecastSet, returns: ForecastReturns, command: str) -> Rows:
    """One row for each case and metric, and for the true checkpoint beside each case.

    Histories of checkpoint 0 alone are the experiment `optimize`, longer ones `forecast`. The
    metrics are:

    - `episodic_return` and `episodic_return_iqm`: mean and interquartile mean over trials;
    - `return_minus_standing_still` and `return_minus_true`, paired by trial with the return at the
      history's end and at the true later checkpoint; `probability_of_improvement` over the former;
    - `weight_error`: distance from the true checkpoint, in units of standing still's distance;
    - `action_error`: the same of actions, where they were measured (see `ForecastReturns`);
    - `distance_from_training_ends` (see `ForecastSet`), to tell learning from remembering.

    Args:
        forecasts: the cases.
        returns: what they returned.
        command: the command line that measured them.
    """
    n_trials, _, n_episodes = returns.checkpoints.shape
    distances = {
        "weight_error": forecasts.weight_errors(),
        "action_error": returns.action_errors,
        "distance_from_training_ends": forecasts.end_distances,
    }
    rows: list[Result] = []

    def add(case: ForecastCase, method: str, metric: str, interval: Interval, runs: int) -> None:
        rows.append(
            Result(
                forecasts.paths.task.env_id, "forecast" if case.start else "optimize", method,
                metric, *interval, n_trials, runs, command,
                start=case.start / (forecasts.paths.num_checkpoints - 1), horizon=case.horizon,
            )
        )  # fmt: skip

    for place, cases in _by_place(forecasts.cases):
        still = returns.checkpoints[:, place.start]
        true = returns.checkpoints[:, place.target]
        for metric, interval in _return_intervals(TRUE_CHECKPOINT, true, still).items():
            add(place, TRUE_CHECKPOINT, metric, interval, n_episodes)
        for f, case in cases:
            reached = returns.forecasts[f]
            measured = _return_intervals(case.method, reached, still)
            measured["return_minus_true"] = paired_difference_interval(reached, true)
            for metric, interval in measured.items():
                add(case, case.method, metric, interval, n_episodes)
            for metric, known in distances.items():
                if known is not None:
                    add(case, case.method, metric, mean_interval(known[f].astype(np.float64)), 0)
    return Rows(rows)


def _return_intervals(method: str, reached: Array, still: Array) -> dict[str, Interval]:
    """What a method's returns say alone, and beside those of standing still."""
    found = {
        "episodic_return": mean_interval(reached),
        "episodic_return_iqm": iqm_interval(reached),
    }
    if method != StandingStill.name:
        found["return_minus_standing_still"] = paired_difference_interval(reached, still)
        found["probability_of_improvement"] = probability_of_improvement(reached, still)
    return found


def _by_place(
    cases: list[ForecastCase],
) -> Iterator[tuple[ForecastCase, list[tuple[int, ForecastCase]]]]:
    """The cases of each start and horizon with their indices, led by the first of them."""
    places: dict[tuple[int, int], list[tuple[int, ForecastCase]]] = {}
    for f, case in enumerate(cases):
        places.setdefault((case.start, case.horizon), []).append((f, case))
    for members in places.values():
        yield members[0][1], members


def path_rows(
    forecasts: ForecastSet,
    returns: ForecastReturns,
    dimensions: Mapping[float, Sequence[int]],
    command: str,
) -> list[Result]:
    """PPO's own return before and after training, and the dimension of its paths.

    The returns are of mean actions (no exploration noise) in whole episodes.

    Args:
        forecasts: whose held-out paths these are.
        returns: of their checkpoints.
        dimensions: by share of the information, the directions that each path's displacements need.
        command: the command line that ran them.
    """
    paths = forecasts.paths
    n_trials, _, n_episodes = returns.checkpoints.shape

    def row(method: str, metric: str, value: Interval, episodes: int, **place: Any) -> Result:
        return Result(
            paths.task.env_id, "collect", method, metric, *value, n_trials, episodes, command,
            **place,
        )  # fmt: skip

    first, last = (mean_interval(returns.checkpoints[:, checkpoint]) for checkpoint in (0, -1))
    steps = int(paths.global_step[-1])
    one_path = {"part": "one path", "center": "from its start"}
    return [
        row("untrained", "episodic_return", first, n_episodes, env_steps=0),
        row("PPO", "episodic_return", last, n_episodes, env_steps=steps),
        *(
            row("PPO", f"D({beta})", mean_interval(np.array(values, float)), 0, **one_path)
            for beta, values in dimensions.items()
        ),
    ]


def model_rows(model: TrainedForecaster, command: str) -> list[Result]:
    """A model's loss at the end of its training, and the dimension of a joint basis.

    Losses are in the units of `tipl.models.train`; standing still has the loss beside them.
    """
    trials = sum(map(len, model.training_trials.values()))
    rows: list[Result] = []
    for target, curve in model.settings["curves"].items():
        values = {
            f"{name}_loss": curve[f"{name}_loss"][-1]
            for name in ("train", "held_out", "standing_still")
            if curve[f"{name}_loss"][-1] is not None
        }
        basis = joint_basis(model)
        if basis is not None:
            values |= {f"D({beta})": basis.dimension(beta) for beta in (0.9, 0.99)}
        rows += [
            Result(
                model.task.env_id, "train", model.with_options(target=target).name, metric,
                float(value), n_trials=trials, command=command, training_trials=trials,
            )
            for metric, value in values.items()
        ]  # fmt: skip
    return rows


def joint_basis(model: TrainedForecaster) -> TemporalSVD | None:
    """The basis of all training paths together that a model reads weights in, if it does."""
    tokenizer = getattr(model, "tokenizer", None)
    return tokenizer if isinstance(tokenizer, TemporalSVD) else None


def stage_rows(stages: Iterable[StageRecord], task: str, num_trials: int) -> list[Result]:
    """Wall time, processor time and peak memory of the stages of a run."""
    return [
        Result(
            task, "stages", stage.name, metric, float(getattr(stage, metric)), n_trials=num_trials,
            command=stage.command, part="whole stage",
        )
        for stage in stages
        for metric in ("seconds", "cpu_seconds", "peak_rss_mb")
        if not np.isnan(getattr(stage, metric))
    ]  # fmt: skip


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
