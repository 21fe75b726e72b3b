"""Forecasters: from the history of a policy's weights to its future weights."""

from tipl.forecast.base import Forecaster, Target, TrainedForecaster
from tipl.forecast.hub import shipped_models

__all__ = ["Forecaster", "Target", "TrainedForecaster", "shipped_models"]
