"""How far apart the actions of two policies are: the behavioural loss."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from tipl.evaluation.visits import action_unit
from tipl.policies.tasks import TaskSpec

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
            difference = self._leaky(outputs) - self._leaky(wanted)
        return difference.square().mean(dim=(-2, -1))

    def fitting(self, outputs: Float[Tensor, "*batch A"]) -> Float[Tensor, "*batch A"]:
        """Outputs of equal effect that are easier to fit: none far outside the action bounds.

        Of discrete actions, whose logits count up to a constant, those with a mean of 0.
        """
        if self.discrete:
            return outputs - outputs.mean(dim=-1, keepdim=True)
        return self._leaky(outputs) * self.unit

    def _leaky(self, outputs: Tensor) -> Tensor:
        """Actions in units of half their range, that hardly grow outside their bounds."""
        actions = outputs / self.unit
        inside = actions.clamp(self.low, self.high)
        return inside + LEAK * (actions - inside)
