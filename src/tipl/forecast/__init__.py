"""Forecasters: from the history of a policy's weights to its future weights."""

from tipl.forecast.base import Forecaster, Target
from tipl.forecast.hub import shipped_models
from tipl.forecast.trained import AnyArchitectureForecaster, TrainedForecaster

__all__ = [
    "AnyArchitectureForecaster",
    "Forecaster",
    "Target",
    "TrainedForecaster",
    "shipped_models",
]
