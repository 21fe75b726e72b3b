"""A Transformer whose tokens are the networks' units; here, its options."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from tipl.core.lazy import lazy_names
from tipl.core.options import at_least, at_most, one_of
from tipl.errors import TiplError
from tipl.forecast.base import Target
from tipl.models import (
    MAX_CONTEXT,
    MAX_DEPTH,
    MAX_HIDDEN_LAYERS,
    MAX_MEMORY,
    TrainConfig,
    TrainOptions,
    check_heads,
)
from tipl.policies.activations import check_activation
from tipl.policies.layout import MAX_UNITS
from tipl.policies.policy import Policy

__all__ = [
    "NeuronTrainConfig",
    "NeuronTrainOptions",
    "NeuronTransformer",
    "NeuronTransformerConfig",
]


@dataclasses.dataclass(frozen=True)
class NeuronTrainConfig(TrainConfig):
    """How NeuronTransformers are trained, one for each target."""

    model: str = "neuron"
    num_steps: int = 2000
    learning_rate: float = 2e-3
    heads: int = 4
    """attention heads"""
    condition_on_return: bool = False
    """own: tell the model the return of what it forecasts"""
    targets: tuple[Target, ...] = ("elite", "own")
    """what to learn. elite: carry any network to the best behaviour that the paths know, or to that
    of a policy of your own; own: what PPO would have made of the network"""
    elite: str | None = None
    """elite: directory of a saved policy of the task (`Policy.save`) whose behaviour networks are
    carried to, such as a SAC agent's, of any architecture, activation and normaliser; by default
    the best stored policy of the paths"""
    rounds: int = 2
    """times that messages travel through the network and back"""
    context: int = 2
    """own: checkpoints that a unit attends to"""
    behaviour_weight: float = 0.0
    """own: weight of the error of the forecast policies' actions, for which policies of the
    training paths have to be run"""
    memory: int = 2048
    """elite: observations that the model remembers, with what the elite does there, to fit output
    layers by least squares; 0 for a model that forecasts output layers as it does others"""
    jump_penalty: float = 0.002
    """elite: weight of the size of the jump"""
    fresh_widths: tuple[int, ...] = (16, 32, 64, 64, 96, 128, 256)
    """elite: hidden units of the random networks that it learns to carry"""
    fresh_depths: tuple[int, ...] = (1, 2, 2, 2, 3)
    """elite: hidden layers of those networks"""
    fresh_activations: tuple[str, ...] = ("tanh",)
    """elite: activations of those networks, such as tanh relu; one named twice is drawn as often"""

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, rounds=self.rounds, context=self.context)
        at_least(0, behaviour_weight=self.behaviour_weight, jump_penalty=self.jump_penalty)
        at_least(0, memory=self.memory)
        at_most(MAX_DEPTH, rounds=self.rounds)
        at_most(MAX_CONTEXT, context=self.context)
        at_most(MAX_MEMORY, memory=self.memory)
        at_most(1e6, behaviour_weight=self.behaviour_weight, jump_penalty=self.jump_penalty)
        check_heads(self.width, self.heads)
        if not self.targets:
            raise TiplError("no targets were given; expected elite, own or both")
        for target in self.targets:
            one_of(get_args(Target), target=target)
        if self.elite is not None and "elite" not in self.targets:
            raise TiplError(
                f"the elite {self.elite} was given for the targets {', '.join(self.targets)}; add "
                "the target elite, or leave it out"
            )
        if not self.fresh_activations:
            raise TiplError("no fresh_activations were given; expected one at least")
        for activation in self.fresh_activations:
            check_activation(activation)
        if not self.fresh_widths or not 1 <= min(self.fresh_widths) <= max(self.fresh_widths) <= (
            MAX_UNITS
        ):
            raise TiplError(
                f"fresh_widths is {self.fresh_widths}; expected positive numbers, of at most "
                f"{MAX_UNITS:,} units"
            )
        depths = range(1, MAX_HIDDEN_LAYERS + 1)
        if not self.fresh_depths or not set(self.fresh_depths) <= {*depths}:
            raise TiplError(
                f"fresh_depths is {self.fresh_depths}; expected numbers from 1 to "
                f"{MAX_HIDDEN_LAYERS}"
            )


class NeuronTrainOptions(TrainOptions, total=False):
    """The fields of `NeuronTrainConfig` as options of `tipl.train`, for type checkers."""

    heads: int
    condition_on_return: bool
    targets: tuple[Target, ...]
    rounds: int
    context: int
    behaviour_weight: float
    memory: int
    jump_penalty: float
    fresh_widths: tuple[int, ...]
    fresh_depths: tuple[int, ...]
    fresh_activations: tuple[str, ...]
    elite: str | Path | Policy | None


if TYPE_CHECKING:
    from tipl.models.neuron_transformer.net import NeuronTransformer, NeuronTransformerConfig
else:
    __getattr__, __dir__ = lazy_names(__name__)
