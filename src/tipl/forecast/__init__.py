"""Forecasters: from the history of a policy's weights to its future weights."""

# Every kind of model is imported here: an import is what makes it known to `from_pretrained`.
from tipl.forecast.base import Forecaster, Target, TrainedForecaster, torch_threads
from tipl.forecast.fitted_output_layer import FittedOutputLayer
from tipl.forecast.neuron_transformer import NeuronTransformerForecaster, context_checkpoints
from tipl.forecast.nowcasters import NiNoForecaster, WNNForecaster
from tipl.forecast.path_transformer import PathTransformerForecaster
from tipl.forecast.shipped import shipped_models

__all__ = [
    "FittedOutputLayer",
    "Forecaster",
    "NeuronTransformerForecaster",
    "NiNoForecaster",
    "PathTransformerForecaster",
    "Target",
    "TrainedForecaster",
    "WNNForecaster",
    "context_checkpoints",
    "shipped_models",
    "torch_threads",
]
