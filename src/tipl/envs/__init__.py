"""Vectorised environments: batched MuJoCo tasks, and Gymnasium's own for everything else.

- :func:`make_vec` makes copies of an environment that are stepped together;
- :func:`make_task` gives the :class:`tipl.policies.tasks.TaskSpec` of any environment id;
- :class:`BatchedMujocoEnv` runs the built-in tasks on ``mujoco.batch``.
"""

from __future__ import annotations

from tipl.envs.batched_mujoco import BatchedMujocoEnv
from tipl.envs.factory import make_task, make_vec

__all__ = ["BatchedMujocoEnv", "make_task", "make_vec"]
