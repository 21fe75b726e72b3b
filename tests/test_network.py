"""Network: flat parameters as tensors and back, sums, displacements, outputs and actions."""

from __future__ import annotations

import dataclasses
import itertools
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rounding import assert_equal_but_for_rounding
from tipl.models.network import ActionError, Network
from tipl.models.neuron_transformer import NeuronTransformer, NeuronTransformerConfig
from tipl.models.nowcasters.net import WNN, NiNo, NiNoConfig, NowcasterConfig
from tipl.policies.actions import normalise_observations
from tipl.policies.layout import ParamLayout, actor_layout
from tipl.policies.policy import Policy
from tipl.policies.tasks import get_task
from tipl.ppo.networks import stacked_mlp

B, L, O, A = 2, 3, 4, 3  # networks, checkpoints, inputs, outputs  # noqa: E741

architectures = pytest.mark.parametrize("hidden_sizes", [(5,), (5, 6), (6, 2, 5)])
kinds = pytest.mark.parametrize("has_log_std", [True, False])


def layout_of(hidden_sizes: tuple[int, ...], has_log_std: bool) -> ParamLayout:
    if has_log_std:
        return ParamLayout.actor(O, A, hidden_sizes)
    return ParamLayout.mlp("actor", [O, *hidden_sizes, A])


def random_params(hidden_sizes: tuple[int, ...], has_log_std: bool, seed: int = 0) -> Tensor:
    size = layout_of(hidden_sizes, has_log_std).size
    return torch.randn(B, L, size, generator=torch.Generator().manual_seed(seed))


def network_of(params: Tensor, hidden_sizes: tuple[int, ...], has_log_std: bool) -> Network:
    return Network.from_flat(params, layout_of(hidden_sizes, has_log_std))


@architectures
@kinds
def test_the_arrays_are_those_of_the_layout(
    hidden_sizes: tuple[int, ...], has_log_std: bool
) -> None:
    params = random_params(hidden_sizes, has_log_std)
    network = network_of(params, hidden_sizes, has_log_std)
    arrays = layout_of(hidden_sizes, has_log_std).unflatten(params.numpy())
    found = {} if network.log_std is None else {"log_std": network.log_std}
    for layer, (weight, bias) in enumerate(zip(network.weights, network.biases, strict=True)):
        found |= {f"actor.{layer}.weight": weight, f"actor.{layer}.bias": bias}
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name].numpy(), array)


@architectures
@kinds
def test_flat_is_the_inverse_of_from_flat(hidden_sizes: tuple[int, ...], has_log_std: bool) -> None:
    params = random_params(hidden_sizes, has_log_std)
    network = network_of(params, hidden_sizes, has_log_std)
    assert torch.equal(network.flat(), params)
    params.zero_()  # its arrays are views
    assert not network.flat().any()


@pytest.mark.parametrize("operation", [operator.add, operator.sub, operator.mul, operator.truediv])
@kinds
def test_arithmetic_is_that_of_the_parameters(
    operation: Callable[[Any, Any], Any], has_log_std: bool
) -> None:
    first, second = (random_params((5, 6), has_log_std, seed) for seed in (1, 2))
    networks = (network_of(params, (5, 6), has_log_std) for params in (first, second))
    assert torch.equal(operation(*networks).flat(), operation(first, second))


@architectures
@kinds
def test_map_meets_each_array_of_each_network_once(
    hidden_sizes: tuple[int, ...], has_log_std: bool
) -> None:
    params = [random_params(hidden_sizes, has_log_std, seed) for seed in range(3)]
    first, *others = (network_of(p, hidden_sizes, has_log_std) for p in params)
    mapped = first.map(lambda a, b, c: a + 2 * b + 3 * c, *others)
    assert torch.equal(mapped.flat(), params[0] + 2 * params[1] + 3 * params[2])
    assert [a.shape for a in mapped.arrays()] == [a.shape for a in first.arrays()]
    assert len(mapped.arrays()) == 2 * len(hidden_sizes) + 2 + has_log_std


@architectures
@kinds
def test_outputs_are_those_of_the_stacked_policies(
    hidden_sizes: tuple[int, ...], has_log_std: bool
) -> None:
    params = random_params(hidden_sizes, has_log_std)
    inputs = torch.randn(B, L, 7, O, generator=torch.Generator().manual_seed(3))
    arrays = layout_of(hidden_sizes, has_log_std).unflatten(params.flatten(0, 1).numpy())
    # [B, L, S, O] -> [B L, S, O]
    expected = stacked_mlp(arrays, "actor").forward(inputs.flatten(0, 1).numpy())
    outputs = network_of(params, hidden_sizes, has_log_std).outputs(inputs)
    assert outputs.shape == (B, L, 7, A)
    np.testing.assert_allclose(outputs.flatten(0, 1), expected, rtol=1e-5, atol=1e-5)


@architectures
@kinds
def test_activations_are_what_the_units_of_each_layer_give(
    hidden_sizes: tuple[int, ...], has_log_std: bool
) -> None:
    params = random_params(hidden_sizes, has_log_std)
    network = network_of(params, hidden_sizes, has_log_std)
    inputs = torch.randn(B, L, 7, O, generator=torch.Generator().manual_seed(3))
    given = network.activations(inputs)
    assert [layer.shape for layer in given] == [(B, L, 7, size) for size in (*hidden_sizes, A)]
    assert torch.equal(given[-1], network.outputs(inputs))
    for b, n, s in itertools.product(range(B), range(L), range(7)):
        before = inputs[b, n, s].numpy()
        for layer, units in enumerate(given):
            summed = (
                network.weights[layer][b, n].numpy() @ before + network.biases[layer][b, n].numpy()
            )
            expected = np.tanh(summed) if layer < len(hidden_sizes) else summed
            np.testing.assert_allclose(units[b, n, s], expected, rtol=1e-5, atol=1e-5)
            before = units[b, n, s].numpy()


@architectures
def test_outputs_on_normalised_observations_are_what_the_policy_does(
    hidden_sizes: tuple[int, ...],
) -> None:
    rng = np.random.default_rng(4)
    policy = Policy.initial("HalfCheetah-v4", 0, hidden_sizes)
    policy = policy.with_params(rng.normal(0, 0.1, policy.layout.size).astype(np.float32))
    task = policy.task
    network = Network.from_flat(torch.from_numpy(policy.params)[None, None], policy.layout)
    observations = rng.normal(size=(7, task.observation_size))
    inputs = normalise_observations(observations, policy.observation_mean, policy.observation_std)
    outputs = network.outputs(torch.from_numpy(inputs)[None, None])[0, 0]
    assert outputs.abs().max() < 1  # inside the action bounds
    assert_equal_but_for_rounding(outputs, policy.act(observations), sums=3, terms=64)


def test_actions_of_squashed_networks_are_what_their_policies_do() -> None:
    rng = np.random.default_rng(6)
    task = dataclasses.replace(  # whose range is not the same on both sides of 0
        get_task("Hopper-v4"), action_low=(-1.0, 0.0, -4.0), action_high=(3.0, 0.5, -2.0)
    )
    layout = actor_layout(task, (6, 5), "relu", squashed=True)
    policy = Policy(rng.normal(size=layout.size).astype(np.float32), layout, task)
    network = Network.from_flat(torch.from_numpy(policy.params)[None, None], layout)
    observations = rng.normal(size=(7, task.observation_size))
    inputs = normalise_observations(observations, policy.observation_mean, policy.observation_std)
    error, seen = ActionError(task), torch.from_numpy(inputs)[None, None]
    expected = torch.from_numpy(policy.act(observations))
    torch.testing.assert_close(error.actions(network, seen)[0, 0], expected)
    # twice a network less the same one is as it was, and acts as it does
    torch.testing.assert_close(error.actions(network + network - network, seen)[0, 0], expected)
    plain = Network(network.weights, network.biases, None, "relu")
    assert torch.equal(error.actions(plain, seen), network.outputs(seen))


@pytest.mark.parametrize("hidden_sizes", [(2,), (2, 5, 3)])
@kinds
def test_mixed_displacements_are_those_of_a_loop(
    hidden_sizes: tuple[int, ...], has_log_std: bool
) -> None:
    params = random_params(hidden_sizes, has_log_std).double()
    network = network_of(params, hidden_sizes, has_log_std)
    generator = torch.Generator().manual_seed(5)
    mixtures = [
        torch.randn(B, units, L, L, dtype=torch.float64, generator=generator)
        for units in (*hidden_sizes, A)
    ]
    expected = network_of(torch.zeros_like(params), hidden_sizes, has_log_std)
    of_unit = [
        *zip(network.weights, expected.weights, mixtures, strict=True),
        *zip(network.biases, expected.biases, mixtures, strict=True),
    ]
    if network.log_std is not None and expected.log_std is not None:
        of_unit.append((network.log_std, expected.log_std, mixtures[-1]))
    for values, total, mixture in of_unit:
        for b, unit, last, past in itertools.product(range(B), *map(range, mixture.shape[1:])):
            displacement = values[b, last, unit] - values[b, past, unit]
            total[b, last, unit] += mixture[b, unit, last, past] * displacement
    mixed = network.mixed_displacements(mixtures)
    assert (mixed.log_std is None) == (not has_log_std)
    torch.testing.assert_close(mixed.flat(), expected.flat())


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (NeuronTransformer, NeuronTransformerConfig(O, A, num_checkpoints=4, width=8)),
        (WNN, NowcasterConfig(num_checkpoints=4, width=8)),
        (NiNo, NiNoConfig(num_checkpoints=4, width=8, observation_size=O, action_size=A)),
    ],
)
def test_models_take_scales_by_name(kind: Any, config: Any) -> None:
    scales = {"change_scale": torch.rand(4, 3, 2), "log_std_scale": torch.rand(4)}
    model = kind(config, **scales)
    for name, scale in scales.items():
        assert torch.equal(getattr(model, name), scale)
        assert torch.equal(getattr(kind(config), name), torch.ones_like(scale))
