"""Every kind of model: importing this makes them known to `Forecaster.from_pretrained`."""

from __future__ import annotations

import dataclasses
import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tipl.forecast.trained import TrainedForecaster

__all__ = ["Kind", "all_kinds"]


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of model: all that the rest of tipl knows of it."""

    title: str
    """what its files call it"""
    forecaster: str
    """its class, as `module:name`"""

    @property
    def forecaster_class(self) -> type[TrainedForecaster]:
        """The class of its forecasters."""
        module, _, name = self.forecaster.partition(":")
        found: type[TrainedForecaster] = getattr(importlib.import_module(module), name)
        return found


_KINDS = [
    Kind("PathTransformer", "tipl.models.path_transformer.forecaster:PathTransformerForecaster"),
    Kind(
        "NeuronTransformer",
        "tipl.models.neuron_transformer.forecaster:NeuronTransformerForecaster",
    ),
    Kind("WNN", "tipl.models.nowcasters.forecaster:WNNForecaster"),
    Kind("NiNo", "tipl.models.nowcasters.forecaster:NiNoForecaster"),
]


def all_kinds() -> tuple[Kind, ...]:
    """The kinds of models that tipl knows."""
    return tuple(_KINDS)
