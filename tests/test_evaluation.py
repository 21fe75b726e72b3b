"""Episodic returns of many policies at once, against one policy and one step at a time."""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import pytest

from tipl.envs import BatchedMujocoEnv, make_task
from tipl.errors import TiplError
from tipl.evaluation import returns as evaluation
from tipl.evaluation.returns import Episodes, Evaluation, evaluate, evaluate_stack
from tipl.evaluation.stats import Interval, mean_interval
from tipl.policies.layout import ParamLayout, initial_params
from tipl.policies.policy import Policy
from tipl.policies.tasks import TaskSpec, get_task

TASK = get_task("InvertedPendulum-v4")
LAYOUT = ParamLayout.actor(4, 1, (4,))
GAINS = ((0.5, 10, 1, 2), (0, 6, 0, 1), (0, 2, 0, 0.2), (-0.5, -10, -1, -2))
"""Of linear controllers: one that balances the pole, two that do for a while, one that does not."""


def linear_controller(gains: Sequence[float]) -> np.ndarray:
    """Weights whose mean action is, nearly, `gains @ observation`."""
    params = np.zeros(LAYOUT.size, np.float32)
    arrays = LAYOUT.unflatten(params)
    arrays["actor.0.weight"][:] = 0.01 * np.eye(4)  # where tanh is nearly linear
    arrays["actor.1.weight"][:] = np.array(gains) * TASK.observation_std / 0.01
    arrays["actor.1.bias"][:] = np.dot(gains, TASK.observation_mean)
    return params


POLICIES = np.stack([initial_params(LAYOUT, 5), *map(linear_controller, GAINS)])


def naive_returns(policy: Policy, episodes: int, seed: int = 0) -> list[float]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is out of date", DeprecationWarning)
        env = gymnasium.make(policy.task.env_id)
    returns = []
    for episode in range(episodes):
        start = np.random.SeedSequence((seed, episode)).generate_state(1)[0]
        observation, _ = env.reset(seed=int(start))
        total, done = 0.0, False
        while not done:
            observation, reward, terminated, truncated, _ = env.step(policy.act(observation))
            total += float(reward)
            done = terminated or truncated
        returns.append(total)
    env.close()
    return returns


@pytest.fixture(scope="module")
def returns() -> np.ndarray:
    """Returns of the policies in 2 episodes each, `[M, E]`."""
    return evaluate_stack(POLICIES, LAYOUT, TASK, 2, seed=7).returns


def test_a_stack_returns_what_each_policy_does_alone(returns: np.ndarray) -> None:
    naive = [naive_returns(Policy(params, LAYOUT, TASK), 2, seed=7) for params in POLICIES]
    np.testing.assert_array_equal(returns, naive)
    assert returns.min() < 20
    assert (returns == 1000).any()  # one was truncated


def test_lengths_are_the_steps_of_each_episode(monkeypatch: pytest.MonkeyPatch) -> None:
    """InvertedPendulum-v4 pays 1 for every step, the one in which the pole falls as well."""
    monkeypatch.setattr(evaluation, "NUM_SLOTS", 3)  # each runs several episodes
    episodes = evaluate_stack(POLICIES, LAYOUT, TASK, 3, seed=7, threads=1)
    assert isinstance(episodes, Episodes)
    assert episodes.lengths.dtype == np.int64
    np.testing.assert_array_equal(episodes.lengths, episodes.returns)
    assert episodes.lengths.max() == 1000
    assert len(np.unique(episodes.lengths)) > 5


def test_statistics_of_each_policy() -> None:
    mean = np.array([TASK.observation_mean, [0.0, 0.05, 0.0, 0.0]])
    std = np.array([TASK.observation_std, [1.0, 0.1, 2.0, 0.5]])
    stack = POLICIES[[2, 2]]
    returns = evaluate_stack(stack, LAYOUT, TASK, 2, statistics=(mean, std)).returns
    policies = [Policy(stack[m], LAYOUT, TASK, mean[m], std[m]) for m in range(2)]
    np.testing.assert_array_equal(returns, [naive_returns(policy, 2) for policy in policies])
    assert (returns[0] != returns[1]).all()
    np.testing.assert_array_equal(returns[1], evaluate(policies[1], 2).episodic_return)


@pytest.mark.parametrize(("slots", "threads"), [(1, 1), (3, 1), (3, 2), (3, None)])
def test_returns_do_not_depend_on_who_runs_them(
    returns: np.ndarray, slots: int, threads: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = []
    original = evaluation._Worker.__init__

    def counting(self: evaluation._Worker, *args: object) -> None:
        workers.append(self)
        original(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(evaluation._Worker, "__init__", counting)
    monkeypatch.setattr(evaluation, "NUM_SLOTS", slots)
    order = [3, 0, 4, 2, 1]
    again = evaluate_stack(POLICIES[order], LAYOUT, TASK, 2, seed=7, threads=threads)
    np.testing.assert_array_equal(again.returns, returns[order])
    np.testing.assert_array_equal(again.lengths, returns[order])
    if threads is not None:
        assert len(workers) == min(threads, -(-10 // slots))


def test_slots_without_an_episode_are_not_stepped(monkeypatch: pytest.MonkeyPatch) -> None:
    task = get_task("Hopper-v4")
    layout = ParamLayout.actor(11, 3, (8,))
    params = np.stack([np.float32(scale) * initial_params(layout, scale) for scale in range(1, 9)])
    physics = {"gravity": np.linspace(0.4, 1.6, 8), "body_mass:foot": np.linspace(2, 0.5, 8)}

    def run(chosen: slice) -> Episodes:
        some = {name: values[chosen] for name, values in physics.items()}
        return evaluate_stack(params[chosen], layout, task, 3, physics=some, threads=1)

    alone = [run(slice(m, m + 1)) for m in range(8)]
    steps, step = [], BatchedMujocoEnv.step

    def counting(self: BatchedMujocoEnv, actions: np.ndarray) -> Any:
        steps.append(len(actions))
        return step(self, actions)

    monkeypatch.setattr(BatchedMujocoEnv, "step", counting)
    together = run(slice(0, 8))
    for name in Episodes._fields:
        expected = np.concatenate([getattr(one, name) for one in alone])
        np.testing.assert_array_equal(getattr(together, name), expected)
    assert together.lengths.min() < together.lengths.max() / 2
    assert sorted(steps, reverse=True) == steps
    assert (steps[0], steps[-1] <= 4) == (24, True)
    assert sum(steps) < 2 * together.lengths.sum()


def test_another_task_in_any_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    # HalfCheetah's returns have many digits and tell even a difference in rounding
    task = get_task("HalfCheetah-v4")
    layout = ParamLayout.actor(17, 6, (8, 8))
    params = np.stack([initial_params(layout, seed) for seed in range(2)])
    params += 0.3 * np.random.default_rng(0).standard_normal(params.shape).astype(np.float32)
    together = evaluate_stack(params, layout, task, 1).returns
    assert np.isfinite(together).all()
    assert len(np.unique(together)) == 2
    monkeypatch.setattr(evaluation, "NUM_SLOTS", 1)
    again = evaluate_stack(params, layout, task, 1).returns
    np.testing.assert_array_equal(again, together)


def test_episodes_start_alike_for_all_policies(returns: np.ndarray) -> None:
    same = evaluate_stack(POLICIES[[2, 2, 2]], LAYOUT, TASK, 4, seed=7).returns
    np.testing.assert_array_equal(same, np.repeat(same[:1], 3, axis=0))
    assert len(np.unique(same[0])) > 1  # and its episodes are different ones
    np.testing.assert_array_equal(same[0, :2], returns[2])  # the first of them do not change
    other = evaluate_stack(POLICIES[[2]], LAYOUT, TASK, 4, seed=8).returns
    assert (other != same[0]).any()


def test_a_critic_is_ignored(returns: np.ndarray) -> None:
    critic = ParamLayout.critic(4, (4,))
    junk = np.full((len(POLICIES), critic.size), 1e3, np.float32)
    params = np.concatenate([POLICIES, junk], axis=1)
    again = evaluate_stack(params, LAYOUT + critic, TASK, 2, seed=7).returns
    np.testing.assert_array_equal(again, returns)


@pytest.fixture(scope="module")
def fallback_task() -> TaskSpec:
    return make_task("Pendulum-v1")


def test_an_environment_of_gymnasium(
    fallback_task: TaskSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "NUM_SLOTS", 3)
    policies = [Policy.initial(fallback_task, seed, (8,)) for seed in range(2)]
    params = np.stack([policy.params for policy in policies])
    returns, lengths = evaluate_stack(params, policies[0].layout, fallback_task, 2)
    naive = [naive_returns(policy, 2) for policy in policies]
    np.testing.assert_allclose(returns, naive, rtol=1e-3)
    assert len(np.unique(returns)) == 4
    np.testing.assert_array_equal(lengths, np.full((2, 2), 200))  # it is only ever truncated


def test_evaluate_is_a_stack_of_one(returns: np.ndarray) -> None:
    policy = Policy(POLICIES[2], LAYOUT, TASK)
    result = evaluate(policy, 2, seed=7)
    assert result.env_id == "InvertedPendulum-v4"
    np.testing.assert_array_equal(result.episodic_return, returns[2])
    np.testing.assert_array_equal(result.episode_length, returns[2])
    assert result.mean == mean_interval(returns[2])
    assert str(result) == (
        f"InvertedPendulum-v4: mean episodic return {result.mean.value:,.1f} (95% interval "
        f"{result.mean.low:,.1f} to {result.mean.high:,.1f}) over 2 episodes"
    )


def test_evaluate_runs_20_episodes_of_seed_0() -> None:
    policy = Policy(POLICIES[0], LAYOUT, TASK)
    result = evaluate(policy)
    assert result.episodic_return.shape == (20,)
    np.testing.assert_array_equal(result.episodic_return[:2], naive_returns(policy, 2))


def mixed_policies() -> list[Policy]:
    """Policies of three architectures, two normalisers and two kinds of physics, mixed up."""
    strong, weak = (TASK.with_physics({"gravity": factor}) for factor in (2.5, 0.3))
    massive = TASK.with_physics({"gravity": 2.5, "body_mass": 3.0})
    mean, std = np.array([0.0, 0.05, 0.0, 0.0]), np.array([1.0, 0.1, 2.0, 0.5])
    return [
        Policy(POLICIES[2], LAYOUT, TASK),
        Policy.initial(TASK, seed=1, hidden=(8, 8)),
        Policy(POLICIES[2], LAYOUT, strong),
        Policy(POLICIES[2], LAYOUT, TASK, mean, std),
        Policy.initial(TASK, seed=6, hidden=(5,)),
        Policy(POLICIES[2], LAYOUT, massive),
        Policy(POLICIES[2], LAYOUT, weak),
        Policy.initial(TASK, seed=3, hidden=(8, 8)),
    ]


def test_several_policies_return_what_each_does_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    policies = mixed_policies()
    alone = [evaluate(policy, 3, seed=7).episodic_return for policy in policies]
    assert len(np.unique(alone, axis=0)) == len(policies)  # no two could be mistaken
    stacks = []
    original = evaluation.evaluate_stack

    def counting(params: np.ndarray, *args: Any, **kwargs: Any) -> Episodes:
        stacks.append(len(params))
        return original(params, *args, **kwargs)

    monkeypatch.setattr(evaluation, "evaluate_stack", counting)
    result = evaluate(policies, 3, seed=7)
    assert result.env_id == "InvertedPendulum-v4"
    np.testing.assert_array_equal(result.episodic_return, alone)
    np.testing.assert_array_equal(result.episode_length, alone)
    assert result.mean == mean_interval(np.array(alone))
    assert result.mean == mean_interval(np.mean(alone, axis=1))  # over policies, not episodes
    assert sorted(stacks) == [1, 1, 2, 2, 2]


def test_action_bounds_of_each_policys_own_task_apply() -> None:
    weak = dataclasses.replace(TASK, action_low=(-0.01,), action_high=(0.01,))
    policies = [Policy(POLICIES[1], LAYOUT, task) for task in (TASK, weak)]
    alone = [evaluate(policy, 2).episodic_return for policy in policies]
    assert (alone[0] != alone[1]).any()
    np.testing.assert_array_equal(evaluate(policies, 2).episodic_return, alone)


def test_a_sequence_of_one_policy_keeps_its_axis(returns: np.ndarray) -> None:
    result = evaluate((Policy(POLICIES[2], LAYOUT, TASK),), 2, seed=7)
    np.testing.assert_array_equal(result.episodic_return, returns[[2]])
    np.testing.assert_array_equal(result.episode_length, returns[[2]])
    assert result.mean.value == returns[2].mean()
    assert np.isnan(result.mean.low)


def test_an_empty_sequence_is_refused() -> None:
    with pytest.raises(TiplError, match="an empty sequence of policies was given"):
        evaluate([])


def test_policies_of_different_tasks_are_refused() -> None:
    policies = [Policy.initial(env_id) for env_id in (TASK.env_id, TASK.env_id, "Hopper-v4")]
    message = "policy 0 is for InvertedPendulum-v4 and policy 2 for Hopper-v4; expected one task"
    with pytest.raises(TiplError, match=message):
        evaluate(policies)


@pytest.mark.parametrize("episodes", [0, -2])
def test_evaluate_refuses_no_episodes(episodes: int) -> None:
    policy = Policy(POLICIES[0], LAYOUT, TASK)
    for given in (policy, [policy, policy]):
        with pytest.raises(TiplError, match=f"episodes is {episodes}; expected at least 1"):
            evaluate(given, episodes)


def test_more_episodes_than_memory_holds_are_refused_at_once() -> None:
    policies = [Policy.initial("InvertedPendulum-v4", seed) for seed in range(2)]
    with pytest.raises(TiplError, match="5,000,001 episodes of each of 2 policies were asked for"):
        evaluate(policies, 5_000_001)


def evaluation_of(returns: list[Any], mean: Interval | None = None) -> Evaluation:
    """Episodes of 10 steps with given returns."""
    array = np.array(returns)
    return Evaluation("Walk-v1", array, mean or mean_interval(array), np.full(array.shape, 10))


def test_evaluations_are_readable() -> None:
    several = evaluation_of([999.0, 1501.0], Interval(1250.0, 999.0, 1501.0))
    assert str(several) == (
        "Walk-v1: mean episodic return 1,250.0 (95% interval 999.0 to 1,501.0) over 2 episodes"
    )
    one = evaluation_of([7.0])
    assert str(one) == "Walk-v1: mean episodic return 7.0 over 1 episode"
    returns = [[999.0, 1501.0, 1100.0], [2.0, 4.0, 6.0]]  # means 1200 and 4
    policies = evaluation_of(returns, Interval(602.0, 4.0, 1200.0))
    assert str(policies) == (
        "Walk-v1: mean episodic return 602.0 (95% interval 4.0 to 1,200.0) over 2 policies of "
        "3 episodes each; lowest policy's mean 4.0, highest 1,200.0"
    )
    lone = evaluation_of([[999.0]])
    assert str(lone) == "Walk-v1: mean episodic return 999.0 over 1 policy of 1 episode"


def test_progress_is_shown_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    evaluate_stack(POLICIES[:2], LAYOUT, TASK, 1, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert re.search(r"evaluate 2 policies.*100%", err)
    evaluate(mixed_policies()[:3], 1, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert len(re.findall(r"evaluate 1 polic.*100%", err)) == 3
    evaluate_stack(POLICIES[:1], LAYOUT, TASK, 1)
    evaluate(mixed_policies()[:2], 1)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"episodes": 0}, "episodes is 0; expected at least 1"),
        ({"episodes": -2}, "episodes is -2"),
        ({"seed": -1}, "seed is -1; expected at least 0"),
        ({"threads": 0}, "threads is 0; expected at least 1"),
        ({"layout": ParamLayout.actor(4, 1, (5,))}, "of 26 parameters were given with a .* of 32"),
    ],
)
def test_impossible_options(options: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"layout": LAYOUT, "task": TASK, "episodes": 1}
    with pytest.raises(TiplError, match=message):
        evaluate_stack(POLICIES, **(arguments | options))  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(value: float) -> None:
    broken = POLICIES.copy()
    broken[3, 5] = value
    with pytest.raises(TiplError, match="policy 3 of the 5 given has NaN or infinite weights"):
        evaluate_stack(broken, LAYOUT, TASK, 1)
