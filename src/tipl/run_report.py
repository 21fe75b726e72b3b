"""The report of a run: its figures and tables, made from what its stages left on disk."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from tipl import plots, storage
from tipl.errors import TiplError
from tipl.forecast import PathTransformerForecaster, load_forecaster
from tipl.forecast_results import TRUE_CHECKPOINT, forecast_results, history_label
from tipl.forecast_sets import ForecastReturns, ForecastSet
from tipl.paths import PathDataset
from tipl.report import FigureSection, Report, Stage, Table, pivot_table, write_report
from tipl.results import Result, results_table, write_results
from tipl.stats import Interval, mean_interval
from tipl.tokenizers import TemporalSVD, information, singular_vectors

__all__ = [
    "Run",
    "headline_results",
    "load_run",
    "path_results",
    "print_headline",
    "report_run",
    "run_report",
]

Array = np.ndarray[Any, np.dtype[Any]]

NUM_COORDINATES = 6
"""Coordinates that figures show."""


@dataclass(frozen=True)
class Run:
    """What the stages of a run left: everything that its report is made from.

    Attributes:
        paths: all collected trials.
        models: the trained models.
        forecasts: of the held-out trials.
        returns: of the forecasts and the true checkpoints.
        results: all rows of `results.jsonl`.
        commands: the command line of each stage.
        stages: the time that each stage took.
    """

    paths: PathDataset
    models: Sequence[PathTransformerForecaster]
    forecasts: ForecastSet
    returns: ForecastReturns
    results: Sequence[Result]
    commands: Sequence[str]
    stages: Sequence[Stage]

    @property
    def trials_note(self) -> str:
        """How many held-out trials and episodes a figure of returns rests on."""
        trials, _, episodes = self.returns.checkpoints.shape
        return f"{trials} held-out trials, {episodes} episodes each, mean and 95% interval"


def load_run(directory: str | Path) -> Run:
    """Reads what the stages of a run left in its directory.

    Raises:
        TiplError: a stage's result is missing or damaged.
    """
    directory = Path(directory)
    record = storage.read_json(directory / "stages.json", "a run (made by `tipl demo`)")
    forecasts = ForecastSet.load(directory / "forecasts")
    returns, settings = ForecastReturns.load(directory / "forecasts")
    results = [
        *path_results(forecasts, returns, settings["command"]),
        *forecast_results(forecasts, returns, settings["command"]),
    ]
    models = sorted((directory / "models").iterdir(), reverse=True)
    return Run(
        PathDataset.open(directory / "paths"),
        [load_forecaster(model) for model in models],
        forecasts,
        returns,
        results,
        [stage["command"] for stage in record["stages"].values()],
        [
            Stage(name, stage["seconds"], f"peak memory {stage['peak_rss_mb']:,} MB")
            for name, stage in record["stages"].items()
        ],
    )


def report_run(directory: str | Path) -> list[Result]:
    """Writes `results.jsonl` and `report.html` of a run; returns the results.

    Raises:
        TiplError: a stage's result is missing or damaged, or the report cannot be written.
    """
    directory = Path(directory)
    run = load_run(directory)
    write_results(directory / "results.jsonl", run.results)
    write_report(run_report(run), directory / "report.html")
    return list(run.results)


def path_results(forecasts: ForecastSet, returns: ForecastReturns, command: str) -> list[Result]:
    """PPO's own return before and after training, and the dimension of its paths.

    The returns are of mean actions (no exploration noise) in whole episodes.
    """
    paths = forecasts.paths
    n_trials, _, n_episodes = returns.checkpoints.shape

    def row(method: str, setting: str, metric: str, value: Interval, episodes: int) -> Result:
        return Result(
            paths.task.env_id, "collect", method, setting, metric, *value, n_trials, episodes,
            command,
        )  # fmt: skip

    first, last = returns.checkpoints[:, 0], returns.checkpoints[:, -1]
    steps = int(paths.global_step[-1])
    dimensions = [_dimensions(path.params) for path in paths]
    return [
        row("untrained", "start", "episodic_return", mean_interval(first), n_episodes),
        row("PPO", f"end ({steps:,} steps)", "episodic_return", mean_interval(last), n_episodes),
        *(
            row("PPO", "one path, from its start", f"D({beta})", mean_interval(values), 0)
            for beta, values in zip((0.9, 0.99), np.array(dimensions, float).T, strict=True)
        ),
    ]


def _dimensions(params: Array) -> tuple[int, int]:
    """D(0.9) and D(0.99) of one path's displacements from its start."""
    svd = TemporalSVD(len(params), "initial").fit(params[None])
    return svd.dimension(0.9), svd.dimension(0.99)


def headline_results(results: Sequence[Result], num_checkpoints: int) -> list[Result]:
    """The returns that come first: one step and all steps ahead, from short and long histories."""
    end = num_checkpoints - 1
    settings = [
        f"{history_label(start, num_checkpoints)}, horizon {horizon}"
        for start in (round(0.5 * end), round(0.25 * end), 0)
        for horizon in (1, end - start)
        if start or horizon > 1
    ]
    chosen = [r for r in results if r.metric == "episodic_return" and r.setting in settings]
    return sorted(chosen, key=lambda result: settings.index(result.setting))


def print_headline(results: Sequence[Result], num_checkpoints: int, console: Console) -> None:
    """Prints the headline as two tables: forecasts from histories, and from untrained networks."""
    for experiment, title in (
        ("forecast", "Forecast from histories of held-out trials: mean episodic return"),
        ("optimize", "Optimise held-out random networks: mean episodic return"),
    ):
        rows = [r for r in headline_results(results, num_checkpoints) if r.experiment == experiment]
        if rows:
            console.print(results_table(rows, title=f"{title} ({rows[0].n_trials} trials)"))


def run_report(run: Run) -> Report:
    """The report's content, in the order of the data flow.

    Raises:
        TiplError: the run holds no model.
    """
    if not run.models:
        raise TiplError("the run holds no trained model; run `tipl train` first")
    return Report(
        title=f"Policy learning paths of PPO on {run.paths.task.env_id}, and their forecasts",
        lead=_lead(run),
        headline=pivot_table(
            headline_results(run.results, run.paths.num_checkpoints),
            caption=(
                "Mean episodic return of the forecast policies on held-out trials, with 95% "
                "bootstrap intervals over trials. Horizons are in checkpoints of "
                f"{run.paths.metadata.steps_per_checkpoint:,} environment steps."
            ),
        ),
        sections=[
            _learning_curves(run),
            _spectrum(run),
            _coordinates(run),
            *(_training(model) for model in run.models),
            *(_forecast_coordinates(run, model) for model in run.models if model.basis == "path"),
            _returns(run),
            _weight_errors(run),
            _optimized(run),
        ],
        results=run.results,
        commands=run.commands,
        versions={
            "Python": platform.python_version(),
            **{
                name: importlib.metadata.version(name)
                for name in ("tipl", "torch", "numpy", "mujoco", "gymnasium")
            },
        },
        stages=run.stages,
    )


def _value(run: Run, **wanted: str) -> Result | None:
    for result in run.results:
        if all(getattr(result, name) == value for name, value in wanted.items()):
            return result
    return None


def _lead(run: Run) -> list[str]:
    paths, trials = run.paths, run.forecasts.paths.num_trials
    end = _value(run, experiment="collect", method="PPO", metric="episodic_return")
    sentences = [
        f"{paths.num_trials} independent PPO trials from random initial networks made "
        f"{paths.num_trials} paths of {paths.num_checkpoints} checkpoints of {paths.layout.size:,} "
        f"weights each. {trials} trials were held out: no model saw anything of them.",
    ]
    if end is not None:
        sentences.append(
            f"At the end of training, PPO's own policies return {end.value:,.0f} on the held-out "
            f"trials (95% interval {end.low:,.0f} to {end.high:,.0f})."
        )
    middle = history_label(round(0.5 * (paths.num_checkpoints - 1)), paths.num_checkpoints)
    for model in run.models:
        change = _value(
            run,
            method=model.name,
            metric="return_minus_standing_still",
            setting=f"{middle}, horizon 1",
        )
        if change is not None:
            sentences.append(
                f"From half of a path, one-step forecasts of the {model.name} return "
                f"{change.value:+,.1f} against standing still ({change.low:+,.1f} to "
                f"{change.high:+,.1f})."
            )
    return sentences


def _learning_curves(run: Run) -> FigureSection:
    returns, steps = run.paths.episodic_return(), run.paths.global_step
    seen = np.isfinite(returns)
    mean = np.where(seen, returns, 0).sum(0) / np.maximum(seen.sum(0), 1)
    return FigureSection(
        "PPO's learning curves",
        "Each thin line is one trial; the bold line is the median and the band holds the middle "
        "half. These are returns of training episodes, with exploration noise.",
        partial(
            plots.learning_curves,
            steps,
            returns.astype(np.float64),
            note=f"{run.paths.num_trials} trials",
        ),
        Table(
            "Mean return of training episodes",
            ["environment steps", "mean episodic return"],
            [[f"{step:,}", float(value)] for step, value in zip(steps, mean, strict=True)],
        ),
    )


def _spectrum(run: Run) -> FigureSection:
    spectra: dict[str, Array] = {}
    paths = run.forecasts.paths
    single = [
        information(singular_vectors(path.params - path.params[:1].astype(float), 1)[1])
        for path in paths
    ]
    spectra["one held-out path (median)"] = np.median(single, axis=0)
    for model in run.models:
        if isinstance(model.tokenizer, TemporalSVD):
            spectra["all training paths together"] = information(model.tokenizer.singular_values)
    return FigureSection(
        "Information in the first directions of the temporal SVD",
        "A few directions hold most of one path, but paths from different random networks share "
        "almost none of them: a joint basis needs hundreds.",
        partial(plots.svd_spectrum, spectra, note="displacements from each path's start"),
        Table(
            "Information a_k of the first k directions",
            ["k", *spectra],
            [
                [k, *(float(a[k - 1]) if k <= len(a) else None for a in spectra.values())]
                for k in (1, 2, 3, 4, 5, 10, 20, 50, 100, 200, 500)
                if any(k <= len(a) for a in spectra.values())
            ],
        ),
    )


def _coordinates(run: Run) -> FigureSection:
    paths = run.forecasts.paths
    displacements = (path.params - path.params[:1].astype(float) for path in paths)
    coordinates = np.stack(
        [rows @ singular_vectors(rows, NUM_COORDINATES).basis.T for rows in displacements]
    )
    return FigureSection(
        "The paths in their own coordinates",
        "In each held-out path's own basis the first coordinate grows steadily, and the later "
        "ones swing ever faster, as harmonics do: this is the regularity that can be forecast.",
        partial(
            plots.svd_coordinates,
            paths.global_step,
            coordinates,
            note=f"{paths.num_trials} held-out trials, one line each",
        ),
    )


def _training(model: PathTransformerForecaster) -> FigureSection:
    curve = {
        name: np.array([np.nan if value is None else value for value in values], float)
        for name, values in model.settings["curve"].items()
    }
    return FigureSection(
        f"Training the {model.name}",
        "Mean squared error of the next token, in units of a mean squared one-step change: the "
        "dashed line is what standing still would have on the held-out paths.",
        partial(
            plots.training_curve,
            curve["step"].astype(int),
            curve["train_loss"],
            curve["held_out_loss"],
            float(curve["standing_still_loss"][-1]),
            note=f"{len(model.settings['trials'])} training trials",
        ),
    )


def _forecast_coordinates(run: Run, model: PathTransformerForecaster) -> FigureSection:
    paths = run.forecasts.paths
    path = paths[0]
    displacements = path.params - path.params[:1].astype(float)
    basis = singular_vectors(displacements, NUM_COORDINATES).basis
    end = paths.num_checkpoints - 1
    drawn = []
    for start in sorted({case.start for case in run.forecasts.cases}):
        if start + 1 >= max(model.min_history, 3):
            ahead = model.forecast(path.params[: start + 1], range(1, end - start + 1))
            drawn.append((start, (ahead - path.params[0].astype(float)) @ basis.T))
    return FigureSection(
        f"One held-out path and its forecasts by the {model.name}",
        "Solid: the true path in its own coordinates. Dashed: autoregressive forecasts to the end, "
        "each from the history before it. Where they part, the horizon has been passed.",
        partial(
            plots.true_against_forecast_coordinates,
            paths.global_step,
            displacements @ basis.T,
            drawn,
            note=f"trial {path.trial}",
        ),
    )


def _panels(run: Run, metric: str, methods: Sequence[str]) -> tuple[Array, dict[str, Any]]:
    """Horizons, and for each history and method the rows `value, low, high` of a metric."""
    cases, length = run.forecasts.cases, run.paths.num_checkpoints
    horizons = sorted({case.horizon for case in cases if case.start})
    found = {(r.method, r.setting): r for r in run.results if r.metric == metric}
    panels: dict[str, dict[str, Array]] = {}
    for start in sorted({case.start for case in cases if case.start}):
        history = history_label(start, length)
        lines: dict[str, Array] = {}
        for method in methods:
            rows = [found.get((method, f"{history}, horizon {h}")) for h in horizons]
            if any(rows):
                lines[method] = np.array(
                    [(r.value, r.low, r.high) if r else (np.nan,) * 3 for r in rows]
                )
        panels[f"{history} of the path"] = lines
    return np.array(horizons), panels


def _methods(run: Run) -> list[str]:
    return list(dict.fromkeys(case.method for case in run.forecasts.cases))


def _returns(run: Run) -> FigureSection:
    horizons, panels = _panels(run, "episodic_return", [TRUE_CHECKPOINT, *_methods(run)])
    return FigureSection(
        "Return of forecast policies against the horizon",
        "Above the grey line of standing still, a forecast has improved the policy with no step in "
        "the environment; the blue line is where PPO itself went, with all of its steps.",
        partial(plots.return_against_horizon, horizons, panels, note=run.trials_note),
    )


def _weight_errors(run: Run) -> FigureSection:
    methods = [name for name in _methods(run) if name != "standing still"]
    horizons, panels = _panels(run, "weight_error", methods)
    return FigureSection(
        "Weight error of forecasts against the horizon",
        "Distance of the forecast from the true later weights, over that of standing still: below "
        "1 the forecast is closer.",
        partial(
            plots.forecast_error_against_horizon,
            horizons,
            panels,
            note=f"{run.forecasts.paths.num_trials} held-out trials, mean and 95% interval",
        ),
    )


def _optimized(run: Run) -> FigureSection:
    end = run.paths.num_checkpoints - 1
    groups = {"untrained": run.returns.checkpoints[:, 0].mean(axis=1)}
    for f, case in enumerate(run.forecasts.cases):
        if case.start == 0 and case.horizon == end and case.method != "standing still":
            groups[case.method] = run.returns.forecasts[f].mean(axis=1)
    groups["PPO's own end"] = run.returns.checkpoints[:, -1].mean(axis=1)
    return FigureSection(
        "Optimising untrained networks by inference",
        "Each dot is a held-out random network, moved to the end of its path by forecasts from its "
        "untrained weights alone, with no step in the environment, beside what PPO made of it.",
        partial(plots.optimize_distribution, groups, note=run.trials_note),
        Table(
            "Mean episodic return",
            ["policies", "mean", "lowest", "highest"],
            [[name, float(r.mean()), float(r.min()), float(r.max())] for name, r in groups.items()],
        ),
    )
