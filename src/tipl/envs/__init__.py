"""Vectorised environments: batched MuJoCo tasks, and Gymnasium's own for everything else.

- `make_vec` makes copies of an environment that are stepped together;
- `make_task` gives the `tipl.policies.tasks.TaskSpec` of any environment id;
- `BatchedMujocoEnv` runs the tasks of `tipl.envs.mujoco_tasks` on `mujoco.batch`;
- `register_task` adds a `MujocoTask` of your own to them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tipl.core.lazy import lazy_names

__all__ = [
    "BatchedMujocoEnv",
    "Budget",
    "MujocoTask",
    "StepResult",
    "View",
    "make_task",
    "make_vec",
    "register_task",
]

if TYPE_CHECKING:
    from tipl.envs.batched_mujoco import BatchedMujocoEnv
    from tipl.envs.factory import make_task, make_vec, register_task
    from tipl.envs.mujoco_functions import StepResult
    from tipl.envs.mujoco_tasks import Budget, MujocoTask, View
else:
    __getattr__, __dir__ = lazy_names(__name__)
