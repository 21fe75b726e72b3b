"""Models that read policy learning paths; and the options of training that all of them have."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeAlias, TypedDict

import msgspec

from tipl.core.options import at_least, at_most
from tipl.errors import TiplError
from tipl.paths import PathDataset

__all__ = ["Model", "TrainConfig", "TrainOptions"]

Model: TypeAlias = str
"""The name of a kind of model, see `tipl.models.kinds`."""

TRAINING_STATE = ".training.safetensors"
"""How the file beside a model that is to be is named, with the state of its training."""

MAX_HIDDEN_LAYERS = 3
"""Hidden layers of the networks that a NeuronTransformer reads, at most."""


MAX_STEPS, MAX_BATCH = 1_000_000_000, 1_000_000
"""Of a training."""

MAX_WIDTH, MAX_DEPTH, MAX_CONTEXT = 4096, 64, 4096
"""Of models: the width of their states, blocks or rounds, and checkpoints that are attended to."""

MAX_COORDINATES, MAX_MEMORY = 65_536, 10_000_000
"""Of models: coordinates of a token, and observations that are remembered."""

Width: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=MAX_WIDTH)]
Depth: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=MAX_DEPTH)]

LARGEST_RATE, LARGEST_DECAY = 1e30, 1e6
"""Of learning and of weight decay: the products with which a step multiplies stay in float32."""


def check_depth(hidden_layers: int) -> None:
    """Raises a TiplError unless a NeuronTransformer can read networks with such hidden layers."""
    if not 1 <= hidden_layers <= MAX_HIDDEN_LAYERS:
        raise TiplError(
            f"a network with {hidden_layers} hidden layers was given, but a NeuronTransformer "
            f"reads 1 to {MAX_HIDDEN_LAYERS}; use a network of so many"
        )


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How a model is trained. Equal seeds and data give equal models.

    These options all models have. Each kind of model has a class of its own that adds its options
    and states its defaults, such as `tipl.models.neuron_transformer.NeuronTrainConfig`.

    Examples:
        >>> from tipl.models.path_transformer import PathTrainConfig
        >>> config = PathTrainConfig(num_steps=2, rank=2, basis="path")
        >>> model = tipl.train("runs/paths", config=config, progress=False)
    """

    model: str = "path"
    """kind of the model, whose options these are"""
    num_steps: int | None = None
    """optimiser steps, of each model if there are several"""
    batch_size: int = 32
    """paths in each step; of a NeuronTransformer networks of 64 units a layer, of a nowcaster
    forecasts, eight of them from one history"""
    learning_rate: float | None = None
    """peak of the one-cycle schedule"""
    weight_decay: float = 0.01
    """decoupled weight decay (AdamW)"""
    width: int = 64
    """width D of the model"""
    seed: int = 0
    """seed of the initial model and of the batches"""

    def __post_init__(self) -> None:
        at_least(1, width=self.width, batch_size=self.batch_size, num_steps=self.num_steps)
        at_most(MAX_WIDTH, width=self.width)
        at_most(MAX_BATCH, batch_size=self.batch_size)
        at_most(MAX_STEPS, num_steps=self.num_steps)
        if not 0 <= self.seed < 2**63:
            raise TiplError(f"seed is {self.seed}; expected from 0 to 2^63 - 1")
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            raise TiplError(f"learning_rate is {self.learning_rate}; expected a positive number")
        at_most(LARGEST_RATE, learning_rate=self.learning_rate)
        at_least(0, weight_decay=self.weight_decay)
        at_most(LARGEST_DECAY, weight_decay=self.weight_decay)

    @property
    def steps(self) -> int:
        """Optimiser steps of each model."""
        return self.num_steps or 1000

    @property
    def peak_learning_rate(self) -> float:
        """Peak of the one-cycle schedule."""
        return self.learning_rate or 2e-3


def check_heads(width: int, heads: int) -> None:
    """Raises a TiplError unless a width can be shared among attention heads."""
    at_least(1, heads=heads)
    if width % heads:
        raise TiplError(f"a width of {width} was given with {heads} heads; expected a multiple")


Paths: TypeAlias = PathDataset | str | Path | Sequence[PathDataset | str | Path]


class RunOptions(TypedDict, total=False):
    """What `tipl.train` is told beside a configuration, for type checkers."""

    held_out: Paths | None
    out: str | Path | None
    resume: bool
    threads: int | None
    progress: bool


class TrainOptions(RunOptions, total=False):
    """The options that all kinds of models have in `tipl.train`, for type checkers."""

    num_steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    width: int
    seed: int
