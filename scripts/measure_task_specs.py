"""Measure the tasks that ship with tipl and write src/tipl/task_specs.json.

Run it after adding a task to tipl.envs.mujoco_tasks:

    python scripts/measure_task_specs.py
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

from tipl.envs.factory import OBSERVATION_STD_FLOOR, measure_task
from tipl.envs.mujoco_tasks import MUJOCO_TASKS

NUM_ENVS, NUM_STEPS, SEED = 64, 2_000, 0
TARGET = Path(__file__).parent.parent / "src" / "tipl" / "task_specs.json"


def main() -> None:
    """Measure every task and replace the file."""
    tasks = []
    for env_id in MUJOCO_TASKS:
        print(f"measuring {env_id}: {NUM_ENVS} environments x {NUM_STEPS} steps")
        task = measure_task(env_id, num_envs=NUM_ENVS, num_steps=NUM_STEPS, seed=SEED)
        tasks.append(task.to_json())
    measurement = {
        "num_envs": NUM_ENVS,
        "num_steps": NUM_STEPS,
        "seed": SEED,
        "observation_std_floor": OBSERVATION_STD_FLOOR,
        "gymnasium": version("gymnasium"),
        "mujoco": version("mujoco"),
    }
    content = {"measurement": measurement, "tasks": tasks}
    TARGET.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {TARGET}")


if __name__ == "__main__":
    main()
