"""Jumps inside PPO: weights, critics and moments after them, undoing them, and resuming."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tipl import TiplError
from tipl.collection.collect import collect, dataset_metadata
from tipl.collection.config import CollectConfig
from tipl.envs import make_vec
from tipl.evaluation.returns import evaluate_stack
from tipl.forecast.base import Forecaster
from tipl.forecast.extrapolation import StandingStill
from tipl.jumps import plug_in
from tipl.jumps.config import JumpConfig, PPTBConfig
from tipl.jumps.plug_in import ForecastJumps, refit_critics
from tipl.paths import PathDataset, verify
from tipl.policies.layout import ParamLayout, actor_layout, initial_params
from tipl.policies.policy import Policy
from tipl.policies.tasks import get_task
from tipl.ppo.config import PPOConfig
from tipl.ppo.learner import StackedAdam
from tipl.ppo.ppo import PPO
from tipl.ppo.rollout import advantages_and_returns

Array = np.ndarray[Any, np.dtype[Any]]

PENDULUM = "InvertedPendulum-v4"
STEPS = 64
FAST_PPO = PPOConfig(num_steps=STEPS, num_minibatches=4, update_epochs=2, learning_rate=3e-3)
ITERATIONS = 8
HIDDEN = (8, 6)
OFTEN: dict[str, Any] = {"every": 1, "budget": 9.0, "horizons": (1, 2), "min_history": 3}
"""Tries of an extrapolation as soon and as often as it may be."""


class Shifted(Forecaster):
    """Forecasts that all weights of the mean action are shifted: a policy that falls at once."""

    name = "shifted"

    def __init__(self, shift: float = 30.0) -> None:
        self.shift = shift

    def _forecast(self, histories: Array, horizons: list[int], layout: ParamLayout | None) -> Array:
        assert layout is not None
        ahead = np.repeat(histories[:, -1:], len(horizons), axis=1)
        ahead[..., layout.slices["actor.2.bias"]] += self.shift
        return ahead


def learning(
    config: JumpConfig | None, forecaster: Forecaster | None = None, trials: int = 3
) -> PPO:
    ppo = PPO(
        make_vec(PENDULUM, trials),
        get_task(PENDULUM),
        range(trials),
        ITERATIONS,
        FAST_PPO,
        HIDDEN,
        seed=5,
    )
    if config is not None:
        ppo.plug_in = ForecastJumps(config, forecaster=forecaster)
        ppo.start()
    return ppo


def jumps(**options: Any) -> JumpConfig:
    return JumpConfig(forecaster="relex", **options)


def train(ppo: PPO, iterations: int) -> None:
    for _ in range(iterations):
        ppo.update(ppo.rollout())


# --- the gate inside PPO ---------------------------------------------------------------------


def test_a_gate_that_lets_nothing_through_leaves_ppo_as_it_is() -> None:
    plain, gated = learning(None), learning(jumps(every=1), Shifted())
    train(plain, ITERATIONS)
    train(gated, ITERATIONS)
    np.testing.assert_array_equal(gated.params, plain.params)
    counts = gated.plug_in.checkpoint()  # type: ignore[union-attr]
    assert (counts["jump_steps"] > 0).all()
    assert not counts["jumps"].any()


def test_tests_of_forecasts_start_from_seeds_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = []

    def recorded(*args: Any, seed: int, **options: Any) -> Any:
        seeds.append(seed)
        return evaluate_stack(*args, seed=seed, **options)

    monkeypatch.setattr(plug_in, "evaluate_stack", recorded)
    ppo = learning(jumps(every=1, budget=9.0), Shifted())
    train(ppo, ITERATIONS)
    purposes = range(1, 6)  # of a trial's network, environment, noise, minibatches and physics
    others = {
        int(np.random.SeedSequence((ppo.seed, index, purpose)).generate_state(1)[0])
        for index in range(10)
        for purpose in purposes
    }
    assert len(set(seeds)) > 1
    assert not others & set(seeds)


def test_without_the_gate_a_bad_forecast_does_its_harm() -> None:
    plain, blind = learning(None), learning(jumps(gate=False, rollback=False), Shifted())
    lengths = [ppo.rollout().num_episodes.sum() for ppo in (plain, blind)]
    assert lengths[1] > 2 * lengths[0]  # its episodes are short


# --- correct PPO after a jump ----------------------------------------------------------------


@pytest.mark.parametrize(("moments", "kept"), [("reset", False), ("keep", True)])
def test_moments_of_trials_that_jump_are_reset_or_kept(moments: Any, kept: bool) -> None:
    config = jumps(gate=False, rollback=False, every=2, moments=moments)
    ppo = learning(config, StandingStill())
    train(ppo, 1)
    steps = ppo.adam.num_steps.copy()
    assert (steps == FAST_PPO.num_minibatches * FAST_PPO.update_epochs).all()
    train(ppo, 1)
    assert (ppo.adam.num_steps == (2 * steps if kept else 0)).all()
    assert bool(ppo.adam.first_moment.any()) == kept
    assert bool(ppo.adam.second_moment.any()) == kept


def test_reset_moments_step_like_a_new_adam() -> None:
    rng = np.random.default_rng(0)
    params, gradients = rng.standard_normal((2, 2, 5))
    old, new = (StackedAdam(params.copy(), 1e-5, 1.0) for _ in range(2))
    for adam in (old, new):
        adam.gradients[:] = gradients
    for _ in range(7):
        old.step(0.1)
    old.params[:] = params
    old.reset(np.array([False, True]))
    old.step(0.1)
    new.step(0.1)
    np.testing.assert_array_equal(old.params[1], new.params[1])
    assert (old.params[0] != new.params[0]).any()
    assert old.num_steps.tolist() == [8, 1]


def test_tests_are_foreseen_by_the_last_episodes() -> None:
    ppo = learning(jumps(), Shifted())
    assert isinstance(ppo.plug_in, ForecastJumps)
    told: list[Any] = []
    before_rollout = ppo.plug_in.jumper.before_rollout

    def listen(*arguments: Any) -> Any:
        told.append(arguments[-1])
        return before_rollout(*arguments)

    ppo.plug_in.jumper.before_rollout = listen  # type: ignore[method-assign]
    rollout = ppo.rollout()
    assert rollout.num_episodes.min() > 1
    ppo.update(rollout)
    np.testing.assert_allclose(told[0], STEPS / rollout.num_episodes)


def test_the_critic_is_refitted_before_the_actor_moves() -> None:
    ppo = learning(None)
    rollout = ppo.rollout()
    before, size = ppo.params.copy(), ppo.actor_layout.size
    moments = ppo.adam.first_moment.copy()
    values, next_values = rollout.values.copy(), rollout.next_values.copy()
    refit_critics(ppo, rollout, np.array([0, 2]), 60, seed=0)
    np.testing.assert_array_equal(ppo.params[:, :size], before[:, :size])
    np.testing.assert_array_equal(ppo.params[1], before[1])
    np.testing.assert_array_equal(rollout.values[:, 1], values[:, 1])
    np.testing.assert_array_equal(ppo.adam.first_moment, moments)
    # what the rollout is told is what the new critics say
    told, told_next = ppo.values_of(rollout)
    np.testing.assert_array_equal(rollout.values[:, [0, 2]], told[:, [0, 2]])
    np.testing.assert_array_equal(rollout.next_values[:, [0, 2]], told_next[:, [0, 2]])
    assert not rollout.next_values[rollout.terminated].any()

    def error(values: Array, next_values: Array) -> Array:
        """Mean squared error [N] against returns without any critic, of steps that have one."""
        rewards, dones = rollout.rewards.astype(float), rollout.dones
        _, returns = advantages_and_returns(
            *(rewards, values * 0.0, next_values * 0.0, dones, FAST_PPO.gamma, 1.0)
        )
        ended = dones[::-1].cumsum(axis=0)[::-1] > 0  # an episode that ends in the rollout
        return np.array(
            [np.square(values - returns)[ended[:, n], n].mean() for n in range(values.shape[1])]
        )

    old, new = error(values, next_values), error(rollout.values, rollout.next_values)
    assert (new[[0, 2]] < 0.6 * old[[0, 2]]).all()
    assert new[1] == old[1]


@pytest.mark.parametrize("epochs", [0, 10])
def test_ppo_refits_the_critics_of_trials_that_have_jumped(epochs: int) -> None:
    plain = learning(None)
    jumped = learning(
        jumps(gate=False, rollback=False, critic_epochs=epochs, max_jumps=1), StandingStill()
    )
    for ppo in (plain, jumped):
        train(ppo, 1)
    # the same weights were jumped to, so the refitted critic is all the difference
    assert (plain.params == jumped.params).all() == (epochs == 0)


# --- undoing ---------------------------------------------------------------------------------


def test_a_jump_that_does_worse_is_undone_with_all_that_came_of_it() -> None:
    ppo = learning(jumps(gate=False, every=2), Shifted())
    plain = learning(None)
    plug_in = ppo.plug_in
    assert isinstance(plug_in, ForecastJumps)
    plug_in.jumper.arrays["reference"][:] = 1e9  # no return is as high
    train(ppo, 1)
    assert plug_in.checkpoint()["rollbacks"].tolist() == [1, 1, 1]
    np.testing.assert_array_equal(ppo.params, plain.params)  # as before the jump
    assert not ppo.adam.first_moment.any()
    assert not ppo.adam.num_steps.any()


def test_a_jump_is_compared_with_the_rollout_before_it() -> None:
    ppo = learning(jumps(gate=False, every=1, max_jumps=1), Shifted())
    plug_in = ppo.plug_in
    assert isinstance(plug_in, ForecastJumps)
    train(ppo, 1)  # nothing was known before the jump of untrained networks: it stands
    assert not plug_in.checkpoint()["rollbacks"].any()
    plug_in.jumper.max_jumps = 2
    before = ppo.rollout()
    ppo.update(before)
    assert plug_in.checkpoint()["jumps"].tolist() == [2, 2, 2]
    np.testing.assert_array_equal(plug_in.jumper.arrays["reference"], before.episodic_return)


def test_without_rollback_a_jump_stands() -> None:
    ppo = learning(jumps(gate=False, rollback=False, every=2), Shifted())
    plug_in = ppo.plug_in
    assert isinstance(plug_in, ForecastJumps)
    plug_in.jumper.arrays["reference"][:] = 1e9
    train(ppo, 1)
    assert not plug_in.checkpoint()["rollbacks"].any()


# --- resuming --------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [1, 2, 5])
def test_goes_on_from_its_state_as_if_never_interrupted(at: int) -> None:
    config = jumps(**OFTEN)
    undisturbed = learning(config)
    train(undisturbed, at)
    resumed = learning(None)
    resumed.plug_in = ForecastJumps(config)
    resumed.set_state(undisturbed.state())
    train(undisturbed, ITERATIONS - at)
    train(resumed, ITERATIONS - at)
    for name, array in undisturbed.state().items():
        np.testing.assert_array_equal(resumed.state()[name], array, err_msg=name)
    counts = undisturbed.plug_in.checkpoint()  # type: ignore[union-attr]
    assert counts["jump_steps"].all()


# --- collections -----------------------------------------------------------------------------

OPTIONS: dict[str, Any] = {
    "num_trials": 3,
    "trials_per_group": 2,
    "total_steps": ITERATIONS * STEPS,
    "hidden_sizes": HIDDEN,
    "ppo": FAST_PPO,
    "progress": False,
}


def test_a_collection_stores_what_forecasts_did(tmp_path: Path) -> None:
    paths = collect(PENDULUM, out=tmp_path / "a", jumps=jumps(**OFTEN), **OPTIONS)
    counts = paths.jump_counts()
    assert set(counts) == {"jump_steps", "jumps", "rollbacks"}
    for count in counts.values():
        assert count.shape == (3, ITERATIONS + 1)
        assert (np.diff(count, axis=1) >= 0).all()
    assert counts["jump_steps"][:, -1].all()
    np.testing.assert_array_equal(
        paths.env_steps(), np.arange(ITERATIONS + 1) * STEPS + counts["jump_steps"]
    )
    assert verify(paths.directory) == []
    assert paths.metadata.jumps["horizons"] == [1, 2]
    assert PathDataset.open(paths.directory).metadata == paths.metadata


def test_a_killed_collection_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    options = OPTIONS | {"jumps": jumps(**OFTEN), "num_trials": 2}
    whole = collect(PENDULUM, out=tmp_path / "whole", **options)
    shutil.copytree(whole.directory, tmp_path / "again")
    for part in (tmp_path / "again" / "parts").iterdir():
        part.unlink()
    collect(PENDULUM, out=tmp_path / "again", **options)
    for part in (whole.directory / "parts").iterdir():
        assert (tmp_path / "again" / "parts" / part.name).read_bytes() == part.read_bytes()


def test_plain_datasets_know_of_no_jumps(tmp_path: Path) -> None:
    paths = collect(PENDULUM, out=tmp_path / "plain", **OPTIONS | {"num_trials": 1})
    assert paths.jump_counts() == {}
    np.testing.assert_array_equal(paths.env_steps()[0], paths.global_step)
    assert "jumps" not in paths.metadata.to_json()


def test_untrained_pendulum_networks_jump_to_balance(tmp_path: Path) -> None:
    paths = collect(
        PENDULUM,
        out=tmp_path / "jumped",
        num_trials=2,
        total_steps=64,  # what is tested comes before the first rollout
        ppo=PPOConfig(num_steps=64, num_minibatches=2, update_epochs=1),
        seed=900_001,
        jumps=JumpConfig(forecaster=PENDULUM),
        evaluation_episodes=2,
        progress=False,
    )
    assert (paths.jump_counts()["jumps"][:, 0] == 1).all()
    assert (paths.deterministic_return()[:, 0] > 950).all()
    spent = paths.jump_counts()["jump_steps"][:, 0]  # two good episodes and two short ones
    assert ((spent > 1900) & (spent < 2500)).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normaliser": "running"}, "jumps were given with normaliser='running'"),
        ({"pptb": PPTBConfig(rank=2)}, "both PPTB and jumps were given"),
        ({"jumps": JumpConfig(forecaster="nothing")}, "there is no nothing/config.json"),
        ({"jumps": JumpConfig(forecaster="HalfCheetah-v4")}, "was trained on HalfCheetah-v4"),
        (
            {"jumps": JumpConfig(forecaster=PENDULUM), "vary": ("gravity=0.5..2",)},
            "varied physics",
        ),
    ],
)
def test_impossible_jumps_are_refused_before_anything_is_written(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    chosen = {**OPTIONS, "jumps": jumps(), **options}
    with pytest.raises(TiplError, match=message):
        collect(PENDULUM, out=tmp_path / "refused", **chosen)
    assert not (tmp_path / "refused").exists()


@pytest.mark.parametrize("squashed", [False, True])
def test_a_policy_of_other_units_is_not_copied_into_own_ppo(tmp_path: Path, squashed: bool) -> None:
    task = get_task(PENDULUM)
    layout = actor_layout(task, HIDDEN, "relu", squashed)
    Policy(initial_params(layout, 0), layout, task).save(tmp_path / "policy")
    units = r"relu units, squashed outputs" if squashed else "relu units"
    message = rf"hidden layers of \(8, 6\) {units}, and the run's policy has \(8, 6\) tanh units"
    chosen = {**OPTIONS, "jumps": JumpConfig(forecaster=str(tmp_path / "policy"))}
    with pytest.raises(TiplError, match=message):
        collect(PENDULUM, out=tmp_path / "refused", **chosen)
    assert not (tmp_path / "refused").exists()


def test_the_settings_of_jumps_are_part_of_a_dataset(tmp_path: Path) -> None:
    config = CollectConfig(jumps=jumps(horizons=(3,)))
    assert dataset_metadata(PENDULUM, config).jumps == {
        **dataclasses.asdict(jumps(horizons=(3,))),
        "horizons": [3],
    }
