"""A task is one entry: its physics, its camera and its budget, in tipl or in a user's own file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from tipl import PPOConfig, TiplError, collect, evaluate
from tipl.envs import (
    BatchedMujocoEnv,
    Budget,
    MujocoTask,
    View,
    factory,
    make_task,
    make_vec,
    register_task,
)
from tipl.envs import mujoco_functions as f
from tipl.envs.mujoco_tasks import MUJOCO_TASKS, find_mujoco_task, task_budget
from tipl.paths import PathDataset

OWN_FILE = '''
"""A hopper that pays more for its energy, and a weight on a spring."""

from functools import partial
from pathlib import Path

import numpy as np

from tipl.envs import MujocoTask, StepResult, register_task
from tipl.envs import mujoco_functions as f

MODEL = Path(__file__).with_name("spring.xml")
MODEL.write_text("""
<mujoco><worldbody><body name="weight"><joint name="x" type="slide" axis="1 0 0" stiffness="5"/>
<geom name="ball" size="0.1" mass="1"/></body></worldbody>
<actuator><motor joint="x" gear="3" ctrlrange="-1 1" ctrllimited="true"/></actuator></mujoco>
""")


def stay(step: StepResult, terminated: np.ndarray) -> np.ndarray:
    """Pay for being near the middle."""
    return -np.abs(step.position_after)


register_task(
    "Spring-v0",
    MujocoTask(
        xml_file=MODEL,
        frame_skip=5,
        observe=f.observe_all,
        terminate=f.never,
        reward=stay,
        draw_states=partial(f.draw_uniform, scale=0.3),
        max_episode_steps=40,
    ),
)
'''

DEAR_HOPPER = replace(
    MUJOCO_TASKS["Hopper-v4"],
    reward=partial(f.run_upright, alive=f.one, control_weight=1e-2),
    max_episode_steps=7,
    budget=Budget(num_trials=32, total_steps=102_400),
)


@pytest.fixture(autouse=True)
def _measured_in_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factory, "measure_task", partial(factory.measure_task, num_steps=100))


@pytest.fixture(autouse=True)
def _nothing_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Leaves no task behind, neither here nor with Gymnasium."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = dict(MUJOCO_TASKS), dict(gymnasium.registry)
    yield
    for registry, entries in zip((MUJOCO_TASKS, gymnasium.registry), before, strict=True):
        registry.clear()
        registry.update(entries)
    sys.modules.pop("my_tasks", None)


@pytest.mark.parametrize("env_id", MUJOCO_TASKS)
def test_every_entry_is_whole(env_id: str) -> None:
    task = MUJOCO_TASKS[env_id]
    assert isinstance(task.view, View)
    assert task.xml_path.exists()
    assert task.max_episode_steps is None  # Gymnasium's own
    assert find_mujoco_task(env_id) is task


def test_a_budget_is_the_tasks_own() -> None:
    assert task_budget("InvertedPendulum-v4") == Budget(128, 61_440, 1)
    assert task_budget("HalfCheetah-v4") == Budget(64, 1_000_000, 8)
    assert task_budget("Swimmer-v4") == task_budget("CartPole-v1") == Budget(64, 200_704, 1)


def test_a_registered_task_runs_under_its_id() -> None:
    register_task("DearHopper-v0", DEAR_HOPPER)
    envs, plain = make_vec("DearHopper-v0", 3), make_vec("Hopper-v4", 3)
    assert isinstance(envs, BatchedMujocoEnv)
    np.testing.assert_array_equal(envs.reset(seed=1)[0], plain.reset(seed=1)[0])
    actions = np.full((3, 3), 0.5, np.float32)
    for step in range(7):
        ours, theirs = envs.step(actions), plain.step(actions)
        cost = 9e-3 * 3 * 0.25  # by which the actions are dearer
        np.testing.assert_allclose(ours[1], theirs[1] - cost, atol=1e-6)
        assert ours[3].all() == (step == 6)
    assert task_budget("DearHopper-v0") == (32, 102_400, 1)
    task = make_task("DearHopper-v0")
    assert (task.env_id, task.max_episode_steps) == ("DearHopper-v0", 7)


def test_gymnasium_knows_a_registered_task() -> None:
    register_task("DearHopper-v0", DEAR_HOPPER)
    envs, ours = gymnasium.make_vec("DearHopper-v0", 2), make_vec("DearHopper-v0", 2)
    np.testing.assert_array_equal(envs.reset(seed=4)[0], ours.reset(seed=4)[0])
    for _ in range(7):
        truncated = envs.step(np.zeros((2, 3), np.float32))[3]
    assert truncated.all()


def test_a_file_of_ones_own_is_all_it_takes(tmp_path: Path) -> None:
    (tmp_path / "my_tasks.py").write_text(OWN_FILE)
    ppo = PPOConfig(num_steps=64, num_minibatches=2, update_epochs=1)
    options: dict[str, Any] = {
        "num_trials": 2,
        "total_steps": 128,
        "hidden_sizes": (4,),
        "ppo": ppo,
    }
    paths = collect("my_tasks:Spring-v0", out="paths", progress=False, **options)
    assert paths.task.env_id == "my_tasks:Spring-v0"
    assert paths.task.max_episode_steps == 40
    assert (paths.layout.shapes[0], paths.layout.shapes[-1]) == ((4, 2), (1,))
    assert evaluate(paths.policy(0, -1), episodes=1).mean.value < 0
    again = PathDataset.open("paths")
    assert again.task == paths.task
    options["vary"] = ("jnt_stiffness:x=1..3",)
    varied = collect("my_tasks:Spring-v0", out="varied", progress=False, **options)
    assert (varied.physics()["jnt_stiffness:x"] > 1).all()


def test_the_command_line_imports_the_file_in_front_of_the_id(tmp_path: Path) -> None:
    (tmp_path / "my_tasks.py").write_text(OWN_FILE)
    command = [sys.executable, "-m", "tipl", "collect", "my_tasks:Spring-v0", "--out", "paths"]
    options = "--num-trials 2 --total-steps 64 --ppo.num-steps 64 --ppo.num-minibatches 2"
    done = subprocess.run([*command, *options.split()], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "my_tasks:Spring-v0" in done.stdout


def test_a_task_is_replaced_when_its_id_is_registered_again() -> None:
    register_task("DearHopper-v0", DEAR_HOPPER)
    register_task("DearHopper-v0", replace(DEAR_HOPPER, max_episode_steps=5))
    assert make_task("DearHopper-v0").max_episode_steps == 5


def test_an_id_that_gymnasium_knows_keeps_its_limit() -> None:
    register_task("Pusher-v4", replace(DEAR_HOPPER, max_episode_steps=None))
    assert make_task("Pusher-v4").max_episode_steps == 100
    assert gymnasium.spec("Pusher-v4").entry_point is not None


@pytest.mark.parametrize(
    ("env_id", "task", "message"),
    [
        ("Hopper-v4", DEAR_HOPPER, "'Hopper-v4' ships with tipl; register your task under an id"),
        ("DearHopper", DEAR_HOPPER, "an id with a version, such as 'MyHopper-v0'"),
        ("DearHopper-v0", replace(DEAR_HOPPER, max_episode_steps=None), "max_episode_steps=None"),
    ],
)
def test_what_is_no_entry_is_refused(env_id: str, task: MujocoTask, message: str) -> None:
    with pytest.raises(TiplError, match=message):
        register_task(env_id, task)
    assert MUJOCO_TASKS.get(env_id) is not task


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(TiplError, match=r"'not_there:Spring-v0' could not be made: No module"):
        make_vec("not_there:Spring-v0", 1)


def test_the_entries_need_no_simulator() -> None:
    code = "import sys; from tipl.envs.mujoco_tasks import task_budget; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"gymnasium", "mujoco"} & set(done.stdout.split()) == set()
