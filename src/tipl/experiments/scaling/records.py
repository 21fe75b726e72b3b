"""What was measured of a model of an experiment on scaling, in a file for each."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from jaxtyping import Float64

from tipl.core import storage
from tipl.core.schemas import Count, JsonFile, Natural, NotNegative
from tipl.errors import TiplError
from tipl.experiments.clearing import MEASURED
from tipl.experiments.scaling.points import Point
from tipl.forecast.base import Target

Numbers = list[float]


@dataclasses.dataclass(frozen=True)
class Measured:
    """What was measured of one model: of `own` on held-out trials, of `elite` on fresh networks."""

    target: Target
    digest: str
    """of all that the numbers follow from"""
    num_parameters: Count
    """of the model"""
    flops: NotNegative
    """that its training took, about: products of matrices"""
    returns: Annotated[list[Numbers], msgspec.Meta(min_length=1)]
    """of each policy that it makes of an untrained network, a list of episodes"""
    weight_errors: Numbers = dataclasses.field(default_factory=list)
    """own: of each held-out trial, in units of standing still's"""
    action_errors: Numbers = dataclasses.field(default_factory=list)
    """own: the same of actions"""
    elite_return: float | None = None
    """elite: mean return of the stored policy that networks are carried to"""
    elite_env_steps: Natural = 0
    """elite: environment steps of its training"""

    def __post_init__(self) -> None:
        episodes = {len(those) for those in self.returns}
        errors = {len(self.weight_errors), len(self.action_errors)}
        wanted = {len(self.returns) if self.target == "own" else 0}
        if len(episodes) != 1 or 0 in episodes or errors != wanted:
            raise TiplError(
                f"what was measured of a model for {self.target} are {len(self.returns)} policies "
                f"of {sorted(episodes)} episodes and {sorted(errors)} errors; expected one number "
                "of each: remove the file, and run `tipl scaling` again"
            )
        if (self.elite_return is None) != (self.target == "own"):
            raise TiplError(
                f"what was measured of a model for {self.target} says of the elite's return "
                f"{self.elite_return}; remove the file, and run `tipl scaling` again"
            )

    @property
    def by_policy(self) -> Float64[np.ndarray, " U"]:
        """The mean return of each policy."""
        return np.asarray(np.array(self.returns, np.float64).mean(axis=1))


POINT = JsonFile(".point.json", Measured, "what was measured of a model (made by `tipl scaling`)")
POINT_FILE = storage.own_json(
    "what was measured of a model", lambda said: {"target", "num_parameters"} <= said.keys()
)


def point_file(directory: Path, point: Point) -> Path:
    """Where it is kept what was measured, in the directory of an experiment."""
    return directory / MEASURED / f"{point.slug}{POINT.name}"
