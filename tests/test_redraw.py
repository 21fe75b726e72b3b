"""Physics drawn anew at each episode: the steps, the draws, going on, and what is stored."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import tipl
from test_cli import tipl as command
from test_collection import KilledError, content, interrupt
from test_physics import CHANGES, CHEETAH, random_actions, scale, scale_gravity
from test_physics import run as run_steps
from tipl import PathDataset, TiplError, Worlds
from tipl.collection.config import CollectConfig
from tipl.collection.physics import EpisodePhysics
from tipl.envs import BatchedMujocoEnv, make_vec
from tipl.evaluation.behaviour import best_checkpoint
from tipl.jumps.config import JumpConfig
from tipl.paths import verify
from tipl.paths.metadata import PathMetadata
from tipl.ppo.config import PPOConfig

PENDULUM = "InvertedPendulum-v4"


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # Gymnasium's own HalfCheetah writes MUJOCO_LOG.TXT


# --- the environments --------------------------------------------------------------------------

ALL_CHANGES = {name: CHANGES[name] for name in (PENDULUM, CHEETAH, "Walker2d-v4", "Ant-v5")} | {
    # what it observes of a start depends on constraint forces
    "InvertedDoublePendulum-v4": {"gravity": scale_gravity, "body_mass": scale("body_mass")},
}


def drawn(env_id: str, env: int, episode: int) -> dict[str, float]:
    rng = np.random.default_rng((env, episode))
    return {name: float(rng.uniform(0.3, 3.0)) for name in ALL_CHANGES[env_id]}


class Redrawn(gymnasium.Wrapper):
    """Changes the model in place, by the factors of the episode, before each reset."""

    def __init__(self, env_id: str, number: int) -> None:
        super().__init__(gymnasium.make(env_id, max_episode_steps=7))
        self.env_id, self.number, self.episode = env_id, number, 0
        inner: Any = self.env.unwrapped
        fields = ("body_mass", "body_inertia", "geom_friction", "actuator_gear", "dof_armature")
        self.own = {name: getattr(inner.model, name).copy() for name in fields}
        self.gravity = inner.model.opt.gravity.copy()

    def reset(self, **options: Any) -> Any:
        inner: Any = self.env.unwrapped
        inner.model.opt.gravity[:] = self.gravity
        for name, values in self.own.items():
            getattr(inner.model, name)[:] = values
        for name, factor in drawn(self.env_id, self.number, self.episode).items():
            ALL_CHANGES[self.env_id][name](inner.model, factor)
        mujoco.mj_setConst(inner.model, inner.data)
        self.episode += 1
        return self.env.reset(**options)


@pytest.mark.parametrize("env_id", ALL_CHANGES)
def test_bit_identical_to_gymnasium_with_a_model_that_changes_before_each_reset(
    env_id: str,
) -> None:
    def redraw(envs: np.ndarray, episodes: np.ndarray) -> dict[str, np.ndarray]:
        draws = [
            drawn(env_id, *pair) for pair in zip(envs.tolist(), episodes.tolist(), strict=True)
        ]
        return {name: np.array([draw[name] for draw in draws]) for name in draws[0]}

    ours = BatchedMujocoEnv(env_id, 3, max_episode_steps=7, redraw=redraw)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is out of date", DeprecationWarning)
        theirs = SyncVectorEnv(
            [lambda i=i: Redrawn(env_id, i) for i in range(3)],  # type: ignore[misc]
            autoreset_mode=AutoresetMode.SAME_STEP,
        )
    first = [env.reset(seed=1)[0] for env in (ours, theirs)]
    np.testing.assert_array_equal(*first)
    actions = random_actions(ours, 40)
    assert run_steps(ours, actions) == run_steps(theirs, actions)
    assert (ours.state()["episodes"] >= 5).all()


def counting(envs: np.ndarray, episodes: np.ndarray) -> dict[str, np.ndarray]:
    return {"gravity": 0.5 + 0.1 * envs + 0.2 * episodes}


def test_a_state_goes_on_in_the_physics_of_its_episodes() -> None:
    one, other = (make_vec(PENDULUM, 3, redraw=counting) for _ in range(2))
    one.reset(seed=4)
    actions = random_actions(one, 120)
    run_steps(one, actions[:61])
    state = one.state()  # type: ignore[attr-defined]
    assert len(set(state["episodes"].tolist())) > 1
    other.set_state(state)  # type: ignore[attr-defined]
    assert run_steps(one, actions[61:]) == run_steps(other, actions[61:])


def test_what_is_redrawn_is_given_in_one_way() -> None:
    with pytest.raises(TiplError, match="redrawn at each episode; give one of both"):
        make_vec(PENDULUM, 2, physics={"gravity": np.ones(2)}, redraw=counting)
    with pytest.raises(TiplError, match=r"does not run on mujoco\.batch"):
        make_vec("Pendulum-v1", 2, redraw=counting)


# --- the draws ---------------------------------------------------------------------------------

RANGES = {"gravity": (0.5, 2.0), "viscosity": (1.0, 100.0)}


def test_an_episode_has_its_own_draw_whatever_the_batch() -> None:
    many = EpisodePhysics(7, [4, 9], 3, RANGES)
    envs, episodes = np.repeat(np.arange(6), 5), np.tile(np.arange(5), 6)
    found = many(envs, episodes)
    assert list(found) == ["gravity", "viscosity"]
    assert len(np.unique(found["gravity"])) == 30
    alone = EpisodePhysics(7, [9], 3, RANGES)
    for name, factors in alone(np.array([2]), np.array([3])).items():
        assert factors == found[name][(envs == 5) & (episodes == 3)]
    other = EpisodePhysics(8, [9], 3, RANGES)(np.array([2]), np.array([3]))
    assert other["gravity"] != found["gravity"][(envs == 5) & (episodes == 3)]


def test_draws_are_even_in_the_logarithm_and_between_worlds() -> None:
    episodes = np.arange(2_000)
    found = EpisodePhysics(0, [0], 1, RANGES)(np.zeros(2_000, int), episodes)
    for name, (low, high) in RANGES.items():
        share = np.log(found[name] / low) / np.log(high / low)
        np.testing.assert_allclose(np.quantile(share, [0, 0.5, 1]), [0, 0.5, 1], atol=0.04)
    worlds = Worlds.from_factors(PENDULUM, {"training": [{"gravity": g} for g in (0.5, 1.0, 3.0)]})
    chosen = EpisodePhysics(0, [0], 1, {"gravity": (0.5, 3.0)}, worlds.worlds("training"))
    factors, counts = np.unique(
        chosen(np.zeros(2_000, int), episodes)["gravity"], return_counts=True
    )
    assert factors.tolist() == [0.5, 1, 3]
    np.testing.assert_allclose(counts / 2_000, 1 / 3, atol=0.04)


# --- the collection ----------------------------------------------------------------------------

FAST = PPOConfig(num_steps=48, num_envs=2, num_minibatches=2, update_epochs=1)
OPTIONS: dict[str, Any] = {
    "num_trials": 3, "trials_per_group": 2, "total_steps": 3 * 96, "hidden_sizes": (8, 6),
    "ppo": FAST, "seed": 3, "redraw": "episode",
}  # fmt: skip
VARY = {"vary": ("gravity=0.3..3", "body_mass:pole=0.5..2")}


def run(out: Path, **changes: Any) -> PathDataset:
    return tipl.collect(PENDULUM, out=out, threads=1, progress=False, **(OPTIONS | changes))


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> PathDataset:
    return run(tmp_path_factory.mktemp("redrawn") / "paths", **VARY)


def test_the_metadata_say_what_is_redrawn_and_no_trial_has_factors(paths: PathDataset) -> None:
    said = json.loads((paths.directory / "metadata.json").read_text())
    assert said["redraw"] == "episode"
    assert said["vary"] == {"body_mass:pole": [0.5, 2.0], "gravity": [0.3, 3.0]}
    assert paths.physics() == {}
    assert paths.worlds == ()
    assert paths.policy(0, -1).task.physics == ()
    assert verify(paths.directory) == []
    assert PathMetadata.from_json(paths.metadata.to_json()) == paths.metadata
    shown = command(f"paths show {paths.directory}").out
    assert "gravity differs between episodes by factors from 0.3 to 3" in shown


def test_such_policies_are_evaluated_at_home(paths: PathDataset) -> None:
    best = best_checkpoint(paths, episodes=1)
    assert best.policy.task.physics == ()
    returned = tipl.evaluate(best.policy, episodes=1, seed=1, threads=1).mean.value
    assert best.mean_return == returned


def test_trials_learn_in_other_physics_than_at_home_and_than_their_own(
    paths: PathDataset, tmp_path: Path
) -> None:
    home = run(tmp_path / "home", redraw="never")
    own = run(tmp_path / "own", redraw="never", **VARY)
    assert "redraw" not in (home.directory / "metadata.json").read_text()
    for other in (home, own):
        np.testing.assert_array_equal(paths.params()[:, 0], other.params()[:, 0])
        assert (paths.params()[:, 1] != other.params()[:, 1]).any(axis=1).all()


def test_the_batch_of_a_trial_does_not_count(paths: PathDataset, tmp_path: Path) -> None:
    alone = run(tmp_path / "alone", trials_per_group=1, **VARY)
    np.testing.assert_allclose(alone.params(), paths.params(), atol=1e-4)
    np.testing.assert_array_equal(alone.num_episodes(), paths.num_episodes())


@pytest.mark.parametrize("when", [1, 2])
def test_an_interrupted_collection_ends_in_the_same_bytes(
    when: int, paths: PathDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupt(patch, "rollout", 0, when)
        with pytest.raises(KilledError):
            run(tmp_path / "paths", **VARY)
    run(tmp_path / "paths", **VARY)
    assert content(tmp_path / "paths") == content(paths.directory)


def test_worlds_are_redrawn(tmp_path: Path) -> None:
    worlds = Worlds.from_factors(
        PENDULUM,
        {"training": [{"gravity": 0.5, "actuator_gear": -1.0}, {"gravity": 2.0}], "later": [{}]},
    )
    paths = run(tmp_path / "paths", worlds=worlds)
    said = paths.metadata.worlds
    assert said is not None
    assert (said.split, said.names) == ("training", ("training-000", "training-001"))
    assert paths.num_trials == 3  # not as many as there are worlds
    assert paths.worlds == ()
    assert PathMetadata.from_json(paths.metadata.to_json()) == paths.metadata
    other = run(tmp_path / "other", worlds=worlds, split="later")
    assert (paths.params()[:, 1] != other.params()[:, 1]).any()
    assert verify(paths.directory) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "redraw='episode' was given without physics that vary; give ranges"),
        ({"worlds": "w.json", "trials_per_world": 2}, "all trials learn in all worlds; give one"),
        (VARY | {"jumps": JumpConfig("relex")}, "jumps were given with red"),
    ],
)
def test_what_is_impossible_is_explained(changes: Mapping[str, Any], message: str) -> None:
    with pytest.raises(TiplError, match=message):
        CollectConfig(**(OPTIONS | dict(changes)))


def test_stable_baselines3_redraws_nothing() -> None:
    done = command(f"collect {PENDULUM} --from-sb3 --vary gravity=1..2 --redraw episode")
    assert done.code == 2
    assert "redraw was given together with stable-baselines3" in done.err
