"""Trained nowcasters as forecasters: the last checkpoints in, all horizons out at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch

from tipl.core.arrays import Array
from tipl.forecast.base import Forecasts, Histories, Layout
from tipl.forecast.trained import AnyArchitectureForecaster, Arrays
from tipl.models.loop import torch_threads
from tipl.models.network import Network
from tipl.models.nowcasters.net import CONTEXT, WNN, NiNo, Nowcaster
from tipl.policies.tasks import TaskSpec

MAX_PARAMS_AT_ONCE = 100_000
"""Weights that are forecast in one pass of the model: bounds its memory."""


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
    def _from_files(cls, config: Mapping[str, Any], tensors: Arrays) -> NowcasterForecaster:
        model = cls.model_class(cls.model_class.config_class(**config["model"]))
        model.load_state_dict({name: torch.from_numpy(a) for name, a in tensors.items()})
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
