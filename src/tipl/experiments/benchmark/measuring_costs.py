"""Measuring costs: processor seconds, and floating-point operations by torch's own formulas."""

from __future__ import annotations

import dataclasses
import math
import time
import timeit
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from tipl.experiments.benchmark.ledger import WHOLE_STAGES, Cost, Work
from tipl.experiments.run import Run
from tipl.models import TrainConfig
from tipl.models.kinds import recorded_config
from tipl.models.train import train
from tipl.paths import PathDataset
from tipl.policies.layout import ParamLayout
from tipl.ppo.networks import ppo_flops_per_step

SHORT, LONG = 2, 12
"""Optimiser steps of two short trainings: what they differ by is the cost of a step."""

CALLS = 5
"""Calls of which the median is taken."""


def measure_costs(run: Run) -> list[Cost]:
    """The costs of a run's collection, of each training, and of one forecast by each method."""
    return [*_stage_costs(run), *_forecast_costs(run)]


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
            config = recorded_config(model.settings["train"])
            flops = flops_per_step(paths, config) * config.steps
        elif stage.name in WHOLE_STAGES:
            name, env_steps, flops = stage.name, math.nan, math.nan
        else:
            continue
        memory = float(stage.peak_rss_mb)
        yield Cost(kind, name, env_steps, stage.cpu_seconds, flops, memory, stage.command)


def flops_per_step(paths: PathDataset, config: TrainConfig) -> float:
    """Floating-point operations of a training step, from a few steps on a few of the trials."""
    few = paths.select(paths.usable_trials()[:4])
    counts = []
    for steps in (SHORT, LONG):
        short = dataclasses.replace(config, num_steps=steps)
        counts.append(_flops(partial(train, few, config=short, threads=1, progress=False)))
    return (counts[1] - counts[0]) / (LONG - SHORT)


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
