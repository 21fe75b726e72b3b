from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import gymnasium
import numpy as np
import pytest

from tipl.envs.factory import measure_task
from tipl.envs.mujoco_tasks import MUJOCO_TASKS
from tipl.errors import TiplError
from tipl.policies.tasks import TaskSpec, get_task, known_tasks

# Numbers of observed values and of actions, from Gymnasium's documentation.
SIZES = {
    "InvertedPendulum-v4": (4, 1),
    "InvertedPendulum-v5": (4, 1),
    "HalfCheetah-v4": (17, 6),
    "HalfCheetah-v5": (17, 6),
    "InvertedDoublePendulum-v4": (11, 1),
    "InvertedDoublePendulum-v5": (9, 1),
    "Hopper-v4": (11, 3),
    "Hopper-v5": (11, 3),
    "Walker2d-v4": (17, 6),
    "Walker2d-v5": (17, 6),
    "Swimmer-v4": (8, 2),
    "Swimmer-v5": (8, 2),
    "Reacher-v4": (11, 2),
    "Reacher-v5": (10, 2),
    "Ant-v4": (27, 8),
    "Ant-v5": (105, 8),
}


def sizes(env_id: str) -> tuple[int, int]:
    task = get_task(env_id)
    return task.observation_size, task.action_size


def test_the_shipped_tasks_describe_gymnasiums_environments() -> None:
    assert {env_id: sizes(env_id) for env_id in known_tasks()} == SIZES
    for env_id in known_tasks():
        task, spec = get_task(env_id), gymnasium.spec(env_id)
        bound = 3.0 if env_id.startswith("InvertedPendulum") else 1.0
        assert task.env_id == env_id
        assert task.action_low == (-bound,) * task.action_size
        assert task.action_high == (bound,) * task.action_size
        assert task.max_episode_steps == spec.max_episode_steps
        assert task.gymnasium_spec == spec.to_json()


def test_every_batched_task_is_shipped() -> None:
    assert known_tasks() == tuple(MUJOCO_TASKS)


def test_the_shipped_statistics_can_be_measured_again() -> None:
    shipped = get_task("InvertedPendulum-v4")
    measured = measure_task("InvertedPendulum-v4", num_envs=64, num_steps=2_000, seed=0)
    # Another processor may round otherwise: a thousandth of the spread is far below what matters.
    spread = np.array(shipped.observation_std)
    np.testing.assert_allclose(
        measured.observation_mean / spread, shipped.observation_mean / spread, atol=1e-3
    )
    np.testing.assert_allclose(measured.observation_std, shipped.observation_std, rtol=1e-3)


def test_a_spec_survives_json() -> None:
    task = get_task("HalfCheetah-v4")
    assert TaskSpec.from_json(json.loads(json.dumps(task.to_json()))) == task


def test_an_unknown_task_lists_the_known_ones_and_the_way_to_others() -> None:
    with pytest.raises(
        TiplError, match=r"'Humanoid-v4'.*InvertedPendulum-v4, .*HalfCheetah-v5"
    ) as e:
        get_task("Humanoid-v4")
    assert "tipl.envs.make_task('Humanoid-v4')" in str(e.value)


@pytest.mark.parametrize(
    "name",
    [f.name for f in dataclasses.fields(TaskSpec) if f.default is dataclasses.MISSING],
)
def test_a_missing_field_is_named(name: str) -> None:
    data = get_task("InvertedPendulum-v4").to_json()
    del data[name]
    with pytest.raises(TiplError, match=f"lacks the field '{name}'"):
        TaskSpec.from_json(data)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("env_id", 4),
        ("env_id", ""),
        ("observation_size", 4.0),
        ("action_size", True),
        ("max_episode_steps", 0),
        ("action_low", -3.0),
        ("action_high", ["3"]),
        ("observation_std", [1.0, 1.0, 1.0, float("nan")]),
        ("gymnasium_spec", {}),
    ],
)
def test_an_ill_typed_field_is_named(name: str, value: Any) -> None:
    data = get_task("InvertedPendulum-v4").to_json()
    with pytest.raises(TiplError, match=f"in the field '{name}': expected"):
        TaskSpec.from_json({**data, name: value})


@pytest.mark.parametrize("data", [[], None, "InvertedPendulum-v4"])
def test_only_an_object_is_a_spec(data: object) -> None:
    with pytest.raises(TiplError, match="expected a JSON object"):
        TaskSpec.from_json(data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"observation_mean": (0.0,)}, "1 values in 'observation_mean': expected 4"),
        ({"observation_mean": ()}, "0 values in 'observation_mean': expected 4"),
        ({"observation_std": (1.0, 1.0, 0.0, 1.0)}, "0.0 in 'observation_std': expected finite"),
        ({"observation_std": (1.0, math.nan, 1.0, 1.0)}, "nan in 'observation_std': expected"),
        ({"observation_std": (math.inf, 1.0, 1.0, 1.0)}, "inf in 'observation_std': expected"),
        ({"observation_mean": (0.0, math.nan, 0.0, 0.0)}, "nan in 'observation_mean': expected"),
        ({"action_low": (3.0,)}, "expected each low below its high"),
    ],
)
def test_contradicting_fields_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(TiplError, match=message):
        dataclasses.replace(get_task("InvertedPendulum-v4"), **change)
