"""Training students: narrower networks that act in every world as a universal policy does there."""

from __future__ import annotations

from functools import partial

import torch

from tipl.models.loop import Curve, fit
from tipl.models.world import WorldTrainConfig
from tipl.models.world.lineage import Lineage
from tipl.models.world.losses import TeacherLoss
from tipl.models.world.morphing import morphed
from tipl.models.world.students import student_layout, untrained_student
from tipl.models.world.teacher import WorldTeacher
from tipl.policies.layout import initial_params

REMEMBERED = 4096
"""Observations on which a student is fitted by linear algebra, before it learns."""


def train_student(
    width: int, lineage: Lineage, teacher: WorldTeacher, config: WorldTrainConfig, progress: bool
) -> tuple[WorldTeacher, Curve]:
    """Trains a student of a universal policy, of so many units in each hidden layer.

    It begins as what is left of the policy of home with so few units, and learns by behaviour, as
    `TeacherLoss` has it, how each of its weights grows with what is observed of the physics.
    """
    layout = student_layout(lineage.task, lineage.layout, width)
    loss = TeacherLoss(lineage, config, layout)
    home = torch.zeros(1, len(lineage.names))  # the factors' logarithms
    rng = torch.Generator().manual_seed(config.seed)
    rows = torch.cat([one.flatten(0, 1) for one in loss.seen])  # [W, S, O] -> [X, O]
    drawn = rows[torch.randint(len(rows), (REMEMBERED,), generator=rng)]
    at_home = teacher(home, home)[0].detach().numpy()
    narrow = morphed(
        at_home, lineage.layout, initial_params(layout, config.seed), layout,
        loss.normalised(drawn.double()).numpy(), lineage.task.action_bounds,
    )  # fmt: skip
    student = untrained_student(width, teacher.config, lineage.layout, lineage.task)
    with torch.no_grad():
        student.elite.copy_(torch.as_tensor(narrow))
        for name in ("prior_mean", "prior_std", "reversible"):
            getattr(student, name).copy_(getattr(teacher, name))
    student.slopes.requires_grad_(True)
    curve = fit(
        student, config.of_student(), partial(loss, student), None, label=f"train (width {width})",
        progress=progress, remembers=loss,
    )  # fmt: skip
    return student, curve


def students_of(lineage: Lineage, config: WorldTrainConfig) -> list[int]:
    """Widths of the students that a universal policy has: those that are narrower than it."""
    narrowest = min(lineage.layout.hidden_sizes)
    return [width for width in config.student_widths if lineage.universal and width < narrowest]
