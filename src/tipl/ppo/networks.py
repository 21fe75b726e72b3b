"""The networks of many policies at once, and how actions are drawn from their outputs.

Many small MLPs of one shape run forward and backward together. The backward pass is written
out by hand: at these sizes (64 wide, minibatches of 64) NumPy's batched matrix products and
compiled inner loops run several times faster on a CPU than an autograd graph of small operations,
and they release the interpreter lock, so groups of trials can learn in parallel threads. The
compiler is imported where they are first called, for half a second of those who do not get there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float, Int

from tipl.core.arrays import Array
from tipl.errors import TiplError
from tipl.policies.activations import ACTIVATIONS
from tipl.policies.layout import ParamLayout, layer_names


class StackedMLP:
    """N independent MLPs with hidden layers of one activation and a linear output.

    Args:
        weights: one `[N, out, in]` array for each layer. Views are welcome: they are read at
            each call, so that an optimiser may change them in place.
        biases: one `[N, out]` array for each layer.
        activation: of the hidden units; those of tanh alone go backwards.
    """

    def __init__(
        self, weights: Sequence[Array], biases: Sequence[Array], activation: str = "tanh"
    ) -> None:
        self.weights, self.biases, self.activation = list(weights), list(biases), activation
        # Scratch arrays, one set for each batch size B, so that no call allocates large arrays.
        self._activations: dict[int, list[Array]] = {}
        self._scratch: dict[int, list[Array]] = {}
        self._inputs: list[Array] = []

    def forward(self, inputs: Float[np.ndarray, "N B in"]) -> Float[np.ndarray, "N B out"]:
        """Returns the outputs and keeps the activations for one `backward`."""
        from tipl.ppo import kernels

        hidden = self._buffers(self._activations, inputs.shape[1])
        self._inputs = [inputs]
        for weight, bias, out in zip(self.weights, self.biases, hidden, strict=False):
            np.matmul(self._inputs[-1], weight.swapaxes(1, 2), out=out)
            if self.activation == "tanh":
                kernels.add_bias_tanh(out, bias)
            else:
                out[:] = ACTIVATIONS[self.activation](out + bias[:, None])
            self._inputs.append(out)
        outputs: Array = np.matmul(self._inputs[-1], self.weights[-1].swapaxes(1, 2))
        outputs += self.biases[-1][:, None]
        return outputs

    def backward(self, d_outputs: Float[np.ndarray, "N B out"], gradients: StackedMLP) -> None:
        """Writes the gradients of a loss in the place of another network's weights and biases.

        `d_outputs` is its gradient with respect to the last `forward`'s outputs.

        Raises:
            TiplError: the hidden units are not of tanh.
        """
        if self.activation != "tanh":
            raise TiplError(
                f"networks of {self.activation} units were given to tipl's own PPO, which trains "
                "those of tanh; train them with stable-baselines3 or PyTorch"
            )
        from tipl.ppo import kernels

        d_hidden = self._buffers(self._scratch, d_outputs.shape[1])
        d_out = d_outputs
        np.sum(d_out, axis=1, out=gradients.biases[-1])
        for layer in reversed(range(len(self.weights))):
            np.matmul(d_out.swapaxes(1, 2), self._inputs[layer], out=gradients.weights[layer])
            if layer == 0:
                return
            d_in = d_hidden[layer - 1]
            if d_out.shape[2] == 1:  # an outer product: broadcasting beats a thin matmul
                np.multiply(d_out, self.weights[layer], out=d_in)
            else:
                np.matmul(d_out, self.weights[layer], out=d_in)
            kernels.backward_tanh(d_in, self._inputs[layer], gradients.biases[layer - 1])
            d_out = d_in

    def _buffers(self, cache: dict[int, list[Array]], batch: int) -> list[Array]:
        """One `[N, B, hidden]` array for each hidden layer, made once for each batch size."""
        if batch not in cache:
            hidden = self.biases[:-1]
            cache[batch] = [np.empty((len(b), batch, b.shape[1]), b.dtype) for b in hidden]
        return cache[batch]


def stacked_mlp(arrays: Mapping[str, Array], prefix: str, activation: str = "tanh") -> StackedMLP:
    """The N networks `{prefix}.*` among the arrays of `ParamLayout.unflatten(params [N, P])`."""
    names = layer_names(arrays, prefix)
    weights, biases = ([arrays[pair[i]] for pair in names] for i in range(2))
    return StackedMLP(weights, biases, activation)


def stacked_actors(params: Float[np.ndarray, "N P"], layout: ParamLayout) -> StackedMLP:
    """The actors of N policies of one layout; the weights, a contiguous array, are not copied."""
    return stacked_mlp(layout.unflatten(params), "actor", layout.activation)


def ppo_flops_per_step(layout: ParamLayout, update_epochs: int) -> float:
    """Floating-point operations of PPO's networks for one environment step.

    The actor acts and the critic judges once; in each epoch both are run forwards, and their
    gradients are computed for the weights and for all inputs but the first layer's.
    """
    matrices = {
        name: math.prod(shape)
        for name, shape in zip(layout.names, layout.shapes, strict=True)
        if len(shape) == 2
    }
    first = sum(size for name, size in matrices.items() if name.endswith(".0.weight"))
    products = sum(matrices.values())
    return 2.0 * (products + update_epochs * (3 * products - first))


class Minibatch(NamedTuple):
    """Steps of a rollout from which policies learn at a time, as the kernels take them."""

    indices: Int[np.ndarray, " B"]  # of the steps, among all T of the rollout
    actions: Float[np.ndarray, "N T A"]
    old_log_probs: Float[np.ndarray, "N T"]
    advantages: Float[np.ndarray, "N B"]  # of these steps alone


class GaussianHead:
    """Outputs are the means of independent normal distributions with learned deviations.

    As every head it has its `size`, the values that an action is stored as, `noise` for one trial's
    steps, `draw`, and the `gradient` of PPO's policy loss, entropy bonus included.

    Args:
        log_std: logarithms of the standard deviations `[N, A]`, read at each call.
        log_std_gradient: `[N, A]`, written by `gradient`.
        clip_coef, ent_coef: as in `PPOConfig`.
    """

    def __init__(
        self, log_std: Array, log_std_gradient: Array, clip_coef: float, ent_coef: float
    ) -> None:
        self.log_std, self.log_std_gradient = log_std, log_std_gradient
        self.size = log_std.shape[1]
        self.clip_coef, self.ent_coef = clip_coef, ent_coef

    def noise(self, rng: np.random.Generator, num_steps: int) -> Float[np.ndarray, "T A"]:
        """Standard normal numbers."""
        return rng.standard_normal((num_steps, self.size))

    def draw(
        self, outputs: Float[np.ndarray, "N E A"], noise: Float[np.ndarray, "N E A"]
    ) -> tuple[Float[np.ndarray, "N E A"], Float[np.ndarray, "N E"]]:
        """Actions, not clipped to any bounds, and the logarithms of their densities."""
        log_std = self.log_std[:, None]
        log_probs = -0.5 * noise**2 - (log_std + 0.5 * math.log(2 * math.pi))
        return outputs + np.exp(log_std) * noise, log_probs.sum(axis=-1)

    def gradient(
        self, outputs: Float[np.ndarray, "N B A"], minibatch: Minibatch
    ) -> Float[np.ndarray, "N B A"]:
        """The gradient with respect to the means; that with respect to `log_std` is written."""
        from tipl.ppo import kernels

        clip, d_outputs = outputs.dtype.type(self.clip_coef), np.empty_like(outputs)
        kernels.gaussian_gradient(
            outputs, self.log_std, *minibatch, clip, d_outputs, self.log_std_gradient
        )
        self.log_std_gradient -= self.ent_coef  # the entropy is sum(log_std) + constant
        return d_outputs


class CategoricalHead:
    """Outputs are the logits of A discrete actions; an action is stored as its number from 0."""

    size = 1

    def __init__(self, num_actions: int, clip_coef: float, ent_coef: float) -> None:
        self.num_actions = num_actions
        self.clip_coef, self.ent_coef = clip_coef, ent_coef

    def noise(self, rng: np.random.Generator, num_steps: int) -> Float[np.ndarray, "T A"]:
        """Standard Gumbel numbers: the largest of logits + noise is a draw from the softmax."""
        return rng.gumbel(size=(num_steps, self.num_actions))

    def draw(
        self, outputs: Float[np.ndarray, "N E A"], noise: Float[np.ndarray, "N E A"]
    ) -> tuple[Float[np.ndarray, "N E 1"], Float[np.ndarray, "N E"]]:
        """Numbers of the actions and the logarithms of their probabilities."""
        chosen = (outputs + noise).argmax(axis=-1)[..., None]
        shifted = outputs - outputs.max(axis=-1, keepdims=True)
        log_probs = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
        drawn = np.take_along_axis(log_probs, chosen, axis=-1)[..., 0]
        return chosen.astype(outputs.dtype), drawn

    def gradient(
        self, outputs: Float[np.ndarray, "N B A"], minibatch: Minibatch
    ) -> Float[np.ndarray, "N B A"]:
        """The gradient with respect to the logits."""
        from tipl.ppo import kernels

        coefficients = map(outputs.dtype.type, (self.clip_coef, self.ent_coef))
        d_outputs = np.empty_like(outputs)
        kernels.categorical_gradient(outputs, *minibatch, *coefficients, d_outputs)
        return d_outputs


ActionHead: TypeAlias = GaussianHead | CategoricalHead
"""How PPO draws actions from an actor's outputs, and the gradient of its policy loss."""
