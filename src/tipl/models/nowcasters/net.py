"""Two models from the literature that nowcast weights: from their last values to their next ones.

- WNN (Jang et al., "Learning to Boost Training by Periodic Nowcasting Near Future Weights", ICML
  2023) reads the past of one parameter, and knows nothing of the others.
- NiNo (Knyazev et al., "Accelerating Training with Neuron Interaction and Nowcasting Networks",
  ICLR 2025, arXiv:2409.04434) reads the past of all of them as a graph: neurons are its nodes,
  weights its edges, biases belong to the nodes.

Both are written anew from the papers for the small MLPs of policies, as rivals of our models under
equal conditions: they forecast any horizon directly, and their inputs and outputs are in units of
what weights of the same kind do in the training paths.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tipl.core.schemas import Count
from tipl.forecast.description import PathLength
from tipl.models import Depth, Width
from tipl.models.network import Network, Scale, ScaledModel, check_ends, mlp
from tipl.policies.layout import layer_group

CONTEXT = 5
"""Checkpoints that are read (both papers): the last ones of a history."""

NUM_KINDS = 7
"""Kinds of parameters: weights of the input, a hidden and the output layer, biases of each, and
`log_std`."""

BIAS_SIZE = 0.25
"""Unit of the values of biases, which are zero in a fresh network."""


@dataclasses.dataclass(frozen=True)
class NowcasterConfig:
    """Size of a nowcaster."""

    num_checkpoints: PathLength
    """checkpoints T of a whole path: longer horizons than T - 1 are read as T - 1"""
    width: Width = 64
    """width D of what is known about a parameter"""


@dataclasses.dataclass(frozen=True)
class NiNoConfig(NowcasterConfig):
    """Size of a NiNo, and of the networks that it reads."""

    observation_size: Count = 1
    """inputs of the networks"""
    action_size: Count = 1
    """outputs of the networks"""
    rounds: Depth = 3
    """layers of message passing"""


class Nowcaster(ScaledModel, abc.ABC):
    """Predicts the change of each parameter from the last `CONTEXT` checkpoints.

    A subclass turns the past of a parameter into D features; their product with the code of a
    horizon is the change at that horizon, so that one reading gives all horizons. The last layer,
    which makes the codes, starts at zero: an untrained nowcaster predicts no change.
    """

    config_class: ClassVar[type[NowcasterConfig]] = NowcasterConfig

    def __init__(
        self, config: NowcasterConfig, change_scale: Scale = None, log_std_scale: Scale = None
    ) -> None:
        super().__init__(config.num_checkpoints, change_scale, log_std_scale)
        self.config = config
        self.horizon = nn.Parameter(_smooth_codes(config.num_checkpoints, config.width))
        self.code_out = nn.Linear(config.width, config.width)
        nn.init.zeros_(self.code_out.weight)
        nn.init.zeros_(self.code_out.bias)

    def forward(self, history: Network, horizons: Int[Tensor, "B H"]) -> Network:
        """The predicted changes `[B, H, ...]` from the last checkpoint to H later ones.

        The history is of `CONTEXT` checkpoints in order; a shorter one has its first one repeated.
        """
        codes = self.code_out(self.horizon[self.known_horizons(horizons)])  # [B, H, D]
        features = self._features(self._read(history))

        def change(array: Tensor) -> Tensor:
            rows = array.flatten(1, -2)  # [B, (out, in), D] -> [B, M, D]
            # [B, H, D] @ [B, D, M] -> [B, H, M] -> [B, H, (out, in)]
            by_horizon: Tensor = codes @ rows.mT
            return by_horizon.reshape(*codes.shape[:2], *array.shape[1:-1])

        return features.map(change) * self.scales(history, horizons)

    def _read(self, history: Network) -> Network:
        """Each parameter's past as numbers `[B, ..., CONTEXT + CONTEXT - 1]` of about 1.

        First its values, in units of their size in a fresh network, then their differences, in
        units of the training paths' changes from one checkpoint to the next.
        """
        log_std = history.log_std
        values = Network(history.edges(), [bias / BIAS_SIZE for bias in history.biases], log_std)
        one_step = torch.ones(len(history.biases[0]), 1, dtype=torch.long)
        differences = history.map(lambda array: array.diff(dim=1)) / self.scales(history, one_step)

        def join(value: Tensor, difference: Tensor) -> Tensor:
            # [B, C, ...], [B, C - 1, ...] -> [B, ..., C + C - 1]
            return torch.cat([value, difference], dim=1).movedim(1, -1)

        return values.map(join, differences)

    @abc.abstractmethod
    def _features(self, past: Network) -> Network:
        """Features `[B, ..., D]` of each parameter, from what `_read` gives of its past."""


class WNN(Nowcaster):
    """A weight nowcaster network: a small MLP of two streams, the same for every parameter.

    One stream reads a parameter's last values, the other their differences; what they have found is
    joined with the kind of the parameter.
    """

    def __init__(
        self, config: NowcasterConfig, change_scale: Scale = None, log_std_scale: Scale = None
    ) -> None:
        super().__init__(config, change_scale, log_std_scale)
        width = config.width
        self.values, self.differences = (
            mlp(size, width, width).append(nn.GELU()) for size in (CONTEXT, CONTEXT - 1)
        )
        self.kind = nn.Embedding(NUM_KINDS, width)  # a one-hot vector and its weights
        self.join = nn.Linear(2 * width, width)
        self.out = nn.Linear(width, width)

    def _features(self, past: Network) -> Network:
        layers = len(past.weights)
        kinds = Network(
            [self.kind.weight[layer_group(layer, layers)] for layer in range(layers)],
            [self.kind.weight[3 + layer_group(layer, layers)] for layer in range(layers)],
            None if past.log_std is None else self.kind.weight[6],
        )
        return past.map(self._features_of, kinds)

    def _features_of(
        self, past: Float[Tensor, "*lead F"], kind: Float[Tensor, " D"]
    ) -> Float[Tensor, "*lead D"]:
        values, differences = past[..., :CONTEXT], past[..., CONTEXT:]
        streams = torch.cat([self.values(values), self.differences(differences)], dim=-1)
        out: Tensor = self.out(nn.functional.gelu(self.join(streams) + kind))
        return out


class GraphLayer(nn.Module):
    """Updates edges from their two nodes, and nodes from the edges on both of their sides."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.edge, self.source, self.target = (nn.Linear(width, width) for _ in range(3))
        self.edge_out = nn.Linear(width, width)
        self.norm = nn.LayerNorm(3 * width)
        self.node_out = mlp(3 * width, 2 * width, width)

    def forward(
        self, nodes: Sequence[Tensor], edges: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The new nodes `[B, U, D]` of each layer of units, and edges `[B, out, in, D]` between."""
        messages, new_edges = [], []
        for edge, source, target in zip(edges, nodes[:-1], nodes[1:], strict=True):
            # [B, out, in, D] + [B, out, 1, D] + [B, 1, in, D]
            joint = self.edge(edge) + self.target(target)[:, :, None] + self.source(source)[:, None]
            message = nn.functional.gelu(joint)
            messages.append(message)
            new_edges.append(edge + self.edge_out(message))
        new_nodes = []
        for layer, node in enumerate(nodes):
            # means, so that the sizes of messages do not depend on the width of the network
            before, after = torch.zeros_like(node), torch.zeros_like(node)
            if layer > 0:
                before = messages[layer - 1].mean(dim=2)  # [B, out, in, D] -> [B, out, D]
            if layer < len(edges):
                after = messages[layer].mean(dim=1)  # [B, out, in, D] -> [B, in, D]
            heard = self.norm(torch.cat([node, before, after], dim=-1))
            new_nodes.append(node + self.node_out(heard))
        return new_nodes, new_edges


class NiNo(Nowcaster):
    """A neuron interaction and nowcasting network: message passing on the graph of the network.

    Inputs and outputs are told apart by learned identities. Hidden units have none, so permuting
    them permutes the forecast, and any width will do.
    """

    config: NiNoConfig
    config_class = NiNoConfig

    def __init__(
        self, config: NiNoConfig, change_scale: Scale = None, log_std_scale: Scale = None
    ) -> None:
        super().__init__(config, change_scale, log_std_scale)
        width, past_size = config.width, 2 * CONTEXT - 1
        self.input_identity = nn.Parameter(torch.randn(config.observation_size, width))
        self.output_identity = nn.Parameter(torch.randn(config.action_size, width))
        self.kind = nn.Embedding(NUM_KINDS, width)
        self.weight_in, self.bias_in, self.log_std_in = (
            nn.Linear(past_size, width) for _ in range(3)
        )
        self.layers = nn.ModuleList(GraphLayer(width) for _ in range(config.rounds))
        self.weight_out, self.bias_out, self.log_std_out = (nn.Linear(width, width) for _ in "123")

    def _features(self, past: Network) -> Network:
        given = (past.weights[0].shape[-2], past.weights[-1].shape[-3])
        check_ends(given, (self.config.observation_size, self.config.action_size))
        nodes, edges = self._graph(past)
        for layer in self.layers:
            nodes, edges = layer(nodes, edges)
        return Network(
            [self.weight_out(edge) for edge in edges],
            [self.bias_out(node) for node in nodes[1:]],
            None if past.log_std is None else self.log_std_out(nodes[-1]),
        )

    def _graph(self, past: Network) -> tuple[list[Tensor], list[Tensor]]:
        """Nodes `[B, U, D]` of each layer of units and edges `[B, out, in, D]` between them."""
        batch, count = len(past.biases[0]), len(past.weights)
        nodes = [self.input_identity.expand(batch, -1, -1)]
        edges = []
        for layer, (weight, bias) in enumerate(zip(past.weights, past.biases, strict=True)):
            kind = layer_group(layer, count)
            edges.append(self.weight_in(weight) + self.kind.weight[kind])
            nodes.append(self.bias_in(bias) + self.kind.weight[3 + kind])
        nodes[-1] = nodes[-1] + self.output_identity
        if past.log_std is not None:
            nodes[-1] = nodes[-1] + self.log_std_in(past.log_std) + self.kind.weight[6]
        return nodes, edges


def _smooth_codes(num_checkpoints: int, width: int) -> Float[Tensor, "T D"]:
    """What is known of each horizon at first: waves in its logarithm, so that neighbours are alike.

    Horizon 0 is never asked for.
    """
    if torch.empty(0).is_meta:  # of an outline shapes count alone
        return torch.empty(num_checkpoints, width)
    horizons = torch.arange(num_checkpoints).clamp(min=1).float()
    place = horizons.log() / horizons[-1:].log().clamp(min=1)
    return torch.cos(2 * torch.randn(width) * place[:, None] + 2 * torch.pi * torch.rand(width))
