"""Lineages: trials that all start from one policy, and what is refused as a start."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tipl
from test_cli import tipl as command
from test_collection import KilledError, content, interrupt
from tipl import PathDataset, Policy, TiplError
from tipl.collection.config import CollectConfig
from tipl.envs import make_vec
from tipl.jumps import lineage
from tipl.jumps.config import JumpConfig
from tipl.jumps.lineage import Lineage
from tipl.jumps.plug_in import refit_critics
from tipl.paths.metadata import read_metadata
from tipl.policies.layout import actor_layout, initial_params
from tipl.policies.tasks import get_task
from tipl.ppo.config import PPOConfig
from tipl.ppo.ppo import PPO, PlugIn
from tipl.ppo.rollout import Rollout

PENDULUM = "InvertedPendulum-v4"
TASK = get_task(PENDULUM)
STEPS = 32
FAST = PPOConfig(num_steps=STEPS, num_minibatches=2, update_epochs=1, learning_rate=3e-3)
OPTIONS: dict[str, Any] = {
    "num_trials": 3, "trials_per_group": 2, "total_steps": 4 * STEPS, "ppo": FAST, "seed": 3,
}  # fmt: skip


@pytest.fixture
def start() -> Policy:
    """A policy of other hidden layers and another action noise than PPO starts with."""
    policy = Policy.initial(TASK, seed=9, hidden=(8, 6))
    params = policy.params.copy()
    policy.layout.unflatten(params)["log_std"][:] = -1.25
    return policy.with_params(params)


def run(out: Path, start: Any, **changes: Any) -> PathDataset:
    return tipl.collect(
        PENDULUM, out=out, threads=1, progress=False, start=start, **(OPTIONS | changes)
    )


@pytest.mark.parametrize("initial", ["independent", "shared"])
def test_all_trials_start_from_the_policy_and_go_their_own_ways(
    initial: Any, start: Policy, tmp_path: Path
) -> None:
    vary = ("gravity=0.5..2",)
    paths = run(tmp_path / "paths", start, initial=initial, vary=vary, networks="actor+critic")
    params = paths.params()
    size = paths.metadata.actor_layout.size
    assert paths.layout.hidden_sizes == (8, 6)
    for trial in params:
        np.testing.assert_array_equal(trial[0, :size], start.params)
    assert len(np.unique(params[:, -1, :size], axis=0)) == 3
    assert len(np.unique(params[:, 0, size:], axis=0)) == (1 if initial == "shared" else 3)
    assert len(np.unique(paths.physics()["gravity"])) == 3
    assert paths.metadata.start == start.digest
    # the log_std moves on from where it was
    log_std = params[:, 1:, paths.layout.slices["log_std"]]
    assert (abs(log_std + 1.25) < 0.1).all()
    assert (log_std != -1.25).any()


def test_a_policy_and_its_directory_make_the_same_dataset(start: Policy, tmp_path: Path) -> None:
    start.save(tmp_path / "policy")
    run(tmp_path / "one", start)
    words = f"--num-trials 3 --trials-per-group 2 --total-steps {4 * STEPS} --seed 3 --threads 1"
    ppo = f"--ppo.num-steps {STEPS} --ppo.num-minibatches 2 --ppo.update-epochs 1"
    where = f"--ppo.learning-rate 3e-3 --start {tmp_path / 'policy'} --out {tmp_path / 'two'}"
    done = command(f"collect {PENDULUM} {words} {ppo} {where}")
    assert done.code == 0
    assert content(tmp_path / "one") == content(tmp_path / "two")
    assert f"3 from the policy {start.digest[:12]}" in done.out


def test_the_metadata_of_what_starts_untrained_say_nothing_of_it(tmp_path: Path) -> None:
    paths = run(tmp_path / "paths", None)
    assert paths.layout.hidden_sizes == (64, 64)
    assert "start" not in (tmp_path / "paths" / "metadata.json").read_text()
    assert read_metadata(tmp_path / "paths").start == ""


# --- the critic --------------------------------------------------------------------------------


def learning(start: Policy, others: PlugIn) -> PPO:
    ppo = PPO(make_vec(PENDULUM, 2), TASK, range(2), 3, FAST, (8, 6), seed=5)
    ppo.plug_in = Lineage(start.params, others)
    ppo.start()
    return ppo


def test_critics_are_refitted_once_before_the_actors_move(
    start: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, list[int], int]] = []

    def recorded(ppo: PPO, rollout: Rollout, trials: Any, epochs: int, seed: int) -> None:
        np.testing.assert_array_equal(ppo.actors, np.stack([start.params] * 2))
        assert not ppo.adam.num_steps.any()
        critics = ppo.params[:, ppo.actor_layout.size :].copy()
        refit_critics(ppo, rollout, trials, epochs, seed)
        assert (ppo.params[:, ppo.actor_layout.size :] != critics).any()
        calls.append((ppo.iteration, trials.tolist(), epochs))

    monkeypatch.setattr(lineage, "refit_critics", recorded)
    ppo = learning(start, PlugIn())
    for _ in range(3):
        ppo.update(ppo.rollout())
    assert calls == [(0, [0, 1], 30)]


class Counting(PlugIn):
    """Says what it has been asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def start(self, ppo: PPO) -> None:
        self.asked.append("start")

    def before_update(self, ppo: PPO, rollout: Rollout) -> None:
        self.asked.append("before")

    def after_update(self, ppo: PPO, rollout: Rollout) -> None:
        self.asked.append("after")

    def checkpoint(self) -> dict[str, Any]:
        return {"asked": np.array([len(self.asked)] * 2)}

    def state(self) -> dict[str, Any]:
        return {"asked": np.array(len(self.asked))}

    def set_state(self, ppo: PPO, state: dict[str, Any]) -> None:
        self.asked = ["known"] * int(state["asked"])


def test_another_plug_in_goes_on(start: Policy) -> None:
    ppo = learning(start, Counting())
    ppo.update(ppo.rollout())
    assert ppo.plug_in.checkpoint()["asked"].tolist() == [3, 3]
    again, others = learning(start, PlugIn()), Counting()
    again.plug_in = Lineage(start.params, others)
    again.set_state(ppo.state())
    assert others.asked == ["known"] * 3
    np.testing.assert_array_equal(again.params, ppo.params)


def test_a_lineage_may_jump(start: Policy, tmp_path: Path) -> None:
    jumps = JumpConfig(forecaster="relex", every=1, min_history=2, budget=9.0, gate=False)
    paths = run(tmp_path / "paths", start, jumps=jumps)
    assert paths.jump_counts()["jumps"].any()
    np.testing.assert_array_equal(paths.params()[:, 0], np.stack([start.params] * 3))


# --- going on ----------------------------------------------------------------------------------


def test_an_interrupted_lineage_ends_in_the_same_bytes(
    start: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "undisturbed", start)
    with monkeypatch.context() as patch:
        interrupt(patch, "update", 0, 2)
        with pytest.raises(KilledError):
            run(tmp_path / "paths", start)
    run(tmp_path / "paths", start)
    assert content(tmp_path / "paths") == content(tmp_path / "undisturbed")


@pytest.mark.parametrize("other", ["another policy", "none"])
def test_another_start_is_refused(other: str, start: Policy, tmp_path: Path) -> None:
    run(tmp_path / "paths", start)
    given = None if other == "none" else start.with_params(start.params + np.float32(0.1))
    with pytest.raises(TiplError, match="already holds another dataset: its start is"):
        run(tmp_path / "paths", given, hidden_sizes=(8, 6))


# --- what is a start -----------------------------------------------------------------------------


def test_a_start_of_another_normaliser_acts_as_it_did(start: Policy, tmp_path: Path) -> None:
    mean, std = np.array([0.1, -0.2, 0.3, 0.0]), np.array([0.5, 2.0, 1.0, 0.7])
    other = Policy(start.params, start.layout, TASK, mean, std)
    paths = run(tmp_path / "paths", other)
    seen = np.random.default_rng(0).normal(size=(20, 4)) * 0.1
    acted = paths.policy(0, 0)
    np.testing.assert_array_equal(acted.observation_mean, TASK.observation_statistics[0])
    np.testing.assert_allclose(acted.act(seen), other.act(seen), rtol=1e-4, atol=1e-6)
    assert paths.metadata.start == other.digest


def test_a_policy_of_another_world_is_a_start(start: Policy, tmp_path: Path) -> None:
    elsewhere = Policy(start.params, start.layout, TASK.with_physics({"gravity": 2.0}))
    paths = run(tmp_path / "paths", elsewhere)
    np.testing.assert_array_equal(paths.params()[:, 0], np.stack([start.params] * 3))
    assert paths.policy(0, 0).task.physics == ()


@pytest.mark.parametrize(
    ("policy", "changes", "message"),
    [
        (
            Policy.initial("InvertedDoublePendulum-v4"),
            {},
            "Double.* was given as the start of",
        ),
        (Policy.initial(TASK, activation="relu"), {}, "of relu units was given as the start"),
        (Policy.initial(TASK), {"hidden_sizes": (64, 32)}, r"\(64, 64\) units .*\(64, 32\); leave"),
        (Policy.initial(TASK), {"normaliser": "running"}, "a start was given with normaliser='run"),
        (PENDULUM, {}, "not its weights; give the directory of a policy: .*`tipl paths best`"),
        ("nowhere", {}, "nowhere"),
    ],
)
def test_what_is_no_start_is_explained(
    policy: Any, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(TiplError, match=message):
        run(tmp_path / "paths", policy, **changes)
    assert not (tmp_path / "paths").exists()


def test_squashed_outputs_and_other_episodes_are_no_start(tmp_path: Path) -> None:
    layout = actor_layout(TASK, (8,), "tanh", squashed=True)
    with pytest.raises(TiplError, match="of squashed outputs was given as the start"):
        run(tmp_path / "paths", Policy(initial_params(layout, 0), layout, TASK))
    spec = '{"id": "InvertedPendulum-v4", "max_episode_steps": 7}'
    shorter = Policy.initial(replace(TASK, gymnasium_spec=spec, variant="max_episode_steps 7"))
    with pytest.raises(TiplError, match="one of the same environment"):
        run(tmp_path / "paths", shorter)


def test_stable_baselines3_has_no_start() -> None:
    done = command(f"collect {PENDULUM} --from-sb3 --start somewhere")
    assert done.code == 2
    assert "start was given together with stable-baselines3" in done.err


def test_hidden_layers_of_nobody_are_the_usual() -> None:
    assert CollectConfig().hidden == (64, 64)
    assert CollectConfig(hidden_sizes=(3,), start="policy").hidden == (3,)
