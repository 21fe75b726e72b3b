"""Forecasters: from the history of a policy's weights to its future weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tipl.core.lazy import lazy_names

__all__ = [
    "AnyArchitectureForecaster",
    "Forecaster",
    "Target",
    "TrainedForecaster",
    "shipped_models",
]

if TYPE_CHECKING:
    from tipl.forecast.base import Forecaster, Target
    from tipl.forecast.hub import shipped_models
    from tipl.forecast.trained import AnyArchitectureForecaster, TrainedForecaster
else:
    __getattr__, __dir__ = lazy_names(__name__)
