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
    forecaster: str | type[TrainedForecaster]
    """its class, or where that stands among the models, as `module:name`"""

    @property
    def forecaster_class(self) -> type[TrainedForecaster]:
        """The class of its forecasters."""
        if not isinstance(self.forecaster, str):
            return self.forecaster
        module, _, name = self.forecaster.partition(":")
        home = importlib.import_module(f"tipl.models.{module}")
        found: type[TrainedForecaster] = getattr(home, name)
        return found


_KINDS = [
    Kind("PathTransformer", "path_transformer.forecaster:PathTransformerForecaster"),
    Kind(
        "NeuronTransformer",
        "neuron_transformer.forecaster:NeuronTransformerForecaster",
    ),
    Kind("WNN", "nowcasters.forecaster:WNNForecaster"),
    Kind("NiNo", "nowcasters.forecaster:NiNoForecaster"),
]


def all_kinds() -> tuple[Kind, ...]:
    """The kinds of models that tipl knows."""
    return tuple(_KINDS)
