"""The trials of a comparison: the stages that train, and what they left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from tipl.errors import TiplError
from tipl.evaluation.stats import ReturnCurves
from tipl.experiments.config import AccelerationConfig
from tipl.experiments.pipeline import Stage, running_checkpoints
from tipl.experiments.stage_records import StageRecord
from tipl.forecast.hub import model_directory, shipped_models
from tipl.paths import PathDataset
from tipl.ppo.config import PPOConfig
from tipl.report.methods import method_with_key

BEST_POLICY = "best-policy"  # the one that is copied, in a comparison's directory


@dataclass(frozen=True)
class Method:
    """One way to train networks of one architecture."""

    key: str  # of what tables and figures know of it
    architecture: str  # units of the hidden layers: "64-64"
    paths: Path  # the dataset of its trials
    options: tuple[str, ...]  # of `tipl collect`, beside those that all methods share
    reads: tuple[Path, ...]  # the directory of what the weights jump to

    @property
    def name(self) -> str:
        """What tables and figures call it."""
        return method_with_key(self.key).name

    @property
    def stage(self) -> str:
        """The name of the stage that collects its trials."""
        return f"{self.name}, {self.architecture}"


def comparison_methods(config: AccelerationConfig, directory: Path, width: int) -> Iterator[Method]:
    """All ways to train networks of a width in a comparison's directory, PPO alone first."""
    architecture = f"{width}-{width}"

    def method(key: str, *options: str, jumps_to: str | None = None) -> Method:
        reads: tuple[Path, ...] = ()
        if jumps_to is not None:
            options = ("--jumps.forecaster", jumps_to, *options)
            reads = (model_directory(jumps_to) if jumps_to in shipped_models() else Path(jumps_to),)
        return Method(key, architecture, directory / architecture / key, options, reads)

    blind = ("--jumps.no-gate", "--jumps.max-jumps", "1")
    yield method("ppo")
    # the best stored policy has the first architecture only
    if config.paths is not None and width == config.widths[0]:
        yield method("copy", *blind, jumps_to=str(directory / BEST_POLICY))
    yield method("pptb", "--pptb.rank", "16", "--pptb.boost", "0.1")
    iterations = config.total_steps // PPOConfig().num_steps
    # extrapolations begin early in trials that would be half over otherwise
    early = () if iterations >= 64 else ("--jumps.min-history", str(max(2, iterations // 4)))
    yield method("relex", "--jumps.forecaster", "relex", *early)
    if config.nino is not None:
        every = str(max(8, 4 * config.checkpoint_interval))
        often = ("--jumps.no-gate", "--jumps.every", every, "--jumps.horizons", "5")
        yield method("nino", *often, jumps_to=config.nino)
    if config.forecaster is not None:
        yield method("ours", jumps_to=config.forecaster)
        yield method("ours-blind", *blind, jumps_to=config.forecaster)


def acceleration_stages(config: AccelerationConfig, directory: Path) -> Iterator[Stage]:
    """The stages of a comparison in its directory, in order."""
    if config.paths is not None:
        best = directory / BEST_POLICY
        words = ("paths", "best", config.paths, "--out", best)
        yield Stage("best stored policy", words, best, (Path(config.paths),))
    for width in config.widths:
        shared = config.collecting(config.num_trials, "--hidden-sizes", width, width)
        for method in comparison_methods(config, directory, width):
            name, paths = method.stage, method.paths
            yield Stage(name, (*shared, *method.options, "--out", paths), paths, method.reads)
            yield running_checkpoints(f"{name}: run its checkpoints", paths, config.episodes)


@dataclass(frozen=True, eq=False)
class Trained:
    """The trials of one method and architecture."""

    method: Method  # how they were trained
    curves: ReturnCurves  # their returns over their environment steps
    final: Float[np.ndarray, " N"]  # of the last checkpoint of each within PPO's steps
    over_training: Float[np.ndarray, " N"]  # each trial's mean return over PPO's steps
    # of each trial at its end `[N]`, by name; empty for a method without jumps
    counts: Mapping[str, Float[np.ndarray, " N"]]
    env_steps: int  # of all trials together, tests of forecasts included
    stage: StageRecord  # that trained them

    @property
    def name(self) -> str:
        """The method's."""
        return self.method.name

    @property
    def cpu_seconds_per_step(self) -> float:
        """Processor seconds of an environment step, learning included."""
        return self.stage.cpu_seconds / self.env_steps


@dataclass(frozen=True, eq=False)
class Architecture:
    """All methods' trials of one architecture."""

    name: str  # as `Method.architecture`
    end: int  # environment steps of PPO in each trial, at which methods are compared
    trained: list[Trained]  # by each method, PPO first; row n of all is the same trial
    num_trials: int  # that are compared
    left_out: int  # trials that are not compared, since they diverged under some method
    episodes: int  # of each checkpoint

    @property
    def ppo(self) -> Trained:
        """PPO alone."""
        return self.trained[0]

    @property
    def gated(self) -> Trained:
        """Tested jumps of the model that forecasts; where there is none, of RELEX."""
        by_key = {one.method.key: one for one in self.trained}
        return by_key.get("ours", by_key["relex"])


def load_architecture(
    directory: Path, methods: Sequence[Method], stages: Mapping[str, StageRecord]
) -> Architecture:
    """Reads all trials by the methods of an architecture in a comparison's directory.

    Raises:
        TiplError: see `tipl.experiments.acceleration.outcome.load_comparison`.
    """
    datasets = [PathDataset.open(method.paths) for method in methods]
    # [N, T] each, NaN where a trial has diverged
    returns = [d.deterministic_return().mean(axis=2, dtype=np.float64) for d in datasets]
    usable = _usable(datasets, returns)
    end, trained = int(datasets[0].global_step[-1]), []
    for method, paths, own in zip(methods, datasets, returns, strict=True):
        stage = stages.get(method.stage)
        if stage is None:
            raise TiplError(
                f"{directory / 'stages.json'} says nothing of the stage {method.stage!r}, whose "
                "time is wanted; run `tipl accelerate` again"
            )
        steps = paths.env_steps()
        counts = {
            count: values[usable, -1].astype(np.float64)
            for count, values in paths.jump_counts().items()
        }
        curves = ReturnCurves(steps, own, returns[0][:, 0]).select(usable)
        final, over_training = curves.at(np.array([float(end)]))[:, 0], curves.mean_over(end)
        in_all = int(steps[:, -1].sum())
        trained.append(Trained(method, curves, final, over_training, counts, in_all, stage))
    kept, episodes = int(usable.sum()), datasets[0].deterministic_return().shape[2]
    name, left_out = methods[0].architecture, len(usable) - kept
    return Architecture(name, end, trained, kept, left_out, episodes)


def _usable(
    datasets: list[PathDataset], returns: list[Float[np.ndarray, "N T"]]
) -> Bool[np.ndarray, " N"]:
    """Trials that diverged under no method."""
    drawn = sorted({(paths.metadata.seed, paths.num_trials) for paths in datasets})
    if len(drawn) > 1:
        raise TiplError(
            f"the methods' trials have these seeds and numbers: {drawn}; expected the same trials "
            "of all: run `tipl accelerate` again, with --fresh if need be"
        )
    usable = np.logical_and.reduce([np.isfinite(own).all(axis=1) for own in returns])
    if usable.sum() < 2:
        raise TiplError(
            f"{usable.sum()} of {len(usable)} trials diverged under no method, but a comparison "
            "needs two at least; give a higher --num-trials"
        )
    return np.asarray(usable)
