"""The rival of a model that carries networks to a known behaviour: fit the output layer alone."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float

from tipl.errors import TiplError
from tipl.forecast.base import Forecaster
from tipl.models.network import Network
from tipl.models.readout import LeastSquaresReadout
from tipl.models.threads import torch_threads
from tipl.policies.layout import ParamLayout, layer_sizes
from tipl.policies.tasks import TaskSpec

__all__ = ["FittedOutputLayer"]


class FittedOutputLayer(Forecaster):
    """Leaves the hidden layers as they are and fits the output layer to a policy's actions.

    That random features go far is known from Rahimi and Recht (2008); what a model of weights is
    worth shows beside this.

    Args:
        task: the environment.
        observations: normalised observations of the policy.
        outputs: what its network gives there.
    """

    name = "best stored policy, output layer fitted"

    def __init__(
        self,
        task: TaskSpec,
        observations: Float[np.ndarray, "S O"],
        outputs: Float[np.ndarray, "S A"],
    ) -> None:
        self.task = task
        memory, observation_size = observations.shape
        self.readout = LeastSquaresReadout(memory, observation_size, outputs.shape[1])
        self.readout.remember(torch.as_tensor(observations), torch.as_tensor(outputs))

    @torch_threads(1)
    @torch.inference_mode()
    def _forecast(
        self,
        histories: Float[np.ndarray, "B T P"],
        horizons: list[int],
        layout: ParamLayout | None,
    ) -> Float[np.ndarray, "B H P"]:
        if layout is None:
            raise TiplError(
                f"no layout was given, but {self.name} reads networks of any; give the layout that "
                "the weights have"
            )
        sizes = layer_sizes(self.task, layout.hidden_sizes)
        last = torch.as_tensor(np.ascontiguousarray(histories[:, -1:], np.float32))
        fitted = [
            self.readout(Network.from_flat(one[None], sizes, not self.task.discrete)).flat()[0]
            for one in last
        ]
        return np.repeat(torch.stack(fitted).numpy(), len(horizons), axis=1)
