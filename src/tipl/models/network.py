"""Policy networks as tensors: many checkpoints of many networks of one architecture."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Network"]


@dataclasses.dataclass(frozen=True)
class Network:
    """L checkpoints of B networks of one architecture, or changes of them.

    Attributes:
        weights: `[B, L, out, in]` of each layer.
        biases: `[B, L, out]` of each layer.
        log_std: `[B, L, A]` of Gaussian policies, else None.
    """

    weights: list[Tensor]
    biases: list[Tensor]
    log_std: Tensor | None

    @classmethod
    def from_flat(
        cls, params: Float[Tensor, "B L P"], sizes: Sequence[int], has_log_std: bool
    ) -> Network:
        """Views of flat parameters in the order of `tipl.policies.policy.actor_layout`.

        Args:
            params: flat parameters.
            sizes: units of each layer, from the inputs to the outputs.
            has_log_std: whether they end in `log_std`.
        """
        weights, biases, start, lead = [], [], 0, params.shape[:-1]
        for fan_in, fan_out in pairwise(sizes):
            middle = start + fan_in * fan_out
            # [B, L, out * in] -> [B, L, out, in]
            weights.append(params[..., start:middle].reshape(*lead, fan_out, fan_in))
            biases.append(params[..., middle : middle + fan_out])
            start = middle + fan_out
        return cls(weights, biases, params[..., start:] if has_log_std else None)

    def flat(self) -> Float[Tensor, "B L P"]:
        """The inverse of `from_flat`."""
        parts: list[Tensor] = []
        for weight, bias in zip(self.weights, self.biases, strict=True):
            parts += [weight.flatten(-2), bias]  # [B, L, out, in] -> [B, L, out * in]
        if self.log_std is not None:
            parts.append(self.log_std)
        return torch.cat(parts, dim=-1)

    def map(self, function: Callable[..., Tensor], *others: Network) -> Network:
        """A function of each array, and of the same array of other networks."""
        log_stds = [network.log_std for network in (self, *others)]
        return Network(
            [function(*a) for a in zip(*(n.weights for n in (self, *others)), strict=True)],
            [function(*a) for a in zip(*(n.biases for n in (self, *others)), strict=True)],
            None if any(log_std is None for log_std in log_stds) else function(*log_stds),
        )

    def arrays(self) -> list[Tensor]:
        """All arrays: weights, biases and `log_std`."""
        return [*self.weights, *self.biases, *([] if self.log_std is None else [self.log_std])]

    def __add__(self, other: Network) -> Network:
        return self.map(torch.add, other)

    def __sub__(self, other: Network) -> Network:
        return self.map(torch.sub, other)

    def __mul__(self, other: Network) -> Network:
        return self.map(torch.mul, other)

    def __truediv__(self, other: Network) -> Network:
        return self.map(torch.div, other)

    def edges(self) -> list[Tensor]:
        """The weights in units of their size in a fresh network, so that messages are about 1.

        Of the last layer, whose weights start out tiny, a fifth of the gain of the others is left.
        """
        last = len(self.weights) - 1
        edges = []
        for layer, weight in enumerate(self.weights):
            gain = 0.05 if layer == last else math.sqrt(2.0)
            edges.append(weight * (math.sqrt(max(weight.shape[-2:])) / gain))
        return edges

    def mixed_displacements(self, mixtures: Sequence[Float[Tensor, "B _ L L"]]) -> Network:
        """Sums over m of `mixture[l, m] (theta_l - theta_m)`, for the parameters of each unit.

        Args:
            mixtures: for the units of each layer but the inputs; `[:, :, l, m]` weighs the
                displacement from checkpoint m to checkpoint l.
        """

        def mix(rows: Tensor, mixture: Tensor) -> Tensor:
            total = mixture.sum(dim=-1).transpose(1, 2)  # [B, U, L] -> [B, L, U]
            if rows.ndim == 4:
                return total[..., None] * rows - torch.einsum("bulm,bmui->blui", mixture, rows)
            return total * rows - torch.einsum("bulm,bmu->blu", mixture, rows)

        return Network(
            [mix(weight, m) for weight, m in zip(self.weights, mixtures, strict=True)],
            [mix(bias, m) for bias, m in zip(self.biases, mixtures, strict=True)],
            None if self.log_std is None else mix(self.log_std, mixtures[-1]),
        )

    def activations(self, inputs: Float[Tensor, "B L S O"]) -> list[Float[Tensor, "B L S _"]]:
        """What the units of each layer but the inputs give for S normalised observations."""
        given, hidden = [], inputs
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = hidden @ weight.mT + bias[..., None, :]
            if layer < len(self.weights) - 1:
                hidden = torch.tanh(hidden)
            given.append(hidden)
        return given

    def mean_actions(self, inputs: Float[Tensor, "B L S O"]) -> Float[Tensor, "B L S A"]:
        """The outputs of each network for S normalised observations of its own."""
        return self.activations(inputs)[-1]
