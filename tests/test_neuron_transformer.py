"""NeuronTransformer: blind to the order of hidden units and to the future, open to any width."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tipl.models.network import Network
from tipl.models.neuron_transformer.net import (
    Conditions,
    NeuronTransformer,
    NeuronTransformerConfig,
)
from tipl.policies.layout import ParamLayout

B, L, O, A, T = 2, 5, 5, 3, 12  # networks, checkpoints seen, inputs, outputs, whole path  # noqa: E741
WIDTH = 16

pytestmark = pytest.mark.usefixtures("one_thread")

contexts = pytest.mark.parametrize("context", [1, 4])
architectures = pytest.mark.parametrize("hidden_sizes", [(16,), (16, 24), (8, 12, 10)])
memories = pytest.mark.parametrize("memory", [0, 40])  # 40: output layers are fitted


def new_model(seed: int = 0, **changes: Any) -> NeuronTransformer:
    fields: dict[str, Any] = {"width": WIDTH, "rounds": 2, "heads": 2}
    torch.manual_seed(seed)
    return NeuronTransformer(NeuronTransformerConfig(O, A, T, **fields | changes))


def random_model(dtype: torch.dtype = torch.float64, **changes: Any) -> NeuronTransformer:
    """A model with noise on every parameter, so that none is zero; its memory is random, too."""
    model = new_model(**changes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    if model.readout is not None:
        size = model.config.memory
        model.readout.remember(torch.randn(size, O), torch.randn(size, A))
    return model.to(dtype).eval()


def random_network(
    hidden_sizes: tuple[int, ...],
    batch: int = B,
    length: int = L,
    log_std: bool = True,
    dtype: torch.dtype = torch.float64,
) -> Network:
    """Networks with weights about as large as a policy's, and checkpoints far apart."""
    layout = ParamLayout.mlp("actor", [O, *hidden_sizes, A])
    if log_std:
        layout = ParamLayout.actor(O, A, hidden_sizes)
    generator = torch.Generator().manual_seed(1)
    params = torch.randn(batch, length, layout.size, generator=generator).to(dtype)
    network = Network.from_flat(params, layout)
    for weight in network.weights:
        weight *= 1.4 / math.sqrt(max(weight.shape[-2:]))
    network.weights[-1].mul_(0.05)
    return network


def conditions(batch: int = B, length: int = L, dtype: torch.dtype = torch.float64) -> Conditions:
    """Horizons and returns differ; of each second checkpoint the return is unknown."""
    generator = torch.Generator().manual_seed(2)
    later_return = torch.randn(batch, length, generator=generator)
    later_return[:, 1::2] = torch.nan
    return Conditions(
        torch.arange(length).expand(batch, length).to(dtype),
        torch.randint(1, T - length, (batch, length), generator=generator).to(dtype),
        later_return.to(dtype),
    )


def permuted(network: Network, layer: int, order: Tensor) -> Network:
    """The same networks with another order of the units of a layer, 0 of the inputs."""
    weights, biases, log_std = list(network.weights), list(network.biases), network.log_std
    if layer > 0:
        weights[layer - 1] = weights[layer - 1][:, :, order]
        biases[layer - 1] = biases[layer - 1][:, :, order]
    if layer < len(weights):
        weights[layer] = weights[layer][..., order]
    elif log_std is not None:
        log_std = log_std[..., order]
    return Network(weights, biases, log_std)


def sliced(network: Network, index: Any) -> Network:
    """Some of the networks or of their checkpoints."""
    return network.map(lambda array: array[index])


def sliced_conditions(asked: Conditions, index: Any) -> Conditions:
    return Conditions(asked.checkpoint[index], asked.horizon[index], asked.later_return[index])


def assert_close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    """Closeness in units of the largest entry."""
    torch.testing.assert_close(
        found, expected, rtol=0.0, atol=tolerance * expected.abs().max().item()
    )


# --- what is the same ------------------------------------------------------------------------


@contexts
@architectures
@pytest.mark.parametrize(
    ("dtype", "memory", "tolerance"),
    [
        *[(torch.float64, 0, 1e-9), (torch.float64, 40, 1e-9)],
        *[(torch.float32, 0, 1e-4), (torch.float32, 40, 5e-3)],  # a linear system loses digits
    ],
)
@torch.inference_mode()
def test_permuting_hidden_units_permutes_the_change(
    context: int,
    hidden_sizes: tuple[int, ...],
    dtype: torch.dtype,
    memory: int,
    tolerance: float,
) -> None:
    model, asked = random_model(dtype, context=context, memory=memory), conditions(dtype=dtype)
    network = random_network(hidden_sizes, dtype=dtype)
    change = model(network, asked)
    for layer, size in enumerate(hidden_sizes, start=1):
        order = torch.randperm(size, generator=torch.Generator().manual_seed(layer))
        expected = permuted(change, layer, order).flat()
        assert_close(model(permuted(network, layer, order), asked).flat(), expected, tolerance)
        assert (expected - change.flat()).abs().max() > 0.01 * expected.abs().max()


@contexts
@architectures
@torch.inference_mode()
def test_inputs_and_outputs_have_an_identity(context: int, hidden_sizes: tuple[int, ...]) -> None:
    model, asked, network = (
        random_model(context=context),
        conditions(),
        random_network(hidden_sizes),
    )
    change = model(network, asked)
    for layer, size in ((0, O), (len(hidden_sizes) + 1, A)):
        order = torch.arange(size).roll(1)
        found = model(permuted(network, layer, order), asked).flat()
        expected = permuted(change, layer, order).flat()
        difference = (found - expected).abs().amax(dim=-1)
        assert difference.min() > 0.01 * expected.abs().max()


@contexts
@pytest.mark.parametrize(
    ("memory", "dtype", "tolerance"), [(0, torch.float32, 1e-5), (40, torch.float64, 1e-9)]
)
@pytest.mark.parametrize(("hidden_sizes", "batch"), [((8, 12, 10), 4), ((16,), 3), ((64, 64), 32)])
@torch.inference_mode()
def test_networks_of_a_batch_do_not_see_each_other(
    context: int,
    memory: int,
    dtype: torch.dtype,
    tolerance: float,
    hidden_sizes: tuple[int, ...],
    batch: int,
) -> None:
    model = random_model(dtype, context=context, memory=memory)
    network = random_network(hidden_sizes, batch, length=3, dtype=dtype)
    asked = conditions(batch, length=3, dtype=dtype)
    together = model(network, asked).flat()
    for n in range(batch):
        one = slice(n, n + 1)
        alone = model(sliced(network, one), sliced_conditions(asked, one)).flat()
        assert_close(alone[0], together[n], tolerance)


@contexts
@pytest.mark.parametrize("changed", range(L))
@torch.inference_mode()
def test_a_checkpoint_changes_no_earlier_prediction(context: int, changed: int) -> None:
    model, asked, network = random_model(context=context), conditions(), random_network((8, 6))
    before = model(network, asked).flat()
    for tensor in network.arrays():
        tensor[:, changed] += 1
    after = model(network, asked).flat()
    seen_by = slice(changed, changed + 1) if context == 1 else slice(changed, L)
    blind = [n for n in range(L) if n not in range(L)[seen_by]]
    assert torch.equal(after[:, blind], before[:, blind])  # to the bit
    difference = (after - before)[:, seen_by].abs().amax(dim=2)
    assert difference.min() > 1e-4 * before.abs().max()


@contexts
@pytest.mark.parametrize("length", range(1, L))
@torch.inference_mode()
def test_the_first_changes_of_a_longer_history_are_those_of_a_shorter_one(
    context: int, length: int
) -> None:
    model, asked, network = random_model(context=context), conditions(), random_network((8, 12, 10))
    whole, cut = model(network, asked).flat(), (slice(None), slice(length))
    shorter = model(sliced(network, cut), sliced_conditions(asked, cut)).flat()
    assert_close(shorter, whole[cut], 1e-9)


def test_equal_seeds_give_equal_models() -> None:
    first, second, other = (new_model(seed, context=4).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


# --- architectures ---------------------------------------------------------------------------


@contexts
@memories
@torch.inference_mode()
def test_one_model_reads_networks_of_any_width_and_depth(context: int, memory: int) -> None:
    model = random_model(torch.float32, context=context, memory=memory)
    asked = conditions(length=2, dtype=torch.float32)
    for hidden_sizes in ((16,), (256,), (16, 256), (64, 64), (256, 256, 16), (17, 16, 33)):
        for log_std in (True, False):
            network = random_network(hidden_sizes, length=2, log_std=log_std, dtype=torch.float32)
            change = model(network, asked)
            assert [x.shape for x in change.arrays()] == [x.shape for x in network.arrays()]
            assert (change.log_std is None) == (not log_std)
            assert change.flat().isfinite().all()


@contexts
@torch.inference_mode()
def test_a_networks_log_std_is_read_but_need_not_be_there(context: int) -> None:
    model, asked, network = random_model(context=context), conditions(), random_network((8, 6))
    assert network.log_std is not None
    changes = [
        model(dataclasses.replace(network, log_std=log_std), asked)
        for log_std in (network.log_std, network.log_std + 1, 0 * network.log_std, None)
    ]
    arrays = [torch.cat([w.flatten() for w in change.weights]) for change in changes]
    assert (arrays[0] - arrays[1]).abs().max() > 1e-3 * arrays[0].abs().max()
    assert_close(arrays[3], arrays[2], 1e-12)  # one that is not there counts as 0


# --- conditions and scales -------------------------------------------------------------------


@contexts
@architectures
@pytest.mark.parametrize("field", ["checkpoint", "horizon", "later_return"])
@torch.inference_mode()
def test_every_condition_matters(context: int, hidden_sizes: tuple[int, ...], field: str) -> None:
    model, network, asked = (
        random_model(context=context),
        random_network(hidden_sizes),
        conditions(),
    )
    asked = dataclasses.replace(asked, later_return=torch.ones_like(asked.later_return))
    other = dataclasses.replace(asked, **{field: getattr(asked, field) + 1})
    before, after = model(network, asked).flat(), model(network, other).flat()
    assert (after - before).abs().amax(dim=-1).min() > 1e-4 * before.abs().max()


def test_conditions_are_features_in_units_of_a_whole_path() -> None:
    asked = Conditions(
        torch.tensor([[0.0, 11.0]]), torch.tensor([[1.0, 5.5]]), torch.tensor([[-0.7, torch.nan]])
    )
    expected = [
        [0.0, 1 / 11, 0.0, math.log(2) / 3, -0.7, 1.0],
        [1.0, 0.5, math.log(12) / 3, math.log(6.5) / 3, 0.0, 0.0],
    ]
    torch.testing.assert_close(asked.features(12)[0], torch.tensor(expected))


@contexts
@torch.inference_mode()
def test_an_unknown_return_is_not_a_return_of_zero(context: int) -> None:
    model, network, asked = random_model(context=context), random_network((8, 6)), conditions()
    unknown, zero = (
        model(
            network,
            dataclasses.replace(asked, later_return=torch.full((B, L), value).double()),
        ).flat()
        for value in (torch.nan, 0.0)
    )
    assert unknown.isfinite().all()
    assert (unknown - zero).abs().amax(dim=-1).min() > 1e-4 * zero.abs().max()


@pytest.mark.parametrize(
    ("hidden_sizes", "groups"), [((8,), (0, 2)), ((8, 6), (0, 1, 2)), ((8, 6, 7), (0, 1, 1, 2))]
)
@torch.inference_mode()
def test_changes_are_in_units_of_the_scales_of_the_horizon(
    hidden_sizes: tuple[int, ...], groups: tuple[int, ...]
) -> None:
    model, network = random_model(), random_network(hidden_sizes)
    horizon = torch.tensor([[1, 3, 2, T - 1, T + 5], [3, 3, 1, 2, 4]])
    asked = dataclasses.replace(conditions(), horizon=horizon.double())
    generator = torch.Generator().manual_seed(3)
    change_scale = 0.5 + torch.rand(T, 3, 2, generator=generator)
    log_std_scale = 0.5 + torch.rand(T, generator=generator)
    scaled = NeuronTransformer(model.config, change_scale, log_std_scale).double()
    scaled.load_state_dict(dict(model.named_parameters()), strict=False)
    plain, found = model(network, asked), scaled(network, asked)
    rows = change_scale[horizon.clamp(max=T - 1)].double()  # [B, L, 3, 2]
    expected = Network(
        [w * rows[:, :, g, 0, None, None] for w, g in zip(plain.weights, groups, strict=True)],
        [b * rows[:, :, g, 1, None] for b, g in zip(plain.biases, groups, strict=True)],
        plain.log_std * log_std_scale[horizon.clamp(max=T - 1)].double()[..., None],
    )
    assert_close(found.flat(), expected.flat(), 1e-12)


@pytest.mark.parametrize("log_std", [True, False])
@torch.inference_mode()
def test_scales_of_weights_shrink_with_the_units_that_are_summed(log_std: bool) -> None:
    change_scale = torch.tensor([[[2.0, 3.0], [5.0, 7.0], [11.0, 13.0]]]).expand(T, -1, -1)
    log_std_scale = torch.arange(T).float()
    model = NeuronTransformer(new_model().config, change_scale, log_std_scale)
    network = random_network((32, 64, 128), log_std=log_std)
    scales = model.scales(network, conditions().horizon)
    expected_weights = (2.0, 5.0 * 2, 5.0, 11.0 / 2)  # of 64 inputs it is as given
    for scale, expected in zip(scales.weights, expected_weights, strict=True):
        assert torch.equal(scale, torch.full((B, L, 1, 1), expected))
    for scale, expected in zip(scales.biases, (3.0, 7.0, 7.0, 13.0), strict=True):
        assert torch.equal(scale, torch.full((B, L, 1), expected))
    if log_std:
        assert torch.equal(scales.log_std[..., 0], conditions().horizon.float())
    else:
        assert scales.log_std is None


# --- lines through the past ------------------------------------------------------------------


@architectures
@torch.inference_mode()
def test_lines_through_a_constant_history_are_zero(hidden_sizes: tuple[int, ...]) -> None:
    model, asked, network = random_model(context=4), conditions(), random_network(hidden_sizes)
    constant = sliced(network, (slice(None), [0] * L))
    lines = []
    for history in (constant, network):
        with_lines = model(history, asked).flat()
        gain = model.line_gain.clone()
        model.line_gain.zero_()
        without = model(history, asked).flat()
        model.line_gain.copy_(gain)
        lines.append((with_lines - without).abs().amax(dim=-1) / without.abs().max())
    assert lines[0].max() < 1e-12
    assert not lines[1][:, 0].any()  # of one checkpoint there is no past
    assert lines[1][:, 1:].min() > 1e-3


@torch.inference_mode()
def test_lines_through_a_straight_history_are_that_line() -> None:
    """With the same weight 1 for each past checkpoint, their sum can be computed by hand."""
    model, first = random_model(context=4), random_network((8, 6), length=1).flat()
    direction = torch.randn(first.shape, generator=torch.Generator().manual_seed(4)).double()
    time = torch.tensor([[0, 1, 3, 4, 8], [2, 3, 4, 5, 6]]).double()
    layout = ParamLayout.actor(O, A, (8, 6))
    network = Network.from_flat(first + time[..., None] * direction, layout)
    horizon = torch.tensor([[3, 1, 8, 6, 4], [1, 5, 3, 11, 2]]).double()
    asked = dataclasses.replace(conditions(), checkpoint=time, horizon=horizon)
    for layer, bias in ((model.line_query, 1.0), (model.line_key, 1 / math.sqrt(WIDTH))):
        layer.weight.zero_()
        layer.bias.fill_(bias)
    changes = []
    for gain in (0.0, 1.0):
        model.line_gain.fill_(gain)
        changes.append(model(network, asked).flat())
    # at most four times as far ahead as the line is long
    steps = [
        [sum(min(h, 4 * (t - past)) for past in times[:n]) for n, (t, h) in enumerate(row)]
        for times, row in (
            (times, list(zip(times, horizons, strict=True)))
            for times, horizons in zip(time.tolist(), horizon.tolist(), strict=True)
        )
    ]
    expected = torch.tensor(steps).double()[..., None] * direction
    assert_close(changes[1] - changes[0], expected, 1e-12)


# --- output layers that are fitted -----------------------------------------------------------


@contexts
@architectures
@torch.inference_mode()
def test_a_model_with_a_memory_fits_the_output_layers_of_what_it_predicts(
    context: int, hidden_sizes: tuple[int, ...]
) -> None:
    model = random_model(context=context, memory=40)
    network, asked, readout = random_network(hidden_sizes), conditions(), model.readout
    assert readout is not None
    fitted = network + model(network, asked)
    model.readout = None
    predicted = network + model(network, asked)
    assert_close(fitted.flat(), readout(predicted).flat(), 1e-12)
    assert (fitted - predicted).flat().abs().max() > 0.01
    missed = [
        (net.outputs(readout.observations.expand(B, L, -1, -1)) - readout.outputs)
        .square()
        .mean(dim=(-2, -1))
        for net in (fitted, predicted)
    ]
    assert (missed[0] < missed[1]).all()


def test_a_model_remembers_as_many_observations_as_it_was_made_for() -> None:
    assert new_model().readout is None
    readout = new_model(memory=7).readout
    assert readout is not None
    assert (readout.observations.shape, readout.outputs.shape) == ((7, O), (7, A))


# --- learning --------------------------------------------------------------------------------


@contexts
@memories
def test_gradients_reach_every_parameter(context: int, memory: int) -> None:
    model, asked = random_model(context=context, memory=memory), conditions()
    generator = torch.Generator().manual_seed(5)
    for hidden_sizes in ((8,), (8, 8), (8, 8, 8)):
        change = model(random_network(hidden_sizes), asked).flat()
        (change * torch.randn(change.shape, generator=generator)).sum().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    for name, gradient in gradients.items():
        assert gradient is not None, name
        assert gradient.isfinite().all(), name
        assert gradient.any(), name
    for name in ("input_identity", "output_identity", "gain"):  # each entry is used
        assert gradients[name].all(), name
    # n hidden layers use the first n identities of row n
    assert torch.equal(gradients["layer_identity"].any(dim=-1), torch.ones(3, 3).tril().bool())
