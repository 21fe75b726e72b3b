"""The trials of a comparison, read from its datasets, and the record of what was compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from tipl.core import storage
from tipl.errors import TiplError
from tipl.experiments.acceleration.amortised import ModelCost
from tipl.experiments.acceleration.curves import ReturnCurves
from tipl.experiments.acceleration.stages import Method, collection_name, trials_directory
from tipl.experiments.config import AccelerationConfig
from tipl.paths import PathDataset
from tipl.report.page import Stage

__all__ = ["Architecture", "Record", "Trained", "load_architecture", "load_record", "write_record"]

FILE = "comparison.json"


@dataclass(frozen=True, eq=False)
class Trained:
    """The trials of one method and architecture.

    Attributes:
        method: how they were trained.
        curves: their returns over their environment steps.
        counts: of each trial at its end, by name, `[N]`; empty for a method without jumps.
        env_steps: of all trials together, tests of forecasts included.
        cpu_seconds: of the stage that trained them.
        command: of that stage.
    """

    method: Method
    curves: ReturnCurves
    counts: Mapping[str, Float[np.ndarray, " N"]]
    env_steps: int
    cpu_seconds: float
    command: str

    @property
    def name(self) -> str:
        """The method's."""
        return self.method.name

    @property
    def cpu_seconds_per_step(self) -> float:
        """Processor seconds of an environment step, learning included."""
        return self.cpu_seconds / self.env_steps

    def final(self, end: int) -> Float[np.ndarray, " N"]:
        """Return of the last checkpoint that each trial has within `end` steps."""
        return self.curves.at(np.array([float(end)]))[:, 0]


@dataclass(frozen=True, eq=False)
class Architecture:
    """All methods' trials of one architecture.

    Attributes:
        name: its hidden layers: `"64-64"`.
        end: environment steps of PPO in each trial, at which methods are compared.
        trained: by each method, PPO first; row n of all is the same trial.
        num_trials: trials that are compared.
        left_out: trials that are not, since they diverged under some method.
        episodes: of each checkpoint.
    """

    name: str
    end: int
    trained: list[Trained]
    num_trials: int
    left_out: int
    episodes: int

    @property
    def ppo(self) -> Trained:
        """PPO alone."""
        return self.trained[0]

    @property
    def gated(self) -> Trained:
        """Tested jumps of the model that forecasts; where there is none, of RELEX."""
        by_key = {one.method.key: one for one in self.trained}
        return by_key.get("ours", by_key["relex"])


@dataclass(frozen=True)
class Record:
    """What was compared: all that is needed beside the stages to make the report again.

    Attributes:
        config: the comparison.
        command: its command line.
        cost: of the model that forecasts; None if it is not known.
    """

    config: AccelerationConfig
    command: str
    cost: ModelCost | None


def write_record(directory: Path, record: Record) -> None:
    """Writes what was compared to a comparison's directory."""
    storage.write_json(directory / FILE, dataclasses.asdict(record))


def load_record(directory: Path) -> Record:
    """Reads what `write_record` wrote.

    Raises:
        TiplError: there is no such file, or it is damaged.
    """
    read = storage.read_json(
        directory / FILE, "the record of a comparison (made by `tipl accelerate`)"
    )
    cost = None if read["cost"] is None else ModelCost(**read["cost"])
    return Record(AccelerationConfig.from_json(read["config"]), read["command"], cost)


def load_architecture(
    directory: Path, width: int, methods: list[Method], stages: Mapping[str, Stage]
) -> Architecture:
    """Reads all trials of one architecture.

    Args:
        directory: of the comparison.
        width: units of each hidden layer.
        methods: that were trained with it, PPO alone first.
        stages: what the comparison's stages took, by name.

    Raises:
        TiplError: a stage's result is missing or damaged, the methods' trials are not the same
            ones, or fewer than two of them diverged under no method.
    """
    datasets = [PathDataset.open(trials_directory(directory, width, method)) for method in methods]
    # [N, T] each, NaN where a trial has diverged
    returns = [d.deterministic_return().mean(axis=2, dtype=np.float64) for d in datasets]
    usable = _usable(datasets, returns)
    trained = []
    for method, paths, own in zip(methods, datasets, returns, strict=True):
        name = collection_name(width, method)
        if name not in stages:
            raise TiplError(
                f"{directory / 'stages.json'} says nothing of the stage {name!r}, whose time is "
                "wanted; run `tipl accelerate` again"
            )
        steps = paths.env_steps()
        counts = {
            count: values[usable, -1].astype(np.float64)
            for count, values in paths.jump_counts().items()
        }
        curves = ReturnCurves(steps, own, returns[0][:, 0]).select(usable)
        in_all, stage = int(steps[:, -1].sum()), stages[name]
        trained.append(Trained(method, curves, counts, in_all, stage.cpu_seconds, stage.command))
    return Architecture(
        f"{width}-{width}",
        int(datasets[0].global_step[-1]),
        trained,
        int(usable.sum()),
        int((~usable).sum()),
        datasets[0].deterministic_return().shape[2],
    )


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
