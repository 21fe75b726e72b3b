"""What the `config.json` of a model says: what all kinds have, and what each adds to it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, cast

import msgspec

from tipl.core.lazy import resolve
from tipl.core.schemas import Count, JsonFile, Natural, TensorsFile, conforming
from tipl.errors import TiplError, shown
from tipl.policies.activations import check_activation
from tipl.policies.tasks import TaskSpec

if TYPE_CHECKING:
    from tipl.forecast.trained import TrainedForecaster

MODEL_FORMAT_VERSION = 1

PathLength: TypeAlias = Annotated[int, msgspec.Meta(ge=2, le=1_000_000)]
"""Checkpoints of a path that a model was trained on."""

Float32: TypeAlias = Annotated[float, msgspec.Meta(ge=-3.4e38, le=3.4e38)]
"""A finite number that float32 holds."""

ReturnScale: TypeAlias = tuple[Float32, Annotated[float, msgspec.Meta(gt=0, le=3.4e38)]]
"""Mean and standard deviation of returns."""

ShortText: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]

_Losses: TypeAlias = Annotated[list[Float32 | None], msgspec.Meta(min_length=1)]


class _Curve(msgspec.Struct):
    """A training curve."""

    step: Annotated[list[Natural], msgspec.Meta(min_length=1)]
    train_loss: _Losses
    held_out_loss: _Losses
    standing_still_loss: _Losses

    def __post_init__(self) -> None:
        lengths = {len(getattr(self, name)) for name in self.__struct_fields__}
        if len(lengths) > 1:
            raise TiplError("the lists of a training curve have different lengths")


class _Train(msgspec.Struct):
    """What others read of the options that a model was trained with."""

    model: str = "path"
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 0
    condition_on_return: bool = False


class _Settings(msgspec.Struct):
    """What others read of how a model was trained."""

    curves: dict[str, _Curve] = {}
    datasets: dict[str, list[Natural]] = {}
    train: _Train = msgspec.field(default_factory=_Train)
    steps_per_checkpoint: Count | None = None
    high_return: Float32 = 0.0
    env_steps: Natural = 0
    activation: str = "tanh"
    squashed: bool = False

    def __post_init__(self) -> None:
        check_activation(self.activation)


class _Common(msgspec.Struct):
    """What the file says of a model of any kind."""

    task: dict[str, Any]
    num_checkpoints: PathLength
    settings: _Settings
    serves: Annotated[list[ShortText], msgspec.Meta(max_length=16)] = []
    """ids of other versions of its task, whose policies it reads as well"""


@dataclass(frozen=True)
class ModelDescription:
    """What `config.json` says, after every part of it that is read has been checked."""

    forecaster: type[TrainedForecaster]
    """the class of the model"""
    config: Mapping[str, Any]
    """all that the file says"""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ModelDescription:
        """What a file says; raises a TiplError if it is of no known kind, or impossible."""
        entry, task, said = _common(data)
        forecaster = cast("type[TrainedForecaster]", resolve(entry))
        forecaster._check_config(data, task, said.num_checkpoints)
        return cls(forecaster, data)


@dataclass(frozen=True)
class _Header:
    """What the header of a model's weights says."""

    kind: Literal["model"]


MODEL = JsonFile("config.json", ModelDescription, "a model (made by `tipl train`)")
MODEL_WEIGHTS = TensorsFile("model.safetensors", _Header, "the model's weights")


def described_task(config: Mapping[str, Any]) -> tuple[TaskSpec, list[str]]:
    """The task of a model, and the other versions that it serves.

    Raises what `ModelDescription` does that needs none of the model's libraries.
    """
    _, task, said = _common(config)
    return task, said.serves


def _common(config: Mapping[str, Any]) -> tuple[Any, TaskSpec, _Common]:
    """What models of all kinds say of themselves, and where the class is that reads this one."""
    entry = _entry_of_kind(config)
    said = conforming(config, _Common, "the model's description")
    return entry, TaskSpec.from_json(said.task), said


def _entry_of_kind(config: Mapping[str, Any]) -> Any:
    """Where the class is that reads a model, by what its `config.json` says."""
    version, kind = config.get("format_version"), config.get("kind")
    if type(version) is not int or version != MODEL_FORMAT_VERSION:
        raise TiplError(
            f"it is of a model of format version {shown(version)}, but this tipl reads version "
            f"{MODEL_FORMAT_VERSION}; update tipl"
        )
    kinds = importlib.import_module("tipl.models.kinds")  # the one door to the models of tipl
    forecasters = {entry.title: entry.forecaster for entry in kinds.all_kinds()}
    if not isinstance(kind, str) or kind not in forecasters:
        raise TiplError(
            f"it is of a model of the kind {shown(kind)}, but this tipl reads "
            f"{', '.join(sorted(forecasters))}; update tipl, or import the module that registers "
            "the kind"
        )
    return forecasters[kind]
