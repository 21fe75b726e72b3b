"""Two models from the literature that nowcast weights, rivals of ours; here, their options."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from tipl.core.lazy import lazy_names
from tipl.models import TrainConfig

__all__ = [
    "WNN",
    "NiNo",
    "NiNoConfig",
    "NiNoTrainConfig",
    "Nowcaster",
    "NowcasterConfig",
    "WNNTrainConfig",
]


@dataclasses.dataclass(frozen=True)
class WNNTrainConfig(TrainConfig):
    """How a WNN is trained."""

    model: str = "wnn"
    num_steps: int = 1000
    learning_rate: float = 2e-3


@dataclasses.dataclass(frozen=True)
class NiNoTrainConfig(TrainConfig):
    """How a NiNo is trained."""

    model: str = "nino"
    num_steps: int = 1000
    learning_rate: float = 2e-3


if TYPE_CHECKING:
    from tipl.models.nowcasters.net import WNN, NiNo, NiNoConfig, Nowcaster, NowcasterConfig
else:
    __getattr__, __dir__ = lazy_names(__name__)
