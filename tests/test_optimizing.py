"""`tipl.optimize`: what is made of which networks, what is tried, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box

import tipl
from tipl import Policy, TiplError
from tipl.cli import main
from tipl.envs.variants import make_one
from tipl.evaluation.returns import evaluate
from tipl.forecast.trained import TrainedForecaster
from tipl.models import optimizing
from tipl.models.network import LEAK
from tipl.models.optimizing import CHECK_SEED
from tipl.models.proposals import Proposal, best_of

TASK = "InvertedPendulum-v4"


@pytest.fixture(scope="module")
def model() -> TrainedForecaster:
    return TrainedForecaster.from_pretrained(TASK)


# --- what is made ----------------------------------------------------------------------------


def test_a_fresh_network_of_a_seed_is_carried(model: TrainedForecaster) -> None:
    made = tipl.optimize(TASK, hidden=(5, 7), seed=3, among=1)
    fresh = Policy.initial(model.task, 3, (5, 7))
    assert np.array_equal(made.params, model.optimize(fresh).params)
    assert (made.env_steps, made.tried) == (0, ())
    usual = tipl.optimize(TASK, model=model, seed=3)
    assert usual.layout.hidden_sizes == model.hidden_sizes


def misfit(policy: Policy, model: Any) -> float:
    """The same by hand: squared differences of clipped actions on what the model remembers."""
    readout = model.models["elite"].readout
    seen, wanted = (one.double().numpy() for one in (readout.observations, readout.outputs))
    weights = policy.layout.unflatten(policy.params)
    hidden = np.tanh(seen @ weights["actor.0.weight"].T + weights["actor.0.bias"])
    given = hidden @ weights["actor.1.weight"].T + weights["actor.1.bias"]
    inside = [np.clip(one / 3, -1, 1) + LEAK * (one / 3 - np.clip(one / 3, -1, 1))
              for one in (given, wanted)]  # fmt: skip
    return float(np.square(inside[0] - inside[1]).mean())


def test_of_fresh_networks_the_one_that_comes_nearest_is_taken(model: TrainedForecaster) -> None:
    several = [tipl.optimize(TASK, hidden=(6,), seed=5, among=count) for count in range(1, 7)]
    errors = [misfit(one, model) for one in several]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.99 * errors[0]
    np.testing.assert_allclose(model.misfits(several), errors, rtol=1e-4)
    own = model.with_options("own")
    assert np.isnan(own.misfits(several)).all()
    first, many = (tipl.optimize(TASK, hidden=(6,), among=n, target="own") for n in (1, 5))
    assert np.array_equal(first.params, many.params)  # its own future it cannot judge


def test_a_given_policy_is_carried_in_the_jumps_that_come_nearest(model: TrainedForecaster) -> None:
    start = Policy.initial(model.task, 3, (6,))
    jumps = [model.optimize(start, steps=steps) for steps in (1, 2, 3, 4)]
    nearest = jumps[int(np.argmin([misfit(one, model) for one in jumps]))]
    assert np.array_equal(tipl.optimize(start).params, nearest.params)
    assert np.array_equal(tipl.optimize(start, steps=1).params, jumps[0].params)


def test_a_given_policy_is_carried_as_the_model_is_asked(model: TrainedForecaster) -> None:
    start = Policy.initial(model.task, 3)
    made = tipl.optimize(start, horizon=4, target="own", steps=2)
    wanted = model.optimize(start, 4, target="own", steps=2)
    assert np.array_equal(made.params, wanted.params)


# --- what is tried ---------------------------------------------------------------------------


def returning(monkeypatch: pytest.MonkeyPatch, returns: list[float]) -> list[Policy]:
    """Episodes of given returns, 10 steps each; the policies that were run are appended."""
    ran: list[Policy] = []

    def episode(policy: Policy, env: Any) -> tuple[float, int]:
        ran.append(policy)
        return returns[len(ran) - 1], 10

    monkeypatch.setattr(optimizing, "_episode", episode)
    return ran


def test_of_fresh_networks_the_best_one_is_taken(
    model: TrainedForecaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = returning(monkeypatch, [3.0, float("nan"), 5.0, 4.0])
    made = tipl.optimize(TASK, hidden=(4,), seed=7, check=4, among=6)
    assert len({one.name for one in made.tried}) == 4
    errors = [misfit(one, model) for one in ran]
    assert errors == sorted(errors)
    nearest = tipl.optimize(TASK, hidden=(4,), seed=7, among=6)
    assert np.array_equal(ran[0].params, nearest.params)
    assert made.env_steps == 40
    assert [np.array_equal(one.params, made.params) for one in ran] == [False, False, True, False]
    assert made.tried[3].episodic_return == 4.0


def test_what_is_the_same_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = returning(monkeypatch, [1.0] * 9)
    cheetah = "HalfCheetah-v4"
    made = tipl.optimize(cheetah, model=f"{cheetah}-worlds", check=5, among=6)
    assert len(made.tried) == len(ran) == 1  # of any network of its sizes it makes its teacher


def test_a_given_policy_is_no_worse_by_its_own_test(
    model: TrainedForecaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = Policy.initial(model.task, 3, (4,))
    returning(monkeypatch, [3.0, 6.0, 5.0, 1.0, 1.0, 1.0])
    made = tipl.optimize(start, check=9)
    names = {"model", "as given", "model, 1 jump", "model, 3 jumps", "model, 4 jumps"}
    assert {one.name for one in made.tried} == names  # 2 jumps are the default
    assert made.tried[1].name == "as given"
    assert np.array_equal(made.params, start.params)
    assert made.env_steps == 50


def test_the_episode_is_one_of_the_task(model: TrainedForecaster) -> None:
    made = tipl.optimize(TASK, hidden=(4,), check=1)
    alone = evaluate(
        Policy.initial(model.task, 1, (4,)).with_params(made.params), 1, seed=CHECK_SEED
    )
    assert made.tried[0].episodic_return == alone.episodic_return[0]
    assert made.env_steps == alone.episode_length[0]


class Counted(gymnasium.Wrapper[Any, Any, Any, Any]):
    """The environment of the task, which writes down what is done in it."""

    starts: list[Any]
    steps = 0

    def __init__(self) -> None:
        super().__init__(make_one(TASK))
        self.starts = []

    def reset(self, **given: Any) -> Any:
        found = super().reset(**given)
        self.starts.append(found[0])
        return found

    def step(self, action: Any) -> Any:
        self.steps += 1
        return super().step(action)


def test_episodes_may_be_in_an_environment_of_ones_own(model: TrainedForecaster) -> None:
    env = Counted()
    made = tipl.optimize(Policy.initial(model.task, 3, (4,)), env=env, check=3)
    assert made.env_steps == env.steps
    assert len(env.starts) == 3
    assert np.ptp(env.starts, axis=0).max() == 0  # they all start alike
    env.observation_space = Box(-1, 1, (3,))
    with pytest.raises(TiplError, match="observation"):
        tipl.optimize(TASK, model=model, env=env, check=1)


def test_the_best_of_no_number_is_the_first() -> None:
    one, other = (Proposal(name, Policy.initial(TASK, 0, (2,))) for name in "ab")
    assert best_of([one, other]) is one
    assert best_of([one, other.having_returned(-5.0)]).name == "b"


# --- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "how", "message"),
    [
        (TASK, {"check": -1}, "check is -1"),
        (TASK, {"seed": -1}, "seed is -1"),
        (TASK, {"among": 0}, "among is 0"),
        (TASK, {"env": gymnasium.Env()}, "without an episode to make in it"),
        ("Hopper-v4", {"model": TASK}, "a policy for 'Hopper-v4' was asked for"),
        ("None-v4", {}, "'None-v4' is not one of the models that ship"),
        (Policy.initial(TASK, 0, (2,)), {"hidden": (3,)}, r"units \(3,\) were given with a policy"),
        (TASK, {"hidden": (2,) * 4}, "4 hidden layers"),
    ],
)
def test_what_cannot_be_is_refused(given: Any, how: dict[str, Any], message: str) -> None:
    with pytest.raises(TiplError, match=message):
        tipl.optimize(given, **how)


# --- the command -----------------------------------------------------------------------------


def test_the_command_prints_what_was_tried(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = returning(monkeypatch, [1.0, 3000.0])
    main(["optimize", TASK, "--hidden", "4", "--check", "2", "--out", str(tmp_path / "made")])
    printed = capsys.readouterr().out
    assert re.search(r"fresh network \d +3,000.0", printed)
    assert "after 20 environment steps" in printed
    first, second = ran
    assert np.array_equal(Policy.load(tmp_path / "made").params, second.params)
    assert not np.array_equal(first.params, second.params)
    both = ["optimize", TASK, "--policy", str(tmp_path / "made"), "--hidden", "3"]
    with pytest.raises(SystemExit):
        main([*both, "--out", str(tmp_path / "other")])
    assert "has hidden units of its own" in capsys.readouterr().err
