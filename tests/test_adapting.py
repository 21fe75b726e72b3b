"""Policies by what was seen and tried in a world: what is spent there, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete

import tipl
from tiny_worlds import HIDDEN, NAMES, TASK, Somewhere, tiny_world_model
from tipl import Experience, Policy, TiplError
from tipl.cli import main
from tipl.evaluation.experience import check_spaces
from tipl.models.world.adapting import AdaptedPolicy
from tipl.models.world.forecaster import WorldForecaster


@pytest.fixture(scope="module")
def model() -> WorldForecaster:
    return tiny_world_model()


def arrays(count: int = 12, seed: int = 0) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((count, size)) for size in (4, 1, 4)]


def same(one: AdaptedPolicy, other: AdaptedPolicy) -> bool:
    beliefs = [(it.world.mean, it.world.std) for it in (one, other)]
    return np.array_equal(one.params, other.params) and np.array_equal(*beliefs)


# --- what was seen ---------------------------------------------------------------------------


def test_a_log_says_what_the_world_is(model: WorldForecaster) -> None:
    log = arrays()
    made = tipl.adapt(TASK, experience=Experience.of(*log), model=model)
    seen = model.seen(Experience.of(*log))
    assert np.array_equal(made.world.mean, seen.mean)
    assert (made.env_steps, made.tried, made.task.physics) == (0, (), ())
    assert not np.array_equal(made.params, tipl.adapt(TASK, model=model).params)
    lists = [rows.tolist() for rows in log]
    for given in (log, tuple(log), lists):
        assert same(tipl.adapt(TASK, experience=given, model=model), made)


def test_what_is_known_for_sure_stays(model: WorldForecaster) -> None:
    log = Experience.of(*arrays())
    physics = {"gravity": 1.2, "mass": None}
    made = tipl.adapt(TASK, physics=physics, experience=log, model=model)
    seen = model.seen(log)
    assert made.world.names == NAMES
    assert made.world.factors["gravity"] == pytest.approx(1.2)
    assert made.world.std[0] == 0
    assert (made.world.mean[1], made.world.std[1]) == (seen.mean[1], seen.std[1])
    here = Somewhere()
    both = tipl.adapt(TASK, physics={"gravity": 1.2}, env=here, steps=9, model=model)
    assert (both.world.std == 0).all()
    assert dict(both.task.physics) == {"gravity": pytest.approx(1.2), "mass": 1.0}


def test_an_architecture_is_carried_to(model: WorldForecaster) -> None:
    log = arrays()
    own = tipl.adapt(TASK, experience=log, hidden=HIDDEN, model=model)
    assert same(own, tipl.adapt(TASK, experience=log, model=model))
    wide = tipl.adapt(TASK, experience=log, hidden=(7,), seed=3, model=model)
    given = Policy.initial(TASK, 3, (7,)).with_physics({"gravity": 2.0})
    carried = tipl.adapt(given, experience=log, model=model)
    assert wide.layout.hidden_sizes == (7,)
    assert same(wide, carried)
    assert carried.task.physics == ()


# --- steps and episodes ----------------------------------------------------------------------


@pytest.mark.parametrize("length", [5, 1000])
def test_as_many_steps_are_made_as_were_asked_for(model: WorldForecaster, length: int) -> None:
    here = Somewhere(length)
    made = tipl.adapt(TASK, env=here, steps=13, seed=7, model=model)
    assert made.env_steps == len(here.actions) == 13
    assert here.seeds == ([7, None, None] if length == 5 else [7])
    assert not here.closed
    assert made.world.std.all()
    assert made.tried == ()


def test_steps_go_on_through_episodes_as_they_came(model: WorldForecaster) -> None:
    """The environment gives one array again and again; each row is what it was then."""
    here, rows = Somewhere(), []

    class Watching(gymnasium.Wrapper[Any, Any, Any, Any]):
        def reset(self, **options: Any) -> Any:
            found = self.env.reset(**options)
            self.before = found[0].copy()
            return found

        def step(self, action: Any) -> Any:
            found = self.env.step(action)
            rows.append((self.before, action.copy(), found[0].copy()))
            self.before = found[0].copy()
            return found

    made = tipl.adapt(TASK, env=Watching(here), steps=12, model=model)
    log = [np.array(column) for column in zip(*rows, strict=True)]
    assert same(made, tipl.adapt(TASK, experience=log, model=model))


def test_by_default_steps_are_made_where_no_episodes_are(model: WorldForecaster) -> None:
    assert tipl.adapt(TASK, env=Somewhere(), model=model).env_steps == 250
    assert tipl.adapt(TASK, env=Somewhere(), episodes=1, model=model).env_steps == 5
    assert tipl.adapt(TASK, env=Somewhere(), steps=7, episodes=2, model=model).env_steps == 17
    idle = tipl.adapt(TASK, env=(here := Somewhere()), steps=0, model=model)
    assert (idle.env_steps, here.seeds) == (0, [])
    assert same(idle, tipl.adapt(TASK, model=model))


def test_an_episode_without_an_end_stops_at_the_limit_of_the_task(model: WorldForecaster) -> None:
    made = tipl.adapt(TASK, env=Somewhere(10_000), episodes=1, model=model)
    assert made.env_steps == 1000


@pytest.mark.parametrize("carried", [False, True])
def test_the_best_proposal_is_returned(model: WorldForecaster, carried: bool) -> None:
    given = Policy.initial(TASK, 3, (6,)) if carried else TASK
    for best in range(4):
        returns = tuple(10.0 if episode == best else 1.0 for episode in range(4))
        here = Somewhere(returns=returns)
        made = tipl.adapt(given, env=here, episodes=4, model=model)
        names = [one.name for one in made.tried]
        assert names[: 1 + carried] == ["as given", "elite of home"][not carried :]
        assert [one.episodic_return for one in made.tried] == pytest.approx(returns)
        assert np.array_equal(made.params, made.tried[best].policy.params)
        assert made.env_steps == 20
    if isinstance(given, Policy):
        assert np.array_equal(made.tried[0].policy.params, given.params)
    else:
        assert np.array_equal(made.tried[0].policy.params, model.elite_policy.params)


def test_what_was_chosen_acted_in_its_episode(model: WorldForecaster) -> None:
    here = Somewhere(returns=(0.0, 0.0, 5.0))
    made = tipl.adapt(TASK, env=here, episodes=3, model=model)
    again = Somewhere()
    observation, _ = again.reset(seed=1)
    for episode, proposal in enumerate(made.tried):
        for step in range(5):
            action = proposal.policy.act(observation)
            assert np.array_equal(action, here.actions[5 * episode + step])
            observation = again.step(action)[0]
        observation, _ = again.reset()


def test_a_single_episode_shows_the_world_alone(model: WorldForecaster) -> None:
    made = tipl.adapt(TASK, env=Somewhere(returns=(99.0,)), episodes=1, model=model)
    assert len(made.tried) == 1
    assert not np.array_equal(made.params, made.tried[0].policy.params)
    assert not np.array_equal(made.world.mean, model.prior.mean)


def test_there_are_no_more_proposals_than_worlds_that_were_learned_from(
    model: WorldForecaster,
) -> None:
    made = tipl.adapt(TASK, env=Somewhere(), episodes=40, model=model)
    teachers = [one.name for one in made.tried if one.name.startswith("teacher")]
    assert sorted(teachers) == [f"teacher of training world {world}" for world in range(3)]
    assert made.env_steps == 5 * len(made.tried) < 200


def test_equal_seeds_do_equal_things(model: WorldForecaster) -> None:
    made = [
        tipl.adapt(TASK, env=Somewhere(), steps=9, episodes=2, seed=seed, model=model)
        for seed in (4, 4, 5)
    ]
    assert same(made[0], made[1])
    assert not same(made[0], made[2])


def test_a_far_world_is_named_once(
    model: WorldForecaster, caplog: pytest.LogCaptureFixture
) -> None:
    tipl.adapt(TASK, physics={"gravity": 9.0, "mass": None}, env=Somewhere(), episodes=3,
               model=model)  # fmt: skip
    assert caplog.text.count("is far from the worlds") == 1


# --- what is refused -------------------------------------------------------------------------


def spaces(seen: Any, acted: Any = Somewhere.action_space) -> Somewhere:
    other = Somewhere()
    other.observation_space, other.action_space = seen, acted
    return other


FOUR = Somewhere.observation_space
OTHER = r"was given as an environment, but .* has 4 observed values and 1 actions"


@pytest.mark.parametrize(
    "env",
    [
        spaces(Box(-1, 1, (5,))),
        spaces(Box(-1, 1, (1, 4))),
        spaces(Dict({"x": FOUR})),
        spaces(Discrete(4)),
        spaces(FOUR, Discrete(3)),
        spaces(FOUR, Box(-1, 1, (1,))),
        spaces(FOUR, Box(-3, 3, (2,))),
        spaces(FOUR, Box(-3, 3, (1,), np.int64)),
    ],
)
def test_another_environment_is_refused_before_a_step(model: WorldForecaster, env: Any) -> None:
    with pytest.raises(TiplError, match=OTHER):
        tipl.adapt(TASK, env=env, steps=3, model=model)
    assert env.seeds == []


@pytest.mark.parametrize(
    "env", [gymnasium.vector.SyncVectorEnv([Somewhere] * 2), "Hopper-v4", Somewhere, None]
)
def test_what_is_no_environment_is_refused(model: WorldForecaster, env: Any) -> None:
    with pytest.raises(TiplError, match=OTHER):
        check_spaces(env, model.task)


class Giving(Somewhere):
    """Returns something else from a call of one of its methods."""

    def __init__(self, call: str, change: Callable[[Any], Any], at: int) -> None:
        super().__init__()
        self.call, self.change, self.at = call, change, at

    def reset(self, **options: Any) -> Any:
        found = super().reset(**options)
        return self.change(found) if self.call == "reset" and len(self.seeds) > self.at else found

    def step(self, action: Any) -> Any:
        found = super().step(action)
        return self.change(found) if self.call == "step" and len(self.actions) > self.at else found


def replaced(at: int, value: Any) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    return lambda found: (*found[:at], value, *found[at + 1 :])


NOTHING = np.full(4, np.nan)


@pytest.mark.parametrize("asked", [{"steps": 20}, {"episodes": 4}])
@pytest.mark.parametrize(
    ("call", "change", "message"),
    [
        ("reset", replaced(0, NOTHING), "4 values that are not finite after 5 steps"),
        ("reset", replaced(0, np.zeros(3)), r"of the shape \(3,\) with 0 values"),
        ("reset", replaced(0, {"x": 1}), "as an observation are no array of real numbers"),
        ("reset", lambda found: found[0], "returned a ndarray from reset after 5 steps"),
        ("step", replaced(0, NOTHING), "4 values that are not finite after 2 steps"),
        ("step", replaced(0, np.full(4, np.inf)), "4 values that are not finite after 2 steps"),
        ("step", replaced(0, ["a"] * 4), "as an observation are no array of real numbers"),
        ("step", replaced(1, np.nan), "the reward nan in step 2"),
        ("step", replaced(1, None), "as a reward are no array of real numbers"),
        ("step", replaced(1, np.zeros(2)), r"the reward array\(\[0., 0.\]\) in step 2"),
        ("step", lambda found: found[:4], "returned a tuple of 4 values from step after 2 steps"),
    ],
)
def test_what_an_environment_gives_is_looked_at(
    model: WorldForecaster, asked: Any, call: str, change: Any, message: str
) -> None:
    with pytest.raises(TiplError, match=message):
        tipl.adapt(TASK, env=Giving(call, change, 1), model=model, **asked)


def test_rewards_and_ends_may_be_arrays_of_one_value(model: WorldForecaster) -> None:
    def columns(found: Any) -> Any:
        return found[0], np.array([found[1]]), np.array([found[2]]), np.array([False]), {}

    made = tipl.adapt(TASK, env=Giving("step", columns, 0), episodes=2, model=model)
    assert made.env_steps == 10


class Failing(Somewhere):
    def step(self, action: Any) -> Any:
        raise ZeroDivisionError("mine")


def test_what_an_environment_raises_is_its_own(model: WorldForecaster) -> None:
    with pytest.raises(ZeroDivisionError, match=r"^mine$"):
        tipl.adapt(TASK, env=Failing(), steps=3, model=model)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 3}, "3 steps and 0 episodes were asked for without an environment"),
        ({"episodes": 3}, "0 steps and 3 episodes were asked for without an environment"),
        ({"env": Somewhere(), "steps": -1}, "steps is -1; expected at least 0"),
        ({"env": Somewhere(), "episodes": -1}, "episodes is -1; expected at least 0"),
        ({"seed": -1}, "seed is -1; expected at least 0"),
        ({"given": "Hopper-v4"}, "a policy for 'Hopper-v4' was asked for, but the model is of"),
        ({"given": Policy.initial(TASK, 1, (3,)), "hidden": (3,)}, "were given with a policy"),
        ({"hidden": (-3,)}, "hidden"),
        ({"experience": "log.safetensors"}, "'log.safetensors' was given as experience; expected"),
        ({"experience": arrays()[:2]}, "was given as experience; expected a tipl.Experience"),
        ({"experience": []}, "was given as experience; expected a tipl.Experience"),
    ],
)
def test_impossible_wishes_are_refused(
    model: WorldForecaster, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(TiplError, match=message):
        tipl.adapt(**{"given": TASK, "model": model} | options)


# --- the command -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(model: WorldForecaster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("adapting")
    model.save_pretrained(directory / "model")
    Policy.initial(TASK, 1, (3,)).save(directory / "policy")
    Experience.of(*arrays()).save(directory / "log.safetensors")
    Experience.of(np.ones((2, 3)), np.ones((2, 1)), np.ones((2, 3))).save(directory / "other")
    (directory / "damaged").write_bytes((directory / "log.safetensors").read_bytes()[:-1])
    return directory


def test_the_command_does_the_same(
    model: WorldForecaster, place: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(place)
    main(["adapt", "model", "--out", "a", "--experience", "log.safetensors"])
    made = tipl.adapt(TASK, experience=arrays(), model=model)
    assert np.array_equal(Policy.load(place / "a").params, made.params)
    assert f"the world: {made.world}\n" in capsys.readouterr().out
    for where in (["--env", TASK], ["--env-physics", "gravity=1.3"]):
        words = ["adapt", "model", "--out", "b", *where, "--steps", "6", "--episodes", "2"]
        main(words)
        said = capsys.readouterr().out
        assert "elite of home" in said
        assert "environment steps there" in said
        assert Policy.load(place / "b").task.physics == ()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--steps 3", "expected one of --env and --env-physics"),
        ("--episodes 3", "expected one of --env and --env-physics"),
        (f"--env {TASK} --env-physics gravity=2", "expected one of --env and --env-physics"),
        (f"--env {TASK} --steps -1", "steps is -1"),
        ("--env Hopper-v4", "has 4 observed values and 1 actions"),
        ("--env CartPole-v1", "has 4 observed values and 1 actions"),
        ("--env None-v4", "None-v4"),
        ("--env-physics gravty=2", "gravty"),
        ("--physics gravity=2 --unknown gravity", "with --physics and with --unknown"),
        ("--policy policy --hidden 3", "has hidden units of its own"),
        ("--experience none", "none"),
        ("--experience damaged", "damaged"),
        ("--experience other", "an experience of 3 observed values and 1 actions was given"),
        ("--experience policy", "policy"),
    ],
)
def test_the_command_refuses_in_a_sentence(
    words: str, message: str, place: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(place)
    with pytest.raises(SystemExit) as end:
        main(["adapt", "model", "--out", "out", *words.split()])
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert message in said
    assert said.count("\n") == 1
    assert not (place / "out").exists()


def test_the_command_names_an_environment_that_fails(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    gymnasium.register("Failing-v0", Failing)
    try:
        with pytest.raises(SystemExit):
            main(["adapt", "model", "--out", "out", "--env", "Failing-v0"])
    finally:
        del gymnasium.registry["Failing-v0"]
    said = capsys.readouterr().err
    assert "the environment 'Failing-v0' failed in step: ZeroDivisionError: mine" in said
