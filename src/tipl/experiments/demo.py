"""The main job, end to end: collect, train, forecast, optimise, evaluate, report."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Unpack

from rich.console import Console

from tipl.core import storage
from tipl.experiments.config import DemoConfig
from tipl.experiments.pipeline import How, Stage, run_pipeline
from tipl.experiments.run_report import print_headline, report_run
from tipl.report.results import Rows

HELD_OUT = 0.25
"""Share of the trials that no model sees."""

MODELS = {
    "path": ("--basis", "path"),
    "joint": ("--basis", "joint"),
    "neuron": ("--model", "neuron", "--condition-on-return"),
}
"""The models that are trained, by the name of their directory, and their options."""


def demo(
    out: str | Path = "runs/demo", config: DemoConfig | None = None, **how: Unpack[How]
) -> Rows:
    """Runs the whole main job and writes `report.html` and `results.jsonl`.

    Each stage leaves its result on disk and is reused while its command and what it reads are the
    same, so a demo that was interrupted goes on where it was.

    Args:
        out: the run's directory.
        config: what to do.
        **how: see `How`; with progress a table closes it.

    Returns:
        All rows of `results.jsonl`.

    Raises:
        TiplError: the directory holds something else, or an option is impossible (nothing has been
            written, or removed, then); or a stage failed.
    """
    config = config or DemoConfig()
    directory = run_pipeline(config, demo_stages, out, **how)
    storage.write_json(directory / "demo.json", {"config": dataclasses.asdict(config)})
    results = report_run(directory)
    if how.get("progress", True):
        print_headline(results, config.collection.num_iterations + 1, Console())
        Console().print(f"Report: {directory / 'report.html'}", highlight=False)
    return results


def demo_stages(config: DemoConfig, directory: Path) -> Iterator[Stage]:
    """The stages of the demo in its directory, in order."""
    paths, policy, out = (directory / name for name in ("paths", "optimized", "forecasts"))
    trained = tuple(directory / "models" / name for name in MODELS)
    seed = ("--seed", config.seed)
    trials = ("--num-trials", config.num_trials, "--total-steps", config.total_steps)
    yield Stage("collect", ("collect", config.env_id, *trials, *seed, "--out", paths), paths)
    for model in trained:
        steps = config.neuron_steps if model.name == "neuron" else config.train_steps
        options = ("--held-out", HELD_OUT, *MODELS[model.name], "--num-steps", steps, *seed)
        words = ("train", paths, *options, "--out", model)
        yield Stage(f"train ({model.name})", words, model, (paths,))
    neuron, start = directory / "models" / "neuron", ("--seed", config.seed + 1)
    yield Stage("optimize", ("optimize", neuron, *start, "--out", policy), policy, (neuron,))
    yield Stage("forecast", ("forecast", *trained, "--paths", paths, "--out", out), out, trained)
    yield Stage("evaluate", ("evaluate", out, "--episodes", config.episodes), out, (out,))
