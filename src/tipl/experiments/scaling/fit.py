"""Power laws with an offset: how a quantity goes on when something grows, and how sure that is."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64

from tipl.core.arrays import Array
from tipl.errors import TiplError
from tipl.evaluation.stats import CONFIDENCE, Interval

FEWEST = 4
"""Sizes that a law is fitted to at least: it has three parameters."""

RESAMPLES = 200
"""Of seeds and of what was measured, for the intervals of a fit."""

EXPONENTS = (0.05, 4.0)
"""Between which exponents lie: below is a logarithm, above a step."""

STARTS = (0.1, 0.3, 0.6, 1.0, 2.0)
"""Exponents from which the search begins."""

BEYOND = 2.0
"""How far above the highest measured value a rising law may end, in units of their range."""

OUTLIER = 0.1
"""Residuals beyond this share of the range count less than their square: `soft_l1`."""

PRECISION = 1e-6
"""Of the search, relative to the range."""

Runs = Sequence[Float64[np.ndarray, "S U"]]
"""Of each size what S seeds gave for each of U trials or networks, the same ones for all."""


class Law(NamedTuple):
    """`offset + factor * x ** -exponent`; a rising law's factor is negative."""

    offset: float
    factor: float
    exponent: float

    def at(self, x: Float[np.ndarray, " C"]) -> Float64[np.ndarray, " C"]:
        """Its values."""
        return np.asarray(self.offset + self.factor * np.asarray(x, np.float64) ** -self.exponent)


@dataclasses.dataclass(frozen=True, eq=False)
class Fit:
    """A law that was fitted, and what resampled measurements give."""

    law: Law
    laws: Sequence[Law]
    """of resampled seeds, and of resampled trials or networks"""
    residuals: Float64[np.ndarray, " R"]
    """of single runs, enlarged for the three parameters that were fitted to them"""

    def parameter(self, name: str) -> Interval:
        """`offset`, `factor` or `exponent`, with its interval."""
        return _interval(getattr(self.law, name), np.array([getattr(x, name) for x in self.laws]))

    def band(self, x: Float[np.ndarray, " C"]) -> tuple[Array, Array]:
        """Lower and upper bounds `[C]` of the law."""
        tail = (1 - CONFIDENCE) / 2
        low, high = np.quantile([law.at(x) for law in self.laws], [tail, 1 - tail], axis=0)
        return low, high

    def prediction(self, x: float) -> Interval:
        """What one more run gives at `x`: the law's interval, and the scatter of runs about it."""
        draws = np.array([law.at(np.array([x]))[0] for law in self.laws])
        rng = np.random.default_rng(0)
        scattered = draws + rng.choice(self.residuals, len(draws))
        return _interval(float(self.law.at(np.array([x]))[0]), scattered)


def fit_power_law(
    x: Float[np.ndarray, " C"], runs: Runs, *, rising: bool, lowest: float = -math.inf
) -> Fit:
    """Fits a power law with an offset to the means of C sizes, by least squares.

    Intervals are percentiles of fits to resamples: seeds of each size are drawn with replacement,
    and so are trials or networks, alike for all sizes, since these are the same.

    Args:
        x: the sizes, above 0.
        runs: what was measured of each.
        rising: whether the law rises to its offset, as returns do, or falls to it, as errors do.
        lowest: the offset of a falling law is not below, as errors are not below 0.

    Raises:
        TiplError: there are fewer than four different sizes, or a value is not finite.
    """
    places = np.asarray(x, np.float64)
    if len(np.unique(places)) < FEWEST:
        raise TiplError(
            f"a power law with an offset was to be fitted to {len(np.unique(places))} sizes; "
            f"expected {FEWEST} at least: measure more"
        )
    if not all(np.isfinite(one).all() for one in runs):
        raise TiplError("a power law was to be fitted to values that are not all finite")
    means = np.array([one.mean() for one in runs])
    law = _fitted(places, means, rising, lowest, STARTS)
    rng, laws = np.random.default_rng(0), []
    starts = (float(np.clip(law.exponent, *EXPONENTS)),)
    for _ in range(RESAMPLES):
        units = rng.integers(runs[0].shape[1], size=runs[0].shape[1])
        drawn = [one[rng.integers(len(one), size=len(one))] for one in runs]
        resampled = np.array([one[:, units].mean() for one in drawn])
        laws.append(_fitted(places, resampled, rising, lowest, starts))
    apart = [one.mean(axis=1) - at for one, at in zip(runs, law.at(places), strict=True)]
    residuals = np.concatenate(apart)
    residuals = residuals * math.sqrt(len(residuals) / max(1, len(residuals) - 3))
    return Fit(law, laws, residuals)


def _fitted(x: Array, y: Array, rising: bool, lowest: float, exponents: Sequence[float]) -> Law:
    """The law that comes nearest to values, of searches that begin with several exponents."""
    from scipy.optimize import least_squares

    sign = -1.0 if rising else 1.0
    z, spread = sign * y, float(np.ptp(y))
    if spread == 0:
        return Law(float(y[0]), 0.0, 1.0)
    unit = math.exp(np.log(x).mean())
    u = np.log(x / unit)
    # in units of the spread, from the lowest value: offset, factor, exponent
    z = (z - z.min()) / spread
    deepest = max(-BEYOND, (lowest - float((sign * y).min())) / spread)
    bounds = ([deepest, 0.0, EXPONENTS[0]], [1.0, np.inf, EXPONENTS[1]])

    def residuals(p: Array) -> Array:
        return np.asarray(p[0] + p[1] * np.exp(-p[2] * u) - z)

    def jacobian(p: Array) -> Array:
        power = np.exp(-p[2] * u)
        return np.stack([np.ones_like(u), power, -p[1] * u * power], axis=1)

    found = []
    for exponent in exponents:
        power = np.exp(-exponent * u)
        factor, offset = np.polyfit(power, z, 1)
        start = np.clip([offset, factor, exponent], *bounds)
        search = least_squares(
            residuals, start, jacobian, bounds=bounds, loss="soft_l1", f_scale=OUTLIER,
            xtol=PRECISION, ftol=PRECISION, gtol=PRECISION,
        )  # fmt: skip
        found.append(search)
    offset, factor, exponent = min(found, key=lambda one: float(one.cost)).x
    shift = float((sign * y).min())
    offset, factor = sign * (shift + spread * offset), sign * spread * factor
    return Law(float(offset), float(factor * unit**exponent), float(exponent))


def _interval(value: float, draws: Array) -> Interval:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Interval(float(value), float(low), float(high))
