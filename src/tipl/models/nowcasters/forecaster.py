"""Trained nowcasters as forecasters: the last checkpoints in, all horizons out at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch

from tipl.core.arrays import Array
from tipl.forecast.base import Forecasts, Histories
from tipl.forecast.trained import AnyArchitectureForecaster
from tipl.models.loop import torch_threads
from tipl.models.network import Network
from tipl.models.nowcasters.net import CONTEXT, WNN, NiNo, Nowcaster
from tipl.policies.layout import ParamLayout, actor_layout, layer_sizes
from tipl.policies.tasks import TaskSpec

NowcasterT = TypeVar("NowcasterT", bound="NowcasterForecaster")

MAX_PARAMS_AT_ONCE = 100_000
"""Weights that are forecast in one pass of the model: bounds its memory."""


class NowcasterForecaster(AnyArchitectureForecaster):
    """A trained nowcaster: what all kinds of them share.

    It forecasts from two checkpoints on, so that it cannot start from an untrained network alone,
    and reads networks of any hidden sizes.

    Args:
        model: predicts the changes.
        task: the environment that it was trained on.
        hidden_sizes: of the networks that it was trained on.
        settings: how it was trained, for the record: JSON that is saved with it.
    """

    model_class: ClassVar[type[Nowcaster]]
    title: ClassVar[str]
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

    @property
    def label(self) -> str:
        """What it is, and what its paper calls it."""
        return f"{self.title} ({self.kind})"

    @torch_threads(1)
    @torch.inference_mode()
    def _forecast(
        self, histories: Histories, horizons: list[int], layout: ParamLayout | None
    ) -> Forecasts:
        layout = layout or actor_layout(self.task, self.hidden_sizes)
        sizes = layer_sizes(self.task, layout.hidden_sizes)
        last = histories.shape[1] - 1
        read = np.maximum(np.arange(last + 1 - CONTEXT, last + 1), 0)  # the first may be repeated
        params = torch.from_numpy(np.ascontiguousarray(histories[:, read], np.float32))
        at_once = max(1, MAX_PARAMS_AT_ONCE // layout.size)
        blocks = []
        for start in range(0, len(params), at_once):
            block = params[start : start + at_once]
            asked = torch.tensor(horizons).expand(len(block), -1)
            network = Network.from_flat(block, sizes, not self.task.discrete)
            change = self.model(network, asked).flat()  # [B, H, P]
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
    def _from_files(
        cls: type[NowcasterT], config: Mapping[str, Any], tensors: Mapping[str, Array]
    ) -> NowcasterT:
        model = cls.model_class(cls.model_class.config_class(**config["model"]))
        model.load_state_dict({name: torch.from_numpy(a) for name, a in tensors.items()})
        task = TaskSpec.from_json(config["task"])
        return cls(model, task, config["hidden_sizes"], config["settings"])


class WNNForecaster(NowcasterForecaster):
    """A trained WNN: it knows the past of each parameter, and not of the others."""

    kind = "WNN"
    model_class = WNN
    title = "per-parameter nowcaster"


class NiNoForecaster(NowcasterForecaster):
    """A trained NiNo: it knows the past of the network as a graph."""

    kind = "NiNo"
    model_class = NiNo
    title = "neural-graph nowcaster"
