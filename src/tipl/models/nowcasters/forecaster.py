"""Trained nowcasters as forecasters: the last checkpoints in, all horizons out at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec
import numpy as np
import torch

from tipl.core.arrays import Array
from tipl.core.schemas import ArrayType, Count, conforming
from tipl.errors import TiplError
from tipl.forecast.base import Forecasts, Histories, Layout
from tipl.forecast.trained import AnyArchitectureForecaster, Arrays
from tipl.models.building import array_types, filled, outlined
from tipl.models.loop import torch_threads
from tipl.models.network import Network
from tipl.models.nowcasters.net import CONTEXT, WNN, NiNo, NiNoConfig, Nowcaster, NowcasterConfig
from tipl.policies.layout import check_hidden_sizes
from tipl.policies.tasks import TaskSpec

MAX_PARAMS_AT_ONCE = 100_000
"""Weights that are forecast in one pass of the model: bounds its memory."""


class _Described(msgspec.Struct):
    """What `config.json` says of this kind of model alone."""

    model: dict[str, Any]
    hidden_sizes: list[Count]


class NowcasterForecaster(AnyArchitectureForecaster):
    """A trained nowcaster: what all kinds of them share.

    It forecasts from two checkpoints on, so that it cannot start from an untrained network alone,
    and reads networks of any hidden sizes. The model predicts the changes.
    """

    model_class: ClassVar[type[Nowcaster]]
    min_history = 2
    reads_last = CONTEXT

    def __init__(
        self,
        model: Nowcaster,
        task: TaskSpec,
        hidden_sizes: Sequence[int],
        settings: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(task, hidden_sizes, model.config.num_checkpoints, settings=settings)
        self.model = model.eval()

    @torch_threads(1)
    @torch.inference_mode()
    def _forecast(self, histories: Histories, horizons: list[int], layout: Layout) -> Forecasts:
        layout, last = layout or self.default_layout, histories.shape[1] - 1
        read = np.maximum(np.arange(last + 1 - CONTEXT, last + 1), 0)  # the first may be repeated
        params = torch.from_numpy(np.ascontiguousarray(histories[:, read], np.float32))
        at_once = max(1, MAX_PARAMS_AT_ONCE // layout.size)
        blocks = []
        for block in torch.split(params, at_once):
            asked = torch.tensor(horizons).expand(len(block), -1)
            change = self.model(Network.from_flat(block, layout), asked).flat()  # [B, H, P]
            blocks.append((block[:, -1:] + change).numpy())
        return np.concatenate(blocks)

    def _config(self) -> dict[str, Any]:
        return {
            "model": dataclasses.asdict(self.model.config),
            "hidden_sizes": list(self.hidden_sizes),
        }

    def _tensors(self) -> dict[str, Array]:
        return {name: tensor.numpy() for name, tensor in self.model.state_dict().items()}

    @classmethod
    def _check_config(cls, config: Mapping[str, Any], task: TaskSpec, num_checkpoints: int) -> None:
        check_hidden_sizes(
            conforming(config, _Described, f"a {cls.kind}'s description").hidden_sizes
        )
        sizes = cls._sizes(config)
        ends = task.observation_size, task.action_size
        own = (sizes.observation_size, sizes.action_size) if isinstance(sizes, NiNoConfig) else ends
        if sizes.num_checkpoints != num_checkpoints or own != ends:
            raise TiplError(
                f"a {cls.kind} of networks with {own[0]} inputs and {own[1]} outputs and of "
                f"{sizes.num_checkpoints} checkpoints was given, but those of {task.env_id} have "
                f"{ends[0]} and {ends[1]}, in paths of {num_checkpoints}; restore its config.json "
                "from a copy, or train it again"
            )

    @classmethod
    def _sizes(cls, config: Mapping[str, Any]) -> NowcasterConfig:
        return conforming(config["model"], cls.model_class.config_class, f"a {cls.kind}'s model")

    @classmethod
    def _outline(cls, config: Mapping[str, Any]) -> Nowcaster:
        """The model of a checked `config.json`, without its weights."""
        return outlined(lambda: cls.model_class(cls._sizes(config)))

    @classmethod
    def _array_types(cls, config: Mapping[str, Any]) -> dict[str, ArrayType]:
        return array_types(cls._outline(config))

    @classmethod
    def _from_files(cls, config: Mapping[str, Any], tensors: Arrays) -> NowcasterForecaster:
        model = filled(cls._outline(config), tensors)
        task = TaskSpec.from_json(config["task"])
        return cls(model, task, config["hidden_sizes"], config["settings"])


class WNNForecaster(NowcasterForecaster):
    """A trained WNN: it knows the past of each parameter, and not of the others."""

    kind = "WNN"
    model_class = WNN
    label = "per-parameter nowcaster (WNN)"


class NiNoForecaster(NowcasterForecaster):
    """A trained NiNo: it knows the past of the network as a graph."""

    kind = "NiNo"
    model_class = NiNo
    label = "neural-graph nowcaster (NiNo)"
