"""A model of teachers for worlds that nobody has trained in; here, its options."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from tipl.core.lazy import lazy_names
from tipl.core.options import at_least, at_most
from tipl.errors import TiplError, shown
from tipl.models import TrainConfig, TrainOptions

__all__ = ["Belief", "WorldTrainConfig", "WorldTrainOptions", "adapt"]

MAX_DIRECTIONS = 4096
"""Directions in which the weights of teachers differ."""

OBSERVER_LEARNING_RATE = 2e-3

STUDENT_LEARNING_RATE = 1e-2


@dataclasses.dataclass(frozen=True)
class WorldTrainConfig(TrainConfig):
    """How a model of teachers for worlds is trained, on a universal policy or a lineage.

    Of a universal policy only its students and the observer learn: then `num_steps`,
    `learning_rate`, `directions` and `noise` change nothing.
    """

    model: str = "world"
    num_steps: int = 2000
    batch_size: int = 24
    """worlds in each step"""
    learning_rate: float = 4e-3
    weight_decay: float = 0.0
    carrier: str | None = None
    """model whose target elite carries networks of other architectures to a teacher: its directory,
    or the name of one that ships with tipl (default: the name of the task)"""
    directions: int = 24
    """directions in which the weights of teachers differ"""
    observer_worlds: int = 1500
    """worlds without teachers, in which the observer is trained"""
    observer_steps: int = 2000
    """optimiser steps of the observer"""
    observer_width: int = 128
    """units of the observer's hidden layers"""
    student_widths: tuple[int, ...] = (16, 32)
    """units in each hidden layer of a universal policy's students, to which networks are carried
    that are narrower than it"""
    student_steps: int = 12_000
    """optimiser steps of each student"""
    noise: float = 0.3
    """of the factors that the model is told, in standard deviations over the training worlds; a
    factor that is known is taken for one that is as uncertain as this"""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(
            1, directions=self.directions, observer_steps=self.observer_steps,
            observer_width=self.observer_width, student_steps=self.student_steps,
        )  # fmt: skip
        at_least(2, observer_worlds=self.observer_worlds)
        at_most(MAX_DIRECTIONS, directions=self.directions)
        if sorted({*self.student_widths}) != list(self.student_widths):
            raise TiplError(
                f"student_widths is {shown(self.student_widths)}; expected each width once, the "
                "narrowest first"
            )
        at_least(1, student_widths=min(self.student_widths, default=1))
        if not 0 < self.noise <= 1:
            raise TiplError(f"noise is {self.noise}; expected above 0, and at most 1")

    def of_student(self) -> TrainConfig:
        """How a student is trained, where it differs."""
        return dataclasses.replace(
            self, num_steps=self.student_steps, learning_rate=STUDENT_LEARNING_RATE
        )

    def of_observer(self) -> TrainConfig:
        """How the observer is trained, where it differs."""
        return dataclasses.replace(
            self, num_steps=self.observer_steps, learning_rate=OBSERVER_LEARNING_RATE
        )


class WorldTrainOptions(TrainOptions, total=False):
    """The fields of `WorldTrainConfig` as options of `tipl.train`, for type checkers."""

    carrier: str | None
    directions: int
    observer_worlds: int
    observer_steps: int
    observer_width: int
    student_widths: tuple[int, ...]
    student_steps: int
    noise: float


if TYPE_CHECKING:
    from tipl.models.world.adapting import adapt
    from tipl.models.world.belief import Belief
else:
    __getattr__, __dir__ = lazy_names(__name__)
