"""Worlds as data: a task with factors of its physics, in splits, in a file with a hash.

Home is the world whose factors are all 1. Nothing here imports Gymnasium or MuJoCo: what names
scale, and whether a model has it, says `tipl.envs.physics`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float64

from tipl.core import storage
from tipl.core.options import spelling_hint
from tipl.core.schemas import JsonFile
from tipl.errors import TiplError, shown
from tipl.paths.metadata import MAX_TRIALS, Described
from tipl.policies.factors import checked_factors, log_distances

SPLITS = ("training", "interpolation", "combination", "extrapolation")
"""The usual splits, in their order. The first is learned from: its first 8, 16, 32, ... worlds are
the nested training sets."""

TRAINING = SPLITS[0]


@dataclass(frozen=True)
class World:
    """A task's physics, under a name."""

    name: str
    """such as `training-000`"""
    factors: dict[str, float]
    """of the model's own values, by the names of `tipl.envs.physics`"""


@dataclass(frozen=True, repr=False)
class Worlds(Described):
    """Worlds of one task, in splits of which no two have a world in common.

    Raises:
        TiplError: a name or factor is not possible, a world lacks one, two worlds have one name, or
            worlds of different splits coincide.

    Examples:
        >>> worlds = tipl.Worlds.from_factors(
        ...     "HalfCheetah-v4", {"training": [{"gravity": 1.2}, {"mass": 0.8}]}
        ... )
        >>> worlds["training-001"]
        {'gravity': 1.0, 'mass': 0.8}
        >>> worlds.save("worlds.json")
    """

    what: ClassVar = "the file of worlds"

    env_id: str
    """Gymnasium id of the task"""
    physics: tuple[str, ...]
    """names of the factors that each world has, V of them, sorted"""
    splits: dict[str, tuple[World, ...]]
    """the worlds by split, such as `training`, `interpolation`, `combination`, `extrapolation`"""
    made: dict[str, Any] = field(default_factory=dict)
    """how they were made: ranges, corner, seed, command, ..."""
    format_version: int = 1

    @classmethod
    def from_factors(
        cls, env_id: str, splits: Mapping[str, Sequence[Mapping[str, float]]]
    ) -> Worlds:
        """Worlds of given factors, by split, which are numbered: `training-000`, ...

        What a world does not say and others do is 1, as at home.

        Raises:
            TiplError: what `Worlds` refuses.
        """
        names = sorted({name for worlds in splits.values() for one in worlds for name in one})
        home = dict.fromkeys(names, 1.0)
        numbered = {
            split: tuple(
                World(f"{split}-{i:03d}", checked_factors(home | dict(factors)))
                for i, factors in enumerate(worlds)
            )
            for split, worlds in splits.items()
        }
        return cls(env_id, tuple(names), numbered)

    def __post_init__(self) -> None:
        order = {name: i for i, name in enumerate(SPLITS)}
        ordered = sorted(self.splits, key=lambda name: (order.get(name, len(order)), name))
        object.__setattr__(self, "splits", {name: self.splits[name] for name in ordered})
        whose = f"the worlds of {shown(self.env_id)}"
        if not self.splits or not all(self.splits.values()) or not self.physics:
            raise TiplError(
                f"{whose} have {len(self.physics)} physics and the splits "
                f"{ {name: len(worlds) for name, worlds in self.splits.items()} }; expected one or "
                "more of each, and a world in each split"
            )
        if len(self) > MAX_TRIALS:
            raise TiplError(f"{whose} are {len(self):,}; expected at most {MAX_TRIALS:,}")
        seen: dict[str, str] = {}
        splits: dict[tuple[float, ...], str] = {}
        for split, worlds in self.splits.items():
            for world in worlds:
                if world.name in seen:
                    raise TiplError(
                        f"two of {whose} have the name {shown(world.name)}; expected one"
                    )
                seen[world.name] = split
                given = tuple(checked_factors(world.factors, f"of {shown(world.name)} the physics"))
                if given != self.physics:
                    raise TiplError(
                        f"the world {shown(world.name)} has factors of {list(given)}; expected "
                        f"those of {list(self.physics)}, as all of its file have"
                    )
                factors = tuple(world.factors[name] for name in self.physics)
                if splits.setdefault(factors, split) != split:
                    raise TiplError(
                        f"the world {shown(world.name)} is in the split {shown(splits[factors])}, "
                        "too; expected worlds that are in one split alone"
                    )

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the task and its worlds: the same for equal worlds, however they were made."""
        said = self.to_json()
        return storage.content_digest({name: said[name] for name in said if name != "made"})

    def to_json(self) -> dict[str, Any]:
        """The content of the file."""
        splits = {
            split: [{"name": one.name, "factors": one.factors} for one in worlds]
            for split, worlds in self.splits.items()
        }
        return super().to_json() | {"physics": list(self.physics), "splits": splits}

    @classmethod
    def load(cls, path: str | Path) -> Worlds:
        """Reads a file of worlds.

        Raises:
            TiplError: there is none, it is damaged, or it says something impossible.
        """
        return WORLDS.read(path)

    @classmethod
    def of(cls, given: Worlds | str | Path) -> Worlds:
        """Worlds as they are given: themselves, or by their file, which is read."""
        return given if isinstance(given, Worlds) else cls.load(given)

    def save(self, path: str | Path) -> None:
        """Writes the file, whole or not at all; a file of worlds that is there is replaced.

        Raises:
            TiplError: something else has that name, or it cannot be written.
        """
        storage.write_json(path, self.to_json(), WORLDS_FILE)

    def __len__(self) -> int:
        return sum(map(len, self.splits.values()))

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(worlds)} {split}" for split, worlds in self.splits.items())
        return f"Worlds({self.env_id}: {counts}; {', '.join(self.physics)})"

    def __getitem__(self, name: str) -> dict[str, float]:
        """The factors of one world, as `tipl.evaluate(policy, physics=...)` takes them."""
        found = {one.name: one for worlds in self.splits.values() for one in worlds}
        if name not in found:
            raise TiplError(
                f"there is no world {shown(name)} of {shown(self.env_id)}: expected one of "
                f"{len(self)}, such as {next(iter(found))}; {spelling_hint(name, found)}"
            )
        return dict(found[name].factors)

    def worlds(self, split: str, first: int | None = None) -> tuple[World, ...]:
        """The worlds of a split in order: all, or the `first` ones.

        Raises:
            TiplError: there is no such split, or it has fewer worlds.
        """
        if split not in self.splits:
            raise TiplError(
                f"there is no split {shown(split)} in the worlds of {shown(self.env_id)}: expected "
                f"one of {', '.join(self.splits)}; {spelling_hint(split, self.splits)}"
            )
        worlds = self.splits[split]
        if first is not None and not 1 <= first <= len(worlds):
            raise TiplError(
                f"{first} worlds of the split {shown(split)} were asked for; expected 1 to "
                f"{len(worlds)}, which it has"
            )
        return worlds[:first]

    def split(self, name: str, first: int | None = None) -> dict[str, Float64[np.ndarray, " W"]]:
        """Factors `[W]` by name of the worlds of a split, as `tipl.envs.make_vec` takes them.

        All of its worlds, or the `first` ones. Raises what `worlds` raises.
        """
        return _columns(self.worlds(name, first), self.physics)

    def distances(self, split: str, to: str = TRAINING) -> Float64[np.ndarray, " W"]:
        """Distance of each world of a split from the nearest one of another, in log-factors.

        It is the Euclidean distance of the logarithms; a motor that is reversed adds pi to it.
        """
        here, there = (_matrix(self.worlds(one), self.physics) for one in (split, to))
        return np.asarray(log_distances(here, there).min(axis=1))


def _matrix(worlds: Sequence[World], physics: Sequence[str]) -> Float64[np.ndarray, "W V"]:
    return np.array([[one.factors[name] for name in physics] for one in worlds], np.float64)


def _columns(
    worlds: Sequence[World], physics: Sequence[str]
) -> dict[str, Float64[np.ndarray, " W"]]:
    return dict(zip(physics, _matrix(worlds, physics).T.copy(), strict=True))


WORLDS = JsonFile("worlds.json", Worlds, "a file of worlds (made by `tipl worlds make`)")

WORLDS_FILE = storage.own_json("a file of worlds", lambda said: {"splits", "physics"} <= {*said})
"""What `Worlds.save` replaces."""
