"""Every kind of model: importing this makes them known to `Forecaster.from_pretrained`."""

from tipl.models.fitted_output_layer import FittedOutputLayer
from tipl.models.neuron_transformer.forecaster import NeuronTransformerForecaster
from tipl.models.nowcasters.forecaster import NiNoForecaster, WNNForecaster
from tipl.models.path_transformer.forecaster import PathTransformerForecaster

__all__ = [
    "FittedOutputLayer",
    "NeuronTransformerForecaster",
    "NiNoForecaster",
    "PathTransformerForecaster",
    "WNNForecaster",
]
