"""Policies and datasets in other people's code: PyTorch, stable-baselines3, paths, notebooks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

import tipl
from path_data import make_dataset
from tipl import PathDataset, Policy, TiplError
from tipl.evaluation.returns import evaluate
from tipl.models.train import train
from tipl.policies.activations import ACTIVATIONS
from tipl.policies.layout import actor_layout
from tipl.policies.tasks import TaskSpec, get_task

TASK = "InvertedPendulum-v4"
DISCRETE = TaskSpec("Mine-v0", 3, 4, (), (), 9, (0.0,) * 3, (1.0,) * 3, "{}", first_action=2)


def policy_of(task: TaskSpec, activation: str = "tanh", squashed: bool = False) -> Policy:
    """A policy of large random weights, whose actions are often at their bounds."""
    layout = actor_layout(task, (5, 4), activation, squashed)
    rng = np.random.default_rng(0)
    params = rng.normal(size=layout.size).astype(np.float32)
    mean, std = rng.normal(size=task.observation_size), rng.uniform(0.5, 2, task.observation_size)
    return Policy(params, layout, task, mean, std, 1.5)


def with_actions(dtype: str, low: float, high: float) -> TaskSpec:
    """The pendulum with another action space."""
    changed = {"action_dtype": dtype, "action_low": [low], "action_high": [high]}
    return TaskSpec.from_json(get_task(TASK).to_json() | changed)


POLICIES = {
    **{name: policy_of(get_task(TASK), name) for name in ACTIVATIONS},
    "squashed": policy_of(get_task("Hopper-v4"), "relu", squashed=True),
    "discrete": policy_of(DISCRETE),
    "float64": policy_of(with_actions("float64", -0.3, 0.3)),
    "integers": policy_of(with_actions("int32", -2.0, 3.0)),
}


@pytest.mark.parametrize("name", POLICIES)
def test_a_torch_module_acts_as_the_policy(name: str) -> None:
    policy = POLICIES[name]
    module = policy.to_torch()
    assert isinstance(module, torch.nn.Module)
    seen = np.random.default_rng(1).normal(0, 3, (2, 50, policy.task.observation_size))
    for observations in (seen, seen[0], seen[0, 0], seen.astype(np.float32)):
        expected = policy.act(observations)
        with torch.no_grad():
            actions = module(torch.from_numpy(observations)).numpy()
        assert actions.dtype == expected.dtype
        assert actions.shape == expected.shape
        np.testing.assert_allclose(actions, expected, rtol=0, atol=2e-6)
    assert sum(one.numel() for one in module.parameters()) == sum(
        int(np.prod(shape)) for shape in policy.layout.shapes if len(shape) > 0
    ) - (0 if policy.layout.names[-1] != "log_std" else policy.task.action_size)


def test_a_torch_module_can_be_trained_and_kept() -> None:
    policy = POLICIES["tanh"]
    module, again = policy.to_torch(), policy.to_torch()
    before = policy.params.copy()
    observations = torch.ones(1, policy.task.observation_size)
    module.outputs(observations).sum().backward()
    with torch.no_grad():
        for one in module.parameters():
            one -= 0.1 * one.grad
    np.testing.assert_array_equal(policy.params, before)
    again.load_state_dict(module.state_dict())
    assert torch.equal(again(observations), module(observations))
    assert not torch.equal(policy.to_torch().outputs(observations), module.outputs(observations))


def test_stable_baselines3_evaluates_a_policy() -> None:
    policy = Policy.initial(TASK, 3, (4,))
    vector = DummyVecEnv([lambda: Monitor(gymnasium.make("InvertedPendulum-v5"))])
    vector.seed(5)
    returns, lengths = evaluate_policy(policy, vector, 2, return_episode_rewards=True)  # type: ignore[arg-type]
    env, expected = gymnasium.make("InvertedPendulum-v5"), []
    for seed in (5, None):
        observation, _ = env.reset(seed=seed)
        total, done = 0.0, False
        while not done:
            observation, reward, terminated, truncated, _ = env.step(policy.act(observation))
            total, done = total + float(reward), terminated or truncated
        expected.append(total)
    assert returns == expected
    assert len(lengths) == 2


def test_predictions_are_actions() -> None:
    policy, state = POLICIES["tanh"], (np.zeros(1),)
    observations = np.ones((7, 4))
    actions, kept = policy.predict(observations, state, np.zeros(7, bool))
    np.testing.assert_array_equal(actions, policy.act(observations))
    assert kept is state
    drawn = [policy.predict(observations, deterministic=False)[0] for _ in range(2)]
    assert (drawn[0] != drawn[1]).any()
    with pytest.raises(TiplError, match="squashed"):
        POLICIES["squashed"].predict(np.zeros(11), deterministic=False)


@pytest.mark.parametrize("shape", [(3,), (2, 5)])
def test_observations_of_another_length_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(TiplError, match="end in 4 numbers; give what the environment returns"):
        POLICIES["tanh"].act(np.zeros(shape))


# --- by path ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [str, Path])
def test_whatever_takes_a_policy_takes_its_directory(kind: type[Any], tmp_path: Path) -> None:
    policy = Policy.initial(TASK, 3, (4,))
    policy.save(tmp_path / "policy")
    given = kind(tmp_path / "policy")
    expected = evaluate(policy, 2, seed=1).episodic_return
    np.testing.assert_array_equal(evaluate(given, 2, seed=1).episodic_return, expected)
    both = evaluate([policy, given], 2, seed=1).episodic_return
    np.testing.assert_array_equal(both, [expected, expected])
    better = tipl.optimize(given, steps=1)
    np.testing.assert_array_equal(better.params, tipl.optimize(policy, steps=1).params)
    with pytest.raises(TiplError, match=r"none.policy.json"):
        evaluate(kind(tmp_path / "none"))


@pytest.mark.parametrize("kind", [str, Path])
def test_whatever_takes_a_dataset_takes_its_directory(kind: type[Any], tmp_path: Path) -> None:
    make_dataset(tmp_path / "paths")
    options: Any = {"rank": 2, "width": 8, "depth": 1, "heads": 2, "num_steps": 2}
    paths = PathDataset.open(tmp_path / "paths")
    expected = train(paths, progress=False, **options)
    given = kind(tmp_path / "paths")
    for those in (given, [given]):
        model = train(those, held_out=those, progress=False, **options)
        history = paths.params()[:, :3]
        np.testing.assert_array_equal(model.forecast(history, 1), expected.forecast(history, 1))
    with pytest.raises(TiplError, match=r"there is no .*none.metadata.json"):
        train(kind(tmp_path / "none"), progress=False)


# --- in notebooks ----------------------------------------------------------------------------


def test_notebooks_show_what_things_are(tmp_path: Path) -> None:
    make_dataset(tmp_path / "<b>paths")
    policy = Policy.initial(TASK, 3, (4, 6))
    shown = {
        policy._repr_html_(): ("Policy", TASK, "hidden layers of 4, 6 tanh units"),
        PathDataset.open(tmp_path / "<b>paths")._repr_html_(): ("PathDataset", "&lt;b&gt;paths"),
        evaluate(policy, 2)._repr_html_(): ("mean episodic return", "2 episodes"),
    }
    for text, facts in shown.items():
        assert text.startswith("<table>")
        assert text.endswith("</table>")
        assert "<b>" not in text
        for fact in facts:
            assert fact in text
