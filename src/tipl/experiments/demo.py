"""The main job, end to end: collect, train, forecast, optimise, evaluate, report."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from rich.console import Console

from tipl.core import storage
from tipl.experiments.config import DemoConfig
from tipl.experiments.pipeline import Stage, run_pipeline
from tipl.experiments.run_report import print_headline, report_run
from tipl.experiments.stages import (
    collect_stage,
    evaluate_stage,
    forecast_stage,
    optimize_stage,
    train_stage,
)
from tipl.report.results import Rows

__all__ = ["demo", "demo_stages"]

HELD_OUT = 0.25
"""Share of the trials that no model sees."""

MODELS = {
    "path": ("--basis", "path"),
    "joint": ("--basis", "joint"),
    "neuron": ("--model", "neuron", "--condition-on-return"),
}
"""The models that are trained, by the name of their directory, with their options: one
PathTransformer for each basis of the temporal SVD, and the NeuronTransformer."""


def demo(
    out: str | Path = "runs/demo",
    config: DemoConfig | None = None,
    *,
    fresh: bool = False,
    threads: int | None = None,
    progress: bool = True,
) -> Rows:
    """Runs the whole main job and writes `report.html` and `results.jsonl`.

    Each stage leaves its result on disk and is reused while its command and what it reads are the
    same, so a demo that was interrupted goes on where it was.

    Args:
        out: the run's directory.
        config: what to do.
        fresh: remove an earlier run's results from the directory first.
        threads: by default one for each processor.
        progress: show progress bars and the closing table.

    Returns:
        All rows of `results.jsonl`.

    Raises:
        TiplError: the directory holds something else, or an option is impossible (nothing has been
            written, or removed, then); or a stage failed.
    """
    config = config or DemoConfig()
    directory = run_pipeline(
        "demo", config, demo_stages, Path(out), fresh=fresh, threads=threads, progress=progress
    )
    storage.write_json(directory / "demo.json", {"config": dataclasses.asdict(config)})
    results = report_run(directory)
    if progress:
        print_headline(results, config.collection.num_iterations + 1, Console())
        Console().print(f"Report: {directory / 'report.html'}", highlight=False)
    return results


def demo_stages(config: DemoConfig, directory: Path) -> list[Stage]:
    """The stages of the demo in its directory, in order."""
    paths, forecasts = directory / "paths", directory / "forecasts"
    models = {name: directory / "models" / name for name in MODELS}
    options = ("--num-trials", config.num_trials, "--total-steps", config.total_steps)
    stages = [collect_stage("collect", config.env_id, paths, *options, "--seed", config.seed)]
    for name, model in models.items():
        steps = config.neuron_steps if name == "neuron" else config.train_steps
        chosen = (*MODELS[name], "--num-steps", steps)
        stages.append(train_stage(f"train ({name})", paths, model, HELD_OUT, chosen, config.seed))
    return [
        *stages,
        optimize_stage("optimize", models["neuron"], directory / "optimized", config.seed + 1),
        forecast_stage("forecast", list(models.values()), paths, forecasts),
        evaluate_stage("evaluate", forecasts, config.episodes),
    ]
