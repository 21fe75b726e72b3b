"""The outputs of a policy's network, in plain NumPy: all that acting needs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from tipl.core.arrays import Array
from tipl.policies.layout import layer_names

__all__ = ["mlp_outputs"]


def mlp_outputs(
    arrays: Mapping[str, Array], prefix: str, inputs: Float[np.ndarray, "B in"]
) -> Float[np.ndarray, "B out"]:
    """What a tanh MLP with a linear output makes of a batch.

    `tipl.ppo.mlp` runs many networks at once, and backwards, by compiled kernels.

    Args:
        arrays: of `ParamLayout.unflatten(params [P])`.
        prefix: of the network's names in them.
        inputs: float32.
    """
    *hidden, last = layer_names(arrays, prefix)
    for weight, bias in hidden:
        inputs = np.tanh(inputs @ arrays[weight].T + arrays[bias])
    weight, bias = last
    outputs: Array = inputs @ arrays[weight].T + arrays[bias]
    return outputs
