"""Policies of every activation, squashed or not, of any clip and action dtype: alike everywhere."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import nn

from path_data import make_dataset
from tipl import collect
from tipl.core import storage
from tipl.core.arrays import Array
from tipl.envs import make_task, make_vec
from tipl.errors import TiplError
from tipl.evaluation import episode_seed, evaluate
from tipl.evaluation.behaviour import best_checkpoint, observations_around
from tipl.evaluation.checkpoints import evaluate_paths
from tipl.evaluation.film import film
from tipl.evaluation.forecast_sets import ForecastCase, ForecastSet
from tipl.models.learning_paths import ReturnScale, learning_paths
from tipl.policies.actions import executable
from tipl.policies.activations import ACTIVATIONS
from tipl.policies.layout import ParamLayout, actor_layout
from tipl.policies.policy import Policy
from tipl.policies.tasks import get_task
from tipl.ppo.config import PPOConfig
from tipl.ppo.networks import stacked_actors
from tipl.ppo.ppo import PPO

MODULES = {
    "tanh": nn.Tanh(), "relu": nn.ReLU(), "elu": nn.ELU(), "silu": nn.SiLU(),
    "leaky_relu": nn.LeakyReLU(), "gelu": nn.GELU(),
}  # fmt: skip
BOUNDS = {
    # neither 0.1 nor 0.3 is the same number in float32 and in float64
    "float32": ((-0.1, -2.0), (0.3, 5.0)),
    "float64": ((-0.1, -2.0), (0.3, 5.0)),
    "int64": ((-1, -2), (3, 5)),
    "int8": ((-128, -2), (127, 5)),  # whatever is out of these wraps around
}


class Strict(gymnasium.Env[np.ndarray, np.ndarray]):
    """Takes nothing but elements of its action space, pays their sum and shows it, and outliers."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 25}  # noqa: RUF012
    observation_space = Box(-np.inf, np.inf, (4,), np.float64)

    def __init__(self, dtype: str, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        low, high = (np.array(bound, dtype) for bound in BOUNDS[dtype])
        self.action_space = Box(low, high, dtype=np.dtype(dtype).type)

    def reset(self, **kwargs: Any) -> tuple[Array, dict[str, Any]]:
        super().reset(**kwargs)
        return self._observation(0.0), {}

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        assert action.dtype == self.action_space.dtype
        assert self.action_space.contains(action)
        paid = float(action.astype(float).sum())
        return self._observation(paid), paid, False, False, {}

    def render(self) -> Any:
        return np.zeros((4, 4, 3), np.uint8)

    def _observation(self, paid: float) -> Array:
        return np.append(self.np_random.normal(size=3) * [0.1, 5.0, 100.0], paid)


@pytest.fixture(autouse=True)
def _strict_environments() -> Iterator[None]:
    for dtype in BOUNDS:
        gymnasium.register(
            f"Strict-{dtype}-v0", "test_policy_kinds:Strict", max_episode_steps=6,
            kwargs={"dtype": dtype},
        )  # fmt: skip
    yield
    for dtype in BOUNDS:
        del gymnasium.registry[f"Strict-{dtype}-v0"]


def policy_of(activation: str, squashed: bool, clip: float, dtype: str) -> Policy:
    """A policy with large weights, under whose normaliser observations are often clipped."""
    task = make_task(f"Strict-{dtype}-v0")
    layout = actor_layout(task, (6, 5), activation, squashed)
    params = np.random.default_rng(3).normal(size=layout.size).astype(np.float32)
    mean, std = np.array([0.1, -1.0, 5.0, 0.0]), np.array([0.1, 1.0, 4.0, 2.0])
    return Policy(params, layout, task, mean, std, clip)


SOME = itertools.cycle(itertools.product((math.inf, 1.0, 10.0), BOUNDS))
KINDS = [
    (activation, squashed, *next(SOME))
    for activation, squashed in itertools.product(ACTIVATIONS, (False, True))
]
kinds = pytest.mark.parametrize(("activation", "squashed", "clip", "dtype"), KINDS)


@kinds
def test_actions_are_those_of_the_network_in_pytorch(
    activation: str, squashed: bool, clip: float, dtype: str, tmp_path: Path
) -> None:
    policy = policy_of(activation, squashed, clip, dtype)
    observations = np.random.default_rng(1).normal(size=(50, 4)) * [0.1, 5, 100, 2]
    scaled = (observations - policy.observation_mean) / policy.observation_std
    hidden = torch.from_numpy(np.clip(scaled, -clip, clip))
    arrays = policy.layout.unflatten(torch.from_numpy(policy.params).double())
    for layer in range(3):
        hidden = hidden @ arrays[f"actor.{layer}.weight"].T + arrays[f"actor.{layer}.bias"]
        if layer < 2:
            hidden = MODULES[activation](hidden)
    low, high = map(np.array, BOUNDS[dtype])
    if squashed:
        hidden = torch.from_numpy(low) + (hidden.tanh() + 1) / 2 * torch.from_numpy(high - low)
    expected = np.clip(hidden.numpy(), low, high)
    if np.dtype(dtype).kind == "i":
        expected = expected.round()
    actions = policy.act(observations)
    np.testing.assert_allclose(actions, expected, rtol=1e-4, atol=1e-4)
    assert all(map(Strict(dtype).action_space.contains, actions))
    assert len(np.unique(actions[:, 1])) > 2  # not all at the bounds
    policy.save(tmp_path)
    loaded = Policy.load(tmp_path)
    assert loaded.observation_clip == clip
    for same in (loaded, policy.with_params(policy.params)):
        assert same.layout == policy.layout
        np.testing.assert_array_equal(same.act(observations), actions)
    if not squashed:
        drawn = policy.act(observations, np.random.default_rng(0))
        assert all(map(Strict(dtype).action_space.contains, drawn))


@kinds
def test_evaluations_and_films_run_what_the_policy_does(
    activation: str, squashed: bool, clip: float, dtype: str
) -> None:
    policy = policy_of(activation, squashed, clip, dtype)
    env, returns = gymnasium.make(policy.task.env_id), []
    for episode in range(2):
        observation, _ = env.reset(seed=episode_seed(7, episode))
        total = 0.0
        for _ in range(6):
            observation, reward, *_ = env.step(policy.act(observation))
            total += float(reward)
        returns.append(total)
    found = evaluate(policy, 2, seed=7, threads=1).episodic_return
    np.testing.assert_allclose(found, returns, rtol=1e-4, atol=1e-4)
    shown = film(policy, seed=7, num_frames=2, width=8, height=8)
    assert shown.episodic_return == pytest.approx(returns[0], rel=1e-4, abs=1e-4)


def test_policies_of_several_kinds_are_evaluated_as_each_alone() -> None:
    policies = [
        policy_of(activation, squashed, clip, "float64")
        for activation, squashed, clip in [
            ("relu", False, math.inf), ("relu", False, 1.0), ("relu", True, 1.0),
            ("tanh", False, 1.0), ("relu", False, math.inf),
        ]
    ]  # fmt: skip
    alone = [evaluate(policy, 2, threads=1).episodic_return for policy in policies]
    assert len(np.unique(alone, axis=0)) == 4
    together = evaluate(policies, 2, threads=1).episodic_return
    np.testing.assert_allclose(together, alone, rtol=1e-6)


@kinds
def test_observations_around_are_of_what_the_policy_does(
    activation: str, squashed: bool, clip: float, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And noise leaves actions in their space."""
    policy = policy_of(activation, squashed, clip, dtype)
    monkeypatch.setattr("tipl.evaluation.behaviour.NUM_ROLLOUTS", 3)
    monkeypatch.setattr("tipl.evaluation.behaviour.STEPS_OF_ROLLOUT", 20)
    seen = observations_around(policy, seed=0)
    paid = policy.act(seen).astype(float).sum(axis=-1)  # [M, S, O] -> [M, S]
    paid[:, 5::6] = 0  # then an episode begins
    as_it_does = np.isclose(seen[:, 1:, 3], paid[:, :-1], rtol=1e-4, atol=1e-4)
    assert as_it_does[0].all()
    assert not as_it_does[2].all()


@pytest.mark.parametrize("dtype", BOUNDS)
def test_ppo_acts_inside_the_action_space(dtype: str) -> None:
    task = make_task(f"Strict-{dtype}-v0")
    config = PPOConfig(num_steps=16, num_minibatches=2, update_epochs=1)
    for arithmetic in (np.float32, np.float64):
        ppo = PPO(make_vec(task.env_id, 2), task, range(2), 1, config, (4,), dtype=arithmetic)
        rollout = ppo.rollout()
        assert np.isfinite(rollout.episodic_return).all()
        ppo.update(rollout)


@pytest.mark.parametrize("dtype", ["float64", "int8"])
def test_collected_paths_are_evaluated_in_the_action_space(dtype: str, tmp_path: Path) -> None:
    options: Any = {
        "num_trials": 2, "total_steps": 32, "hidden_sizes": (4,), "threads": 1, "progress": False,
        "ppo": PPOConfig(num_steps=16, num_minibatches=2, update_epochs=1),
    }  # fmt: skip
    env_id = f"Strict-{dtype}-v0"
    paths = collect(env_id, out=tmp_path, evaluation_episodes=1, **options)
    assert paths.task == make_task(env_id)
    assert np.isfinite(paths.deterministic_return()).all()
    assert np.isfinite(best_checkpoint(paths, episodes=1).mean_return)


@pytest.mark.parametrize(
    ("activation", "squashed", "clip", "dtype"),
    [("relu", True, 1.0, "float64"), ("elu", False, math.inf, "int64")],
)
def test_paths_of_every_kind_are_evaluated_as_their_policies(
    activation: str, squashed: bool, clip: float, dtype: str, tmp_path: Path
) -> None:
    like = policy_of(activation, squashed, clip, dtype)
    std = np.array(like.task.observation_std) / 4  # so that observations are clipped
    make_dataset(
        tmp_path, task=dataclasses.replace(like.task, observation_std=tuple(std.tolist())),
        layout=like.layout, hidden_sizes=like.layout.hidden_sizes, observation_clip=clip,
    )  # fmt: skip
    paths = evaluate_paths(tmp_path, episodes=2, every=6, threads=1).select([0, 1])
    alone = [
        [evaluate(paths.policy(i, t), 2, threads=1).episodic_return for t in range(7)]
        for i in range(2)
    ]
    same = {"rtol": 1e-5, "atol": 1e-5}
    stored = paths.deterministic_return()[:, [0, 6]]
    np.testing.assert_allclose(stored, np.array(alone)[:, [0, 6]], **same)
    still = paths.params()[None, :, 3]
    forecasts = ForecastSet(paths, [ForecastCase("standing still", 3, 1)], still, {})
    found = forecasts.evaluate(2, threads=1)
    np.testing.assert_allclose(found.checkpoints, alone, **same)
    np.testing.assert_allclose(forecasts.action_errors(), 1)
    best = best_checkpoint(paths, episodes=2)
    again = evaluate(best.policy, 2, seed=1, threads=1).mean.value
    assert best.mean_return == pytest.approx(again, rel=1e-5)
    seen = np.abs(learning_paths(paths, ReturnScale(0.0, 1.0), 0).observations.numpy()).max()
    assert seen == clip if clip < math.inf else seen > 10


@pytest.mark.parametrize("dtype", BOUNDS)
def test_what_is_no_number_or_out_of_range_becomes_an_action(dtype: str) -> None:
    task = make_task(f"Strict-{dtype}-v0")
    wild = np.array([[np.nan, np.inf], [1e30, -1e30], [-np.inf, np.nan]], np.float32)
    (low, other_low), (high, other_high) = BOUNDS[dtype]
    expected = np.array([[low, other_high], [high, other_low], [low, other_low]], dtype)
    actions = executable(task, wild)
    assert actions.dtype == dtype
    np.testing.assert_array_equal(actions, expected)


@pytest.mark.parametrize("dtype", ["foo", "complex64", "bool", "uint8"])
def test_a_dtype_that_holds_no_actions_is_refused(dtype: str) -> None:
    with pytest.raises(TiplError, match=f"has '{dtype}' in 'action_dtype' and the action bounds"):
        dataclasses.replace(make_task("Strict-int64-v0"), action_dtype=dtype)


def test_own_ppo_says_that_it_trains_tanh_alone() -> None:
    layout = ParamLayout.mlp("actor", [3, 4, 2], "relu")
    actor = stacked_actors(np.ones((1, layout.size), np.float32), layout)
    outputs = actor.forward(np.ones((1, 5, 3), np.float32))
    with pytest.raises(TiplError, match="relu units were given to tipl's own PPO"):
        actor.backward(outputs, actor)


@pytest.mark.parametrize(
    ("activation", "squashed", "clip", "dtype", "version"),
    [
        ("tanh", False, 10.0, "float32", 1),  # what every tipl reads
        ("relu", False, 10.0, "float32", 2),
        ("tanh", True, 10.0, "float32", 2),
        ("tanh", False, math.inf, "float32", 2),
        ("tanh", False, 10.0, "int64", 2),
    ],
)
def test_files_say_what_an_older_tipl_would_get_wrong(
    activation: str, squashed: bool, clip: float, dtype: str, version: int, tmp_path: Path
) -> None:
    policy_of(activation, squashed, clip, dtype).save(tmp_path)
    assert storage.read_json(tmp_path / "policy.json")["format_version"] == version


def test_files_say_that_an_environment_is_not_as_registered(tmp_path: Path) -> None:
    short = gymnasium.make("Strict-int8-v0", max_episode_steps=3).spec
    assert short is not None
    Policy.initial(make_task(short)).save(tmp_path)
    assert storage.read_json(tmp_path / "policy.json")["format_version"] == 2


def test_an_unknown_activation_in_a_file_is_refused(tmp_path: Path) -> None:
    policy_of("gelu", False, 10.0, "float32").save(tmp_path)
    path = tmp_path / "policy.json"
    description = storage.read_json(path)
    description["layout"]["activation"] = "swish"
    storage.write_json(path, description)
    message = r"policy.json: the activation 'swish' was given; expected one of tanh, re"
    with pytest.raises(TiplError, match=message):
        Policy.load(tmp_path)


def test_actions_without_bounds_cannot_be_squashed() -> None:
    task = get_task("InvertedPendulum-v4")
    task = dataclasses.replace(task, action_low=(-np.inf,), action_high=(np.inf,))
    with pytest.raises(TiplError, match="InvertedPendulum-v4 has actions without bounds"):
        actor_layout(task, (4,), squashed=True)
