"""Layouts, initial networks, actions and files of policies."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rounding import assert_equal_but_for_rounding
from tipl.core import storage
from tipl.core.arrays import Array
from tipl.errors import TiplError
from tipl.models.network import Network
from tipl.policies.actions import OBSERVATION_CLIP, mlp_outputs, normalise_observations
from tipl.policies.activations import ACTIVATIONS
from tipl.policies.layout import (
    ParamLayout,
    actor_layout,
    initial_gain,
    initial_params,
    layer_group,
    layer_names,
)
from tipl.policies.policy import Policy
from tipl.policies.tasks import get_task
from tipl.ppo.networks import stacked_actors

PENDULUM, CHEETAH = "InvertedPendulum-v4", "HalfCheetah-v4"
LAYOUT = ParamLayout.actor(3, 2, (5, 4)) + ParamLayout.critic(3, (6,))


def random_policy(env_id: str = PENDULUM, seed: int = 0, log_std: float = -1.0) -> Policy:
    """A policy with large weights everywhere and a normaliser of its own."""
    rng = np.random.default_rng(seed)
    policy = Policy.initial(env_id, hidden=(16, 8))
    params = rng.normal(size=policy.layout.size).astype(np.float32)
    params[policy.layout.slices["log_std"]] = log_std
    size = policy.task.observation_size
    return Policy(
        params, policy.layout, policy.task, rng.normal(size=size), rng.uniform(0.5, 2.0, size)
    )


def random_observations(policy: Policy, *batch: int) -> np.ndarray:
    size = policy.task.observation_size
    return 3.0 * np.random.default_rng(7).normal(size=(*batch, size))


# --- layout --------------------------------------------------------------------------------


def test_layout_names_shapes_and_size() -> None:
    assert LAYOUT.names == (
        *("actor.0.weight", "actor.0.bias", "actor.1.weight", "actor.1.bias"),
        *("actor.2.weight", "actor.2.bias", "log_std"),
        *("critic.0.weight", "critic.0.bias", "critic.1.weight", "critic.1.bias"),
    )
    assert LAYOUT.shapes == (
        *((5, 3), (5,), (4, 5), (4,), (2, 4), (2,), (2,)),
        *((6, 3), (6,), (1, 6), (1,)),
    )
    assert LAYOUT.size == 20 + 24 + 10 + 2 + 24 + 7
    assert LAYOUT.slices["log_std"] == slice(54, 56)


@pytest.mark.parametrize("batch", [(), (7,), (2, 3)])
def test_unflatten_gives_views_of_every_parameter_once(batch: tuple[int, ...]) -> None:
    params = np.zeros((*batch, LAYOUT.size), np.float32)
    arrays = LAYOUT.unflatten(params)
    assert {name: array.shape for name, array in arrays.items()} == {
        name: (*batch, *shape) for name, shape in zip(LAYOUT.names, LAYOUT.shapes, strict=True)
    }
    for array in arrays.values():
        array += 1.0
    np.testing.assert_array_equal(params, 1.0)
    params[:] = np.arange(LAYOUT.size)
    np.testing.assert_array_equal(arrays["actor.0.weight"][..., 1, 2], 5.0)
    np.testing.assert_array_equal(arrays["critic.1.bias"][..., 0], LAYOUT.size - 1)


def test_layouts_are_readable() -> None:
    assert str(ParamLayout.actor(3, 2, (5,))) == (
        "actor.0.weight 5x3, actor.0.bias 5, actor.1.weight 2x5, actor.1.bias 2, log_std 2"
    )


@pytest.mark.parametrize("hidden_sizes", [(), (5,), (6, 4, 3)])
def test_layers_go_from_the_inputs_to_the_outputs(hidden_sizes: tuple[int, ...]) -> None:
    task = get_task(CHEETAH)
    sizes = (17, *hidden_sizes, 6)
    mean = ParamLayout.mlp("actor", sizes)
    assert mean.layer_shapes == list(zip(sizes[1:], sizes[:-1], strict=True))
    assert actor_layout(task, hidden_sizes) == mean + ParamLayout(("log_std",), ((6,),))
    discrete = dataclasses.replace(task, action_low=(), action_high=(), first_action=0)
    assert (mean + ParamLayout.critic(17, (5,))).layer_shapes == mean.layer_shapes
    assert actor_layout(discrete, hidden_sizes) == mean


def test_layers_have_names_kinds_and_gains() -> None:
    assert layer_names(LAYOUT.names, "critic") == [
        ("critic.0.weight", "critic.0.bias"),
        ("critic.1.weight", "critic.1.bias"),
    ]
    assert [weight for weight, _ in layer_names(LAYOUT.names)] == [
        *("actor.0.weight", "actor.1.weight", "actor.2.weight"),
    ]
    assert [layer_group(layer, 4) for layer in range(4)] == [0, 1, 1, 2]
    assert [initial_gain(layer, 3) for layer in range(3)] == [np.sqrt(2), np.sqrt(2), 0.01]
    assert initial_gain(2, 3, "critic") == 1


def test_layout_survives_json() -> None:
    text = json.dumps(LAYOUT.to_json())
    assert ParamLayout.from_json(json.loads(text)) == LAYOUT


@pytest.mark.parametrize("data", [[["log_std"]], [["log_std", 3]], [["log_std", ["wide"]]]])
def test_a_bad_layout_is_refused(data: list[list[Any]]) -> None:
    with pytest.raises(TiplError, match=r"a list of \[name, shape\] pairs"):
        ParamLayout.from_json(data)


def test_weights_that_are_no_matrix_are_refused() -> None:
    with pytest.raises(
        TiplError, match=r"weights 'actor.0.weight' .* not two axes; expected \[out"
    ):
        ParamLayout.from_json([["actor.0.weight", [1, 5, 4]], ["actor.0.bias", [5]]])


# --- initial networks ----------------------------------------------------------------------


@pytest.mark.parametrize("hidden_sizes", [(64, 64), (8,), (3, 9)])
def test_initial_weights_are_orthogonal_with_cleanrls_gains(hidden_sizes: tuple[int, ...]) -> None:
    layout = ParamLayout.actor(11, 6, hidden_sizes) + ParamLayout.critic(11, hidden_sizes)
    params = initial_params(layout, 0)
    assert params.dtype == np.float32
    last = len(hidden_sizes)
    for name, array in layout.unflatten(params).items():
        if not name.endswith("weight"):
            np.testing.assert_array_equal(array, 0.0)
            continue
        network, layer, _ = name.split(".")
        gain = {"actor": 0.01, "critic": 1.0}[network] if int(layer) == last else np.sqrt(2.0)
        wide = array if array.shape[0] <= array.shape[1] else array.T
        np.testing.assert_allclose(wide @ wide.T, gain**2 * np.eye(len(wide)), atol=1e-6 * gain**2)


def test_initial_weights_are_drawn_without_a_preferred_sign() -> None:
    layout = ParamLayout.mlp("actor", [4, 4, 1])
    corner = [layout.unflatten(initial_params(layout, s))["actor.0.weight"] for s in range(200)]
    assert abs((np.array(corner) > 0).mean(axis=0) - 0.5).max() < 0.15


def test_equal_seeds_give_equal_networks() -> None:
    params = initial_params(LAYOUT, (1, 2))
    assert initial_params(LAYOUT, (1, 2)).tobytes() == params.tobytes()
    for seed in ((1, 3), (2, 2), 1):
        assert not np.allclose(initial_params(LAYOUT, seed), params)


def test_initial_policies() -> None:
    policy = Policy.initial(PENDULUM, seed=1)
    assert policy.layout == ParamLayout.actor(4, 1, (64, 64))
    assert policy.task == get_task(PENDULUM)
    np.testing.assert_array_equal(policy.observation_mean, policy.task.observation_mean)
    np.testing.assert_array_equal(policy.observation_std, policy.task.observation_std)
    assert Policy.initial(get_task(PENDULUM), 1).params.tobytes() == policy.params.tobytes()
    assert Policy.initial(PENDULUM, 2).params.tobytes() != policy.params.tobytes()
    small = Policy.initial(CHEETAH, hidden=(5,))
    assert small.params.shape == (5 * 17 + 5 + 6 * 5 + 6 + 6,)


@pytest.mark.parametrize("hidden_sizes", [(), (64, 0), (-1,)])
def test_impossible_hidden_sizes_are_refused(hidden_sizes: tuple[int, ...]) -> None:
    with pytest.raises(TiplError, match=r"hidden sizes .* were given"):
        Policy.initial(PENDULUM, hidden=hidden_sizes)


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(TiplError, match="Pendulum-v99"):
        Policy.initial("Pendulum-v99")


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_a_normaliser_that_would_make_actions_nan_is_refused(bad: float) -> None:
    policy = random_policy()
    std = np.array([1.0, bad, 1.0, 1.0])
    with pytest.raises(TiplError, match=f"{bad} in .*_std.* standard deviations above 0"):
        Policy(policy.params, policy.layout, policy.task, np.zeros(4), std)
    if not np.isfinite(bad):
        with pytest.raises(TiplError, match=f"{bad} in .*_mean.* expected finite values"):
            Policy(policy.params, policy.layout, policy.task, std, np.ones(4))


# --- acting --------------------------------------------------------------------------------


def naive_mean(policy: Policy, observation: np.ndarray) -> np.ndarray:
    """The mean action `[A]` for one observation `[O]`, unit by unit, in float64."""
    arrays = policy.layout.unflatten(policy.params.astype(np.float64))
    x = (observation - policy.observation_mean) / policy.observation_std
    x = np.clip(x, -10, 10)
    for layer in range(3):
        weight, bias = arrays[f"actor.{layer}.weight"], arrays[f"actor.{layer}.bias"]
        x = np.array([row @ x + b for row, b in zip(weight, bias, strict=True)])
        if layer < 2:
            x = np.tanh(x)
    return x


@pytest.mark.parametrize("env_id", [PENDULUM, CHEETAH])
def test_the_deterministic_action_is_the_bounded_mean(env_id: str) -> None:
    policy = random_policy(env_id)
    observations = random_observations(policy, 50)
    observations[:5] *= 100.0  # beyond the clip
    low, high = policy.task.action_low, policy.task.action_high
    expected = np.array([naive_mean(policy, observation) for observation in observations])
    actions = policy.act(observations)
    assert actions.dtype == np.float32
    assert_equal_but_for_rounding(actions, np.clip(expected, low, high), sums=3, terms=64)
    assert 0.1 < (np.abs(actions) == high[0]).mean() < 0.9  # the bounds matter
    np.testing.assert_array_equal(policy.act(observations), actions)


def error_bounds(
    arrays: dict[str, np.ndarray], inputs: np.ndarray, activation: str
) -> tuple[Array, Array]:
    """Exact outputs `[B, A]`, and how far float32 may be from them, however sums are ordered.

    A sum of n products of float32 numbers is off by at most about n units of rounding of the sum
    of their magnitudes; an activation, whose slope is at most GELU's 1.13, hands on what it was
    given and adds a few units of its own.
    """
    unit = np.finfo(np.float32).eps
    exact, off = inputs.astype(np.float64), np.zeros(inputs.shape)
    for layer, (weight, bias) in enumerate(layer_names(arrays)):
        w, b = (arrays[name].astype(np.float64) for name in (weight, bias))
        size = np.abs(exact) @ np.abs(w).T + np.abs(b)
        off = off @ np.abs(w).T + (w.shape[1] + 1) * unit * size
        exact = exact @ w.T + b
        if layer < len(arrays) // 2 - 1:
            exact, off = ACTIVATIONS[activation](exact), 1.13 * off + 4 * unit * (1 + np.abs(exact))
    return exact, off


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("hidden_sizes", [(64, 64), (5,), (16, 8, 4)])
def test_numpy_compiled_and_torch_networks_agree(
    hidden_sizes: tuple[int, ...], activation: str
) -> None:
    layout = ParamLayout.mlp("actor", [17, *hidden_sizes, 6], activation)
    rng = np.random.default_rng(len(hidden_sizes))
    params = (0.3 * rng.normal(size=layout.size)).astype(np.float32)
    inputs = rng.normal(size=(40, 17)).astype(np.float32)
    arrays = layout.unflatten(params)
    exact, bounds = error_bounds(arrays, inputs, activation)
    network = Network.from_flat(torch.from_numpy(params)[None, None], layout)
    outputs = {
        "NumPy": mlp_outputs(arrays, "actor", inputs, activation),
        "compiled": stacked_actors(params[None], layout).forward(inputs[None])[0],
        "torch": network.outputs(torch.from_numpy(inputs)[None, None])[0, 0].numpy(),
    }
    assert bounds.max() < 0.01 * exact.std()  # so another network would not pass
    for form, found in outputs.items():
        assert found.dtype == np.float32
        assert (np.abs(found - exact) <= bounds).all(), form


def test_observations_are_clipped_in_standard_deviations() -> None:
    mean, std = np.array([1.0, 1.0]), np.array([2.0, 0.1])
    observations = np.array([[3.0, 1.05], [50.0, -3.0]])
    scaled = normalise_observations(observations, mean, std)
    np.testing.assert_allclose(scaled, [[1.0, 0.5], [OBSERVATION_CLIP, -OBSERVATION_CLIP]])
    assert scaled.dtype == np.float32
    assert normalise_observations(observations, mean, std, np.float64).dtype == np.float64


def test_the_stochastic_action_has_the_policys_std() -> None:
    policy = random_policy(CHEETAH)
    std = np.array([0.02, 0.04, 0.06, 0.08, 0.1, 0.12])
    params = policy.params * np.float32(0.1)  # means well inside the bounds
    params[policy.layout.slices["log_std"]] = np.log(std)
    policy = policy.with_params(params)
    observations = np.tile(random_observations(policy, 1), (20_000, 1))
    deviation = policy.act(observations, np.random.default_rng(0)) - policy.act(observations)
    np.testing.assert_allclose(deviation.mean(axis=0) / std, 0.0, atol=0.03)
    np.testing.assert_allclose(deviation.std(axis=0) / std, 1.0, atol=0.03)
    correlations = np.corrcoef(deviation.T)[np.triu_indices(6, 1)]
    assert np.abs(correlations).max() < 0.03


def test_the_stochastic_action_is_reproducible() -> None:
    policy = random_policy()
    observations = random_observations(policy, 20)
    first, again, other = (policy.act(observations, np.random.default_rng(s)) for s in (3, 3, 4))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


@pytest.mark.parametrize("env_id", [PENDULUM, CHEETAH])
def test_stochastic_actions_stay_inside_the_bounds(env_id: str) -> None:
    policy = random_policy(env_id, log_std=3.0)
    actions = policy.act(random_observations(policy, 500), np.random.default_rng(0))
    low, high = np.float32(policy.task.action_low), np.float32(policy.task.action_high)
    assert (actions >= low).all()
    assert (actions <= high).all()
    assert 0.5 < ((actions == low) | (actions == high)).mean() < 1.0


@pytest.mark.parametrize("batch", [(), (1,), (6,), (2, 3)])
def test_actions_have_the_batch_shape_of_the_observations(batch: tuple[int, ...]) -> None:
    policy = random_policy(CHEETAH)
    observations = random_observations(policy, *batch)
    actions = policy.act(observations)
    assert actions.shape == (*batch, 6)
    one_by_one = [policy.act(row) for row in observations.reshape(-1, 17)]
    assert_equal_but_for_rounding(actions.reshape(-1, 6), one_by_one, sums=3, terms=64)
    assert policy.act(observations, np.random.default_rng(0)).shape == (*batch, 6)


# --- bad weights ---------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(bad: float) -> None:
    policy = random_policy()
    params = policy.params.copy()
    params[[3, 5]] = bad
    with pytest.raises(TiplError, match=rf"2 of {params.size} parameters .* NaN or infinite"):
        policy.with_params(params)


def test_weights_of_another_length_are_refused() -> None:
    policy = random_policy()
    with pytest.raises(TiplError, match=rf"holds {policy.params.size} parameters"):
        policy.with_params(policy.params[:-1])


# --- files ---------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    random_policy().save(tmp_path / "policy")
    return tmp_path / "policy"


def test_a_loaded_policy_acts_as_the_saved_one(saved: Path) -> None:
    policy, loaded = random_policy(), Policy.load(saved)
    assert loaded.layout == policy.layout
    assert loaded.task == policy.task
    observations = random_observations(policy, 30)
    assert loaded.act(observations).tobytes() == policy.act(observations).tobytes()
    stochastic = [p.act(observations, np.random.default_rng(1)) for p in (policy, loaded)]
    assert stochastic[0].tobytes() == stochastic[1].tobytes()
    assert sorted(path.name for path in saved.iterdir()) == ["policy.json", "policy.safetensors"]


def test_saving_replaces_an_older_policy(saved: Path) -> None:
    other = random_policy(CHEETAH, seed=5)
    other.save(str(saved))
    assert Policy.load(str(saved)).params.tobytes() == other.params.tobytes()
    assert [path.name for path in saved.parent.iterdir()] == ["policy"]


def test_saving_replaces_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("irreplaceable")
    (tmp_path / "file").write_text("irreplaceable")
    for name in ("thesis", "file", "file/policy"):
        with pytest.raises(TiplError, match=name):
            random_policy().save(tmp_path / name)
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "irreplaceable"
    assert (tmp_path / "file").read_text() == "irreplaceable"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "thesis"]


def truncate_weights(directory: Path) -> Path:
    path = directory / "policy.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    return path


def empty_weights(directory: Path) -> Path:
    path = directory / "policy.safetensors"
    path.write_bytes(b"")
    return path


def remove_weights(directory: Path) -> Path:
    path = directory / "policy.safetensors"
    path.unlink()
    return path


def change_a_weight(directory: Path) -> Path:
    path = directory / "policy.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    return path


def remove_description(directory: Path) -> Path:
    path = directory / "policy.json"
    path.unlink()
    return path


def truncate_description(directory: Path) -> Path:
    path = directory / "policy.json"
    path.write_bytes(path.read_bytes()[:-20])
    return path


def make_newer(directory: Path) -> Path:
    path = directory / "policy.json"
    storage.write_json(path, storage.read_json(path) | {"format_version": 3})
    return path


def make_the_normaliser_constant(directory: Path) -> Path:
    tensors, header = storage.read_tensors(directory / "policy.safetensors")
    tensors["observation_std"][1] = 0.0
    storage.write_tensors(directory / "policy.safetensors", tensors, header)
    return directory


def remove_all(directory: Path) -> Path:
    remove_weights(directory)
    remove_description(directory)
    directory.rmdir()
    return directory


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate_weights, "is damaged"),
        (empty_weights, "is damaged"),
        (remove_weights, "there is no"),
        (change_a_weight, "is damaged"),
        (remove_description, "there is no"),
        (truncate_description, "is damaged"),
        (make_newer, r"has format version 3, but this tipl reads versions 1 and 2"),
        (make_the_normaliser_constant, "holds no usable policy .*standard deviations above 0"),
        (remove_all, "there is no"),
    ],
)
def test_what_cannot_be_loaded_is_named(
    saved: Path, damage: Callable[[Path], Path], message: str
) -> None:
    path = damage(saved)
    with pytest.raises(TiplError, match=message) as caught:
        Policy.load(saved)
    assert str(path) in str(caught.value)
