"""A run: what the stages from collection to evaluation left, and its results with intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from tipl.core.arrays import Array
from tipl.errors import TiplError
from tipl.evaluation import stats
from tipl.evaluation.forecast_sets import ForecastReturns, ForecastSet
from tipl.experiments.stage_records import StageRecord, read_records
from tipl.forecast.base import Forecaster
from tipl.forecast.extrapolation import StandingStill
from tipl.forecast.trained import TrainedForecaster
from tipl.paths import PathDataset
from tipl.paths.dimension import OwnBasis, own_basis
from tipl.paths.svd import information_dimension
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

    The command is the command line that measured them.
    """
    n_trials, _, n_episodes = returns.checkpoints.shape
    distances = {
        "weight_error": forecasts.weight_errors(),
        "action_error": returns.action_errors,
        "distance_from_training_ends": forecasts.end_distances,
    }
    places: dict[tuple[int, int], list[int]] = {}
    for f, case in enumerate(forecasts.cases):
        places.setdefault((case.start, case.target), []).append(f)
    rows: list[Result] = []
    for (start, target), members in places.items():
        still, true = returns.checkpoints[:, start], returns.checkpoints[:, target]
        found = _return_intervals(TRUE_CHECKPOINT, true, still)
        measured = [(TRUE_CHECKPOINT, n_episodes, found)]
        for f in members:
            method, reached = forecasts.cases[f].method, returns.forecasts[f]
            found = _return_intervals(method, reached, still)
            found["return_minus_true"] = stats.paired_difference_interval(reached, true)
            known = {name: of_all[f] for name, of_all in distances.items() if of_all is not None}
            apart = {name: stats.mean_interval(d.astype(np.float64)) for name, d in known.items()}
            measured += [(method, n_episodes, found), (method, 0, apart)]
        rows += [
            Result(
                forecasts.paths.task.label, "forecast" if start else "optimize", method, metric,
                *interval, n_trials, episodes, command,
                start=start / (forecasts.paths.num_checkpoints - 1), horizon=target - start,
            )
            for method, episodes, intervals in measured
            for metric, interval in intervals.items()
        ]  # fmt: skip
    return Rows(rows)


def _return_intervals(method: str, reached: Array, still: Array) -> dict[str, stats.Interval]:
    """What a method's returns say alone, and beside those of standing still."""
    found = {
        "episodic_return": stats.mean_interval(reached),
        "episodic_return_iqm": stats.iqm_interval(reached),
    }
    if method != StandingStill.name:
        found["return_minus_standing_still"] = stats.paired_difference_interval(reached, still)
        found["probability_of_improvement"] = stats.probability_of_improvement(reached, still)
    return found


@dataclass(frozen=True, eq=False)
class Run:
    """What the stages of a run left: everything that its report is made from."""

    paths: PathDataset  # all collected trials
    models: Mapping[str, TrainedForecaster]  # by the names of their directories
    forecasts: ForecastSet  # of the held-out trials
    returns: ForecastReturns  # of the forecasts and the true checkpoints
    command: str  # the command line that ran these
    stages: Sequence[StageRecord]  # what each stage took

    @cached_property
    def results(self) -> Rows:
        """All rows of `results.jsonl`."""
        forecasts = forecast_rows(self.forecasts, self.returns, self.command)
        return Rows([*self._path_rows(), *self._model_rows(), *forecasts, *self._stage_rows()])

    def _path_rows(self) -> Iterator[Result]:
        """PPO's own return before and after training, and the dimension of its held-out paths.

        The returns are of mean actions (no exploration noise) in whole episodes.
        """
        task, returns = self.paths.task.label, self.returns.checkpoints
        n_trials, _, n_episodes = returns.shape
        end = int(self.forecasts.paths.global_step[-1])
        for method, checkpoint, steps in (("untrained", 0, 0), ("PPO", -1, end)):
            yield Result(
                task, "collect", method, "episodic_return",
                *stats.mean_interval(returns[:, checkpoint]), n_trials, n_episodes, self.command,
                env_steps=steps,
            )  # fmt: skip
        for beta in (0.9, 0.99):
            needed = [information_dimension(own.information, beta) for own in self.held_out]
            yield Result(
                task, "collect", "PPO", f"D({beta})", *stats.mean_interval(np.array(needed, float)),
                n_trials, 0, self.command, part="one path", center="from its start",
            )  # fmt: skip

    def _model_rows(self) -> Iterator[Result]:
        """Each model's loss at the end of its training, and the dimension of a joint basis.

        Losses are in the units of `tipl.models.train`; standing still has the loss beside them.
        """
        commands = {stage.name: stage.command for stage in self.stages}
        for directory, model in self.models.items():
            trials = sum(map(len, model.training_trials.values()))
            for target in [target for target in model.targets if target in model.curves]:
                curve = model.curves[target]
                names = ("train_loss", "held_out_loss", "standing_still_loss")
                values = {name: curve[name][-1] for name in names if curve[name][-1] is not None}
                if (basis := model.joint_basis) is not None:
                    values |= {f"D({beta})": basis.dimension(beta) for beta in (0.9, 0.99)}
                for metric, value in values.items():
                    yield Result(
                        model.task.label, "train", model.with_options(target=target).name, metric,
                        float(value), n_trials=trials, training_trials=trials,
                        command=commands.get(f"train ({directory})", "tipl train"),
                    )  # fmt: skip

    def _stage_rows(self) -> Iterator[Result]:
        """Wall time, processor time and peak memory of the stages."""
        for stage in self.stages:
            for metric in ("seconds", "cpu_seconds", "peak_rss_mb"):
                if not np.isnan(value := float(getattr(stage, metric))):
                    yield Result(
                        self.paths.task.label, "stages", stage.name, metric, value,
                        n_trials=self.paths.num_trials, command=stage.command, part="whole stage",
                    )  # fmt: skip

    @cached_property
    def held_out(self) -> list[OwnBasis]:
        """The held-out paths in their own bases; one singular value decomposition each."""
        return [own_basis(path.params) for path in self.forecasts.paths]

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
        metadata = self.paths.metadata
        return metadata.initial == "shared" or bool(metadata.start)

    @property
    def ways(self) -> list[TrainedForecaster]:
        """The models, each in all ways that it can be asked."""
        return [asked for model in self.models.values() for asked in model.all_ways()]

    def forecasters(self) -> list[Forecaster]:
        """All methods that forecast the held-out trials: the rivals, and the models in all ways."""
        best = self.forecasts.settings.get("best_checkpoint")
        models = list(self.models.values())
        from tipl.experiments.rivals import rivals  # late: a report that is refused needs none

        return [*rivals(models, self.paths, None if best is None else tuple(best)), *self.ways]


def load_run(directory: str | Path) -> Run:
    """Reads what the stages of a run left in its directory.

    These are `paths` (a dataset), `models` (a directory for each), `forecasts` (with their returns)
    and, if one command made it all, `stages.json` with times and commands.

    Raises:
        TiplError: a stage's result is missing or damaged.
    """
    directory = Path(directory)
    forecasts = ForecastSet.load(directory / "forecasts")
    returns, command = ForecastReturns.load(directory / "forecasts")
    made, evaluated = forecasts.params.shape[:2], returns.forecasts.shape[:2]
    if made != evaluated or returns.checkpoints.shape[1] != forecasts.paths.num_checkpoints:
        raise TiplError(
            f"{directory / 'forecasts'} holds {made[0]} forecasts of {made[1]} trials, and returns "
            f"of {evaluated[0]} of {evaluated[1]}; run `tipl evaluate {directory / 'forecasts'}`"
        )
    paths, stages = PathDataset.open(directory / "paths"), list(read_records(directory).values())
    configs = sorted((directory / "models").glob("*/config.json"), reverse=True)
    models = {one.parent.name: Forecaster.from_pretrained(one.parent) for one in configs}
    return Run(paths, models, forecasts, returns, command, stages)
