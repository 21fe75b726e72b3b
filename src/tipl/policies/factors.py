"""Factors of a task's own physics: which are possible, how they are written, and drawn.

A world is a task with its physics: factors of the model's own values, by name (`tipl.envs.physics`
says what a name scales). A factor is finite and above 0; that of a motor's gear may also be below
0, which reverses the motor. Whatever reads or takes factors asks here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from tipl.core.arrays import Array
from tipl.core.options import spelling_hint
from tipl.errors import TiplError, shown

OPTIONS = ("gravity", "wind", "density", "viscosity", "impratio")
"""Names of MuJoCo's options: not the timestep, which is the task's, nor the solver's settings."""

TOGETHER = {"mass": ("body_mass", "body_inertia")}
"""Names of several fields that are scaled by one factor."""

OWNERS = ("body", "jnt", "dof", "geom", "actuator")
"""What other names begin with: that which a field of MuJoCo's model belongs to."""

REVERSIBLE = "actuator_gear"
"""The field whose factors may be negative, of all motors or of one (`actuator_gear:NAME`)."""


def can_reverse(name: str) -> bool:
    """Whether factors of a name may be below 0."""
    return name.partition(":")[0] == REVERSIBLE


def check_name(name: str, known: Iterable[str] = ()) -> None:
    """Raises a TiplError where no model of MuJoCo has physics of a name.

    Whether a task's model has them is another question. What is `known` of it helps to say what was
    meant.
    """
    first = name.partition(":")[0]
    fits = first in known or (not known and first.partition("_")[0] in OWNERS and "_" in first)
    if name in OPTIONS or first in TOGETHER or fits:
        return
    names = [*OPTIONS, *TOGETHER, *known]
    raise TiplError(
        f"no physics {shown(name)}: expected one of {', '.join((*OPTIONS, *TOGETHER))}, a float "
        "field of MjModel that belongs to bodies, joints, geoms or actuators, or such a field and "
        f"an object, as in 'body_mass:torso'; {spelling_hint(first, names)}"
    )


def are_factors(name: str, values: Array | float) -> Array:
    """Which of some numbers can be factors of a name: a mask of their shape."""
    wanted = np.isfinite(values) & (values != 0)
    return np.asarray(wanted if can_reverse(name) else wanted & (values > 0))


def expected_factors(name: str) -> str:
    """What factors of a name are, in the plural, for messages."""
    return "finite numbers other than 0" if can_reverse(name) else "positive finite numbers"


def is_range(name: str, low: float, high: float) -> bool:
    """Whether factors of a name can be drawn between two numbers: both possible, of one sign."""
    return bool(are_factors(name, np.array([low, high])).all()) and low <= high and low * high > 0


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A factor of a range, uniform in the logarithm of its size: half as likely as double."""
    if high < 0:
        return -log_uniform(rng, -high, -low)
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def numbers(text: str, separator: str) -> list[float]:
    """The numbers of a text such as `"0.7..1.4"` or `"0.5,1,2"`; NaN for what is none."""
    found = []
    for word in text.split(separator):
        try:
            found.append(float(word))
        except ValueError:
            found.append(math.nan)
    return found


def parse_factors(texts: Iterable[str]) -> dict[str, float]:
    """Factors by name, from texts such as `"gravity=1.3"`, sorted by name.

    Raises:
        TiplError: a text is not a name and a factor that it may have, or a name comes twice.
    """
    factors: dict[str, float] = {}
    for text in texts:
        name, _, number = text.partition("=")
        found = numbers(number, ",")
        if not name or len(found) != 1 or math.isnan(found[0]):
            raise TiplError(
                f"{shown(text)} was given as physics; expected a name and a factor of the original "
                "value, such as gravity=1.3"
            )
        check_name(name)
        if name in factors:
            raise TiplError(f"the physics {shown(name)} were given twice; give one factor of each")
        factors[name] = found[0]
    return checked_factors(factors)


def checked_factors(factors: Mapping[str, Any], whose: str = "the physics") -> dict[str, float]:
    """Factors by name, sorted, as Python's floats.

    Raises:
        TiplError: one of them is no number, or none that its name may have; `whose` they are
            begins the sentence.
    """
    for name, factor in factors.items():
        number = isinstance(factor, int | float | np.integer | np.floating)
        if isinstance(factor, bool) or not number or not are_factors(name, _as_float(factor)):
            raise TiplError(
                f"{whose} {shown(name)} have the factor {shown(factor)}; expected "
                f"{expected_factors(name)}, of which 1 changes nothing"
            )
    return {name: float(factors[name]) for name in sorted(factors)}


def _as_float(number: Any) -> float:
    """The nearest float; infinity for an integer that is beyond all of them."""
    try:
        return float(number)
    except OverflowError:
        return math.inf


def observed_factors(
    names: Sequence[str], physics: Mapping[str, Array], count: int
) -> Float64[np.ndarray, "n V"]:
    """What policies observe of n worlds: logarithms of some factors, 0 of those that are not given.

    Of motors, which may be reversed, it is the factor less 1.
    """
    observed = np.zeros((count, len(names)))
    for column, name in enumerate(names):
        factors = np.asarray(physics.get(name, np.ones(count)), np.float64)
        observed[:, column] = factors - 1 if can_reverse(name) else np.log(factors)
    return observed


def log_distances(
    here: Float64[np.ndarray, "M V"], there: Float64[np.ndarray, "N V"]
) -> Float64[np.ndarray, "M N"]:
    """Distances between worlds of V factors each: Euclidean, of the factors' logarithms.

    The logarithm of a negative factor is a complex number: where one motor is reversed and the
    other is not, their distance is pi at least.
    """
    mine, others = (np.log(factors.astype(np.complex128)) for factors in (here, there))
    return np.asarray(np.linalg.norm(mine[:, None] - others[None], axis=2))  # [M, N, V] -> [M, N]
