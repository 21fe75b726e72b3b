"""The output layer of a policy network by least squares, on remembered observations.

Whatever the hidden layers of a network compute, the output layer that comes closest to wanted
outputs is the solution of a linear system. So a model that changes the hidden layers has to make
their features good for the purpose, no more; a rival of such models fits the output layer alone.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from tipl.errors import TiplError
from tipl.evaluation.behaviour import observations_around
from tipl.forecast.base import Forecaster, Forecasts, Histories, Layout
from tipl.models.loop import torch_threads
from tipl.models.network import ActionError, Network, Normaliser
from tipl.policies.policy import Policy
from tipl.policies.tasks import TaskSpec

INITIAL_RIDGE = 0.003
"""Penalty on the change of the output layer, beside the mean squares of the features (up to 1)."""

LEAST_RIDGE = 1e-5
"""The least penalty, with which the system can still be solved in float32."""

STRIDE = 9
"""Steps between two to whose actions output layers are fitted: about 2,000 observations, as many as
a model remembers."""


class LeastSquaresReadout(nn.Module):
    """Fits the output layers of networks to wanted outputs, by ridge regression towards no change.

    The penalty is learned; gradients go through the solution to the hidden layers.
    """

    observations: Float[Tensor, "S O"]
    """those that are remembered, normalised"""
    outputs: Float[Tensor, "S A"]
    """what networks should give for them"""
    rows: slice = slice(None)
    """those of them that output layers are fitted on"""

    def __init__(self, memory: int, observation_size: int, action_size: int) -> None:
        super().__init__()
        self.log_ridge = nn.Parameter(torch.tensor(math.log(INITIAL_RIDGE)))
        self.register_buffer("observations", torch.zeros(memory, observation_size))
        self.register_buffer("outputs", torch.zeros(memory, action_size))

    def remember(self, observations: Float[Tensor, "S O"], outputs: Float[Tensor, "S A"]) -> None:
        """Replaces all that is remembered."""
        self.observations.copy_(observations)
        self.outputs.copy_(outputs)

    def forward(self, network: Network) -> Network:
        """Networks `[B, L, ...]` with fitted output layers."""
        weight, bias = network.weights[-1], network.biases[-1]
        lead = bias.shape[:2]
        seen, wanted = self.observations[self.rows], self.outputs[self.rows]
        *hidden, given = network.activations(seen.expand(*lead, -1, -1))
        ones = torch.ones_like(hidden[-1][..., :1])
        features = torch.cat([hidden[-1], ones], dim=-1)  # [B, L, S, H + 1]
        count = features.shape[-2]
        ridge = self.log_ridge.clamp(min=math.log(LEAST_RIDGE)).exp()
        penalty = ridge * torch.eye(features.shape[-1], dtype=features.dtype)
        moments = features.mT @ features / count + penalty
        missed = features.mT @ (wanted - given) / count  # [B, L, H + 1, A]
        factor, failed = torch.linalg.cholesky_ex(moments)
        # of features that are not finite there is no solution, and no error that says less
        factor = torch.where(failed[..., None, None] == 0, factor, torch.nan)
        change = torch.cholesky_solve(missed, factor).mT
        return dataclasses.replace(
            network,
            weights=[*network.weights[:-1], weight + change[..., :-1]],
            biases=[*network.biases[:-1], bias + change[..., -1]],
        )


class FittedOutputLayer(Forecaster):
    """Leaves the hidden layers as they are and fits the output layer to a policy's actions.

    It is given the policy's actions for normalised observations. That random features go far is
    known from Rahimi and Recht (2008); what a model of weights is worth shows beside this.
    """

    name = "best stored policy, output layer fitted"

    def __init__(
        self,
        task: TaskSpec,
        observations: Float[np.ndarray, "S O"],
        actions: Float[np.ndarray, "S A"],
    ) -> None:
        self.task = task
        memory, observation_size = observations.shape
        self.readout = LeastSquaresReadout(memory, observation_size, actions.shape[1])
        self.readout.remember(torch.as_tensor(observations), torch.as_tensor(actions))

    @classmethod
    def of(cls, policy: Policy, seed: int = 0) -> FittedOutputLayer:
        """Fits output layers to a policy's actions where it goes, in seeded rollouts.

        The policy may be of any activation, squashed or not, and have a normaliser of its own.
        """
        task, error = policy.task, ActionError(policy.task)
        seen = observations_around(policy, seed)[:, ::STRIDE]
        # [M, S, O] -> [M * S, O]
        observations = torch.as_tensor(seen.reshape(-1, task.observation_size))
        own = policy.observation_mean, policy.observation_std, policy.observation_clip
        inputs = Normaliser(*own)(observations)[None, None]
        network = Network.from_flat(torch.as_tensor(policy.params)[None, None], policy.layout)
        actions = error.fitting(error.actions(network, inputs)[0, 0])
        return cls(task, Normaliser.of(task)(observations).numpy(), actions.numpy())

    @torch_threads(1)
    @torch.inference_mode()
    def _forecast(self, histories: Histories, horizons: list[int], layout: Layout) -> Forecasts:
        if layout is None:
            raise TiplError(
                f"no layout was given, but {self.name} reads networks of any; give the layout that "
                "the weights have"
            )
        last = torch.as_tensor(np.ascontiguousarray(histories[:, -1:], np.float32))
        fitted = [self.readout(Network.from_flat(one[None], layout)).flat()[0] for one in last]
        return torch.stack(fitted).numpy()
