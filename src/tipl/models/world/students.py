"""Students: narrower teachers, for networks that have no room for the units of the teacher.

What linear algebra keeps of a network when most of its units go is less than what a smaller one
can learn to do. So a network that is narrower than the teacher is carried to a student of it, if
there is one that fits in.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import cast

from torch import nn

from tipl.models.world.morphing import can_morph
from tipl.models.world.teacher import TeacherConfig, WorldTeacher
from tipl.policies.layout import ParamLayout, actor_layout
from tipl.policies.tasks import TaskSpec


def untrained_student(
    width: int, config: TeacherConfig, teacher: ParamLayout, task: TaskSpec
) -> WorldTeacher:
    """A student of a teacher of some sizes, whose weights are 0."""
    size = student_layout(task, teacher, width).size
    return WorldTeacher(dataclasses.replace(config, num_parameters=size, directions=0))


def by_width(students: Mapping[int, WorldTeacher]) -> nn.ModuleDict:
    """Students as a part of a model."""
    return nn.ModuleDict({str(width): student for width, student in students.items()})


def from_parts(parts: nn.Module) -> dict[int, WorldTeacher]:
    """The students that are such a part of a model."""
    return {int(width): cast("WorldTeacher", one) for width, one in parts.named_children()}


def student_layout(task: TaskSpec, teacher: ParamLayout, width: int) -> ParamLayout:
    """The layout of a student: as many hidden layers as its teacher has, of so many units."""
    return actor_layout(task, [width] * len(teacher.hidden_sizes))


def widest_that_fits(
    layout: ParamLayout, teacher: ParamLayout, students: Iterable[int]
) -> int | None:
    """The width of the student that a network is to be carried to; None for the teacher itself.

    The teacher it is where the network has room for all its units or cannot take over any
    (`can_morph`), and where no student fits in.
    """
    own, its = layout.hidden_sizes, teacher.hidden_sizes
    its += its[-1:] * (len(own) - len(its))  # deeper networks hand the last layer's units on
    if not can_morph(layout, teacher) or all(a >= b for a, b in zip(own, its, strict=True)):
        return None
    return max((width for width in students if width <= min(own)), default=None)
