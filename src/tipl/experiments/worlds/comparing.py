"""What a method of a benchmark of worlds is: its name, what it knows, and how it makes policies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from tipl.experiments.worlds.material import Material
from tipl.policies.policy import Policy
from tipl.report.methods import Method


class Made(NamedTuple):
    """What a method makes for W worlds."""

    policies: list[Policy]
    """one for each world, in that world"""
    env_steps: Int64[np.ndarray, " W"]
    """that it has spent there"""


Maker = Callable[[Material, str], Made]
"""Makes policies for the worlds of a group."""


@dataclass(frozen=True)
class Rival:
    """One way to come to a policy for a world."""

    method: Method
    """its name, key and colour in tables and figures"""
    knows: str
    """what it is told of the world, or finds out there"""
    make: Maker
    reads: tuple[str, ...] = ("training",)
    """directories of the benchmark that decide on what it makes; `{}` is the split"""
    ablation: bool = False
    """whether it stands beside the comparison, and not in it"""
    series: str = ""
    """the line over environment steps that it is a place of, if any"""
    extra: str = ""
    """the module that it needs beyond what tipl installs, if any; an extra has the same name"""

    @property
    def key(self) -> str:
        """Its short name, in files."""
        return self.method.key

    @property
    def name(self) -> str:
        """What tables and figures call it."""
        return self.method.name


def factors_of(
    worlds: Sequence[Mapping[str, float]], names: Sequence[str]
) -> Float64[np.ndarray, "W V"]:
    """Factors of worlds by names, in their order; those that are left out are 1."""
    return np.array([[one.get(name, 1.0) for name in names] for one in worlds], np.float64)
