"""What the benchmarks have in common: fresh processes, medians of repetitions, and provenance."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import multiprocessing
import platform
import shlex
import statistics
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.synchronize import Barrier
from typing import Any, TypeVar

import numpy as np

from tipl.evaluation.stats import mean_interval
from tipl.policies.policy import Policy
from tipl.policies.tasks import TaskSpec

Measured = TypeVar("Measured")

_LIBRARIES = ("tipl", "numpy", "numba", "mujoco", "gymnasium", "torch", "stable-baselines3")

_START_TIMEOUT = 120.0
"""Seconds after which a process no longer waits for the others: one of them has failed."""

_start: Barrier | None = None


def in_fresh_processes(
    function: Callable[..., Measured], *args: object, count: int = 1
) -> list[Measured]:
    """What a function of a module returns in each of `count` new processes that run at once.

    The function calls `wait_for_the_others` when it has warmed up, so that all are timed together.
    """
    context = multiprocessing.get_context("spawn")  # nothing of this process' memory or threads
    pool = ProcessPoolExecutor(count, context, _set_start, (context.Barrier(count),))
    with pool:
        return [future.result() for future in [pool.submit(function, *args) for _ in range(count)]]


def _set_start(start: Barrier) -> None:
    global _start
    _start = start


def wait_for_the_others() -> None:
    """Returns when all processes of `in_fresh_processes` have called it."""
    if _start is not None:
        _start.wait(_START_TIMEOUT)


def medians(repetitions: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median over repetitions of each metric."""
    return {name: statistics.median(one[name] for one in repetitions) for name in repetitions[0]}


def with_ratios(
    measured: Mapping[str, float], ratios: Mapping[str, tuple[str, str]]
) -> dict[str, float]:
    """One repetition's metrics and, where both were measured, the ratios of two of them.

    Ratios are taken within a repetition, so that what slows a whole one down cancels out.

    Args:
        measured: metrics of one repetition.
        ratios: name of each ratio to the names of numerator and denominator.
    """
    return dict(measured) | {
        name: measured[above] / measured[below]
        for name, (above, below) in ratios.items()
        if above in measured and below in measured
    }


def command_line(script: str, args: Any) -> str:
    """The command that repeats a benchmark: all fields of `args` that do not name a place."""
    words = ["python", f"benchmarks/{script}"]
    for field in dataclasses.fields(args):
        value = getattr(args, field.name)
        if field.name not in ("json", "cache"):
            values = value if isinstance(value, tuple) else (value,)
            words += [f"--{field.name.replace('_', '-')}", *map(str, values)]
    return shlex.join(words)


def fresh_networks(
    task: TaskSpec,
    architecture: str,
    count: int,
    seed: int = 1_000_000,
    activation: str = "tanh",
) -> list[Policy]:
    """Random networks that nobody has trained, such as of the architecture "64-64"."""
    hidden = tuple(map(int, architecture.split("-")))
    return [Policy.initial(task, seed + n, hidden, activation) for n in range(count)]


def return_summary(returns: np.ndarray) -> dict[str, float | int | None]:
    """Mean of policies' mean returns `[N, E]` with its interval, and how they are spread."""
    means = returns.mean(axis=1)
    interval = mean_interval(returns)
    known = len(means) > 1
    return {
        "policies": len(means),
        "mean": float(means.mean()),
        "low": interval.low if known else None,
        "high": interval.high if known else None,
        "lowest": float(means.min()),
        "median": float(np.median(means)),
        "highest": float(means.max()),
        "share_950": float((means >= 950).mean()),
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that are measured, where they are installed."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
