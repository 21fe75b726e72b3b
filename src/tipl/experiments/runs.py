"""A run: what the stages from collection to evaluation left in its directory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tipl.core import storage
from tipl.core.arrays import Array
from tipl.evaluation.stats import Interval, mean_interval
from tipl.experiments.forecast_results import forecast_results
from tipl.experiments.forecast_sets import ForecastReturns, ForecastSet
from tipl.experiments.rivals import rivals
from tipl.forecast.base import Forecaster
from tipl.forecast.trained import TrainedForecaster
from tipl.models.path_transformer.forecaster import PathTransformerForecaster
from tipl.paths import PathDataset
from tipl.paths.svd import TemporalSVD
from tipl.report.page import Stage
from tipl.report.results import Result, Rows

__all__ = [
    "Run",
    "load_run",
    "model_results",
    "path_results",
    "recorded_stages",
    "stage_results",
]


FROM_START = "from its start"
"""What the dimension of one path is measured of."""


@dataclass(frozen=True)
class Run:
    """What the stages of a run left: everything that its report is made from.

    Attributes:
        paths: all collected trials.
        models: the trained models.
        model_names: of their directories.
        forecasts: of the held-out trials.
        returns: of the forecasts and the true checkpoints.
        results: all rows of `results.jsonl`.
        commands: the command line of each stage.
        stages: the time that each stage took.
    """

    paths: PathDataset
    models: Sequence[TrainedForecaster]
    model_names: Sequence[str]
    forecasts: ForecastSet
    returns: ForecastReturns
    results: Rows
    commands: Sequence[str]
    stages: Sequence[Stage]

    @property
    def shared_network(self) -> bool:
        """Whether all trials started from the same network, so that held-out ones did, too."""
        return self.paths.metadata.initial == "shared"

    def forecasters(self) -> list[Forecaster]:
        """All methods that forecast the held-out trials: the rivals, and the models in all ways."""
        ways = [asked for model in self.models for asked in model.all_ways()]
        return [*rivals(self.models, self.paths), *ways]

    @property
    def trials_note(self) -> str:
        """How many held-out trials and episodes a figure of returns rests on."""
        trials, _, episodes = self.returns.checkpoints.shape
        return f"{trials} held-out trials, {episodes} episode{'s' * (episodes > 1)} each"


def load_run(directory: str | Path) -> Run:
    """Reads what the stages of a run left in its directory.

    Args:
        directory: holds `paths` (a dataset), `models` (a directory for each) and `forecasts` (with
            their returns); and `stages.json`, with times and commands, if `tipl demo` made it.

    Raises:
        TiplError: a stage's result is missing or damaged.
    """
    directory = Path(directory)
    record: dict[str, Any] = {"stages": []}
    if (directory / "stages.json").exists():
        record = storage.read_json(directory / "stages.json")
    forecasts = ForecastSet.load(directory / "forecasts")
    returns, settings = ForecastReturns.load(directory / "forecasts")
    paths = PathDataset.open(directory / "paths")
    saved = sorted((directory / "models").glob("*/config.json"), reverse=True)
    models = [Forecaster.from_pretrained(config.parent) for config in saved]
    commands = {stage["name"]: stage["command"] for stage in record["stages"]}
    results = [
        *path_results(forecasts, returns, settings["command"]),
        *(
            row
            for config, model in zip(saved, models, strict=True)
            for row in model_results(
                model, commands.get(f"train ({config.parent.name})", "tipl train")
            )
        ),
        *forecast_results(forecasts, returns, settings["command"]),
        *(row for stage in record["stages"] for row in stage_results(stage, paths)),
    ]
    return Run(
        paths,
        models,
        [config.parent.name for config in saved],
        forecasts,
        returns,
        Rows(results),
        list(commands.values()) or [settings["command"]],
        recorded_stages(directory),
    )


def recorded_stages(directory: Path) -> list[Stage]:
    """What the stages of a run or a comparison took, in order; none if it has no `stages.json`.

    Raises:
        TiplError: the file is damaged.
    """
    if not (directory / "stages.json").exists():
        return []
    return [
        Stage(
            stage["name"],
            stage["seconds"],
            f"peak memory {stage['peak_rss_mb']:,} MB",
            stage["command"],
            stage.get("cpu_seconds", math.nan),
            float(stage["peak_rss_mb"]),
        )
        for stage in storage.read_json(directory / "stages.json")["stages"]
    ]


def path_results(forecasts: ForecastSet, returns: ForecastReturns, command: str) -> list[Result]:
    """PPO's own return before and after training, and the dimension of its paths.

    The returns are of mean actions (no exploration noise) in whole episodes.
    """
    paths = forecasts.paths
    n_trials, _, n_episodes = returns.checkpoints.shape

    def row(method: str, metric: str, value: Interval, episodes: int, **place: Any) -> Result:
        return Result(
            paths.task.env_id, "collect", method, metric, *value, n_trials, episodes, command,
            **place,
        )  # fmt: skip

    first, last = returns.checkpoints[:, 0], returns.checkpoints[:, -1]
    steps = int(paths.global_step[-1])
    dimensions = [_dimensions(path.params) for path in paths]
    return [
        row("untrained", "episodic_return", mean_interval(first), n_episodes, env_steps=0),
        row("PPO", "episodic_return", mean_interval(last), n_episodes, env_steps=steps),
        *(
            row("PPO", f"D({beta})", mean_interval(values), 0, part="one path", center=FROM_START)
            for beta, values in zip((0.9, 0.99), np.array(dimensions, float).T, strict=True)
        ),
    ]


def model_results(model: TrainedForecaster, command: str) -> list[Result]:
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
        if isinstance(model, PathTransformerForecaster) and isinstance(
            model.tokenizer, TemporalSVD
        ):
            values |= {f"D({beta})": model.tokenizer.dimension(beta) for beta in (0.9, 0.99)}
        rows += [
            Result(
                model.task.env_id, "train", model.with_options(target=target).name, metric,
                float(value), n_trials=trials, command=command, training_trials=trials,
            )
            for metric, value in values.items()
        ]  # fmt: skip
    return rows


def stage_results(stage: dict[str, Any], paths: PathDataset) -> list[Result]:
    """Wall time and peak memory of a stage of the demo."""
    return [
        Result(
            paths.task.env_id, "stages", stage["name"], metric, float(stage[metric]),
            n_trials=paths.num_trials, command=stage["command"], part="whole stage",
        )
        for metric in ("seconds", "cpu_seconds", "peak_rss_mb")
        if metric in stage
    ]  # fmt: skip


def _dimensions(params: Array) -> tuple[int, int]:
    """D(0.9) and D(0.99) of one path's displacements from its start."""
    svd = TemporalSVD(len(params), "initial").fit(params[None])
    return svd.dimension(0.9), svd.dimension(0.99)
