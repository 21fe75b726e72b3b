"""Many small tanh MLPs of one shape, run forward and backward together in NumPy.

The backward pass is written out by hand: at these sizes (64 wide, minibatches of 64) NumPy's
batched matrix products and compiled inner loops run several times faster on a CPU than an autograd
graph of small operations, and they release the interpreter lock, so groups of trials can learn in
parallel threads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from tipl.core.arrays import Array
from tipl.policies.layout import layer_names
from tipl.ppo.kernels import add_bias_tanh, backward_tanh

__all__ = ["StackedMLP", "stacked_mlp"]


class StackedMLP:
    """N independent MLPs with tanh hidden layers and a linear output.

    Args:
        weights: one `[N, out, in]` array for each layer. Views are welcome: they are read at
            each call, so that an optimiser may change them in place.
        biases: one `[N, out]` array for each layer.
    """

    def __init__(self, weights: Sequence[Array], biases: Sequence[Array]) -> None:
        self.weights = list(weights)
        self.biases = list(biases)
        # Scratch arrays, one set for each batch size B, so that no call allocates large arrays.
        self._activations: dict[int, list[Array]] = {}
        self._scratch: dict[int, list[Array]] = {}
        self._inputs: list[Array] = []

    def forward(self, inputs: Float[np.ndarray, "N B in"]) -> Float[np.ndarray, "N B out"]:
        """Returns the outputs and keeps the activations for one `backward`."""
        hidden = self._buffers(self._activations, inputs.shape[1])
        self._inputs = [inputs]
        for weight, bias, out in zip(self.weights, self.biases, hidden, strict=False):
            np.matmul(self._inputs[-1], weight.swapaxes(1, 2), out=out)
            add_bias_tanh(out, bias)
            self._inputs.append(out)
        outputs: Array = np.matmul(self._inputs[-1], self.weights[-1].swapaxes(1, 2))
        outputs += self.biases[-1][:, None]
        return outputs

    def backward(
        self,
        d_outputs: Float[np.ndarray, "N B out"],
        weight_gradients: Sequence[Array],
        bias_gradients: Sequence[Array],
    ) -> None:
        """Writes the gradients of a loss into the given arrays, shaped as the weights and biases.

        Args:
            d_outputs: gradient of the loss with respect to the last `forward`'s outputs.
            weight_gradients: one `[N, out, in]` array for each layer, overwritten.
            bias_gradients: one `[N, out]` array for each layer, overwritten.
        """
        d_hidden = self._buffers(self._scratch, d_outputs.shape[1])
        d_out = d_outputs
        np.sum(d_out, axis=1, out=bias_gradients[-1])
        for layer in reversed(range(len(self.weights))):
            np.matmul(d_out.swapaxes(1, 2), self._inputs[layer], out=weight_gradients[layer])
            if layer == 0:
                return
            d_in = d_hidden[layer - 1]
            if d_out.shape[2] == 1:  # an outer product: broadcasting beats a thin matmul
                np.multiply(d_out, self.weights[layer], out=d_in)
            else:
                np.matmul(d_out, self.weights[layer], out=d_in)
            backward_tanh(d_in, self._inputs[layer], bias_gradients[layer - 1])
            d_out = d_in

    def _buffers(self, cache: dict[int, list[Array]], batch: int) -> list[Array]:
        """One `[N, B, hidden]` array for each hidden layer, made once for each batch size."""
        if batch not in cache:
            cache[batch] = [
                np.empty((bias.shape[0], batch, bias.shape[1]), bias.dtype)
                for bias in self.biases[:-1]
            ]
        return cache[batch]


def stacked_mlp(arrays: Mapping[str, Array], prefix: str) -> StackedMLP:
    """The N networks `{prefix}.*` among the arrays of `ParamLayout.unflatten(params [N, P])`."""
    names = layer_names(arrays, prefix)
    return StackedMLP([arrays[weight] for weight, _ in names], [arrays[bias] for _, bias in names])
