"""Running an experiment on scaling: models are measured as they come, the largest foretold."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Unpack

from tipl.core.terminal import console
from tipl.experiments.pipeline import How, Stage
from tipl.experiments.scaling.config import ScalingConfig
from tipl.experiments.scaling.measuring import Bench
from tipl.experiments.scaling.points import Point, points
from tipl.experiments.scaling.predicting import predict
from tipl.experiments.scaling.records import Measured
from tipl.experiments.stage_records import read_records


def measured_along(
    config: ScalingConfig, directory: Path, stages: Iterable[Stage], **how: Unpack[How]
) -> Iterator[Stage]:
    """The stages of an experiment; when one is done and the next is asked for, it is measured.

    Before the first model of a largest size, these are predicted.
    """
    bench = Bench(config, directory, how.get("threads"))
    first, later = points(config)
    by_name = {point.name: point for point in (*first, *later)}
    known: dict[Point, Measured] = {}
    left = _TimeLeft(bench, [*first, *later], shown=how.get("progress", True))
    for stage in stages:
        point = by_name.get(stage.name)
        if point is None:
            yield stage
            continue
        if len(known) == len(first):
            begun = [one for one in later if one.name in read_records(directory)]
            predict(config, directory, known, begun, bench.num_parameters)
        left.say(len(known))
        start = time.monotonic()
        yield stage
        known[point] = bench.measured(point)
        left.took(point, time.monotonic() - start)


class _TimeLeft:
    """Says how far an experiment is, and about how long the rest will take."""

    def __init__(self, bench: Bench, every: Sequence[Point], *, shown: bool) -> None:
        self.console = console(stderr=True, quiet=not shown)
        self.bench, self.every = bench, every
        self.seconds, self.done = 0.0, 0

    def say(self, count: int) -> None:
        """Says it before model number `count`, from 0."""
        line = f"model {count + 1} of {len(self.every)}"
        if self.done:
            rest = sum(map(self._work, self.every[count:])) * self.seconds / self.done
            line += f", about {timedelta(seconds=round(rest))} left"
        self.console.print(line)

    def took(self, point: Point, seconds: float) -> None:
        """Learns from a model that was trained now; one that was there before took no time."""
        if seconds > REUSED:
            self.seconds += seconds
            self.done += self._work(point)

    def _work(self, point: Point) -> int:
        """What a model takes, in a unit that all have in common: as was measured of widths."""
        width = point.size.widths
        return point.size.num_steps * width * (width + OVERHEAD)


REUSED = 2.0
"""Seconds that no model takes that is trained and measured."""

OVERHEAD = 64
"""Width from which on the time of a step grows with the width's square."""
