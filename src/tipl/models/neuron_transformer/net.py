"""NeuronTransformer: a neuron is a token, a network's weights are the edges, time is attention.

Every unit of a policy network (input, hidden unit or output) has a state of width D. Messages
travel along the network's own weights, from the inputs to the outputs and back, as a forward and a
backward pass do; each unit also attends to its own past checkpoints. The change of a weight is read
from the states of the two units that it joins: gradients are outer products, so are their sums, at
low rank.

Inputs and outputs are told apart by learned identities. Hidden units are known by their layer,
activation, bias and the size of their weights alone, so permuting them permutes the forecast, and
any width will do.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated, TypeAlias

import msgspec
import torch
from jaxtyping import Float
from torch import Tensor, nn

from tipl.core.schemas import Count
from tipl.forecast.description import PathLength
from tipl.models import (
    MAX_CONTEXT,
    MAX_HIDDEN_LAYERS,
    MAX_MEMORY,
    Depth,
    Width,
    check_depth,
    check_heads,
)
from tipl.models.network import (
    REFERENCE_WIDTH,
    Network,
    Scale,
    ScaledModel,
    causal_attention,
    check_ends,
    mlp,
)
from tipl.models.readout import LeastSquaresReadout
from tipl.policies.activations import check_activation
from tipl.policies.layout import layer_group

KINDS = ("input", "hidden", "output")
"""Kinds of units; the layers of one kind share their weights."""

States: TypeAlias = Float[Tensor, "B L U D"]
"""Of the U units of a layer."""

NUM_CONDITIONS = 6
NUM_STATISTICS = 5


@dataclasses.dataclass(frozen=True)
class NeuronTransformerConfig:
    """Size of a NeuronTransformer, and of the networks that it reads."""

    observation_size: Count
    """inputs of the networks"""
    action_size: Count
    """outputs of the networks"""
    num_checkpoints: PathLength
    """checkpoints T of a whole path: the unit of progress"""
    width: Width = 64
    """width D of a unit's state"""
    rounds: Depth = 3
    """times that messages travel forwards and back"""
    context: Annotated[int, msgspec.Meta(ge=1, le=MAX_CONTEXT)] = 1
    """checkpoints that it is trained to read at most; one of 1 has no attention over time"""
    heads: Width = 4
    """attention heads over time"""
    memory: Annotated[int, msgspec.Meta(ge=0, le=MAX_MEMORY)] = 0
    """observations on which output layers are fitted; 0: they change as other layers do"""
    activations: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)] = ("tanh",)
    """of the networks that it is trained on; where they are several, it tells them apart"""

    def __post_init__(self) -> None:
        check_heads(self.width, self.heads)
        for activation in self.activations:
            check_activation(activation)


@dataclasses.dataclass(frozen=True)
class Conditions:
    """What is asked of a forecast, for each checkpoint as the last one that is known."""

    checkpoint: Float[Tensor, "B L"]
    """its index in the path, from 0"""
    horizon: Float[Tensor, "B L"]
    """checkpoints to jump ahead"""
    later_return: Float[Tensor, "B L"]
    """scaled return of the later checkpoint, which is known of a training path and wished for
    otherwise; NaN is unknown"""

    @classmethod
    def whole_path(cls, count: int, num_checkpoints: int) -> Conditions:
        """One jump from a path's start to its end: all that is asked of the target `elite`."""
        start = torch.zeros(count, 1)
        end = torch.full_like(start, num_checkpoints - 1)
        return cls(start, end, torch.full_like(start, torch.nan))

    def features(self, num_checkpoints: int) -> Float[Tensor, "B L F"]:
        """The conditions as inputs of a network; times are in units of a whole path."""
        known = ~self.later_return.isnan()
        return torch.stack(
            [
                self.checkpoint / (num_checkpoints - 1),
                self.horizon / (num_checkpoints - 1),
                torch.log1p(self.checkpoint) / 3,
                torch.log1p(self.horizon) / 3,
                self.later_return.nan_to_num(),
                known.to(self.horizon.dtype),
            ],
            dim=-1,
        )


class UnitUpdate(nn.Module):
    """A unit's state after it has read the messages of the layers before and after its own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(3 * width)
        self.mlp = mlp(3 * width, 2 * width, width)

    def forward(self, state: States, messages: Float[Tensor, "B L U D2"]) -> States:
        """The new states of the U units of a layer."""
        out: Tensor = state + self.mlp(self.norm(torch.cat([state, messages], dim=-1)))
        return out


class TimeAttention(nn.Module):
    """Pre-norm causal self-attention of each unit over its own checkpoints."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, state: States) -> States:
        """The new states; that of checkpoint l has seen checkpoints up to l."""
        qkv = self.query_key_value(self.norm(state)).transpose(1, 2)  # [B, U, L, 3 D]
        mixed = causal_attention(qkv, self.heads).transpose(1, 2)  # [B, L, U, H, D / H]
        out: Tensor = state + self.out(mixed.flatten(-2))
        return out


class Round(nn.Module):
    """Messages from the inputs to the outputs and back, then attention over time."""

    def __init__(self, config: NeuronTransformerConfig) -> None:
        super().__init__()
        self.forwards, self.backwards = (
            nn.ModuleDict({kind: UnitUpdate(config.width) for kind in KINDS}) for _ in range(2)
        )
        self.attention = (
            TimeAttention(config.width, config.heads) if config.context > 1 else nn.Identity()
        )

    def forward(self, states: list[Tensor], edges: list[Tensor]) -> list[Tensor]:
        """The new states `[B, L, U, D]` of each layer, from the inputs to the outputs."""
        states, last = list(states), len(edges)
        sweeps = ((self.forwards, range(last + 1)), (self.backwards, range(last, -1, -1)))
        for updates, layers in sweeps:
            for layer in layers:
                messages = _messages(states, edges, layer)
                states[layer] = updates[_kind(layer, last)](states[layer], messages)
        return [self.attention(state) for state in states]


def _kind(layer: int, last: int) -> str:
    return KINDS[layer_group(layer, last + 1)]


def _messages(states: list[Tensor], edges: list[Tensor], layer: int) -> Float[Tensor, "B L U D2"]:
    """What the units of a layer hear from the layer before and the layer after; 0 where none is."""
    ahead = back = torch.zeros_like(states[layer])
    if layer > 0:
        ahead = edges[layer - 1] @ states[layer - 1] / math.sqrt(states[layer - 1].shape[-2])
    if layer < len(edges):
        back = edges[layer].mT @ states[layer + 1] / math.sqrt(states[layer + 1].shape[-2])
    return torch.cat([ahead, back], dim=-1)


class NeuronTransformer(ScaledModel):
    """Predicts how a network's weights change, at every checkpoint of its history.

    Examples:
        >>> from tipl.models.neuron_transformer import NeuronTransformerConfig
        >>> config = NeuronTransformerConfig(observation_size=4, action_size=1, num_checkpoints=9)
        >>> net = tipl.NeuronTransformer(config)
        >>> sum(parameter.numel() for parameter in net.parameters())
        623497
    """

    def __init__(
        self,
        config: NeuronTransformerConfig,
        change_scale: Scale = None,
        log_std_scale: Scale = None,
    ) -> None:
        super().__init__(config.num_checkpoints, change_scale, log_std_scale)
        self.config, width = config, config.width
        self.input_identity = nn.Parameter(torch.randn(config.observation_size, width))
        self.output_identity = nn.Parameter(torch.randn(config.action_size, width))
        # by the number of hidden layers, then by layer
        self.layer_identity = nn.Parameter(torch.randn(MAX_HIDDEN_LAYERS, MAX_HIDDEN_LAYERS, width))
        self.activation_identity = None
        if len(config.activations) > 1:
            self.activation_identity = nn.Parameter(torch.zeros(len(config.activations), width))
        self.statistics_in = nn.Linear(NUM_STATISTICS, width)
        self.conditions_in = mlp(NUM_CONDITIONS, width, width)
        self.rounds = nn.ModuleList(Round(config) for _ in range(config.rounds))
        self.norms = nn.ModuleDict({kind: nn.LayerNorm(width) for kind in KINDS})
        # of the units that a weight comes from, and of those that it goes to
        self.source = nn.ModuleDict({kind: nn.Linear(width, width) for kind in KINDS[:2]})
        self.target = nn.ModuleDict({kind: nn.Linear(width, width) for kind in KINDS[1:]})
        # change of the bias, of log_std (outputs only), and growth of all weights into the unit
        self.unit_out = nn.ModuleDict({kind: nn.Linear(width, 3) for kind in KINDS[1:]})
        self.gain = nn.Parameter(torch.full((3,), 0.1))
        self.readout = None
        if config.memory:
            self.readout = LeastSquaresReadout(
                config.memory, config.observation_size, config.action_size
            )
        if config.context > 1:
            self.line_query, self.line_key = (nn.Linear(width, width) for _ in range(2))
            self.line_gain = nn.Parameter(torch.zeros(1))

    def forward(self, network: Network, conditions: Conditions) -> Network:
        """The predicted changes from each checkpoint `[B, L, ...]` to `horizon` checkpoints later.

        Raises:
            TiplError: the networks have too many hidden layers, or other inputs or outputs.
        """
        check_depth(len(network.weights) - 1)
        given = (network.weights[0].shape[-1], network.weights[-1].shape[-2])
        check_ends(given, (self.config.observation_size, self.config.action_size))
        edges = network.edges()
        states = self._initial_states(network, edges, conditions)
        for one_round in self.rounds:
            states = one_round(states, edges)
        last = len(edges)
        states = [self.norms[_kind(n, last)](state) for n, state in enumerate(states)]
        change = self._change(network, edges, states, conditions.horizon)
        if self.config.context > 1:
            change = change + self._lines(network, states, conditions)
        if self.readout is not None:
            change = self.readout(network + change) - network
        return change

    def _initial_states(
        self, network: Network, edges: list[Tensor], conditions: Conditions
    ) -> list[Tensor]:
        batch, length = conditions.horizon.shape
        # [B, L, F] -> [B, L, 1, D]
        asked = self.conditions_in(conditions.features(self.config.num_checkpoints))[:, :, None]
        last = len(edges)
        states = [(self.input_identity + asked).expand(batch, length, -1, -1)]
        for layer in range(1, last + 1):
            identity: Tensor = self.output_identity
            if layer < last:
                identity = self._hidden_identity(network.activation, last - 2, layer - 1)
            statistics = _unit_statistics(network, edges, layer)
            states.append(identity + self.statistics_in(statistics) + asked)
        return states

    def _hidden_identity(self, activation: str, depth: int, layer: int) -> Float[Tensor, " D"]:
        identity: Tensor = self.layer_identity[depth, layer]
        known = self.config.activations
        if self.activation_identity is not None and activation in known:
            identity = identity + self.activation_identity[known.index(activation)]
        return identity

    def _change(
        self, network: Network, edges: list[Tensor], states: list[Tensor], horizon: Tensor
    ) -> Network:
        last = len(edges)
        weights, biases, log_std = [], [], None
        for layer, edge in enumerate(edges):
            source = self.source[_kind(layer, last)](states[layer])
            target = self.target[_kind(layer + 1, last)](states[layer + 1])
            own = 0.1 * self.unit_out[_kind(layer + 1, last)](states[layer + 1])  # [B, L, out, 3]
            group = layer_group(layer, last)
            # [B, L, out, D] @ [B, L, D, in]
            product = target @ source.mT / math.sqrt(self.config.width)
            weights.append(self.gain[group] * product + own[..., 2:] * edge)
            biases.append(own[..., 0])
            if layer == last - 1 and network.log_std is not None:
                log_std = own[..., 1]
        change = dataclasses.replace(network, weights=weights, biases=biases, log_std=log_std)
        return change * self.scales(network, horizon)

    def _lines(self, network: Network, states: list[Tensor], conditions: Conditions) -> Network:
        """Each unit's mixture of the straight lines from its past checkpoints through the last.

        One entry of a weight matrix moves in its own way, which no product of two units' states
        can tell, but its own past can.
        """
        time = conditions.checkpoint
        gap = time[:, :, None] - time[:, None]  # [B, L, L], from the second to the first
        ratio = conditions.horizon[:, :, None] / gap.clamp(min=1)
        ratio = torch.where(gap > 0, ratio.clamp(max=4.0), 0)
        mixtures = []
        for state in states[1:]:
            query, key = self.line_query(state), self.line_key(state)
            match = torch.einsum("blud,bmud->bulm", query, key) / math.sqrt(state.shape[-1])
            mixtures.append(self.line_gain * match * ratio[:, None])
        return network.mixed_displacements(mixtures)


def _unit_statistics(network: Network, edges: list[Tensor], layer: int) -> Float[Tensor, "B L U F"]:
    """What a hidden unit or an output is known by, besides its identity and its messages."""
    bias = network.biases[layer - 1]
    incoming = edges[layer - 1].square().mean(dim=-1).sqrt()
    outgoing, log_std, width = (torch.zeros_like(bias) for _ in range(3))
    if layer < len(edges):
        outgoing = edges[layer].square().mean(dim=-2).sqrt()
        width += math.log2(bias.shape[-1] / REFERENCE_WIDTH)
    elif network.log_std is not None:
        log_std = network.log_std
    return torch.stack([4 * bias, incoming, outgoing, log_std, width], dim=-1)
