"""Users' own environments: whatever they do, tipl runs them or says in one sentence why not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import users_envs
from tipl import Policy, cli, collect, evaluate
from tipl.envs import make_task
from tipl.errors import TiplError
from tipl.evaluation.behaviour import visited_observations
from tipl.evaluation.film import film
from tipl.policies.tasks import TaskSpec
from tipl.ppo import PPOConfig

pytestmark = pytest.mark.filterwarnings("ignore:.*WARN")  # Gymnasium's advice to their authors

LITTLE = PPOConfig(num_steps=16, num_minibatches=2, update_epochs=1)
SPACES = {
    "Thirds": "float64",
    "Narrow": "float64",
    "Gears": "int64",
    "Bytes": "uint8",
    "Strict": "float32",
}


def task_of(name: str) -> TaskSpec:
    return make_task(f"users_envs:User{name}-v0")


def act_everywhere(name: str, out: Path) -> None:
    """All that steps an environment: learning, evaluation, visits by noisy actions and films."""
    task = task_of(name)
    options: dict[str, Any] = {"num_trials": 2, "total_steps": 48, "ppo": LITTLE, "out": out}
    collect(task.env_id, hidden_sizes=(4,), evaluation_episodes=1, progress=False, **options)
    policy = Policy.initial(task, hidden=(4,))
    wild = policy.with_params(policy.params * 1e4)  # acts at its bounds
    assert evaluate([policy, wild], 2).episode_length.tolist() == [[12, 12]] * 2
    visited_observations(wild.params[None], wild.layout, task, 20, noise=0.5)
    assert film(wild, num_frames=3, width=80, height=60).frames.shape == (3, 60, 80, 3)


@pytest.mark.parametrize("name", SPACES)
def test_actions_are_elements_of_the_action_space(name: str, tmp_path: Path) -> None:
    act_everywhere(name, tmp_path / "paths")
    task, space = task_of(name), getattr(users_envs, name).action_space
    assert task.action_dtype == SPACES[name]
    np.testing.assert_array_equal(np.array(task.action_bounds), [space.low, space.high])
    assert task.action_bounds[0].dtype == space.dtype
    assert TaskSpec.from_json(task.to_json()) == task


@pytest.mark.parametrize("name", ["Column", "Map", "Ragged", "ClosesBadly"])
def test_unusual_environments_run(name: str, tmp_path: Path) -> None:
    act_everywhere(name, tmp_path / "paths")


def test_random_actions_reach_every_integer(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()

    def step(self: users_envs.Cart, action: np.ndarray) -> Any:
        seen.add(int(action[0]))
        return real(self, action)

    real = users_envs.Cart.step
    monkeypatch.setattr(users_envs.Cart, "step", step)
    task_of("Gears")
    assert seen == set(range(-3, 6))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "Stuck",
            r"of which the values \[1\] are fixed: expected each lowest value below its high",
        ),
        ("Endless", "expected finite bounds"),
        ("Vast", "expected finite bounds"),
        ("Fickle", "'UserFickle-v0' failed in its constructor: .*action"),
        ("Four", "'UserFour-v0' failed in step: ValueError: not enough .*check_env"),
        ("Bare", "'UserBare-v0' failed in reset: .*observation and a dict"),
        ("Longer", "'UserLonger-v0' failed in reset: .*3 observed values .* has 2"),
        ("NoReward", "'UserNoReward-v0' failed in step: TypeError"),
        ("Fails", r"'UserFails-v0' failed in step: KeyError: 'wheel\\n came off' \(expected"),
        ("NeverStarts", "'UserNeverStarts-v0' failed in reset: RuntimeError: simulator not found"),
        ("Needs", "could not be made: .*missing 1 required positional argument: 'level'"),
        ("Builds", "could not be made: ZeroDivisionError"),
        ("BlindNow", "observations that are not finite"),
        ("Forever", "no limit of episode steps"),
        ("Lambda", "registered with the entry point <function.*expected text"),
        ("Class", "registered with the entry point <class.*'module:Class'"),
        ("Array", r"the argument goal=array\(\[1., 1.\]\), which cannot be written down"),
    ],
)
def test_what_cannot_run_ends_in_one_sentence(
    name: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(TiplError, match=message) as raised:
        task_of(name)
    assert "\n" not in str(raised.value)
    with pytest.raises(SystemExit) as exit_info:
        cli.main(["collect", f"users_envs:User{name}-v0", "--out", str(tmp_path / "paths")])
    assert exit_info.value.code == 2
    assert f"tipl: {raised.value}"[:60] in capsys.readouterr().err


def test_what_an_environment_raised_is_the_cause() -> None:
    with pytest.raises(TiplError) as raised:
        task_of("Fails")
    assert isinstance(raised.value.__cause__, KeyError)


def failing(monkeypatch: pytest.MonkeyPatch) -> TaskSpec:
    """The task of an environment that fails from now on."""
    task = task_of("Cart")
    monkeypatch.setattr(users_envs.Cart, "step", lambda self, action: 1 / 0)
    return task


@pytest.mark.parametrize(
    "call",
    [
        lambda task, out: evaluate(Policy.initial(task), 1),
        lambda task, out: film(Policy.initial(task)),
        lambda task, out: collect(task.env_id, num_trials=1, total_steps=32, ppo=LITTLE, out=out),
    ],
)
def test_failures_in_the_middle_are_explained(
    call: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = failing(monkeypatch)
    monkeypatch.setattr("tipl.collection.collect.make_task", lambda env: task)
    with pytest.raises(TiplError, match="'UserCart-v0' failed in step: ZeroDivisionError: div"):
        call(task, tmp_path / "paths")


def test_episodes_without_a_return_are_no_evaluation() -> None:
    with pytest.raises(
        TiplError, match="2 of 2 episodes in users_envs:UserPaysNothing-v0 returned"
    ):
        evaluate(Policy.initial(task_of("PaysNothing")), 2)


def test_what_cannot_be_drawn_is_explained() -> None:
    with pytest.raises(TiplError, match="'users_envs:UserUndrawn-v0' cannot be drawn: SystemError"):
        film(Policy.initial(task_of("Undrawn")))


def test_the_import_of_a_broken_module_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_envs.py").write_text("import gymnasium\ngymnasium.registr('x')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TiplError, match="'broken_envs:X-v0' could not be made: module 'gymnasium'"):
        make_task("broken_envs:X-v0")


@pytest.mark.parametrize(
    ("env_id", "hint"),
    [
        ("halfcheetah-v4", "did you mean HalfCheetah-v4 or"),
        ("CARTPOLE-V1", "did you mean CartPole-v1"),
        ("ALE/Pong-v5", "install ale-py, which registers it, and use 'ale_py:ALE/Pong-v5'"),
        ("minigrid_not:MiniGrid-Empty-5x5-v0", "could not be made: .*install minigrid, or see"),
    ],
)
def test_hints_at_what_was_meant(env_id: str, hint: str) -> None:
    with pytest.raises(TiplError, match=hint):
        make_task(env_id)


def test_models_of_stable_baselines3_are_recognised(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "agent.zip").write_bytes(b"PK")
    for path in (tmp_path / "agent.zip", tmp_path / "agent", tmp_path / "gone.zip"):
        with pytest.raises(TiplError, match=r"from_sb3\(PPO.load\('.*\.zip'\), 'Env-v0'\)"):
            Policy.load(path)
        with pytest.raises(SystemExit):
            cli.main(["evaluate", str(path)])
        assert "Policy.from_sb3(PPO.load(" in capsys.readouterr().err


SCRIPT = """
import sys, gymnasium, tipl, tipl.envs, users_envs
class Cart(users_envs.Cart): pass
gymnasium.register("Script-v0", f"{sys.argv[1]}:Cart", max_episode_steps=9)
tipl.Policy.initial(tipl.envs.make_task("Script-v0")).save(sys.argv[2])
"""


def test_a_policy_from_a_script_says_where_its_environment_is(tmp_path: Path) -> None:
    tests = str(Path(__file__).parent)
    for module, message in (
        (
            "__main__",
            r"class Cart .* in a script that was run: .*make_task\('your_module:Script-v0",
        ),
        ("users_envs", r"class Cart .* in the module users_envs.*make_task\('users_envs:Script-v0"),
    ):
        run = [sys.executable, "-c", SCRIPT, module, str(tmp_path / module)]
        subprocess.run(run, check=True, cwd=tests)
        with pytest.raises(TiplError, match=message):
            evaluate(Policy.load(tmp_path / module), 1)
    assert "Script-v0" not in gymnasium.registry
