"""The gradients written by hand are those that autograd finds."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from tipl.ppo.networks import StackedMLP

N, INPUTS = 3, 4
HIDDEN = {1: (), 2: (7,), 3: (7, 6), 4: (5, 7, 6)}  # by number of layers


def random_mlp(num_layers: int, outputs: int) -> StackedMLP:
    rng = np.random.default_rng(num_layers)
    sizes = itertools.pairwise([INPUTS, *HIDDEN[num_layers], outputs])
    shapes = [(N, fan_out, fan_in) for fan_in, fan_out in sizes]
    weights = [rng.normal(size=shape) for shape in shapes]
    return StackedMLP(weights, [rng.normal(size=shape[:2]) for shape in shapes])


def autograd(
    mlp: StackedMLP, inputs: np.ndarray, d_outputs: np.ndarray
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Outputs, and gradients of weights, then of biases, from one network after another."""
    outputs, gradients = [], []
    for n in range(N):
        weights = [torch.tensor(weight[n], requires_grad=True) for weight in mlp.weights]
        biases = [torch.tensor(bias[n], requires_grad=True) for bias in mlp.biases]
        x = torch.tensor(inputs[n])
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            x = torch.tanh(torch.nn.functional.linear(x, weight, bias))
        x = torch.nn.functional.linear(x, weights[-1], biases[-1])
        loss = (x * torch.tensor(d_outputs[n])).sum()
        gradients.append([g.numpy() for g in torch.autograd.grad(loss, [*weights, *biases])])
        outputs.append(x.detach().numpy())
    return np.stack(outputs), [np.stack(arrays) for arrays in zip(*gradients, strict=True)]


def assert_same_as_autograd(mlp: StackedMLP, batch: int) -> None:
    rng = np.random.default_rng(batch)
    inputs = rng.normal(size=(N, batch, INPUTS))
    d_outputs = rng.normal(size=(N, batch, mlp.biases[-1].shape[1]))
    weights, biases = (
        [np.full_like(array, np.nan) for array in arrays] for arrays in (mlp.weights, mlp.biases)
    )

    outputs = mlp.forward(inputs)
    mlp.backward(d_outputs, StackedMLP(weights, biases))

    expected_outputs, expected_gradients = autograd(mlp, inputs, d_outputs)
    np.testing.assert_allclose(outputs, expected_outputs, rtol=1e-10, atol=1e-12)
    for got, expected in zip([*weights, *biases], expected_gradients, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("num_layers", HIDDEN)
def test_forward_and_backward_are_autograds(num_layers: int, outputs: int) -> None:
    mlp = random_mlp(num_layers, outputs)
    for batch in (5, 1, 8, 5):  # each batch size has its own buffers, and they are used again
        assert_same_as_autograd(mlp, batch)


def test_weights_are_read_at_each_call() -> None:
    mlp = random_mlp(3, 2)
    assert_same_as_autograd(mlp, 5)
    for array in [*mlp.weights, *mlp.biases]:
        array *= -1.5  # in place, as an optimiser does
    assert_same_as_autograd(mlp, 5)


def test_outputs_are_the_callers_to_keep() -> None:
    mlp = random_mlp(2, 1)
    inputs = np.random.default_rng(0).normal(size=(N, 5, INPUTS))
    outputs = mlp.forward(inputs)
    before = outputs.copy()
    mlp.forward(-inputs)
    np.testing.assert_array_equal(outputs, before)
