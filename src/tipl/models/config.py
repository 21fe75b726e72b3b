"""How a model is trained: the options of `tipl train`."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, get_args

from tipl.errors import TiplError
from tipl.forecast.base import Target
from tipl.models.neuron_transformer.net import MAX_HIDDEN_LAYERS
from tipl.paths.svd import Basis, Center

__all__ = ["Model", "Target", "TrainConfig"]

Model = Literal["path", "neuron", "wnn", "nino"]


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How a model is trained. Equal seeds and data give equal models."""

    model: Model = "path"
    """a Transformer over tokens of whole checkpoints (path), or over the neurons of the networks
    (neuron); or a rival of theirs: a nowcaster of each parameter (wnn) or of the network as a graph
    (nino)"""
    num_steps: int | None = None
    """optimiser steps (default: 800 of a PathTransformer; 2000 for each target of a
    NeuronTransformer; 1000 of a nowcaster)"""
    batch_size: int = 32
    """paths in each step; networks of 64 units a layer in each step of a NeuronTransformer;
    forecasts in each step of a nowcaster, eight of them from one history"""
    learning_rate: float | None = None
    """peak of the one-cycle schedule (default: 1e-3 of a PathTransformer, 2e-3 of the others)"""
    weight_decay: float = 0.01
    """decoupled weight decay (AdamW)"""
    width: int = 64
    """width D of the model"""
    heads: int = 4
    """attention heads"""
    seed: int = 0
    """seed of the initial model and of the batches"""
    condition_on_return: bool = False
    """tell the model the return of what it forecasts (NeuronTransformer, own), or the return that
    each path ends with (PathTransformer)"""

    basis: Basis = "joint"
    """PathTransformer: one SVD basis for all training paths, or a basis for each path (finds no
    basis, and so no forecast, from an untrained policy alone)"""
    center: Center = "initial"
    """PathTransformer: what is subtracted before the SVD: nothing, the path's first checkpoint,
    or the mean"""
    rank: int = 16
    """PathTransformer: coordinates of a token, K"""
    depth: int = 2
    """PathTransformer: Transformer blocks"""

    targets: tuple[Target, ...] = ("elite", "own")
    """NeuronTransformer: what to learn. elite: carry any network to the best behaviour that the
    paths know; own: what PPO would have made of the network"""
    rounds: int = 2
    """NeuronTransformer: times that messages travel through the network and back"""
    context: int = 2
    """NeuronTransformer, own: checkpoints that a unit attends to"""
    behaviour_weight: float = 0.0
    """NeuronTransformer, own: weight of the error of the forecast policies' actions, for
    which policies of the training paths have to be run"""
    memory: int = 2048
    """NeuronTransformer, elite: observations that the model remembers, with what the elite does
    there, to fit output layers by least squares; 0 for a model that forecasts output layers as it
    does others"""
    jump_penalty: float = 0.002
    """NeuronTransformer, elite: weight of the size of the jump"""
    fresh_widths: tuple[int, ...] = (16, 32, 64, 64, 96, 128, 256)
    """NeuronTransformer, elite: hidden units of the random networks that it learns to carry"""
    fresh_depths: tuple[int, ...] = (1, 2, 2, 2, 3)
    """NeuronTransformer, elite: hidden layers of those networks"""

    def __post_init__(self) -> None:
        positive = ("width", "heads", "rank", "depth", "rounds", "context", "batch_size")
        for name in (*positive, "num_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise TiplError(f"{name} is {value}; expected at least 1")
        if self.width % self.heads:
            raise TiplError(
                f"a width of {self.width} was given with {self.heads} heads; expected a multiple"
            )
        choices = {"model": Model, "basis": Basis, "center": Center}
        for name, kind in choices.items():
            _check_choice(name, getattr(self, name), get_args(kind))
        if not self.targets:
            raise TiplError("no targets were given; expected elite, own or both")
        for target in self.targets:
            _check_choice("a target", target, get_args(Target))
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            raise TiplError(f"learning_rate is {self.learning_rate}; expected a positive number")
        for name in ("weight_decay", "behaviour_weight", "jump_penalty", "memory"):
            if not 0 <= getattr(self, name) < math.inf:
                raise TiplError(f"{name} is {getattr(self, name)}; expected 0 or more")
        if not self.fresh_widths or min(self.fresh_widths) < 1:
            raise TiplError(f"fresh_widths is {self.fresh_widths}; expected positive numbers")
        if not self.fresh_depths or not set(self.fresh_depths) <= {
            *range(1, MAX_HIDDEN_LAYERS + 1)
        }:
            raise TiplError(
                f"fresh_depths is {self.fresh_depths}; expected numbers from 1 to "
                f"{MAX_HIDDEN_LAYERS}"
            )

    @property
    def steps(self) -> int:
        """Optimiser steps of each model."""
        return (
            self.num_steps or {"path": 800, "neuron": 2000, "wnn": 1000, "nino": 1000}[self.model]
        )

    @property
    def peak_learning_rate(self) -> float:
        """Peak of the one-cycle schedule."""
        return self.learning_rate or (1e-3 if self.model == "path" else 2e-3)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise TiplError(f"{name} is {value!r}; expected one of {', '.join(choices)}")
