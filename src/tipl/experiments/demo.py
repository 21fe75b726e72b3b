"""The main job, end to end: collect, train, forecast, optimise, evaluate, report."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Unpack

from tipl.core import storage
from tipl.core.terminal import console, note
from tipl.experiments.config import DemoConfig
from tipl.experiments.pipeline import How, Options, Stage, forecasting, run_pipeline, training
from tipl.experiments.run_report import print_headline, report_run
from tipl.report.results import Rows

HELD_OUT = 0.25  # share of the trials that no model sees


def demo(
    out: str | Path = "runs/demo", config: DemoConfig | None = None, **how: Unpack[How]
) -> Rows:
    """Runs the whole main job, writes `report.html` and `results.jsonl`, and returns its results.

    Each stage leaves its result on disk and is reused while its command and what it reads are the
    same, so a demo that was interrupted goes on where it was. With progress a table closes it. For
    arguments and errors see `run_pipeline`.
    """
    config = config or DemoConfig()
    directory = run_pipeline(config, demo_stages, out, **how)
    storage.write_json(directory / "demo.json", {"config": dataclasses.asdict(config)})
    results = report_run(directory)
    if how.get("progress", True):
        print_headline(results, config.collection.num_iterations + 1, console())
        note(f"Report: {directory / 'report.html'}")
    return results


def demo_stages(config: DemoConfig, directory: Path) -> Iterator[Stage]:
    """The stages of the demo in its directory, in order."""
    paths, policy, neuron = (directory / name for name in ("paths", "optimized", "models/neuron"))
    steps, neuron_steps = (("--num-steps", n) for n in (config.train_steps, config.neuron_steps))
    models: dict[str, Options] = {
        "path": ("--basis", "path", *steps),
        "joint": ("--basis", "joint", *steps),
        "neuron": ("--model", "neuron", "--condition-on-return", *neuron_steps),
    }
    trials = ("--num-trials", config.num_trials, "--total-steps", config.total_steps)
    words: Options = ("collect", config.env_id, *trials, "--seed", config.seed, "--out", paths)
    yield Stage("collect", words, paths)
    yield from training(directory, models, HELD_OUT, config.seed)
    words = ("optimize", neuron, "--seed", config.seed + 1, "--out", policy)
    yield Stage("optimize", words, policy, (neuron,))
    yield from forecasting(directory, models, config.episodes)
