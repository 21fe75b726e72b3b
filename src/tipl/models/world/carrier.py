"""Carrying networks of any architecture to a policy that is given, without learning anything."""

from __future__ import annotations

import copy

import numpy as np
import torch

from tipl.errors import TiplError
from tipl.forecast.base import Networks
from tipl.models.loop import torch_threads
from tipl.models.network import ActionError, Network
from tipl.models.neuron_transformer.forecaster import NeuronTransformerForecaster
from tipl.models.neuron_transformer.net import NeuronTransformer
from tipl.models.readout import LeastSquaresReadout
from tipl.models.world.morphing import can_morph, morphed
from tipl.policies.layout import ParamLayout
from tipl.policies.policy import Policy


class Carrier:
    """What makes networks of any architecture act as a policy does.

    A network that is as deep as the policy's, or deeper, takes over its units as they are, or the
    most telling of them (`tipl.models.world.morphing`). Any other, or of another activation, a
    NeuronTransformer of the target elite carries there: it has learned to make the features of any
    network good for its task, and fits the output layer to remembered observations and what its
    elite does there. Labelled with what another policy does, the same observations lead to that.

    Raises:
        TiplError: it remembers no observations.
    """

    def __init__(self, forecaster: NeuronTransformerForecaster) -> None:
        self.forecaster, self.task = forecaster, forecaster.task
        self.model: NeuronTransformer = forecaster.models["elite"]
        if self.model.readout is None:
            raise TiplError(
                f"a {forecaster.name} that remembers no observations was given, which cannot carry "
                "networks to another policy; give one that was trained with a memory"
            )
        self.readout: LeastSquaresReadout = self.model.readout

    @torch_threads(1)
    @torch.inference_mode()
    def carried(
        self, params: Networks, layout: ParamLayout, teacher: Policy, steps: int | None = None
    ) -> Networks:
        """Networks `[B, P]` of a layout that act as the teacher does.

        The teacher has the frozen normaliser of the task. Where the networks take over its units,
        there are no jumps, whatever their number of `steps`.
        """
        if can_morph(layout, teacher.layout):
            remembered = self.readout.observations.numpy(), self.task.action_bounds
            own = teacher.params, teacher.layout
            return np.stack([morphed(*own, one, layout, *remembered) for one in params])
        carrier = Carrier(copy.copy(self.forecaster))
        carrier.model = copy.deepcopy(self.model)
        carrier.forecaster.models = {"elite": carrier.model}
        error, seen = ActionError(self.task), self.readout.observations
        weights = torch.as_tensor(teacher.params)
        network = Network.from_flat(weights[None, None], teacher.layout)
        wanted = error.actions(network, seen[None, None])[0, 0]  # [1, 1, S, A] -> [S, A]
        if carrier.model.readout is not None:
            carrier.model.readout.remember(seen.clone(), error.fitting(wanted))
        horizon = self.forecaster.num_checkpoints - 1
        return carrier.forecaster._optimize(params, layout, horizon, steps)
