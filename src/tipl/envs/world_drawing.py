"""Drawing worlds: what each split is drawn from, one world after the other, from a seed.

A world depends on the seed, its split and its number alone, and on the worlds that came before it,
with which it must not coincide: a longer list begins with the shorter one.
"""

from __future__ import annotations

import operator
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tipl.core.options import at_least, at_most, spelling_hint
from tipl.core.schemas import LARGEST
from tipl.core.seeds import Stream
from tipl.envs.worlds import TRAINING, World, Worlds
from tipl.errors import TiplError, shown
from tipl.paths.metadata import MAX_TRIALS
from tipl.policies.factors import (
    are_factors,
    check_name,
    expected_factors,
    is_range,
    log_uniform,
    numbers,
)

MAX_DRAWS = 10_000
"""Of a world, before nobody believes that there is one."""

_DIGITS = 6
"""Significant ones of a factor that is drawn: as many as one types, and the same anywhere."""

_COMPARISONS = {"<": operator.lt, ">": operator.gt}


@dataclass(frozen=True)
class Choice:
    """What a factor is drawn from."""

    values: tuple[float, ...]
    """the exact factors, or the lowest and the highest"""
    exact: bool
    """one of the values, or anything between the two, even in the logarithm"""

    def draw(self, rng: np.random.Generator) -> float:
        """A factor."""
        if self.exact:
            return self.values[rng.integers(len(self.values))]
        low, high = self.values
        return min(max(float(f"{log_uniform(rng, low, high):.{_DIGITS}g}"), low), high)

    def covers(self, factor: float) -> bool:
        """Whether a factor is one of the values, or between the two."""
        if self.exact:
            return factor in self.values
        return self.values[0] <= factor <= self.values[1]

    def __str__(self) -> str:
        return ("," if self.exact else "..").join(f"{value:g}" for value in self.values)


@dataclass(frozen=True)
class Condition:
    """A side of the corner, such as `mass>1.25`."""

    name: str
    comparison: str
    value: float

    def holds(self, factors: Mapping[str, float]) -> bool:
        """Whether a world is on this side."""
        return bool(_COMPARISONS[self.comparison](factors[self.name], self.value))

    def __str__(self) -> str:
        return f"{self.name}{self.comparison}{self.value:g}"


Box = Mapping[str, Choice]
"""What the factors of a world are drawn from, each by itself."""


@dataclass(frozen=True)
class Plan:
    """What a split is drawn from."""

    count: int
    """of its worlds"""
    boxes: Sequence[Box]
    """world i is drawn from box i, and so on in turn"""
    in_corner: bool = False
    """whether its worlds are those of the corner, of which others have none"""
    outside: Box | None = None
    """a box that none of its worlds is in"""


@dataclass(frozen=True)
class Recipe:
    """How worlds are made: one box for all splits, and a corner of it that is held out.

    `interpolation`, and any split of another name, are fresh draws like `training`: of the box
    without the corner. `combination` is inside the corner; of `extrapolation`, one factor after the
    other is in one of the ranges beyond the box, and the rest in the box without the corner.

    Raises:
        TiplError: a number is not possible, or a split lacks what it is drawn from.
    """

    vary: Box
    splits: Mapping[str, int]
    """number of worlds by split"""
    corner: Sequence[Condition] = ()
    """conditions, all of which hold there"""
    beyond: Sequence[Choice] = ()
    """ranges outside the box"""

    def __post_init__(self) -> None:
        needs = {
            "combination": ("a corner", self.corner),
            "extrapolation": ("ranges beyond", self.beyond),
        }
        for split, (what, given) in needs.items():
            if split in self.splits and not given:
                raise TiplError(
                    f"the split {split} was asked for without {what} of the box; give it"
                )
        if self.beyond and "extrapolation" not in self.splits:
            raise TiplError(
                "ranges beyond the box were given, but no split extrapolation; give both"
            )
        if TRAINING not in self.splits:
            raise TiplError(f"the splits {list(self.splits)} were given; expected {TRAINING}, too")
        for condition in self.corner:
            if condition.name not in self.vary:
                raise TiplError(
                    f"the corner {condition} was given, but the factors {sorted(self.vary)}; "
                    f"{spelling_hint(condition.name, self.vary)}"
                )
        for name, inside in self.vary.items():
            for choice in self.beyond:
                low, high = choice.values
                if not is_range(name, low, high) or not (
                    high <= min(inside.values) or low >= max(inside.values)
                ):
                    raise TiplError(
                        f"the range {choice} was given as beyond {name}={inside}; expected "
                        f"{expected_factors(name)}, outside of it"
                    )

    def plans(self) -> dict[str, Plan]:
        """What each split is drawn from."""
        further = [{**self.vary, name: one} for name in sorted(self.vary) for one in self.beyond]
        return {
            split: Plan(count, further, outside=self.vary)
            if split == "extrapolation"
            else Plan(count, [self.vary], in_corner=split == "combination")
            for split, count in self.splits.items()
        }

    def said(self) -> dict[str, Any]:
        """The recipe for a file."""
        return {
            "vary": {name: str(choice) for name, choice in sorted(self.vary.items())},
            "corner": [str(condition) for condition in self.corner],
            "beyond": [str(choice) for choice in self.beyond],
        }


def draw_worlds(
    env_id: str,
    plans: Mapping[str, Plan],
    corner: Sequence[Condition] = (),
    *,
    seed: int = 0,
    made: Mapping[str, Any] | None = None,
) -> Worlds:
    """Draws the worlds of a task.

    Args:
        env_id: Gymnasium id of the task.
        plans: what each split is drawn from.
        corner: conditions of the corner; all worlds have the factors that these name.
        seed: equal seeds draw equal worlds.
        made: what the file says beside the seed of how they were made.

    Raises:
        TiplError: a number is not possible, or there are too few different worlds.
    """
    at_least(0, seed=seed)
    at_most(LARGEST, seed=seed)
    for split, plan in plans.items():
        at_least(1, "the splits", **{split: plan.count})
        at_most(MAX_TRIALS, "the splits", **{split: plan.count})
    taken: set[tuple[float, ...]] = set()
    splits: dict[str, tuple[World, ...]] = {}
    for split in sorted(plans, key=lambda name: (name != TRAINING, name)):
        worlds = []
        for i in range(plans[split].count):
            rng = Stream.WORLDS.rng(seed, i, zlib.crc32(split.encode()))
            factors = _draw(split, i, plans[split], corner, rng, taken)
            worlds.append(World(f"{split}-{i:03d}", factors))
        splits[split] = tuple(worlds)
    names = tuple(splits[next(iter(splits))][0].factors)
    return Worlds(env_id, names, splits, {**(made or {}), "seed": seed})


def _draw(
    split: str,
    number: int,
    plan: Plan,
    corner: Sequence[Condition],
    rng: np.random.Generator,
    taken: set[tuple[float, ...]],
) -> dict[str, float]:
    """A world that is in the corner or not, as planned, and has not been taken; takes it."""
    box = plan.boxes[number % len(plan.boxes)]
    for _ in range(MAX_DRAWS):
        factors = {name: box[name].draw(rng) for name in sorted(box)}
        in_corner = bool(corner) and all(condition.holds(factors) for condition in corner)
        inside = plan.outside is not None and all(
            plan.outside[name].covers(factor) for name, factor in factors.items()
        )
        if in_corner == plan.in_corner and not inside and tuple(factors.values()) not in taken:
            taken.add(tuple(factors.values()))
            return factors
    where = f" {'in' if plan.in_corner else 'outside'} the corner {' '.join(map(str, corner))}"
    raise TiplError(
        f"{plan.count:,} worlds of the split {shown(split)} were asked for, but after {number:,} "
        f"{MAX_DRAWS:,} draws found no other{where if corner else ''}; ask for fewer, or choose "
        "wider ranges"
    )


# --- texts -----------------------------------------------------------------------------------


def parse_choices(vary: Sequence[str]) -> dict[str, Choice]:
    """What factors are drawn from, from texts such as `gravity=0.6..1.6` or `mass=0.5,1,2`.

    Raises:
        TiplError: a text is no name with factors that it may have, or a name comes twice.
    """
    choices: dict[str, Choice] = {}
    for text in vary:
        name, _, given = text.partition("=")
        exact = ".." not in given
        values = tuple(numbers(given, "," if exact else ".."))
        if exact:
            possible = bool(are_factors(name, np.array(values)).all())
        else:
            possible = len(values) == 2 and is_range(name, *values)
        if not name or not possible:
            raise TiplError(
                f"{shown(text)} was given as what varies; expected a name and a range or some "
                f"exact factors of the original value, {expected_factors(name)}, such as "
                "gravity=0.6..1.6 or gravity=0.5,1,2"
            )
        check_name(name)
        if name in choices:
            raise TiplError(f"{shown(name)} varies twice; give its factors once")
        choices[name] = Choice(values, exact)
    if not choices:
        raise TiplError("nothing varies; give factors, such as --vary gravity=0.6..1.6")
    return choices


def parse_beyond(texts: Sequence[str]) -> tuple[Choice, ...]:
    """Ranges from texts such as `1.6..2.2`; which names may have them sees `Recipe`."""
    found = []
    for text in texts:
        values = tuple(numbers(text, ".."))
        if len(values) != 2 or not values[0] <= values[1]:
            raise TiplError(
                f"{shown(text)} was given as a range beyond the box; expected the lowest and the "
                "highest factor, such as 1.6..2.2"
            )
        found.append(Choice(values, exact=False))
    return tuple(found)


def parse_corner(texts: Sequence[str]) -> tuple[Condition, ...]:
    """Conditions from texts such as `mass>1.25`."""
    found = []
    for text in texts:
        name, comparison, value = [*re.split("([<>])", text, maxsplit=1), "", ""][:3]
        (number,) = numbers(value, "..") if ".." not in value else (np.nan,)
        if not name or not np.isfinite(number):
            raise TiplError(
                f"{shown(text)} was given as a side of the corner; expected a name, < or >, and a "
                "factor, such as mass>1.25"
            )
        found.append(Condition(name, comparison, number))
    return tuple(found)


def parse_splits(texts: Sequence[str]) -> dict[str, int]:
    """Numbers of worlds by split, from texts such as `training=256`."""
    splits: dict[str, int] = {}
    for text in texts:
        name, _, count = text.partition("=")
        if not name or not count.isascii() or not count.isdigit() or name in splits:
            raise TiplError(
                f"{shown(text)} was given as a split; expected a name, once, and a number of "
                "worlds, such as training=256"
            )
        splits[name] = int(count)
    return splits
