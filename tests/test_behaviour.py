"""Behaviour: the best stored policy is found, and policies see what they would see alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from path_data import make_arrays, make_metadata, write_parts
from tipl.envs import make_vec
from tipl.envs.factory import measure_task
from tipl.errors import TiplError
from tipl.evaluation import behaviour
from tipl.evaluation.behaviour import action_unit, best_checkpoint, visited_observations
from tipl.evaluation.returns import Episodes, evaluate_stack
from tipl.paths import PathDataset, create_dataset
from tipl.policies.actions import OBSERVATION_CLIP
from tipl.policies.layout import ParamLayout, actor_layout
from tipl.policies.policy import Policy
from tipl.policies.tasks import TaskSpec, get_task

Array = np.ndarray[Any, np.dtype[Any]]

PENDULUM = get_task("InvertedPendulum-v4")
LAYOUT = ParamLayout.actor(4, 1, (4,))


BALANCING = (0.5, 10.0, 1.0, 2.0)
FOR_A_WHILE = (0.0, 6.0, 0.0, 1.0)
"""Gains of linear controllers: one that balances the pole, one that does for a while."""


def controller(gains: tuple[float, ...] = BALANCING) -> Array:
    """Weights whose mean action is, nearly, `gains @ observation`."""
    params = np.zeros(LAYOUT.size, np.float32)
    arrays = LAYOUT.unflatten(params)
    arrays["actor.0.weight"][:] = 0.01 * np.eye(4)  # where tanh is nearly linear
    arrays["actor.1.weight"][:] = np.array(gains) * PENDULUM.observation_std / 0.01
    arrays["actor.1.bias"][:] = np.dot(gains, PENDULUM.observation_mean)
    return params


def make_paths(
    directory: Path,
    returns: Array,
    diverged: tuple[int, ...] = (),
    gains: tuple[float, ...] = BALANCING,
    **changes: Any,
) -> PathDataset:
    """Random networks with given training returns `[N, T]`; a good one in trial 1, checkpoint 7.

    Diverged trials end in NaN.
    """
    layout = LAYOUT
    if changes.get("networks") == "actor+critic":
        layout += ParamLayout.critic(4, (4,))
    num_trials, num_checkpoints = returns.shape
    metadata = make_metadata(
        layout=layout, hidden_sizes=(4,), num_trials=num_trials, num_checkpoints=num_checkpoints,
        **changes,
    )  # fmt: skip
    arrays = make_arrays(metadata) | {"episodic_return": returns.astype(np.float32)}
    arrays["params"][:] = np.random.default_rng(0).normal(size=arrays["params"].shape)
    arrays["params"][1:2, 7:8, : LAYOUT.size] = controller(gains)
    arrays["diverged"][:] = False
    for trial in diverged:
        arrays["diverged"][trial, -1] = True
        arrays["params"][trial, -1, 0] = np.nan
    create_dataset(directory, metadata)
    write_parts(directory, metadata, arrays)
    return PathDataset.open(directory)


def random_returns(*shape: int) -> Array:
    return np.random.default_rng(1).uniform(0, 50, shape).astype(np.float32)


# --- the best stored policy ------------------------------------------------------------------


def test_the_policy_that_acts_best_is_found(tmp_path: Path) -> None:
    returns = random_returns(3, 20)
    returns[1, [7, 11]] = 60, 70  # better checkpoints than the best one are known
    returns[2, 3] = 100
    paths = make_paths(tmp_path / "paths", returns, networks="actor+critic").select([1, 2])
    elite = best_checkpoint(paths, episodes=2)
    assert (elite.trial, elite.checkpoint) == (1, 7)
    np.testing.assert_array_equal(elite.policy.params, controller())
    assert elite.policy.layout == LAYOUT
    assert elite.mean_return == 1000  # to the end of each episode


def spy_on_candidates(monkeypatch: pytest.MonkeyPatch) -> list[Array]:
    """Of what is evaluated from now on: the weights, of which the second last acts best.

    In the episodes of other seeds than 5 it returns 4 on average and not 9; all take 10 steps.
    """
    seen: list[Array] = []

    def episodes_of(
        params: Array, layout: ParamLayout, task: TaskSpec, episodes: int, *, clip: float, seed: int
    ) -> Episodes:
        assert (params.shape[1], task, episodes) == (layout.size, PENDULUM, 6)
        assert clip == OBSERVATION_CLIP
        assert seed == 5 + len(seen)  # no two evaluations have the same episodes
        seen.append(params)
        means = np.zeros(len(params))
        means[-2:-1] = 9
        if seed != 5:
            means[:] = 4
        returns = means[:, None] + [-3, -2, -1, 1, 2, 3]
        return Episodes(returns, np.full(returns.shape, 10))

    monkeypatch.setattr(behaviour, "evaluate_stack", episodes_of)
    return seen


@pytest.mark.parametrize("num_candidates", [24, 3])
@pytest.mark.parametrize(("num_checkpoints", "of_a_trial"), [(8, 1), (19, 1), (20, 2), (35, 3)])
def test_candidates_are_the_best_in_training_but_few_of_each_trial(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    num_checkpoints: int,
    of_a_trial: int,
    num_candidates: int,
) -> None:
    monkeypatch.setattr(behaviour, "NUM_CANDIDATES", num_candidates)
    seen = spy_on_candidates(monkeypatch)
    returns = random_returns(6, num_checkpoints)
    returns[0] += 30  # a good trial, which would fill all places
    returns[3] += 100  # this one is the best, but has diverged
    returns[:, ::3] = np.nan  # no episode ended there
    returns[5] = np.nan
    paths = make_paths(tmp_path / "paths", returns, diverged=(3,))
    elite = best_checkpoint(paths, episodes=6, seed=5)
    best = [
        (returns[trial, checkpoint], trial, checkpoint)
        for trial in (0, 1, 2, 4)
        for checkpoint in np.argsort(-returns[trial])[:of_a_trial]  # NaN is last
    ]
    expected = [(trial, t) for _, trial, t in sorted(best, reverse=True)][:num_candidates]
    assert len(expected) == min(4 * of_a_trial, num_candidates)
    params = paths.params()
    assert len(seen) == 2
    np.testing.assert_array_equal(seen[0], [params[trial, t] for trial, t in expected])
    np.testing.assert_array_equal(seen[1], [params[expected[-2]]])  # the best one, once more
    assert (elite.trial, elite.checkpoint) == expected[-2]
    assert (elite.mean_return, elite.episodes) == (4, 6)
    assert elite.env_steps == 10 * 6 * (len(expected) + 1)


def test_the_return_of_the_best_policy_is_of_other_episodes_than_it_was_chosen_by(
    tmp_path: Path,
) -> None:
    returns = random_returns(3, 8)
    returns[1, 7] = 100
    paths = make_paths(tmp_path / "paths", returns, gains=FOR_A_WHILE)
    elite = best_checkpoint(paths, episodes=3, seed=5)
    assert (elite.trial, elite.checkpoint) == (1, 7)
    candidates = paths.params()[range(3), returns.argmax(axis=1)]
    found, again = (
        evaluate_stack(params, LAYOUT, PENDULUM, 3, seed=seed).returns
        for params, seed in ((candidates, 5), (candidates[1:2], 6))
    )
    assert elite.mean_return == again.mean() != found[1].mean()
    assert elite.env_steps == found.sum() + again.sum()  # each step pays 1


def test_trials_of_which_nothing_is_known_have_no_best_policy(tmp_path: Path) -> None:
    returns = random_returns(3, 8)
    returns[1:] = np.nan
    paths = make_paths(tmp_path / "paths", returns, diverged=(0,))
    with pytest.raises(TiplError, match=r"no episode of any trial in .*/paths has ended"):
        best_checkpoint(paths)


def test_a_running_normaliser_is_refused(tmp_path: Path) -> None:
    paths = make_paths(tmp_path / "paths", random_returns(2, 8), normaliser="running")
    with pytest.raises(TiplError, match=r"normaliser='running', .*collect with normaliser='froz"):
        best_checkpoint(paths)


def test_trials_of_different_physics_are_refused(tmp_path: Path) -> None:
    vary = {"body_mass": [0.5, 2.0], "gravity": [0.7, 1.4]}
    paths = make_paths(tmp_path / "paths", random_returns(2, 8), vary=vary)
    message = r"each trial in .*/paths has its own body_mass, gravity, .*without varied physics"
    with pytest.raises(TiplError, match=message):
        best_checkpoint(paths)


# --- what policies see -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def cart_pole() -> TaskSpec:
    return measure_task("CartPole-v1", num_envs=4, num_steps=200)


@pytest.fixture(params=["continuous", "discrete"])
def task(request: pytest.FixtureRequest, cart_pole: TaskSpec) -> TaskSpec:
    return PENDULUM if request.param == "continuous" else cart_pole


def random_params(task: TaskSpec, count: int) -> tuple[Array, ParamLayout]:
    """Weights `[M, P]` of policies that act each in its own way."""
    layout = actor_layout(task, (5, 3))
    params = 0.5 * np.random.default_rng(2).standard_normal((count, layout.size), np.float32)
    return params, layout


class Spy:
    """Environments that remember what they show `[S, E, O]` and what is done to them `[S, E]`."""

    def __init__(self, env_id: str, num_envs: int) -> None:
        self.envs = make_vec(env_id, num_envs)
        self.num_envs, self.closed = num_envs, False
        self.observations: list[Array] = []
        self.actions: list[Array] = []

    def reset(self, **options: Any) -> tuple[Array, dict[str, Any]]:
        result = self.envs.reset(**options)
        self.observations.append(result[0].copy())
        return result

    def step(self, actions: Array) -> Any:
        self.actions.append(actions.copy())
        result = self.envs.step(actions)
        self.observations.append(result[0].copy())
        return result

    def close(self) -> None:
        self.envs.close()
        self.closed = True


@pytest.fixture
def spies(monkeypatch: pytest.MonkeyPatch) -> list[Spy]:
    """The environments that are made from now on."""
    made: list[Spy] = []

    def make(env_id: str, num_envs: int, physics: object = None) -> Spy:
        made.append(Spy(env_id, num_envs))
        return made[-1]

    monkeypatch.setattr(behaviour, "make_vec", make)
    return made


def test_equal_seeds_see_equal_things(task: TaskSpec) -> None:
    params, layout = random_params(task, 3)

    def seen(seed: int) -> Array:
        return visited_observations(params, layout, task, 20, noise=0.3, seed=seed)

    assert seen(1).shape == (3, 20, task.observation_size)
    assert seen(1).dtype == np.float32
    np.testing.assert_array_equal(seen(1), seen(1))
    assert (seen(1)[:, 0] != seen(2)[:, 0]).all()  # another start


def test_noise_changes_the_way_but_not_the_start(task: TaskSpec) -> None:
    params, layout = random_params(task, 3)
    still = visited_observations(params, layout, task, 40)
    noisy = visited_observations(params, layout, task, 40, noise=np.array([0.0, 0.9, 0.9]))
    np.testing.assert_array_equal(noisy[0], still[0])
    np.testing.assert_array_equal(noisy[:, 0], still[:, 0])
    assert (noisy[1:, -1] != still[1:, -1]).any(axis=1).all()
    of_all = visited_observations(params, layout, task, 40, noise=0.9)
    np.testing.assert_array_equal(of_all[1:], noisy[1:])


def test_observations_are_those_that_the_policies_acted_on(
    task: TaskSpec, spies: list[Spy]
) -> None:
    """With a normaliser under which some are clipped, episode after episode."""
    std = np.array(task.observation_std) / 30
    task = dataclasses.replace(task, observation_std=tuple(std.tolist()))
    params, layout = random_params(task, 3)
    seen = visited_observations(params, layout, task, 120)
    (spy,) = spies
    assert spy.closed
    shown = np.stack(spy.observations[:-1], axis=1)  # S of [M, O] -> [M, S, O]
    expected = np.clip((shown - np.array(task.observation_mean)) / std, -10, 10)
    assert (np.abs(expected) == 10).any()
    np.testing.assert_allclose(seen, expected, rtol=1e-6)
    actions = np.stack(spy.actions, axis=1)
    for own, row, observations in zip(params, actions, shown, strict=True):
        np.testing.assert_allclose(row, Policy(own, layout, task).act(observations), atol=1e-5)


def test_policies_in_blocks_are_all_run(
    task: TaskSpec, spies: list[Spy], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(behaviour, "NUM_ENVS", 2)
    params, layout = random_params(task, 5)
    params[:] = params[0]
    noise = np.array([0.0, 1.0, 0.0, 0.0, 1.0])
    seen = visited_observations(params, layout, task, 30, noise=noise)
    assert [spy.num_envs for spy in spies] == [2, 2, 1]
    shown = np.concatenate([np.stack(spy.observations[:-1], axis=1) for spy in spies])
    mean, std = np.array(task.observation_mean), np.array(task.observation_std)
    np.testing.assert_allclose(seen, (shown - mean) / std, rtol=1e-5, atol=1e-6)
    assert len(np.unique(seen[:, 0], axis=0)) == 5  # no start is repeated in another block
    best = Policy(params[0], layout, task)
    actions = np.concatenate([np.stack(spy.actions, axis=1) for spy in spies])
    for own, row, observations in zip(noise, actions, shown, strict=True):
        as_it_would = np.isclose(row, best.act(observations), atol=1e-5)
        assert as_it_would.all() == (own == 0)


@pytest.mark.parametrize("squashed", [False, True])
def test_noise_on_continuous_actions_is_in_units_of_half_their_range(
    spies: list[Spy], squashed: bool
) -> None:
    layout = actor_layout(PENDULUM, (3,), squashed=squashed)
    noise = np.array([0.0, 0.1, 0.2, 5.0])
    visited_observations(np.zeros((4, layout.size), np.float32), layout, PENDULUM, 400, noise=noise)
    actions = np.stack(spies[0].actions)[..., 0]  # [S, M]
    np.testing.assert_allclose(actions[:, :3].std(axis=0), [0, 0.3, 0.6], rtol=0.15)
    assert np.abs(actions).max() == 3  # never beyond the bounds
    assert abs(np.corrcoef(actions[:, 1], actions[:, 2])[0, 1]) < 0.2


def test_noise_on_discrete_actions_is_a_share_of_random_ones(
    cart_pole: TaskSpec, spies: list[Spy]
) -> None:
    layout = actor_layout(cart_pole, (3,))
    params = np.zeros((4, layout.size), np.float32)
    params[:, -1] = 1  # prefers action 1 everywhere
    visited_observations(params, layout, cart_pole, 400, noise=np.array([0, 0.2, 0.6, 1.0]))
    share = np.stack(spies[0].actions).mean(axis=0)
    np.testing.assert_allclose(share, [1, 0.9, 0.7, 0.5], atol=0.08)


@pytest.mark.parametrize(
    ("low", "high", "unit"),
    [
        ((-3.0,), (3.0,), (3.0,)),
        ((-1.0, 0.0), (1.0, 0.5), (1.0, 0.25)),
        ((-np.inf, -2.0), (np.inf, 2.0), (1.0, 2.0)),
        ((-np.inf,), (5.0,), (1.0,)),
    ],
)
def test_the_unit_of_actions_is_half_their_range(
    low: tuple[float, ...], high: tuple[float, ...], unit: tuple[float, ...]
) -> None:
    task = dataclasses.replace(PENDULUM, action_size=len(low), action_low=low, action_high=high)
    found = action_unit(task)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, unit)
