"""Transitions: as they were made, kept in a file, and one environment to make them in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import tipl
from tipl import Experience, TiplError
from tipl.core import storage
from tipl.envs.single import WorldEnv
from tipl.evaluation.behaviour import raw_observations, transitions
from tipl.policies.layout import actor_layout, initial_params
from tipl.policies.tasks import get_task

PENDULUM = get_task("InvertedPendulum-v4")
LAYOUT = actor_layout(PENDULUM, (4,))
PARAMS = np.stack([initial_params(LAYOUT, seed) for seed in range(3)])
PHYSICS = {"gravity": np.array([0.5, 1.0, 2.0])}
ONES = np.ones((3, 4)), np.ones((3, 1)), np.ones((3, 4))


# --- arrays ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int8, bool, np.longdouble])
def test_numbers_of_any_type_are_taken(dtype: Any, tmp_path: Path) -> None:
    given = [rows.astype(dtype) for rows in ONES]
    made = Experience.of(*given)
    assert {rows.dtype for rows in vars(made).values()} == {np.dtype(np.float64)}
    made.save(tmp_path / "log")
    again = Experience.load(tmp_path / "log")
    assert all(np.array_equal(*two) for two in zip(vars(again).values(), ONES, strict=True))


def test_it_keeps_what_it_was_given() -> None:
    given = [rows.copy() for rows in ONES]
    made = tipl.Experience(*given)
    given[0][:] = 7
    assert (made.observations == 1).all()
    assert len(made + made) == 6


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((ONES[0], ONES[1], np.ones((3, 5))), "of the shapes"),
        ((ONES[0], np.ones((2, 1)), ONES[2]), "of the shapes"),
        ((np.ones(4), np.ones(1), np.ones(4)), "of the shapes"),
        (([], [], []), "of the shapes"),
        ((1.0, 2.0, 3.0), "of the shapes"),
        ((np.ones((0, 4)), np.ones((0, 1)), np.ones((0, 4))), "of the shapes"),
        ((np.full((3, 4), np.nan), *ONES[1:]), "3 of 3 transitions of an experience hold NaN"),
        ((*ONES[:2], np.full((3, 4), 1e999)), "3 of 3 transitions of an experience hold NaN"),
        ((ONES[0], np.array([[1.0], [2.0], [-np.inf]]), ONES[2]), "1 of 3 transitions"),
        (([[1.0] * 4, [1.0] * 3, [1.0] * 4], *ONES[1:]), "observations of an experience are no"),
        ((ONES[0], ONES[1] + 1j, ONES[2]), "the actions of an experience are no array of real"),
        ((*ONES[:2], np.full((3, 4), "1")), "the next observations of an experience are no array"),
        (([["1"] * 4] * 3, *ONES[1:]), "observations of an experience are no array of real"),
        ((ONES[0], [[10**400]] * 3, ONES[2]), "the actions of an experience are no array of real"),
        ((None, *ONES[1:]), "observations of an experience are no array of real"),
        (({"x": 1}, *ONES[1:]), "observations of an experience are no array of real"),
        ((np.full((3, 4), "2020", "M8[Y]"), *ONES[1:]), "are no array of real numbers"),
    ],
)
def test_what_is_no_experience_is_refused(given: Any, message: str) -> None:
    with pytest.raises(TiplError, match=message):
        Experience.of(*given)


def test_tensors_are_arrays_unless_they_learn() -> None:
    torch = pytest.importorskip("torch")
    assert len(Experience.of(*map(torch.as_tensor, ONES))) == 3
    with pytest.raises(TiplError, match="the actions of an experience are no array of real"):
        Experience.of(ONES[0], torch.ones(3, 1, requires_grad=True), ONES[2])


def test_a_file_of_something_else_stays(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(TiplError):
        Experience.of(*ONES).save(tmp_path / "notes")
    assert (tmp_path / "notes").read_text() == "mine"
    file = tmp_path / "log"
    Experience.of(*ONES).save(file)
    Experience.of(*ONES).save(file)  # its own is replaced
    tensors, header = storage.read_tensors(file)
    tensors["actions"] = np.full((3, 1), np.nan)
    storage.write_tensors(file, tensors, header)
    with pytest.raises(TiplError, match=r"log: 3 of 3 transitions"):
        Experience.load(file)


def test_the_most_extreme_numbers_are_read() -> None:
    from tiny_worlds import tiny_world_model

    extreme = [1e308 * rows * [[1], [-1], [0]] for rows in ONES]
    belief = tiny_world_model().seen(Experience.of(*extreme))
    assert np.isfinite(belief.mean).all()


# --- policies that act -----------------------------------------------------------------------


def test_what_follows_is_of_the_same_episode() -> None:
    """Poles fall within some steps, so that episodes end in between."""
    made = transitions(PARAMS, LAYOUT, PENDULUM, 60, noise=1.0, seed=3, physics=PHYSICS)
    seen, actions, following = made
    goes_on = (seen[:, 1:] == following[:, :-1]).all(axis=-1)
    assert goes_on.any()
    assert not goes_on.all()
    ended = np.abs(following[:, :-1, 1]) > 0.2
    assert np.array_equal(ended, ~goes_on)
    assert (np.abs(seen[:, 1:][~goes_on]) < 0.02).all()  # where episodes begin
    assert (np.abs(actions) <= 3).all()
    visited = raw_observations(PARAMS, LAYOUT, PENDULUM, 60, noise=1.0, seed=3, physics=PHYSICS)
    assert visited.tobytes() == seen.tobytes()


# --- one environment -------------------------------------------------------------------------


def episode(env: WorldEnv, seed: int | None) -> list[Any]:
    rows = [env.reset(seed=seed)[0]]
    ended = False
    while not ended:
        observation, _, terminated, truncated, _ = env.step(np.array([0.5], np.float32))
        rows.append(observation)
        ended = terminated or truncated
    return rows


def test_one_environment_in_its_world() -> None:
    env = WorldEnv(PENDULUM, {"gravity": 1.7})
    first, second = episode(env, 3), episode(env, None)
    again = WorldEnv(PENDULUM, {"gravity": 1.7})
    assert all(np.array_equal(*two) for two in zip(first, episode(again, 3), strict=True))
    assert all(np.array_equal(*two) for two in zip(second, episode(again, None), strict=True))
    assert not np.array_equal(first[0], second[0])
    assert abs(first[-1][1]) > 0.2  # the last of its own episode
    assert (np.abs(second[0]) < 0.02).all()
    home = episode(WorldEnv(PENDULUM.env_id), 3)
    assert np.array_equal(home[0], first[0])
    assert not np.array_equal(home[1], first[1])
    assert (env.observation_space.shape, env.action_space.shape) == ((4,), (1,))
    with pytest.raises(TiplError, match="gravty"):
        WorldEnv(PENDULUM, {"gravty": 2.0})


@pytest.mark.filterwarnings("ignore:.*WARN.*:UserWarning")
def test_gymnasium_finds_nothing_wrong_with_it() -> None:
    check_env(WorldEnv(PENDULUM, {"gravity": 1.7}), skip_render_check=True)
