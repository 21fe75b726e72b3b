"""A policy as a module of PyTorch, with its normaliser inside."""

from __future__ import annotations

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional

from tipl.core.arrays import Array
from tipl.policies.actions import Statistics
from tipl.policies.layout import ParamLayout, layer_names
from tipl.policies.tasks import TaskSpec


class PolicyModule(nn.Module):
    """From observations, as the environment gives them, to the actions that it takes.

    Weights are parameters, which can be trained; the normaliser and the action bounds are buffers.
    Of a task with continuous actions the output is the mean action inside the bounds; of one with
    discrete actions the number of the most likely one. `outputs` are what the network says before.

    Args:
        params: flat weights `[P]`.
        layout: of the weights.
        task: in which the policy acts.
        statistics: mean and standard deviation `[O]` of observations.
        clip: normalised observations are clipped to +- this.
    """

    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor

    def __init__(
        self,
        params: Array,
        layout: ParamLayout,
        task: TaskSpec,
        statistics: Statistics,
        clip: float,
    ) -> None:
        super().__init__()
        arrays = layout.unflatten(params)
        self.layers = nn.ModuleList()
        for weight, bias in layer_names(arrays, "actor"):
            outputs, inputs = arrays[weight].shape
            layer = nn.Linear(inputs, outputs)
            with torch.no_grad():
                layer.weight.copy_(torch.tensor(arrays[weight]))
                layer.bias.copy_(torch.tensor(arrays[bias]))
            self.layers.append(layer)
        for name, statistic in zip(("mean", "std"), statistics, strict=True):
            self.register_buffer(name, torch.tensor(statistic, dtype=torch.float64))
        self.activation, self.squashed, self.clip = layout.activation, layout.squashed, clip
        self.first_action = task.first_action
        if not task.discrete:
            for name, bound in zip(("low", "high"), task.action_bounds, strict=True):
                self.register_buffer(name, torch.tensor(bound))

    @property
    def dtype(self) -> torch.dtype:
        """In which the network computes."""
        return next(self.parameters()).dtype

    def outputs(self, observations: Shaped[Tensor, "*batch O"]) -> Float[Tensor, "*batch A"]:
        """What the network says: mean actions, squashed ones before tanh, or logits."""
        scaled = (observations.to(self.mean.dtype) - self.mean) / self.std
        *hidden, last = self.layers
        found = scaled.clamp(-self.clip, self.clip).to(self.dtype)
        for layer in hidden:
            found = getattr(functional, self.activation)(layer(found))  # of the same names
        return torch.as_tensor(last(found))

    def forward(self, observations: Shaped[Tensor, "*batch O"]) -> Shaped[Tensor, " ..."]:
        """Actions `[*batch, A]` of the task's dtype; discrete ones `[*batch]`, int64."""
        outputs = self.outputs(observations)
        if self.first_action is not None:
            return outputs.argmax(dim=-1) + self.first_action
        if self.squashed:
            low, high = self.low.to(outputs.dtype), self.high.to(outputs.dtype)
            outputs = low + 0.5 * (torch.tanh(outputs) + 1) * (high - low)
        if not self.low.is_floating_point():  # inside before they are cast
            outputs = outputs.round().to(torch.float64)
        low, high = (bound.to(torch.float64) for bound in (self.low, self.high))
        return outputs.to(torch.float64).clamp(low, high).to(self.low.dtype)
