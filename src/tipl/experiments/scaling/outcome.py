"""What an experiment on scaling comes to: every number, its law, and what was foretold."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tipl.evaluation import stats
from tipl.evaluation.stats import Interval
from tipl.experiments.scaling.config import AXES, SCALING, ScalingConfig
from tipl.experiments.scaling.fit import Fit
from tipl.experiments.scaling.points import Point, Size, largest, points
from tipl.experiments.scaling.predicting import (
    METRICS,
    Metric,
    Prediction,
    Series,
    read_predictions,
    series,
)
from tipl.experiments.scaling.records import POINT, Measured, point_file
from tipl.experiments.stage_records import StageRecord, read_records
from tipl.report.results import Result, Rows

PARAMETERS = ("offset", "factor", "exponent")
"""Of a law."""

METHODS = {"own": "NeuronTransformer (own)", "elite": "NeuronTransformer (elite)"}

ELITE = "best stored policy"


def measured_interval(runs: np.ndarray) -> Interval:
    """The mean of runs `[S, U]` with its interval over trials or networks, and over seeds."""
    if len(runs) == 1:
        return stats.mean_interval(runs[0])
    rng, (S, U) = np.random.default_rng(0), runs.shape
    units = rng.integers(U, size=(stats.RESAMPLES, 1, U))
    chosen = rng.integers(S, size=(stats.RESAMPLES, S, 1))
    means = runs[chosen, units].mean(axis=(1, 2))  # [R, S, U] -> [R]
    low, high = np.quantile(means, [(1 - stats.CONFIDENCE) / 2, (1 + stats.CONFIDENCE) / 2])
    return Interval(float(runs.mean()), float(low), float(high))


@dataclass(frozen=True, eq=False)
class Scaling:
    """What an experiment on scaling left; its numbers are worked out when they are asked for."""

    config: ScalingConfig
    command: str
    directory: Path
    known: Mapping[Point, Measured]
    predictions: Sequence[Prediction]
    ppo: Interval
    """return of what PPO made of the held-out networks"""
    stages: Sequence[StageRecord]

    @cache  # noqa: B019
    def series(self, axis: str, metric: Metric) -> Series:
        """A quantity along an axis."""
        return series(self.config, self.known, axis, metric)

    @cache  # noqa: B019
    def fit(self, axis: str, metric: Metric, *, foretelling: bool = False) -> Fit | None:
        """Its law, or that of all sizes but the last; None if there are too few of them."""
        found = self.series(axis, metric)
        if foretelling:
            found = found.until(len(found.sizes) - 1)
        return found.fit() if found.fits else None

    def prediction(self, axis: str, metric: Metric) -> Prediction | None:
        """What was predicted of the largest size of an axis, if anything was."""
        wanted = (axis, metric.target, metric.name, getattr(self.config, axis)[-1])
        found = [
            one for one in self.predictions if (one.axis, one.target, one.metric, one.at) == wanted
        ]
        return found[0] if found else None

    def took(self, point: Point) -> StageRecord | None:
        """What training a model took."""
        return next((one for one in self.stages if one.name == point.name), None)

    def models(self, size: Size) -> list[tuple[Point, Measured]]:
        """All models of a size."""
        return [(point, one) for point, one in self.known.items() if point.size == size]

    @cached_property
    def rows(self) -> Rows:
        """All numbers."""
        found = [self._row("PPO", "episodic_return", self.ppo, n_episodes=self.config.episodes)]
        for size in dict.fromkeys(point.size for point in self.known):
            found += self._of_size(size)
        for axis in AXES:
            for metric in METRICS:
                found += self._of_law(axis, metric)
        return Rows(found)

    def _row(self, method: str, metric: str, value: Interval, **columns: Any) -> Result:
        usual: dict[str, Any] = {"command": self.command}
        return Result(
            self.config.env_id, self.config.COMMAND, method, metric, *value, **usual | columns
        )

    def _of_size(self, size: Size) -> Iterator[Result]:
        """Of all its seeds together, and of what training them took."""
        models = self.models(size)
        for metric in METRICS:
            own = [(p, one) for p, one in models if p.target == metric.target]
            if not own:
                continue
            place = self._place(size, own[0][1]) | {"part": _seeds(len(own))}
            runs = np.stack([metric.of(one) for _, one in own])
            ran = self.config.episodes if metric.name == "episodic_return" else 0
            method = METHODS[metric.target]
            yield self._row(
                method, metric.name, measured_interval(runs), n_trials=runs.shape[1],
                n_episodes=ran, **place,
            )  # fmt: skip
            if metric.rising:
                yield from self._taken(method, own, place)
        elites = [one.elite_return for _, one in models if one.elite_return is not None]
        if elites:
            place = self._place(size, None) | {"part": _seeds(len(elites))}
            value = Interval(float(np.mean(elites)))
            yield self._row(ELITE, "episodic_return", value, **place)

    def _taken(
        self, method: str, models: Sequence[tuple[Point, Measured]], place: Mapping[str, Any]
    ) -> Iterator[Result]:
        """What training a model of a size took, on average over its seeds."""
        records = [self.took(point) for point, _ in models]
        seconds = [one.cpu_seconds for one in records if one is not None]
        flops = [one.flops for _, one in models]
        known = {"cpu_seconds": seconds, "flops": flops}
        if method == METHODS["elite"]:
            known["env_steps"] = [float(one.elite_env_steps) for _, one in models]
        for name, values in known.items():
            mean = float(np.mean(values)) if values else math.nan
            if not math.isnan(mean):
                yield self._row(method, name, Interval(mean), **place)

    def _place(self, size: Size, measured: Measured | None) -> dict[str, Any]:
        place: dict[str, Any] = {"training_trials": size.trials, "num_steps": size.num_steps}
        return place if measured is None else {
            **place, "num_parameters": measured.num_parameters,
        }  # fmt: skip

    def _of_law(self, axis: str, metric: Metric) -> Iterator[Result]:
        """The law of a quantity, and what was predicted."""
        method, where = METHODS[metric.target], f"over {AXIS_NAMES[axis]}"
        if (law := self.fit(axis, metric)) is not None:
            for name in PARAMETERS:
                yield self._row(method, f"{metric.name}_{name}", law.parameter(name), part=where)
        if (one := self.prediction(axis, metric)) is not None:
            value = Interval(one.value, one.low, one.high)
            end = largest(self.config, axis)
            place = self._place(end, None) if end is not None else {}
            part = "predicted from smaller ones" if one.foretold else "fitted afterwards"
            yield self._row(
                method, f"{metric.name}_predicted", value, part=f"{where} ({part})", **place
            )

    def last(self, axis: str, metric: Metric) -> Interval:
        """What was measured of the largest size of an axis."""
        return measured_interval(self.series(axis, metric).runs[-1])


AXIS_NAMES = {"trials": "training trials", "widths": "parameters", "num_steps": "training steps"}
"""What axes are called."""


def _seeds(count: int) -> str:
    return f"{count} seed{'s' * (count > 1)}"


def load_scaling(directory: str | Path) -> Scaling:
    """Reads what an experiment on scaling left.

    Raises:
        TiplError: something is missing or damaged.
    """
    directory = Path(directory)
    record = SCALING.read(directory / SCALING.name)
    every = [point for group in points(record.config) for point in group]
    known = {point: POINT.read(point_file(directory, point)) for point in every}
    return Scaling(
        record.config, record.command, directory, known, read_predictions(directory),
        stats.mean_interval(np.array(record.ppo, np.float64)),
        list(read_records(directory).values()),
    )  # fmt: skip
