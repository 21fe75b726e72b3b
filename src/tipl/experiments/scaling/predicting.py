"""What the smaller sizes say of the largest of each axis, written down before that one is run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from jaxtyping import Float64

from tipl.core import storage
from tipl.core.schemas import Count, JsonFile, Natural
from tipl.experiments.scaling.config import AXES, ScalingConfig
from tipl.experiments.scaling.fit import FEWEST, Fit, Runs, fit_power_law
from tipl.experiments.scaling.points import Point, Size, largest, points_of, sizes
from tipl.experiments.scaling.records import Measured
from tipl.forecast.base import Target


class Metric(NamedTuple):
    """A quantity that is to grow or to shrink."""

    name: str
    target: Target
    label: str
    rising: bool
    lowest: float = -math.inf
    """what its law cannot fall below"""

    def of(self, found: Measured) -> Float64[np.ndarray, " U"]:
        """What was measured of one model, by held-out trial or fresh network."""
        if self.name == "episodic_return":
            return found.by_policy
        return np.array(getattr(found, f"{self.name}s"), np.float64)


METRICS = (
    Metric("weight_error", "own", "weight error of own", rising=False, lowest=0.0),
    Metric("action_error", "own", "action error of own", rising=False, lowest=0.0),
    Metric("episodic_return", "own", "return of own", rising=True),
    Metric("episodic_return", "elite", "return of elite", rising=True),
)
"""What is measured of each size."""

Known = Mapping[Point, Measured]


@dataclasses.dataclass(frozen=True, eq=False)
class Series:
    """One quantity along one axis."""

    axis: str
    metric: Metric
    sizes: Sequence[Size]
    """C of them, from the smallest on"""
    x: Float64[np.ndarray, " C"]
    """trials, parameters or optimiser steps"""
    runs: Runs
    """of each size what was measured, a row a seed"""

    def until(self, count: int) -> Series:
        """The first sizes alone."""
        first = self.sizes[:count]
        return dataclasses.replace(self, sizes=first, x=self.x[:count], runs=self.runs[:count])

    @property
    def fits(self) -> bool:
        """Whether there are enough sizes for a law."""
        return len(np.unique(self.x)) >= FEWEST

    def fit(self) -> Fit:
        """The law; raises a TiplError if there are too few sizes."""
        metric = self.metric
        return fit_power_law(self.x, self.runs, rising=metric.rising, lowest=metric.lowest)


def series(config: ScalingConfig, known: Known, axis: str, metric: Metric) -> Series:
    """What is known of a quantity along an axis, of those sizes all of whose models are known."""
    along, x, runs = [], [], []
    for size in sizes(config, axis):
        models = points_of(config, size, metric.target)
        if all(point in known for point in models):
            found = [known[point] for point in models]
            along.append(size)
            grown = found[0].num_parameters if axis == "widths" else getattr(size, axis)
            x.append(float(grown))
            runs.append(np.stack([metric.of(one) for one in found]))
    return Series(axis, metric, along, np.array(x), runs)


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What the smaller sizes of an axis say of one run of its largest size."""

    axis: str
    target: Target
    metric: str
    at: Count
    """the largest value of the axis"""
    sizes: Natural
    """from how many smaller ones"""
    value: float
    low: float
    """of the 95% interval of one run"""
    high: float
    foretold: bool
    """whether none of the largest models had been begun"""
    digest: str
    """of what it was made from"""


class _Predictions(msgspec.Struct):
    """What `predictions.json` says."""

    predictions: list[Prediction]


PREDICTIONS = JsonFile(
    "predictions.json", _Predictions, "predictions of the largest sizes (by `tipl scaling`)"
)


def read_predictions(directory: Path) -> list[Prediction]:
    """The predictions in an experiment's directory; none where there is no such file.

    Raises:
        TiplError: the file is damaged.
    """
    file = directory / PREDICTIONS.name
    return PREDICTIONS.read(file).predictions if file.exists() else []


def predict(
    config: ScalingConfig,
    directory: Path,
    known: Known,
    begun: Collection[Point],
    parameters: Callable[[Target, int], int],
) -> list[Prediction]:
    """Predicts the largest size of each axis from the smaller ones, and writes that to the disk.

    A prediction that was made before of the same numbers is kept. Where there are too few sizes,
    there is none.

    Args:
        config: the experiment.
        directory: where it is.
        known: what was measured.
        begun: models of the largest sizes that nobody can foretell any more.
        parameters: the number of parameters of a model for a target, by its width.

    Raises:
        TiplError: the file cannot be written.
    """
    before = {one.digest: one for one in read_predictions(directory)}
    made = []
    for axis in AXES:
        for metric in METRICS:
            found, end = series(config, known, axis, metric), largest(config, axis)
            smaller = found.until(sum(size != end for size in found.sizes))
            if end is None or not smaller.fits:
                continue
            place = getattr(end, axis)
            if axis == "widths":
                place = parameters(metric.target, end.widths)
            late = any(point in begun for point in points_of(config, end, metric.target))
            one = _prediction(smaller, getattr(end, axis), float(place), foretold=not late)
            made.append(before.get(one.digest, one))
    written = [dataclasses.asdict(one) for one in made]
    storage.write_json(directory / PREDICTIONS.name, {"predictions": written})
    return made


def _prediction(smaller: Series, end: int, place: float, *, foretold: bool) -> Prediction:
    metric, axis = smaller.metric, smaller.axis
    digest = storage.content_digest(
        {
            "series": [axis, metric.target, metric.name, end],
            "x": [*smaller.x.tolist(), place],
            "values": [one.tolist() for one in smaller.runs],
        }
    )
    value, low, high = smaller.fit().prediction(place)
    return Prediction(
        axis, metric.target, metric.name, end, len(smaller.sizes), value, max(low, metric.lowest),
        high, foretold, digest,
    )  # fmt: skip
