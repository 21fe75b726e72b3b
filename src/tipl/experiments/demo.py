"""The main job, end to end: collect, train, forecast, optimise, evaluate, report.

Each stage leaves its result on disk and is reused when nothing that it depends on has changed, so
a demo that was interrupted goes on where it was.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
from pathlib import Path
from typing import Any

from rich.console import Console

from tipl.collection.collect import collect
from tipl.collection.config import CollectConfig
from tipl.collection.plan import dataset_metadata
from tipl.core.options import thread_count
from tipl.envs import make_task
from tipl.errors import TiplError
from tipl.experiments.forecast_sets import ForecastReturns, ForecastSet, evaluate_forecasts
from tipl.experiments.forecasts import make_forecasts
from tipl.experiments.run_report import print_headline, report_run
from tipl.experiments.stages import Stages, prepare_run
from tipl.forecast.base import Forecaster
from tipl.models.config import TrainConfig
from tipl.models.train import train
from tipl.paths import PathDataset
from tipl.policies.policy import Policy
from tipl.report.results import Rows

__all__ = ["DemoConfig", "demo"]

HELD_OUT = 0.25
"""Share of the trials that no model sees."""

MODELS: dict[str, dict[str, Any]] = {
    "path": {"basis": "path"},
    "joint": {"basis": "joint"},
    "neuron": {"model": "neuron", "condition_on_return": True},
}
"""The models that are trained, by the name of their directory, with their options: one
PathTransformer for each basis of the temporal SVD, and the NeuronTransformer."""


@dataclasses.dataclass(frozen=True)
class DemoConfig:
    """What the demo does; the defaults take about 10 minutes on two processors."""

    env_id: str = "InvertedPendulum-v4"
    """the task"""
    num_trials: int = 128
    """PPO trials to collect"""
    total_steps: int = 61_440
    """environment steps of each trial"""
    train_steps: int = 800
    """optimiser steps of each PathTransformer"""
    neuron_steps: int = 600
    """optimiser steps of the NeuronTransformer, for each target"""
    episodes: int = 2
    """episodes of each evaluated policy"""
    seed: int = 0
    """seed of the collection and of the training"""

    @property
    def collection(self) -> CollectConfig:
        """What the demo collects."""
        return CollectConfig(
            num_trials=self.num_trials, total_steps=self.total_steps, seed=self.seed
        )

    def __post_init__(self) -> None:
        # everything is checked before the first stage, not after minutes of work
        least_values = {"num_trials": 2, "train_steps": 1, "neuron_steps": 1, "episodes": 1}
        for name, least in least_values.items():
            if getattr(self, name) < least:
                raise TiplError(f"{name} is {getattr(self, name)}; expected at least {least}")
        if self.collection.num_iterations < 2:
            raise TiplError(
                f"total_steps is {self.total_steps}; expected at least "
                f"{2 * self.collection.ppo.num_steps}, for paths of three checkpoints"
            )


def demo(
    out: str | Path = "runs/demo",
    config: DemoConfig | None = None,
    *,
    fresh: bool = False,
    threads: int | None = None,
    progress: bool = True,
) -> Rows:
    """Runs the whole main job and writes `report.html` and `results.jsonl`.

    Args:
        out: the run's directory.
        config: what to do.
        fresh: remove an earlier run's results from the directory first.
        threads: by default one for each processor.
        progress: show progress bars and the closing table.

    Returns:
        All rows of `results.jsonl`.

    Raises:
        TiplError: the directory holds something else, or an option is impossible. Nothing has
            been written, or removed, then.
    """
    config, directory = config or DemoConfig(), Path(out)
    make_task(config.env_id)
    thread_count(threads)  # before the first stage, not after minutes of work
    prepare_run(directory, fresh, "demo")
    job = _Job(directory, config, threads, progress)
    paths = job.collect()
    models = [job.train(paths, name) for name in MODELS]
    job.optimize(models[-1])
    forecasts = job.forecast(paths, models)
    job.evaluate(forecasts)
    results = report_run(directory)
    if progress:
        print_headline(results, paths.num_checkpoints, Console())
        Console().print(f"Report: {directory / 'report.html'}", highlight=False)
    return results


def _flag(option: str, value: Any) -> str:
    """An option of `tipl train` on the command line."""
    flag = f"--{option.replace('_', '-')}"
    return flag if value is True else f"{flag} {value}"


class _Job:
    """The stages with their commands; each method is one stage."""

    def __init__(
        self, directory: Path, config: DemoConfig, threads: int | None, progress: bool
    ) -> None:
        self.directory, self.config = directory, config
        self.threads, self.progress = threads, progress
        self.stages = Stages(directory, Console(stderr=True, quiet=not progress))
        # what the result of the stages so far depends on
        self.depends: dict[str, Any] = {"version": importlib.metadata.version("tipl")}

    def collect(self) -> PathDataset:
        """PPO trials to policy learning paths."""
        config, out = self.config, self.directory / "paths"
        self.depends["paths"] = dataset_metadata(config.env_id, config.collection).digest
        return self.stages.run(
            "collect",
            f"tipl collect {config.env_id} --num-trials {config.num_trials} "
            f"--total-steps {config.total_steps} --seed {config.seed} --out {out}",
            self.depends,
            out / "metadata.json",
            work=lambda: collect(
                config.env_id,
                out=out,
                threads=self.threads,
                progress=self.progress,
                config=config.collection,
            ),
            load=lambda: PathDataset.open(out),
        )

    def train(self, paths: PathDataset, name: str) -> Path:
        """Paths to a trained model; returns its directory."""
        out, options = self.directory / "models" / name, MODELS[name]
        steps = self.config.neuron_steps if name == "neuron" else self.config.train_steps
        training = TrainConfig(**options, num_steps=steps, seed=self.config.seed)
        self.depends[f"train {name}"] = dataclasses.asdict(training)
        flags = " ".join(_flag(option, value) for option, value in options.items())

        def work() -> Path:
            split = paths.split(HELD_OUT)
            model = train(
                split.train,
                held_out=split.held_out,
                config=training,
                threads=self.threads,
                progress=self.progress,
            )
            model.save_pretrained(out)
            return out

        return self.stages.run(
            f"train ({name})",
            f"tipl train {paths.directory} --held-out {HELD_OUT} {flags} "
            f"--num-steps {training.num_steps} --seed {training.seed} --out {out}",
            self.depends,
            out / "config.json",
            work,
            load=lambda: out,
        )

    def optimize(self, model: Path) -> Path:
        """One fresh random network to a policy, by inference alone; returns its directory."""
        out, seed = self.directory / "optimized", self.config.seed + 1

        def work() -> Path:
            forecaster = Forecaster.from_pretrained(model)
            forecaster.optimize(Policy.initial(forecaster.task, seed)).save(out)
            return out

        command = f"tipl optimize {model} --seed {seed} --out {out}"
        return self.stages.run(
            "optimize", command, self.depends, out / "policy.json", work, load=lambda: out
        )

    def forecast(self, paths: PathDataset, models: list[Path]) -> ForecastSet:
        """Histories of the held-out trials to forecasts."""
        out = self.directory / "forecasts"

        def work() -> ForecastSet:
            forecasters = [Forecaster.from_pretrained(model) for model in models]
            forecasts = make_forecasts(forecasters, paths)
            forecasts.save(out)
            return forecasts

        return self.stages.run(
            "forecast",
            f"tipl forecast {' '.join(map(str, models))} --paths {paths.directory} --out {out}",
            self.depends,
            out / "forecasts.json",
            work,
            load=lambda: ForecastSet.load(out),
        )

    def evaluate(self, forecasts: ForecastSet) -> ForecastReturns:
        """Forecasts and true checkpoints to returns, in the environment."""
        out, episodes = self.directory / "forecasts", self.config.episodes
        self.depends["episodes"] = episodes
        return self.stages.run(
            "evaluate",
            f"tipl evaluate {out} --episodes {episodes}",
            self.depends,
            out / "returns.safetensors",
            work=lambda: evaluate_forecasts(
                out, forecasts, episodes, threads=self.threads, progress=self.progress
            ),
            load=lambda: ForecastReturns.load(out)[0],
        )
