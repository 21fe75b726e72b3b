"""The ledger: environment steps, processor seconds, floating-point operations and memory.

Processor seconds and memory of a stage are those of its process. Floating-point operations are
counted for matrix products, by torch where torch does them and for PPO by what its networks do;
the physics are not counted among them.
"""

from __future__ import annotations

import dataclasses
import math
import time
import timeit
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from threadpoolctl import threadpool_limits
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from tipl.core import storage
from tipl.core.schemas import JsonFile, NotNegative
from tipl.experiments.run import Run
from tipl.forecast.trained import TrainedForecaster
from tipl.models.kinds import recorded_config
from tipl.models.train import train
from tipl.paths import PathDataset
from tipl.policies.layout import ParamLayout
from tipl.ppo.networks import ppo_flops_per_step
from tipl.report.results import Result

COSTS = "costs.json"
"""The file in a run's directory."""

SHORT, LONG = 2, 12
"""Optimiser steps of two short trainings: what they differ by is the cost of a step."""

WHOLE_STAGES = {
    "forecast": "all forecasts of the held-out trials, rivals included",
    "evaluate": "running them in the environment",
}
"""Stages whose parts are not told apart, and what they do."""

CALLS = 5
"""Calls of which the median is taken."""

Work = Literal["collect", "train", "forecast", "stage"]
WORDS: dict[Work, str] = {"collect": "collect ", "train": "train: ", "forecast": "forecast: "}
"""How the words for a piece of work begin; those of a whole stage are what it does."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a piece of work takes; NaN is not counted."""

    kind: Work
    name: str  # of the model or method, or of the stage
    env_steps: float
    cpu_seconds: float  # of all threads together
    flops: float  # two for each multiplication and addition
    peak_rss_mb: float  # largest resident memory of its process
    command: str

    @property
    def work(self) -> str:
        """What is done, in words."""
        return WORDS.get(self.kind, "") + (
            WHOLE_STAGES.get(self.name, self.name) if self.kind == "stage" else self.name
        )


class _WrittenCost(msgspec.Struct):
    """A cost in a file; null is not counted."""

    env_steps: NotNegative | None
    cpu_seconds: NotNegative | None
    flops: NotNegative | None
    peak_rss_mb: NotNegative | None
    command: str
    kind: Work = "stage"
    name: str = ""
    work: str = ""  # of an earlier version, which kept the words alone

    def known(self) -> Cost:
        """The cost that was written."""
        kind, name = self.kind, self.name
        if self.work:
            stages = {words: name for name, words in WHOLE_STAGES.items()}
            name = stages.get(self.work, self.work)
            for one, beginning in WORDS.items():
                if self.work.startswith(beginning):
                    kind, name = one, self.work.removeprefix(beginning)
        numbers = {
            number: math.nan if getattr(self, number) is None else getattr(self, number)
            for number in ("env_steps", "cpu_seconds", "flops", "peak_rss_mb")
        }
        return Cost(kind, name, **numbers, command=self.command)


class _Ledger(msgspec.Struct):
    """What `costs.json` says."""

    costs: list[_WrittenCost]


LEDGER = JsonFile(COSTS, _Ledger, "the costs of a run (made by `tipl costs`)")


COST_FILE = storage.own_json("costs", lambda found: "costs" in found)


def finite(row: Result) -> Result:
    """A row for a file: NaN where a goal is not reached."""
    value, low, high = (math.nan if math.isinf(x) else x for x in (row.value, row.low, row.high))
    return dataclasses.replace(row, value=value, low=low, high=high)


def measure_costs(run: Run) -> list[Cost]:
    """The costs of a run's collection, of each training, and of one forecast by each method."""
    return [*_stage_costs(run), *_forecast_costs(run)]


def write_costs(file: Path, costs: Sequence[Cost]) -> None:
    """Writes costs for `read_costs`."""
    values = [
        {name: None if value != value else value for name, value in vars(cost).items()}
        for cost in costs
    ]
    storage.write_json(file, {"costs": values})


def read_costs(file: Path) -> list[Cost]:
    """Reads what `write_costs` wrote.

    Raises:
        TiplError: there is no such file, or it is damaged.
    """
    return [cost.known() for cost in LEDGER.read(file).costs]


def uses_until_paid(cost: float, saved: float) -> float:
    """Uses that save as much as something has cost; infinite if a use saves nothing."""
    return float(math.ceil(cost / saved)) if saved > 0 else math.inf


def _stage_costs(run: Run) -> Iterator[Cost]:
    paths = run.paths
    layout = paths.metadata.actor_layout + ParamLayout.critic(
        paths.task.observation_size, paths.metadata.hidden_sizes
    )
    trained = {f"train ({name})": model for name, model in run.models.items()}
    for stage in run.stages:
        kind: Work = "stage"
        if stage.name == "collect":
            kind, name = "collect", f"{paths.num_trials} trials"
            env_steps = float(paths.global_step[-1] * paths.num_trials)
            flops = env_steps * ppo_flops_per_step(layout, paths.metadata.ppo["update_epochs"])
        elif (model := trained.get(stage.name)) is not None:
            kind, name = "train", model.label
            env_steps = float(model.settings.get("env_steps", 0))
            flops = _training_flops(paths, model)
        elif stage.name in WHOLE_STAGES:
            name, env_steps, flops = stage.name, math.nan, math.nan
        else:
            continue
        memory = float(stage.peak_rss_mb)
        yield Cost(kind, name, env_steps, stage.cpu_seconds, flops, memory, stage.command)


def _training_flops(paths: PathDataset, model: TrainedForecaster) -> float:
    """Of a whole training, from a few steps of it on a few of the trials."""
    config = recorded_config(model.settings["train"])
    few = paths.select(paths.usable_trials()[:4])
    counts = []
    for steps in (SHORT, LONG):
        short = dataclasses.replace(config, num_steps=steps)
        counts.append(_flops(partial(train, few, config=short, threads=1, progress=False)))
    return (counts[1] - counts[0]) / (LONG - SHORT) * config.steps


class _FlopCounter(TorchDispatchMode):
    """Adds up what torch's own formulas say of every operation.

    `FlopCounterMode` does that by module, and cannot where modules take lists of tensors.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0.0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """An operation, counted; one that is made of others is counted as those."""
        named = kwargs or {}
        formula = flop_registry.get(func._overloadpacket)
        if formula is None:
            with self:
                parts = func.decompose(*args, **named)
            if parts is not NotImplemented:
                return parts
        made = func(*args, **named)
        if formula is not None:
            self.flops += formula(*args, **named, out_val=made)
        return made


def _flops(work: Callable[[], Any]) -> float:
    """Floating-point operations that torch does for a call."""
    with _FlopCounter() as counter:
        work()
    return float(counter.flops)


def _forecast_costs(run: Run) -> Iterator[Cost]:
    """Of one forecast, from the history nearest to a quarter of the path to its end."""
    paths, end = run.forecasts.paths, run.end
    starts = {case.start for case in run.forecasts.cases}
    start = min(starts, key=lambda s: (abs(s - end / 4), -s))
    history = paths.params(slice(0, start + 1))[0]
    for forecaster in run.forecasters():
        if forecaster.min_history > start + 1:
            continue
        call = partial(forecaster.forecast, history, end - start, layout=paths.layout)
        with threadpool_limits(1, "blas"):
            call()  # what a first call prepares is not counted
            seconds = timeit.repeat(call, timer=time.process_time, repeat=CALLS, number=1)
            flops = _flops(call) or math.nan  # nothing counted: it is not torch that works
        cpu_seconds = float(np.median(seconds))
        yield Cost("forecast", forecaster.name, 0.0, cpu_seconds, flops, math.nan, "")
