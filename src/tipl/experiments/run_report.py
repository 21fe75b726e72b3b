"""The report of a run: what it says first, and its figures in the order of the data flow."""

from __future__ import annotations

import importlib.metadata
import math
import platform
from pathlib import Path

from rich.console import Console

from tipl.errors import TiplError
from tipl.experiments import horizon_sections
from tipl.experiments import report_sections as sections
from tipl.experiments.runs import Run, load_run
from tipl.models.path_transformer.forecaster import PathTransformerForecaster
from tipl.report.page import Report, write_report
from tipl.report.results import Result, Rows, write_results
from tipl.report.tables import Pivot, results_table

__all__ = ["headline_results", "print_headline", "report_run", "run_report", "shown_versions"]


def report_run(directory: str | Path) -> Rows:
    """Writes `results.jsonl` and `report.html` of a run; returns the results.

    Raises:
        TiplError: a stage's result is missing or damaged, or the report cannot be written.
    """
    directory = Path(directory)
    run = load_run(directory)
    write_results(directory / "results.jsonl", run.results)
    write_report(run_report(run), directory / "report.html")
    return run.results


def headline_results(results: Rows, num_checkpoints: int) -> Rows:
    """The returns that come first: one step and all steps ahead, from short and long histories."""
    end = num_checkpoints - 1
    returns = results.where(metric="episodic_return", experiment=["forecast", "optimize"])
    return Rows(
        result
        for start in (round(0.5 * end), round(0.25 * end), 0)
        for horizon in (1, end - start)
        if start or horizon > 1
        for result in returns.where(start=start / end, horizon=horizon)
    )


def print_headline(results: Rows, num_checkpoints: int, console: Console) -> None:
    """Prints the headline as two tables: forecasts from histories, and from untrained networks."""
    headline = headline_results(results, num_checkpoints)
    for experiment, title in (
        ("forecast", "Forecast from histories of held-out trials: mean episodic return"),
        ("optimize", "Optimise the untrained networks of held-out trials: mean episodic return"),
    ):
        if rows := headline.where(experiment=experiment):
            caption = f"{title} ({rows[0].n_trials} trials)"
            console.print(results_table(Pivot("episodic_return", caption=caption)(rows)))


def run_report(run: Run) -> Report:
    """The report's content, in the order of the data flow.

    Raises:
        TiplError: the run holds no model.
    """
    if not run.models:
        raise TiplError("the run holds no trained model; run `tipl train` first")
    return Report(
        title=f"{run.paths.task.env_id}: forecasting the weights of PPO policies",
        lead=_lead(run),
        headline=Pivot(
            "episodic_return",
            caption=(
                "Mean episodic return of the forecast policies on held-out trials, with 95% "
                "bootstrap intervals over trials. Horizons are in checkpoints of "
                f"{run.paths.metadata.steps_per_checkpoint:,} environment steps."
            ),
        )(headline_results(run.results, run.paths.num_checkpoints)),
        sections=[
            sections.learning_curves(run),
            sections.svd_spectrum(run),
            sections.path_coordinates(run),
            *(
                sections.training_curve(model, target)
                for model in run.models
                for target in model.targets
            ),
            *(
                sections.forecast_coordinates(run, model)
                for model in run.models
                if isinstance(model, PathTransformerForecaster) and model.basis == "path"
            ),
            horizon_sections.returns_by_horizon(run),
            horizon_sections.weight_errors_by_horizon(run),
            sections.optimized_networks(run),
        ],
        results=run.results,
        commands=run.commands,
        versions=shown_versions(),
        stages=run.stages,
    )


def shown_versions() -> dict[str, str]:
    """Versions of what a report's numbers depend on, by name."""
    libraries = ("tipl", "torch", "numpy", "mujoco", "gymnasium")
    versions = {name: importlib.metadata.version(name) for name in libraries}
    return {"Python": platform.python_version(), **versions}


def _lead(run: Run) -> list[str]:
    paths, trials = run.paths, run.forecasts.paths.num_trials
    end = run.results.find(experiment="collect", method="PPO", metric="episodic_return")
    networks = "one shared random network" if run.shared_network else "random initial networks"
    sentences = [
        f"{paths.num_trials} independent PPO trials from {networks} made "
        f"{paths.num_trials} paths of {paths.num_checkpoints} checkpoints of {paths.layout.size:,} "
        f"weights each. {trials} trials were held out: no model saw anything of them.",
    ]
    if end is not None:
        sentences.append(
            f"At the end of training, PPO's own policies return {end.value:,.0f} on the held-out "
            f"trials{_interval(end, ',.0f')}."
        )
    horizon = paths.num_checkpoints - 1
    made = []
    for name in [asked.name for model in run.models for asked in model.all_ways()]:
        reached = run.results.find(method=name, metric="episodic_return", start=0, horizon=horizon)
        if reached is not None:
            made.append(f"{name} {reached.value:,.0f}{_interval(reached, ',.0f')}")
    if made:
        sentences.append(
            "From their untrained networks, in one call and with no step in the environment, come "
            f"policies that return: {'; '.join(made)}."
        )
    return sentences


def _interval(result: Result, style: str) -> str:
    """The interval in words; nothing for a single trial, which has none."""
    if not math.isfinite(result.low):
        return ""
    return f" (95% interval {result.low:{style}} to {result.high:{style}})"
