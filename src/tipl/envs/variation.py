"""Physics that differ from trial to trial: ranges of factors, and each trial's draw from them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from tipl.errors import TiplError

__all__ = ["draw_physics", "parse_ranges"]

# The purpose of a trial's random numbers, beside those that `tipl.ppo` counts up to 4.
PHYSICS = 5


def parse_ranges(vary: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Ranges of factors by name, from texts such as `"body_mass:pole=0.5..2"`.

    Returns:
        For each name the lowest and the highest factor of the original value, sorted by name.

    Raises:
        TiplError: a text is not `name=low..high` with 0 < low <= high, or a name comes twice.
    """
    ranges: dict[str, tuple[float, float]] = {}
    for text in vary:
        name, _, interval = text.partition("=")
        low, _, high = interval.partition("..")
        try:
            bounds = float(low), float(high)
        except ValueError:
            bounds = math.nan, math.nan
        if not name or not 0 < bounds[0] <= bounds[1] < math.inf:
            raise TiplError(
                f"{text!r} was given as what varies; expected a name and a range of positive "
                "factors of the original value, such as gravity=0.7..1.4"
            )
        if name in ranges:
            raise TiplError(f"{name} varies twice; give one range for each name")
        ranges[name] = bounds
    return dict(sorted(ranges.items()))


def draw_physics(ranges: Mapping[str, Sequence[float]], seed: int, trial: int) -> dict[str, float]:
    """One trial's factors by name, uniform in the logarithm: half as likely as double.

    Args:
        ranges: lowest and highest factor by name.
        seed: of the collection.
        trial: its number.
    """
    rng = np.random.default_rng((seed, trial, PHYSICS))
    return {
        name: math.exp(rng.uniform(math.log(low), math.log(high)))
        for name, (low, high) in sorted(ranges.items())
    }
