"""NeuronTransformerForecaster: networks of any width, two targets, and clear refusals."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rounding import assert_equal_but_for_rounding
from tipl.core import storage
from tipl.envs.factory import measure_task
from tipl.errors import TiplError
from tipl.forecast.base import Forecaster, Target
from tipl.models.network import Network
from tipl.models.neuron_transformer import forecaster as neuron_transformer
from tipl.models.neuron_transformer.forecaster import (
    NeuronTransformerForecaster,
    context_checkpoints,
)
from tipl.models.neuron_transformer.net import (
    Conditions,
    NeuronTransformer,
    NeuronTransformerConfig,
)
from tipl.policies.actions import refolded
from tipl.policies.layout import ParamLayout, actor_layout
from tipl.policies.policy import Policy
from tipl.policies.tasks import TaskSpec, get_task

Array = np.ndarray[Any, np.dtype[Any]]

TASK = get_task("InvertedPendulum-v4")
STEPS = {"sums": 3 * 18, "terms": 32}
"""Of the rounding in a model of width 8: three steps, each of a round through three layers and
back, with sums over states, messages and twice the width in between."""

HIDDEN = (6, 5)
LAYOUT = actor_layout(TASK, HIDDEN)
T, CONTEXT = 12, 4  # checkpoints of a training path, checkpoints that `own` attends to
TARGETS: tuple[Target, ...] = ("elite", "own")

both_targets = pytest.mark.parametrize("target", TARGETS)


def make_model(target: Target, task: TaskSpec, seed: int, **changes: Any) -> NeuronTransformer:
    """A model with noise on every parameter, so that none is zero; its memory is random, too."""
    fields: dict[str, Any] = {
        "observation_size": task.observation_size, "action_size": task.action_size,
        "num_checkpoints": T, "width": 8, "rounds": 1, "heads": 2,
        "context": CONTEXT if target == "own" else 1,
    }  # fmt: skip
    torch.manual_seed(seed)
    scales = torch.linspace(0.002, 0.008, T)
    model = NeuronTransformer(
        NeuronTransformerConfig(**fields | changes), scales[:, None, None].expand(T, 3, 2), scales
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    if model.readout is not None:
        shapes = model.readout.observations.shape, model.readout.outputs.shape
        model.readout.remember(*(torch.randn(shape) for shape in shapes))
    return model


def make_forecaster(
    *targets: Target, task: TaskSpec = TASK, returns: bool = True, **changes: Any
) -> NeuronTransformerForecaster:
    """A forecaster with random weights of some targets, by default of both."""
    models = {
        target: make_model(target, task, seed, **changes)
        for seed, target in enumerate(targets or TARGETS)
    }
    settings = {"train": {"condition_on_return": returns}}
    return NeuronTransformerForecaster(models, task, HIDDEN, T, (50.0, 20.0), settings)


@pytest.fixture
def one_jump(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forecasts are single passes of the model."""
    monkeypatch.setattr(neuron_transformer, "JUMPS", dict.fromkeys(TARGETS, 1))


def policies(*hidden_sizes: tuple[int, ...], task: TaskSpec = TASK) -> list[Policy]:
    """Fresh policies with some noise on all weights."""
    made = [Policy.initial(task, seed, hidden) for seed, hidden in enumerate(hidden_sizes)]
    rng = np.random.default_rng(0)
    noise = [rng.normal(0, 0.1, policy.layout.size).astype(np.float32) for policy in made]
    return [policy.with_params(policy.params + n) for policy, n in zip(made, noise, strict=True)]


def random_paths(*shape: int, layout: ParamLayout = LAYOUT) -> Array:
    """Random walks `[..., T, P]` from random networks."""
    walks = np.random.default_rng(0).normal(0, 0.1, (*shape, layout.size)).cumsum(axis=-2)
    return np.asarray(walks, np.float32)


@dataclasses.dataclass
class Asked:
    """What a model is asked: `[B, L]` each, of one pass after another."""

    checkpoints: list[Array] = dataclasses.field(default_factory=list)
    horizons: list[Array] = dataclasses.field(default_factory=list)
    returns: list[Array] = dataclasses.field(default_factory=list)


def spy_on(model: NeuronTransformer) -> Asked:
    asked = Asked()

    def note(_: Any, inputs: tuple[Any, ...]) -> None:
        conditions = inputs[1]
        asked.checkpoints.append(conditions.checkpoint.numpy().copy())
        asked.horizons.append(conditions.horizon.numpy().copy())
        asked.returns.append(conditions.later_return.numpy().copy())

    model.register_forward_pre_hook(note)
    return asked


# --- what is read ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "context", "chosen"),
    [
        *[(1, context, [0]) for context in (1, 2, 4)],
        *[(2, 1, [1]), (2, 2, [0, 1]), (2, 4, [0, 1])],
        *[(5, 1, [4]), (5, 2, [0, 4]), (5, 3, [0, 3, 4]), (5, 4, [0, 1, 3, 4])],
        *[(31, 1, [30]), (31, 2, [0, 30]), (31, 4, [0, 27, 29, 30])],
        (31, 6, [0, 15, 23, 27, 29, 30]),
    ],
)
def test_the_last_checkpoints_and_the_first_are_read(
    length: int, context: int, chosen: list[int]
) -> None:
    assert context_checkpoints(range(length), context) == tuple(chosen)


@pytest.mark.parametrize(
    ("times", "context", "chosen"),
    [
        ([0, 6], 4, [0, 1]),
        ([0, 4, 7], 2, [0, 2]),
        ([0, 4, 7], 3, [0, 1, 2]),
        ([0, 2, 4, 6], 3, [0, 2, 3]),  # 4 and 6 are as near to 5: the earlier one counts
        ([0, 2, 4, 6], 4, [0, 1, 2, 3]),
        ([0, 10, 20, 30, 40], 3, [0, 3, 4]),  # nearest to 39 is the last itself: one more
        ([0, 10, 20, 30, 40], 4, [0, 2, 3, 4]),
        ([0, 1, 2, 3, 4, 19, 20], 4, [0, 4, 5, 6]),  # 19 is the nearest to 17 as well: one more
        ([0, 10, 13, 16, 18, 19, 20], 4, [0, 3, 5, 6]),  # 16 and 18 are as near to 17
        ([0, 14, 17, 19, 20], 4, [0, 2, 3, 4]),
        ([5, 6, 8, 12, 13], 5, [0, 1, 2, 3, 4]),
        ([5, 6, 8, 12, 13], 4, [0, 2, 3, 4]),
    ],
)
def test_checkpoints_are_chosen_by_their_times(
    times: list[int], context: int, chosen: list[int]
) -> None:
    assert context_checkpoints(tuple(times), context) == tuple(chosen)
    assert context_checkpoints(tuple(times), 1) == (len(times) - 1,)


@pytest.mark.parametrize("context", [1, 2, 3, 4, 6, 9])
def test_as_many_checkpoints_are_read_as_there_are_and_as_are_allowed(context: int) -> None:
    rng = np.random.default_rng(0)
    for length in range(1, 12):
        times = np.sort(rng.choice(40, length, replace=False)).tolist()
        chosen = context_checkpoints(tuple(times), context)
        assert len(chosen) == min(length, context)
        assert list(chosen) == sorted(set(chosen))
        assert chosen[-1] == length - 1
        assert context == 1 or chosen[0] == 0


@pytest.mark.usefixtures("one_jump")
def test_forecasts_depend_on_the_checkpoints_that_are_read_alone() -> None:
    model, history = make_forecaster().with_options("own"), random_paths(10)
    read = list(context_checkpoints(range(10), CONTEXT))
    expected = model.forecast(history, 3)
    for checkpoint in range(10):
        changed = history.copy()
        changed[checkpoint] += 1
        equal = (model.forecast(changed, 3) == expected).all()
        assert equal == (checkpoint not in read)


def test_the_elite_is_forecast_from_the_last_checkpoint_alone() -> None:
    model, history = make_forecaster().with_options("elite"), random_paths(6)
    asked = spy_on(model.models["elite"])
    expected = model.forecast(history[-1:], T - 1)
    np.testing.assert_array_equal(model.forecast(history, [1, 5]), [expected, expected])
    assert all(values.tolist() == [[0]] for values in asked.checkpoints)
    assert all(values.tolist() == [[T - 1]] for values in asked.horizons)


@both_targets
@pytest.mark.usefixtures("one_jump")
def test_a_forecast_is_the_last_checkpoint_and_its_predicted_change(target: Target) -> None:
    model, history = make_forecaster(target), random_paths(10)
    read = list(context_checkpoints(range(10), CONTEXT if target == "own" else 1))
    times = torch.tensor([read]).float() if target == "own" else torch.zeros(1, 1)
    ahead = torch.full_like(times, 3.0 if target == "own" else T - 1)
    network = Network.from_flat(torch.from_numpy(history[read])[None], LAYOUT)
    with torch.no_grad():
        asked = Conditions(times, ahead, torch.full_like(times, torch.nan))
        change = model.models[target](network, asked).flat()[0, -1].numpy()
    assert_equal_but_for_rounding(model.forecast(history, 3), history[-1] + change, **STEPS)


@pytest.mark.usefixtures("one_jump")
def test_a_model_is_told_where_it_is_and_how_far_to_go() -> None:
    model = make_forecaster("own")
    asked = spy_on(model.models["own"])
    model.forecast(random_paths(2, 10), [3, 1])
    assert [values.tolist() for values in asked.checkpoints] == [[[0, 6, 8, 9]] * 2] * 2
    assert [values.tolist() for values in asked.horizons] == [[[3] * 4] * 2, [[1] * 4] * 2]
    assert np.isnan(asked.returns).all()


# --- what is forecast ------------------------------------------------------------------------


@both_targets
@pytest.mark.parametrize("batch", [(), (3,), (2, 2)])
def test_shapes(target: Target, batch: tuple[int, ...]) -> None:
    model, history = make_forecaster(target), random_paths(*batch, 5)
    one, several = model.forecast(history, 2), model.forecast(history, [1, 2, 5])
    assert one.shape == (*batch, LAYOUT.size)
    assert several.shape == (*batch, 3, LAYOUT.size)
    assert one.dtype == several.dtype == np.float32
    assert (one != history[..., -1, :]).all()


def test_several_horizons_are_each_alone() -> None:
    model, history = make_forecaster("own"), random_paths(2, 5)
    together = model.forecast(history, [5, 1, 5, 3])
    for place, horizon in enumerate([5, 1, 5, 3]):
        np.testing.assert_array_equal(together[:, place], model.forecast(history, horizon))
    assert (together[:, 0] != together[:, 1]).any()


@both_targets
@pytest.mark.parametrize("hidden_sizes", [(3,), (7, 2), (4, 3, 5)])
def test_networks_of_another_architecture_are_forecast_with_their_layout(
    target: Target, hidden_sizes: tuple[int, ...]
) -> None:
    model, layout = make_forecaster(target), actor_layout(TASK, hidden_sizes)
    history = random_paths(2, 3, layout=layout)
    assert model.forecast(history, 1, layout=layout).shape == (2, layout.size)
    message = (
        rf"history of {layout.size} parameters was given, but .* reads networks with hidden layers "
        rf"of \(6, 5\) tanh units here, of {LAYOUT.size} parameters; give the layout"
    )
    with pytest.raises(TiplError, match=message):
        model.forecast(history, 1)


@both_targets
def test_the_default_layout_is_that_of_the_training_paths(target: Target) -> None:
    model, history = make_forecaster(target), random_paths(2, 3)
    expected = model.forecast(history, 2, layout=LAYOUT)
    np.testing.assert_array_equal(model.forecast(history, 2), expected)
    message = rf"of {LAYOUT.size - 1} parameters .* \(6, 5\) .* {LAYOUT.size} parameters; give the"
    with pytest.raises(TiplError, match=message):
        model.forecast(history[..., 1:], 2, layout=LAYOUT)


@pytest.mark.usefixtures("one_jump")
@both_targets
@pytest.mark.parametrize("at_once", [1, 2 * CONTEXT * LAYOUT.size])
def test_histories_in_blocks_are_forecast_as_together(
    monkeypatch: pytest.MonkeyPatch, target: Target, at_once: int
) -> None:
    model, histories = make_forecaster(target), random_paths(5, 9)
    together = model.forecast(histories, 4)
    monkeypatch.setattr(neuron_transformer, "MAX_PARAMS_AT_ONCE", at_once)
    asked = spy_on(model.models[target])
    assert_equal_but_for_rounding(model.forecast(histories, 4), together, **STEPS)
    read = CONTEXT if target == "own" else 1
    blocks = [len(values) for values in asked.checkpoints]
    assert all(block == 1 or block * read * LAYOUT.size <= at_once for block in blocks)
    assert len(blocks) == (5 if at_once == 1 else 3 if target == "own" else 1)


def test_long_jumps_are_several_by_default() -> None:
    model, history = make_forecaster(), random_paths(3)
    cases: list[tuple[Target, list[list[int]], list[int]]] = [
        ("own", [[0, 1, 2], [0, 1, 2, 5], [0, 2, 5, 8]], [3, 3, 3]),
        ("elite", [[0], [0]], [T - 1] * 2),
    ]
    for target, read, jumps in cases:
        asked = spy_on(model.models[target])
        model.with_options(target).forecast(history, 9)
        assert len(asked.horizons) == neuron_transformer.JUMPS[target]
        assert [values[0, 0] for values in asked.horizons] == jumps
        assert [values[0].tolist() for values in asked.checkpoints] == read
    asked = spy_on(model.models["own"])
    model.with_options("own").forecast(history, 2)  # no more jumps than checkpoints
    assert [values[0, 0] for values in asked.horizons] == [1, 1]


# --- optimising policies ---------------------------------------------------------------------


@both_targets
def test_a_policy_is_optimised_by_the_forecast_of_its_weights(target: Target) -> None:
    model, (policy,) = make_forecaster(target), policies((4, 3))
    before = policy.params.copy()
    for horizon in (None, 1, 5):
        better = model.optimize(policy, horizon)
        expected = model.forecast(policy.params[None], horizon or T - 1, layout=policy.layout)
        np.testing.assert_array_equal(better.params, expected)
        assert (better.layout, better.task) == (policy.layout, policy.task)
    np.testing.assert_array_equal(policy.params, before)


@both_targets
@pytest.mark.parametrize("hidden_sizes", [(6,), (6, 5), (5, 6, 4)])
def test_the_order_of_hidden_units_does_not_matter(
    target: Target, hidden_sizes: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(1)
    (policy,) = policies(hidden_sizes)
    orders = [np.arange(4), *(rng.permutation(size) for size in hidden_sizes), np.arange(1)]

    def permuted(params: Array) -> Array:
        params = params.copy()
        arrays = policy.layout.unflatten(params)
        for layer, (before, after) in enumerate(pairwise(orders)):
            arrays[f"actor.{layer}.weight"][:] = arrays[f"actor.{layer}.weight"][after][:, before]
            arrays[f"actor.{layer}.bias"][:] = arrays[f"actor.{layer}.bias"][after]
        return params

    model = make_forecaster(target)
    other = policy.with_params(permuted(policy.params))
    assert (other.params != policy.params).any()
    for steps in (1, 3):
        better = permuted(model.optimize(policy, steps=steps).params)
        assert_equal_but_for_rounding(model.optimize(other, steps=steps).params, better, **STEPS)


@both_targets
@pytest.mark.parametrize("steps", [1, 3])
def test_policies_of_all_architectures_are_optimised_as_each_alone(
    target: Target, steps: int
) -> None:
    model = make_forecaster(target)
    mixed = policies((6, 5), (3,), (6, 5), (4, 3, 2), (3,), (5, 6))
    asked = spy_on(model.models[target])
    better = model.optimize(mixed, 6, steps=steps)
    assert len(asked.horizons) == 4 * steps  # those of one architecture share the work
    assert [policy.layout for policy in better] == [policy.layout for policy in mixed]
    for one, policy in zip(better, mixed, strict=True):
        alone = model.optimize(policy, 6, steps=steps)
        assert_equal_but_for_rounding(one.params, alone.params, **STEPS)
    assert model.optimize([], 6) == []


def test_steps_to_the_own_future_read_the_forecasts_before_them() -> None:
    model, (policy,) = make_forecaster("own"), policies((4, 3))
    history = policy.params[None]
    for _ in range(6):  # one checkpoint each
        ahead = model.forecast(history, 1, layout=policy.layout)
        history = np.concatenate([history, ahead[None]])
    better = model.optimize(policy, 6, steps=6)
    assert_equal_but_for_rounding(better.params, history[-1], **STEPS)


@pytest.mark.parametrize(
    ("horizon", "steps", "times", "jumps"),
    [
        (11, 1, [[0]], [11]),
        (11, 2, [[0], [0, 6]], [6, 5]),
        (11, 3, [[0], [0, 4], [0, 4, 7]], [4, 3, 4]),
        (8, 4, [[0], [0, 2], [0, 2, 4], [0, 2, 4, 6]], [2, 2, 2, 2]),
    ],
)
def test_steps_to_the_own_future_share_the_horizon(
    horizon: int, steps: int, times: list[list[int]], jumps: list[int]
) -> None:
    model = make_forecaster("own")
    asked = spy_on(model.models["own"])
    model.optimize(policies((4,))[0], horizon, steps=steps)
    assert [values[0].tolist() for values in asked.checkpoints] == times
    assert [values[0, -1] for values in asked.horizons] == jumps


@pytest.mark.parametrize("horizon", [None, 3])
def test_steps_to_the_elite_repeat_the_whole_jump(horizon: int | None) -> None:
    model, (policy,) = make_forecaster("elite"), policies((4, 3))
    expected = policy
    for _ in range(3):
        expected = model.optimize(expected, steps=1)
    better = model.optimize(policy, horizon, steps=3)
    assert_equal_but_for_rounding(better.params, expected.params, **STEPS)


@both_targets
@pytest.mark.parametrize(("horizon", "steps"), [(5, 0), (5, -1), (5, 6), (0, 1), (None, T)])
def test_steps_and_horizons_out_of_range_are_refused(
    target: Target, horizon: int | None, steps: int
) -> None:
    message = rf"{steps} steps were given for a horizon of {horizon or T - 1} .* from 1 step to as"
    if horizon == 0:
        message = r"a horizon of 0 was given; expected 1 or more"
    with pytest.raises(TiplError, match=message):
        make_forecaster(target).optimize(policies((4,))[0], horizon, steps=steps)


# --- targets and returns ---------------------------------------------------------------------


def test_each_target_is_a_model_of_its_own() -> None:
    both, history = make_forecaster(), random_paths(3)
    assert (both.targets, both.target) == (("elite", "own"), "elite")
    forecasts = []
    for target in TARGETS:
        chosen = both.with_options(target)
        assert (chosen.target, chosen.name) == (target, f"NeuronTransformer ({target})")
        forecasts.append(chosen.forecast(history, T - 1))
        alone = NeuronTransformerForecaster({target: both.models[target]}, TASK, HIDDEN, T)
        assert (alone.targets, alone.target, alone.name) == ((target,), target, chosen.name)
        np.testing.assert_array_equal(alone.forecast(history, T - 1), forecasts[-1])
        policy = policies((4,))[0]
        better = both.optimize(policy, target=target)
        np.testing.assert_array_equal(better.params, chosen.optimize(policy).params)
    assert (forecasts[0] != forecasts[1]).any()
    assert both.target == "elite"  # asked for something else, it is the same
    assert both.with_options("own").with_options().target == "own"


@pytest.mark.parametrize(("trained", "target"), [("own", "elite"), ("elite", "own")])
def test_a_target_that_was_not_learned_is_refused(trained: Target, target: Target) -> None:
    message = rf"target '{target}' was given, .* trained for {trained}; use one of these, or train"
    model = make_forecaster(trained)
    with pytest.raises(TiplError, match=message):
        model.with_options(target)
    with pytest.raises(TiplError, match=message):
        model.optimize(policies((4,))[0], target=target)


def test_a_policy_whose_physics_are_scaled_by_one_is_read() -> None:
    model, (policy,) = make_forecaster(), policies((4,))
    same = Policy(policy.params, policy.layout, TASK.with_physics({"gravity": 1.0}))
    np.testing.assert_array_equal(model.optimize(same).params, model.optimize(policy).params)


def test_a_wished_return_is_told_to_the_model() -> None:
    model, (policy,) = make_forecaster("own"), policies((4,))
    asked = spy_on(model.models["own"])
    better = [
        model.optimize(policy, wished_return=wish, steps=2).params for wish in (None, 90.0, 20.0)
    ]
    told = [values.ravel().tolist() for values in asked.returns]
    assert np.isnan(np.concatenate(told[:2])).all()
    assert told[2:] == [[2.0], [2.0, 2.0], [-1.5], [-1.5, -1.5]]  # in stds from the mean
    assert all((better[a] != better[b]).any() for a, b in ((0, 1), (0, 2), (1, 2)))
    assert model.wished_return is None
    wishing = model.with_options(wished_return=90.0)
    np.testing.assert_array_equal(wishing.optimize(policy, steps=2).params, better[1])


def test_the_elite_is_not_told_a_return_that_was_wished_of_the_own_future() -> None:
    model, (policy,) = make_forecaster(), policies((4,))
    wishing = model.with_options("own", wished_return=90.0).with_options("elite")
    expected = model.optimize(policy, target="elite")
    np.testing.assert_array_equal(wishing.optimize(policy).params, expected.params)
    assert (wishing.name, wishing.wished_return) == ("NeuronTransformer (elite)", None)


@pytest.mark.parametrize(
    ("returns", "high", "wishes"),
    [(True, None, [None, None, 70.0]), (True, 60.0, [None, None, 60.0]), (False, 60.0, [None] * 2)],
    ids=["one deviation above the mean", "a high one in training", "no returns known"],
)
def test_all_ways_are_the_targets_and_a_high_return(
    returns: bool, high: float | None, wishes: list[float | None]
) -> None:
    model = make_forecaster(returns=returns)
    if high is not None:
        model.settings["high_return"] = high
    ways = model.all_ways()
    assert [asked.target for asked in ways] == ["elite", "own", "own"][: len(wishes)]
    assert [asked.wished_return for asked in ways] == wishes
    assert len({asked.name for asked in ways}) == len(ways)
    assert model.wished_return is None


def test_a_forecaster_is_called_by_its_target_and_its_wish() -> None:
    model = make_forecaster()
    assert model.name == "NeuronTransformer (elite)"
    own = model.with_options("own")
    assert own.name == "NeuronTransformer (own)"
    wishing = own.with_options(wished_return=1234.5)
    assert wishing.name == "NeuronTransformer (own), return of 1,234.5 wished for"


@pytest.mark.parametrize(
    ("model", "target"),
    [
        (make_forecaster(returns=False), "own"),
        (make_forecaster(), "elite"),
        (NeuronTransformerForecaster(make_forecaster().models, TASK, HIDDEN, T), "own"),
    ],
    ids=["without returns", "elite", "no settings"],
)
def test_a_wish_that_cannot_be_told_is_refused(
    model: NeuronTransformerForecaster, target: Target
) -> None:
    message = rf"return of 9.0 is wished for, .* without returns \(target '{target}'\); train one"
    with pytest.raises(TiplError, match=message):
        model.with_options(target, wished_return=9.0)
    with pytest.raises(TiplError, match=message):
        model.optimize(policies((4,))[0], target=target, wished_return=9.0)


# --- what is not read ------------------------------------------------------------------------


def with_statistics(mean: float, std: float) -> Policy:
    """A policy with an observation normaliser of its own."""
    (policy,) = policies(HIDDEN)
    ones = np.ones(TASK.observation_size)
    shifted, scaled = policy.observation_mean + mean * ones, policy.observation_std * std
    return Policy(policy.params, policy.layout, TASK, shifted, scaled)


@both_targets
def test_policies_of_another_normaliser_are_rewritten_for_the_frozen_one(target: Target) -> None:
    model, given = make_forecaster(target), with_statistics(0.1, 1.3)
    frozen = TASK.observation_statistics
    own = given.observation_mean, given.observation_std
    expected = Policy(refolded(given.params, LAYOUT, own, frozen), LAYOUT, TASK)
    both = model.optimize([given, expected])
    np.testing.assert_allclose(both[0].params, both[1].params, atol=1e-6)
    np.testing.assert_array_equal(both[0].observation_mean, frozen[0])
    np.testing.assert_array_equal(both[0].observation_std, frozen[1])
    unclipped = Policy(expected.params, LAYOUT, TASK, observation_clip=math.inf)
    assert model.optimize(unclipped).observation_clip == 10.0


@both_targets
@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (Policy.initial("Hopper-v4", 0, HIDDEN), r"for Hopper-v4 was .* on Inv.*; use a model of"),
        (
            Policy.initial(TASK.with_physics({"gravity": 2.0}), 0, HIDDEN),
            r"InvertedPendulum-v4 with varied physics was .* without; use a policy of the original",
        ),
        (Policy.initial(TASK, 0, (3, 3, 3, 3)), r"4 hidden layers was given, .* reads 1 to 3; use"),
    ],
)
def test_policies_that_it_cannot_read_are_refused(
    target: Target, policy: Policy, message: str
) -> None:
    model = make_forecaster(target)
    for given in (policy, [*policies(HIDDEN), policy]):
        with pytest.raises(TiplError, match=message):
            model.optimize(given)


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (
            LAYOUT + ParamLayout.critic(4, HIDDEN),
            rf"laid out as {LAYOUT}, critic.0.weight 6x4, .* Inv\S+ alone: {LAYOUT}; .* a critic",
        ),
        (
            ParamLayout.mlp("actor", [4, *HIDDEN, 1]),
            rf"1x5, actor.2.bias 1 were given, .* actors of Inv\S+ alone: {LAYOUT}; give policies",
        ),
        (
            ParamLayout.actor(5, 1, HIDDEN),
            rf"as actor.0.weight 6x5, .* log_std 1 were given, .* Inv\S+ alone: {LAYOUT}; give",
        ),
        (actor_layout(TASK, ()), r"0 hidden layers was given, .* reads 1 to 3; use"),
        (actor_layout(TASK, (2, 2, 2, 2)), r"4 hidden layers was given, .* reads 1 to 3; use"),
    ],
)
def test_layouts_that_it_cannot_read_are_refused(layout: ParamLayout, message: str) -> None:
    history = random_paths(2, layout=layout)
    with pytest.raises(TiplError, match=message):
        make_forecaster().forecast(history, 1, layout=layout)


# --- on disk ---------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", [0, 9])
@pytest.mark.parametrize("targets", [("elite",), ("own",), ("elite", "own"), ("own", "elite")])
def test_a_saved_model_is_read_back(
    tmp_path: Path, targets: tuple[Target, ...], memory: int
) -> None:
    model, history = make_forecaster(*targets, memory=memory), random_paths(2, 6)
    model.save_pretrained(tmp_path / "model")
    for load in (Forecaster.from_pretrained, NeuronTransformerForecaster.from_pretrained):
        copy = load(tmp_path / "model")
        assert isinstance(copy, NeuronTransformerForecaster)
        for name in (
            "name", "layout", "task", "num_checkpoints", "hidden_sizes", "return_scale", "settings",
            "targets", "target", "min_history", "wished_return",
        ):  # fmt: skip
            assert getattr(copy, name) == getattr(model, name)
        for target in targets:
            assert copy.models[target].config == model.models[target].config
            assert not copy.models[target].training
            read, written = (m.models[target].state_dict() for m in (copy, model))
            assert read.keys() == written.keys()
            assert ("readout.observations" in read) == (memory > 0)
            assert all(torch.equal(read[name], written[name]) for name in written)
            found, expected = (
                m.with_options(target).forecast(history, [1, 7]) for m in (copy, model)
            )
            np.testing.assert_array_equal(found, expected)
    copy.save_pretrained(tmp_path / "again")
    for name in ("config.json", "model.safetensors"):
        again = (tmp_path / "again" / name).read_bytes()
        assert again == (tmp_path / "model" / name).read_bytes()


def test_a_model_from_before_there_were_memories_is_read(tmp_path: Path) -> None:
    model, history = make_forecaster(), random_paths(2, 6)
    model.save_pretrained(tmp_path / "model")
    config = storage.read_json(tmp_path / "model/config.json")
    for target in TARGETS:
        assert config["models"][target].pop("memory") == 0
    storage.write_json(tmp_path / "model/config.json", config)
    copy = Forecaster.from_pretrained(tmp_path / "model")
    np.testing.assert_array_equal(copy.forecast(history, 3), model.forecast(history, 3))


def truncate(directory: Path) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def change_a_byte(directory: Path) -> None:
    path = directory / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-50] ^= 1
    path.write_bytes(data)


def edit_the_config(directory: Path) -> None:
    path = directory / "config.json"
    path.write_text(path.read_text().replace('"width": 8', '"width": 16'))


def exchange_the_weights(*targets: Target, **changes: Any) -> Callable[[Path], None]:
    """Puts the weights of another model in the place of a model's own."""

    def exchange(directory: Path) -> None:
        make_forecaster(*targets, **changes).save_pretrained(directory.parent / "other")
        (directory.parent / "other/model.safetensors").replace(directory / "model.safetensors")

    return exchange


MISMATCH = r"model.safetensors is not of the model in the config.json .*; restore both .*train"


@pytest.mark.parametrize(
    ("targets", "damage", "message"),
    [
        (TARGETS, truncate, r"model.safetensors is damaged: .*; restore it from a copy, or delete"),
        (TARGETS, change_a_byte, r"model.safetensors is damaged: .* hash .*; restore it from a "),
        (TARGETS, edit_the_config, r"config.json is damaged: .* hash .*; restore it from a copy"),
        (TARGETS, lambda model: (model / "model.safetensors").unlink(), r"no .*model.safetensors"),
        (TARGETS, exchange_the_weights(width=16), MISMATCH),
        (TARGETS, exchange_the_weights(rounds=2), MISMATCH),
        (TARGETS, exchange_the_weights(memory=9), MISMATCH),
        (TARGETS, exchange_the_weights(task=get_task("Hopper-v4")), MISMATCH),
        (TARGETS, exchange_the_weights("own"), MISMATCH),  # that lack a target
        (("own",), exchange_the_weights(), MISMATCH),  # of a target too many
    ],
)
def test_damaged_and_exchanged_files_are_refused(
    tmp_path: Path, targets: tuple[Target, ...], damage: Callable[[Path], None], message: str
) -> None:
    make_forecaster(*targets).save_pretrained(tmp_path / "model")
    damage(tmp_path / "model")
    with pytest.raises(TiplError, match=message):
        Forecaster.from_pretrained(tmp_path / "model")


def test_the_files_say_what_they_are(tmp_path: Path) -> None:
    make_forecaster().save_pretrained(tmp_path / "model")
    config = storage.read_json(tmp_path / "model/config.json")
    assert (config["kind"], config["format_version"]) == ("NeuronTransformer", 1)
    assert config["models"].keys() == set(TARGETS)
    tensors, _ = storage.read_tensors(tmp_path / "model/model.safetensors")
    assert {name.split(".")[0] for name in tensors} == set(TARGETS)


# --- discrete actions ------------------------------------------------------------------------


@both_targets
def test_policies_with_discrete_actions_are_optimised(target: Target, tmp_path: Path) -> None:
    task = measure_task("CartPole-v1", num_envs=2, num_steps=50)
    make_forecaster(target, task=task).save_pretrained(tmp_path / "model")
    model = Forecaster.from_pretrained(tmp_path / "model")
    mixed = policies((5,), HIDDEN, (5,), task=task)
    for policy, better in zip(mixed, model.optimize(mixed, steps=2), strict=True):
        assert better.layout == policy.layout == actor_layout(task, policy.layout.hidden_sizes)
        assert (better.params != policy.params).any()
        assert better.act(np.zeros(4)) in (0, 1)
        alone = model.optimize(policy, steps=2)
        assert_equal_but_for_rounding(better.params, alone.params, **STEPS)
    history = random_paths(2, 3, layout=mixed[1].layout)
    assert model.forecast(history, [1, 2]).shape == (2, 2, mixed[1].layout.size)
