"""Measure the tasks that ship with tipl and write src/tipl/policies/task_specs.json.

Run it after adding a task to tipl.envs.mujoco_tasks:

    python scripts/measure_task_specs.py

Random actions give the statistics of the frozen observation normaliser, except where what they
show is so much less than what learned policies see that PPO ends with a lower return than with
running statistics (`docs/collection.md` has the comparison). There, short PPO trials give them.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np

from tipl import collect
from tipl.envs.factory import OBSERVATION_STD_FLOOR, measure_task
from tipl.envs.mujoco_tasks import MUJOCO_TASKS
from tipl.policies.tasks import TaskSpec

NUM_ENVS, NUM_STEPS, SEED = 64, 2_000, 0
PILOTED = ("Hopper-v4", "Hopper-v5")
PILOT_TRIALS, PILOT_STEPS = 16, 49_152
TARGET = Path(__file__).parent.parent / "src" / "tipl" / "policies" / "task_specs.json"


def with_pilot_statistics(task: TaskSpec) -> TaskSpec:
    """The task with the statistics that PPO trials with a running normaliser end with.

    They are those of all trials' observations together.
    """
    with tempfile.TemporaryDirectory() as directory:
        paths = collect(
            task.env_id,
            num_trials=PILOT_TRIALS,
            total_steps=PILOT_STEPS,
            normaliser="running",
            seed=SEED,
            out=Path(directory) / "pilot",
        )
        policies = [paths.policy(i, -1) for i in range(PILOT_TRIALS)]
    means = np.array([policy.observation_mean for policy in policies])
    variances = np.array([policy.observation_std for policy in policies]) ** 2
    mean = means.mean(axis=0)
    std = np.sqrt((variances + (means - mean) ** 2).mean(axis=0))
    return dataclasses.replace(
        task,
        observation_mean=tuple(mean.tolist()),
        observation_std=tuple(np.maximum(std, OBSERVATION_STD_FLOOR).tolist()),
    )


def main() -> None:
    """Measure every task and replace the file."""
    tasks = []
    for env_id in MUJOCO_TASKS:
        print(f"measuring {env_id}: {NUM_ENVS} environments x {NUM_STEPS} steps")
        task = measure_task(env_id, num_envs=NUM_ENVS, num_steps=NUM_STEPS, seed=SEED)
        if env_id in PILOTED:
            task = with_pilot_statistics(task)
        tasks.append(task.to_json())
    measurement = {
        "num_envs": NUM_ENVS,
        "num_steps": NUM_STEPS,
        "seed": SEED,
        "piloted": list(PILOTED),
        "pilot_trials": PILOT_TRIALS,
        "pilot_steps": PILOT_STEPS,
        "observation_std_floor": OBSERVATION_STD_FLOOR,
        "gymnasium": version("gymnasium"),
        "mujoco": version("mujoco"),
    }
    content = {"measurement": measurement, "tasks": tasks}
    TARGET.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {TARGET}")


if __name__ == "__main__":
    main()
