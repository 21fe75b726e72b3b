"""Vectorised environments: batched MuJoCo tasks, and Gymnasium's own for everything else.

- `make_vec` makes copies of an environment that are stepped together;
- `make_task` gives the `tipl.policies.tasks.TaskSpec` of any environment id;
- `BatchedMujocoEnv` runs the built-in tasks on `mujoco.batch`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tipl.core.lazy import lazy_names

__all__ = ["BatchedMujocoEnv", "make_task", "make_vec"]

if TYPE_CHECKING:
    from tipl.envs.batched_mujoco import BatchedMujocoEnv
    from tipl.envs.factory import make_task, make_vec
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "tipl.envs.batched_mujoco": "BatchedMujocoEnv",
            "tipl.envs.factory": "make_task make_vec",
        },
    )
