"""Policy networks as tensors: what they give, how far apart they act, how they typically change."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional

from tipl.errors import TiplError
from tipl.evaluation.behaviour import action_unit
from tipl.policies.actions import OBSERVATION_CLIP
from tipl.policies.layout import ParamLayout, initial_gain, layer_group
from tipl.policies.tasks import TaskSpec

Scale: TypeAlias = Tensor | None
"""A scale that a model is given, see `ScaledModel`; None, ones, where its state is to be loaded."""

REFERENCE_WIDTH = 64
"""Width of the layers in whose changes the scales are given."""

LEAK = 0.05
"""Slope outside the action bounds, where an action has no effect but a gradient has to show."""

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": functional.relu,
    "elu": functional.elu,
    "silu": functional.silu,
    "leaky_relu": functional.leaky_relu,
    "gelu": functional.gelu,
}
"""Those of `tipl.policies.activations`."""


@dataclasses.dataclass(frozen=True)
class Network:
    """L checkpoints of B networks of one architecture, or changes of them."""

    weights: list[Tensor]
    """`[B, L, out, in]` of each layer"""
    biases: list[Tensor]
    """`[B, L, out]` of each layer"""
    log_std: Tensor | None
    """`[B, L, A]` of Gaussian policies, else None"""
    activation: str = "tanh"
    """of the hidden units, as in `ParamLayout`"""
    squashed: bool = False
    """whether outputs become actions by tanh, as in `ParamLayout`"""

    @classmethod
    def from_flat(cls, params: Float[Tensor, "B L P"], layout: ParamLayout) -> Network:
        """Views of the flat parameters of actors, which lie as `actor_layout` says."""
        # training calls this in each step: one split takes half as long as `layout.unflatten`
        sizes = [at.stop - at.start for at in layout.slices.values()]
        parts = torch.split(params, sizes, dim=-1)
        end, lead = len(parts) // 2 * 2, params.shape[:-1]
        # [B, L, out * in] -> [B, L, out, in]
        weights = [parts[n].reshape(*lead, *layout.shapes[n]) for n in range(0, end, 2)]
        log_std = parts[end] if len(parts) > end else None
        return cls(weights, list(parts[1:end:2]), log_std, layout.activation, layout.squashed)

    def flat(self) -> Float[Tensor, "B L P"]:
        """The inverse of `from_flat`."""
        parts: list[Tensor] = []
        for weight, bias in zip(self.weights, self.biases, strict=True):
            parts += [weight.flatten(-2), bias]  # [B, L, out, in] -> [B, L, out * in]
        if self.log_std is not None:
            parts.append(self.log_std)
        return torch.cat(parts, dim=-1)

    def map(self, function: Callable[..., Tensor], *others: Network) -> Network:
        """A function of each array, and of the same array of other networks.

        Activation and squashing are those of this one.
        """
        log_stds = [network.log_std for network in (self, *others)]
        return dataclasses.replace(
            self,
            weights=[function(*a) for a in zip(*(n.weights for n in (self, *others)), strict=True)],
            biases=[function(*a) for a in zip(*(n.biases for n in (self, *others)), strict=True)],
            log_std=None if any(one is None for one in log_stds) else function(*log_stds),
        )

    def arrays(self) -> list[Tensor]:
        """All arrays: weights, biases and `log_std`."""
        return [*self.weights, *self.biases, *([] if self.log_std is None else [self.log_std])]

    def mean_square(self) -> Float[Tensor, ""]:
        """The mean over arrays, which count alike, of the mean squares of their values."""
        return torch.stack([array.square().mean() for array in self.arrays()]).mean()

    def last(self) -> Network:
        """The last checkpoints alone, `[B, 1, ...]`."""
        return self.map(lambda array: array[:, -1:])

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
        count, edges = len(self.weights), []
        for layer, weight in enumerate(self.weights):
            gain = initial_gain(layer, count) * (5 if layer == count - 1 else 1)
            edges.append(weight * (math.sqrt(max(weight.shape[-2:])) / gain))
        return edges

    def mixed_displacements(self, mixtures: Sequence[Float[Tensor, "B _ L L"]]) -> Network:
        """Sums over m of `mixture[l, m] (theta_l - theta_m)`, for units of all but the inputs."""

        def mix(rows: Tensor, mixture: Tensor) -> Tensor:
            total = mixture.sum(dim=-1).transpose(1, 2)  # [B, U, L] -> [B, L, U]
            if rows.ndim == 4:
                return total[..., None] * rows - torch.einsum("bulm,bmui->blui", mixture, rows)
            return total * rows - torch.einsum("bulm,bmu->blu", mixture, rows)

        return dataclasses.replace(
            self,
            weights=[mix(weight, m) for weight, m in zip(self.weights, mixtures, strict=True)],
            biases=[mix(bias, m) for bias, m in zip(self.biases, mixtures, strict=True)],
            log_std=None if self.log_std is None else mix(self.log_std, mixtures[-1]),
        )

    def activations(self, inputs: Float[Tensor, "B L S O"]) -> list[Float[Tensor, "B L S _"]]:
        """What the units of each layer but the inputs give for S normalised observations."""
        given, hidden = [], inputs
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = hidden @ weight.mT + bias[..., None, :]
            if layer < len(self.weights) - 1:
                hidden = ACTIVATIONS[self.activation](hidden)
            given.append(hidden)
        return given

    def outputs(self, inputs: Float[Tensor, "B L S O"]) -> Float[Tensor, "B L S A"]:
        """What each network gives for S normalised observations of its own."""
        return self.activations(inputs)[-1]


def typical_changes(
    network: Network,
    horizon: Int[Tensor, "B L"],
    change_scale: Float[Tensor, "T 3 2"],
    log_std_scale: Float[Tensor, " T"],
) -> Network:
    """Typical sizes, to be broadcast, of changes over horizons below T: see `ScaledModel`."""
    table = change_scale[horizon]  # [B, L, 3, 2]
    weights, biases = [], []
    for layer, weight in enumerate(network.weights):
        group = table[:, :, layer_group(layer, len(network.weights)), :, None]
        # a sum over more units needs less of each
        shrink = REFERENCE_WIDTH / weight.shape[-1] if layer else 1.0
        weights.append(group[:, :, 0, :, None] * shrink)  # [B, L, 1, 1]
        biases.append(group[:, :, 1])  # [B, L, 1]
    log_std = None if network.log_std is None else log_std_scale[horizon][..., None]
    return dataclasses.replace(network, weights=weights, biases=biases, log_std=log_std)


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """An MLP of one hidden layer, as all models here have them."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, outputs))


def causal_attention(
    qkv: Float[Tensor, "*batch L D3"], heads: int
) -> Float[Tensor, "*batch L heads _"]:
    """What positions take from those up to their own, by queries, keys and values side by side."""
    # [*batch, L, 3 D] -> [*batch, L, 3, H, D / H] -> [3, *batch, H, L, D / H]
    q, k, v = qkv.view(*qkv.shape[:-1], 3, heads, -1).movedim(-3, 0).transpose(-3, -2)
    mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    return mixed.transpose(-3, -2)


def register_scale(module: nn.Module, name: str, scale: Scale, shape: tuple[int, ...]) -> None:
    """Gives a model a scale, a copy: loading a state writes into it."""
    module.register_buffer(name, torch.ones(shape) if scale is None else scale.clone())


def check_ends(given: tuple[int, int], expected: tuple[int, int]) -> None:
    """Raises a TiplError unless networks have the inputs and outputs that a model reads."""
    if given != expected:
        raise TiplError(
            f"a network with {given[0]} inputs and {given[1]} outputs was given, but this model "
            f"reads those with {expected[0]} and {expected[1]}; use a model of its task"
        )


class ScaledModel(nn.Module):
    """A model that knows the typical changes of training paths: its outputs are in their units."""

    change_scale: Float[Tensor, "T 3 2"]
    """typical size of a change by horizon, layer (the first, those between, the last) and kind
    (weight, bias), in networks of `REFERENCE_WIDTH`"""
    log_std_scale: Float[Tensor, " T"]
    """typical size of a change of `log_std` by horizon"""

    def __init__(self, num_checkpoints: int, change_scale: Scale, log_std_scale: Scale) -> None:
        super().__init__()
        register_scale(self, "change_scale", change_scale, (num_checkpoints, 3, 2))
        register_scale(self, "log_std_scale", log_std_scale, (num_checkpoints,))

    def scales(self, network: Network, horizon: Shaped[Tensor, "B L"]) -> Network:
        """Typical sizes of the changes of networks of this shape, to be broadcast against them."""
        steps = self.known_horizons(horizon)
        return typical_changes(network, steps, self.change_scale, self.log_std_scale)

    def known_horizons(self, horizon: Shaped[Tensor, "B L"]) -> Int[Tensor, "B L"]:
        """Horizons as indices of the tables: those beyond T - 1 are read as T - 1."""
        return horizon.long().clamp(max=len(self.log_std_scale) - 1)


class Normaliser:
    """What a policy's network is fed: `tipl.policies.actions.normalise_observations` in PyTorch."""

    def __init__(
        self, mean: Float[np.ndarray, " O"], std: Float[np.ndarray, " O"], clip: float
    ) -> None:
        self.mean, self.std, self.clip = torch.as_tensor(mean), torch.as_tensor(std), clip

    @classmethod
    def of(cls, task: TaskSpec) -> Normaliser:
        """The frozen one of a task."""
        return cls(*task.observation_statistics, OBSERVATION_CLIP)

    def __call__(self, observations: Float64[Tensor, "*batch O"]) -> Float32[Tensor, "*batch O"]:
        """Observations as the environment gives them, normalised."""
        return ((observations - self.mean) / self.std).clamp(-self.clip, self.clip).float()


class ActionError:
    """Mean squared difference of the actions of policies.

    Of continuous actions the means count, inside the action bounds, in units of half their range;
    of discrete ones the probabilities.
    """

    def __init__(self, task: TaskSpec) -> None:
        self.discrete = task.discrete
        if not self.discrete:
            self.unit = torch.as_tensor(action_unit(task))
            self.low, self.high = (
                torch.as_tensor(bound.astype(np.float32)) / self.unit
                for bound in task.action_bounds
            )

    def actions(
        self, network: Network, inputs: Float[Tensor, "B L S O"]
    ) -> Float[Tensor, "B L S A"]:
        """The mean actions of networks, those of discrete actions as logits.

        Outputs of squashed networks become actions by tanh, scaled to the action bounds.
        """
        outputs = network.outputs(inputs)
        if not network.squashed:
            return outputs
        inside: Tensor = self.low + (torch.tanh(outputs) + 1) / 2 * (self.high - self.low)
        return inside * self.unit

    def __call__(
        self, actions: Float[Tensor, "B L S A"], wanted: Float[Tensor, "B L S A"]
    ) -> Float[Tensor, "B L"]:
        """The error of policies of some `actions` where others have those that are `wanted`."""
        if self.discrete:
            difference = torch.softmax(actions, dim=-1) - torch.softmax(wanted, dim=-1)
        else:
            difference = self._leaky(actions) - self._leaky(wanted)
        return difference.square().mean(dim=(-2, -1))

    def fitting(self, actions: Float[Tensor, "*batch A"]) -> Float[Tensor, "*batch A"]:
        """Actions of equal effect that are easier to fit: none far outside the action bounds.

        Of discrete actions, whose logits count up to a constant, those with a mean of 0.
        """
        if self.discrete:
            return actions - actions.mean(dim=-1, keepdim=True)
        return self._leaky(actions) * self.unit

    def _leaky(self, actions: Tensor) -> Tensor:
        """Actions in units of half their range, that hardly grow outside their bounds."""
        scaled = actions / self.unit
        inside = scaled.clamp(self.low, self.high)
        return inside + LEAK * (scaled - inside)
