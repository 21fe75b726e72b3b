"""How far apart the actions of two policies are: the behavioural loss."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from tipl.behaviour import action_unit
from tipl.tasks import TaskSpec

__all__ = ["ActionError"]

LEAK = 0.05
"""Slope outside the action bounds, where an action has no effect but a gradient has to show."""


class ActionError:
    """Mean squared difference of the actions of policies.

    Of continuous actions the means count, inside the action bounds, in units of half their range;
    of discrete ones the probabilities.

    Args:
        task: whose actions they are.
    """

    def __init__(self, task: TaskSpec) -> None:
        self.discrete = task.discrete
        if not self.discrete:
            low, high = task.action_bounds
            self.unit = torch.as_tensor(action_unit(task))
            self.low, self.high = (
                torch.as_tensor(low) / self.unit,
                torch.as_tensor(high) / self.unit,
            )

    def __call__(
        self, outputs: Float[Tensor, "B L S A"], wanted: Float[Tensor, "B L S A"]
    ) -> Float[Tensor, "B L"]:
        """The error of policies whose networks give `outputs` where others give `wanted`."""
        if self.discrete:
            difference = torch.softmax(outputs, dim=-1) - torch.softmax(wanted, dim=-1)
        else:
            outputs, wanted = outputs / self.unit, wanted / self.unit
            inside = outputs.clamp(self.low, self.high)
            leaky = inside + LEAK * (outputs - inside)
            difference = leaky - wanted.clamp(self.low, self.high)
        return difference.square().mean(dim=(-2, -1))
