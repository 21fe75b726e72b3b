"""LeastSquaresReadout: output layers are the solutions of ridge regressions, nothing else moves."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from tipl.models import readout as readouts
from tipl.models.network import Network
from tipl.models.readout import INITIAL_RIDGE, LeastSquaresReadout
from tipl.policies.layout import ParamLayout

B, L, O, A, S = 2, 3, 4, 2, 30  # networks, checkpoints, inputs, outputs, observations  # noqa: E741

pytestmark = pytest.mark.usefixtures("one_thread")

architectures = pytest.mark.parametrize("hidden_sizes", [(5,), (3, 6), (6, 2, 5)])


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator)


def random_params(hidden_sizes: tuple[int, ...], batch: int = B, length: int = L) -> Tensor:
    return 0.7 * normal(batch, length, ParamLayout.actor(O, A, hidden_sizes).size)


def network_of(params: Tensor, hidden_sizes: tuple[int, ...]) -> Network:
    return Network.from_flat(params, ParamLayout.actor(O, A, hidden_sizes))


def readout_of(
    observations: Tensor, outputs: Tensor, ridge: float = INITIAL_RIDGE
) -> LeastSquaresReadout:
    """One that remembers these, with a given penalty."""
    made = LeastSquaresReadout(len(observations), observations.shape[1], outputs.shape[1])
    made = made.double()
    made.remember(observations, outputs)
    with torch.no_grad():
        made.log_ridge.fill_(math.log(ridge))
    return made


def random_readout(ridge: float = INITIAL_RIDGE) -> LeastSquaresReadout:
    return readout_of(normal(S, O, seed=1), normal(S, A, seed=2), ridge)


# --- what is fitted --------------------------------------------------------------------------


@architectures
def test_output_layers_are_fitted_on_the_rows_that_are_asked_for(
    hidden_sizes: tuple[int, ...],
) -> None:
    network, some = network_of(random_params(hidden_sizes), hidden_sizes), slice(2, None, 3)
    whole = random_readout()
    alone = readout_of(whole.observations[some], whole.outputs[some])
    everything = whole(network).flat()
    whole.rows = some
    torch.testing.assert_close(whole(network).flat(), alone(network).flat())
    assert not torch.allclose(whole(network).flat(), everything)


@pytest.mark.parametrize("ridge", [0.5, 2.0])
def test_a_bias_without_features_goes_towards_the_mean_of_what_is_missed(ridge: float) -> None:
    """Of a hidden unit that always gives 0, nothing can be learned."""
    network = Network(
        [torch.zeros(1, 1, 1, 1).double(), torch.full((1, 1, 1, 1), 7.0).double()],
        [torch.zeros(1, 1, 1).double(), torch.full((1, 1, 1), 0.5).double()],
        None,
    )
    readout = readout_of(normal(2, 1), torch.tensor([[1.0], [3.0]]).double(), ridge)
    fitted = readout(network)
    assert fitted.weights[-1].item() == 7
    # the mean miss is 1.5; the constant feature 1 has the mean square 1
    assert fitted.biases[-1].item() == pytest.approx(0.5 + 1.5 / (1 + ridge))
    assert fitted.log_std is None


@architectures
@pytest.mark.parametrize("ridge", [1e-3, 1.0])
@torch.inference_mode()
def test_output_layers_are_those_of_a_ridge_regression(
    hidden_sizes: tuple[int, ...], ridge: float
) -> None:
    network, readout = network_of(random_params(hidden_sizes), hidden_sizes), random_readout(ridge)
    observations, wanted = readout.observations.numpy(), readout.outputs.numpy()
    fitted = readout(network)
    assert [a.shape for a in fitted.arrays()] == [a.shape for a in network.arrays()]
    for b, n in itertools.product(range(B), range(L)):
        features = observations
        for weight, bias in zip(network.weights[:-1], network.biases[:-1], strict=True):
            features = np.tanh(features @ weight[b, n].numpy().T + bias[b, n].numpy())
        features = np.column_stack([features, np.ones(S)])
        before, after = (
            np.vstack([net.weights[-1][b, n].numpy().T, net.biases[-1][b, n].numpy()])
            for net in (network, fitted)
        )
        # the least squares of misses and, by further rows, of changes
        rows = np.vstack([features / np.sqrt(S), np.sqrt(ridge) * np.eye(len(before))])
        missed = np.vstack([(wanted - features @ before) / np.sqrt(S), np.zeros_like(before)])
        change = np.linalg.lstsq(rows, missed, rcond=None)[0]
        np.testing.assert_allclose(after, before + change, rtol=1e-6, atol=1e-7)
        assert np.abs(change).max() > 0.01


@architectures
@torch.inference_mode()
def test_an_output_layer_that_gives_all_that_is_wanted_is_found(
    monkeypatch: pytest.MonkeyPatch, hidden_sizes: tuple[int, ...]
) -> None:
    monkeypatch.setattr(readouts, "LEAST_RIDGE", 1e-12)
    network = network_of(random_params(hidden_sizes, 1, 1), hidden_sizes)
    wanted = Network(
        [*network.weights[:-1], normal(1, 1, A, hidden_sizes[-1], seed=3)],
        [*network.biases[:-1], normal(1, 1, A, seed=4)],
        network.log_std,
    )
    observations = normal(S, O, seed=1)
    outputs = wanted.outputs(observations[None, None])[0, 0]
    fitted = readout_of(observations, outputs, ridge=1e-12)(network)
    torch.testing.assert_close(fitted.flat(), wanted.flat(), rtol=0, atol=1e-5)
    assert (fitted - network).flat().abs().max() > 0.1


@torch.inference_mode()
def test_without_a_penalty_wide_networks_can_still_be_fitted() -> None:
    network = network_of(random_params((256,), 1, 1), (256,)).map(Tensor.float)
    without = random_readout(ridge=1e-30).float()  # a system of 257 unknowns and 30 equations
    assert all(array.isfinite().all() for array in without(network).arrays())


@architectures
@torch.inference_mode()
def test_nothing_changes_if_what_is_wanted_is_given_already(hidden_sizes: tuple[int, ...]) -> None:
    network = network_of(random_params(hidden_sizes, 1, 1), hidden_sizes)
    observations = normal(S, O, seed=1)
    given = network.outputs(observations[None, None])[0, 0]
    fitted = readout_of(observations, given)(network)
    torch.testing.assert_close(fitted.flat(), network.flat(), rtol=0, atol=1e-12)
    other = readout_of(observations, given + 1)(network)
    assert (other.biases[-1] - network.biases[-1]).abs().max() > 0.1


@architectures
@torch.inference_mode()
def test_hidden_layers_and_log_std_stay_as_they_are(hidden_sizes: tuple[int, ...]) -> None:
    network = network_of(random_params(hidden_sizes), hidden_sizes)
    before = network.flat().clone()
    fitted = random_readout()(network)
    for array, same in zip(
        [*fitted.weights[:-1], *fitted.biases[:-1]],
        [*network.weights[:-1], *network.biases[:-1]],
        strict=True,
    ):
        assert torch.equal(array, same)
    assert fitted.log_std is not None
    assert torch.equal(fitted.log_std, before[..., -A:])
    assert (fitted.weights[-1] != network.weights[-1]).all()
    assert (fitted.biases[-1] != network.biases[-1]).all()
    assert torch.equal(network.flat(), before)  # nor is what was given


@architectures
@torch.inference_mode()
def test_permuting_hidden_units_permutes_the_output_layers(hidden_sizes: tuple[int, ...]) -> None:
    readout, network = random_readout(), network_of(random_params(hidden_sizes), hidden_sizes)

    def permuted(network: Network, layer: int) -> Network:
        order = torch.randperm(
            hidden_sizes[layer], generator=torch.Generator().manual_seed(layer + 1)
        )
        weights, biases = list(network.weights), list(network.biases)
        weights[layer], biases[layer] = weights[layer][:, :, order], biases[layer][..., order]
        weights[layer + 1] = weights[layer + 1][..., order]
        return Network(weights, biases, network.log_std)

    fitted = readout(network)
    for layer in range(len(hidden_sizes)):
        found, expected = readout(permuted(network, layer)), permuted(fitted, layer)
        torch.testing.assert_close(found.flat(), expected.flat(), rtol=0, atol=1e-10)
    assert (permuted(fitted, len(hidden_sizes) - 1).flat() - fitted.flat()).abs().max() > 0.1


@torch.inference_mode()
def test_each_checkpoint_of_each_network_is_fitted_as_it_is_alone() -> None:
    readout, params = random_readout(), random_params((3, 6))
    together = readout(network_of(params, (3, 6))).flat()
    for b, n in itertools.product(range(B), range(L)):
        alone = readout(network_of(params[b : b + 1, n : n + 1], (3, 6))).flat()
        torch.testing.assert_close(alone[0, 0], together[b, n], rtol=0, atol=1e-10)


# --- what is learned and remembered ----------------------------------------------------------


@architectures
def test_gradients_go_through_the_solution(hidden_sizes: tuple[int, ...]) -> None:
    readout, weighting = random_readout(), normal(A, hidden_sizes[-1] + 1, seed=5)
    params = random_params(hidden_sizes, 1, 1).requires_grad_()

    def loss(params: Tensor) -> Tensor:
        fitted = readout(network_of(params, hidden_sizes))
        layer = torch.cat([fitted.weights[-1], fitted.biases[-1][..., None]], dim=-1)
        return (layer * weighting).sum()

    assert torch.autograd.gradcheck(loss, params)
    loss(params).backward()  # type: ignore[no-untyped-call]
    assert params.grad is not None
    hidden = network_of(params.grad, hidden_sizes)
    assert all(gradient.all() for gradient in [*hidden.weights[:-1], *hidden.biases[:-1]])
    assert readout.log_ridge.grad is not None
    with torch.no_grad():
        readout.log_ridge.add_(0.01)
        more = loss(params)
        readout.log_ridge.sub_(0.02)
        slope = (more - loss(params)) / 0.02
    assert slope.abs() > 0.01
    torch.testing.assert_close(readout.log_ridge.grad, slope, rtol=1e-3, atol=0)


def test_the_penalty_is_learned_and_what_is_remembered_is_not() -> None:
    readout = LeastSquaresReadout(S, O, A)
    assert [name for name, _ in readout.named_parameters()] == ["log_ridge"]
    assert readout.log_ridge.exp().item() == pytest.approx(INITIAL_RIDGE)
    assert readout.state_dict().keys() == {"log_ridge", "observations", "outputs"}


@torch.inference_mode()
def test_all_that_was_remembered_is_replaced() -> None:
    network, readout = network_of(random_params((5,)), (5,)), random_readout()
    expected = readout(network).flat()
    observations, outputs = readout.observations.clone(), readout.outputs.clone()
    readout.remember(2 * observations, outputs - 1)
    assert (readout(network).flat() - expected).abs().max() > 0.1
    readout.remember(observations, outputs)
    assert torch.equal(readout(network).flat(), expected)
    observations.zero_()  # it has copies of its own
    outputs.zero_()
    assert torch.equal(readout(network).flat(), expected)
