"""The measured dimension of paths as results: one number a line, with its interval over trials."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float

from tipl.core.arrays import Array
from tipl.evaluation.stats import Interval, mean_interval
from tipl.paths.dimension import BETAS, CENTERS, PathDimension
from tipl.report.results import Result

__all__ = ["REPORTED_SHARES", "dimension_results", "mean_of_known"]


REPORTED_SHARES = (0.01, 0.1, 0.5)
"""Shares of the most active parameters whose part in all movement is reported."""


def mean_of_known(values: Float[np.ndarray, " N"]) -> float:
    """The mean over the trials that have a finite value; NaN if none has."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def dimension_results(
    measured: Sequence[PathDimension], *, task: str, command: str
) -> list[Result]:
    """All measured numbers as results: means over trials with their intervals.

    Trials in which a number is not finite (the detour of a path that ends where it started) are
    left out of it, and `n_trials` counts the rest.
    """
    results = []
    for part in measured:
        for center, metric, values in _numbers(part):
            known = np.asarray(values, np.float64)[np.isfinite(values)]
            if len(known):
                value, low, high = _interval(known)
                results.append(
                    Result(
                        task, "low dimension", part.method, metric, value, low, high, len(known),
                        0, command, part=part.part, center=center,
                    )
                )  # fmt: skip
    return results


def _interval(known: Array) -> Interval:
    if (known == known[0]).all() and len(known) > 1:  # 10,000 resamplings would say the same
        return Interval(*[float(known[0])] * 3)
    return mean_interval(known)


def _numbers(part: PathDimension) -> Iterator[tuple[str | None, str, Array]]:
    """Centre, metric and the trials' values `[N]`."""
    for center, name in CENTERS.items():
        spectrum = part.spectra[center]
        yield from ((name, f"D({beta})", spectrum.dimension(beta)) for beta in BETAS)
        for metric in ("monotonicity", "half_waves", "harmonic_share"):
            for k, values in enumerate(getattr(spectrum, metric).T, 1):
                yield name, f"{metric}_{k}", values
    yield None, "detour_ratio", part.detour_ratio
    yield None, "parameter_detour_ratio", part.parameter_detour
    for share in REPORTED_SHARES:
        yield None, f"activity_top_{share:.0%}", part.activity_of(share)
