"""Policies that travel between tipl and stable-baselines3: `Policy.from_sb3` and `to_sb3`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from tipl.core.arrays import Array
from tipl.envs import make_task
from tipl.errors import TiplError
from tipl.integrations.environment.description import describe
from tipl.integrations.environment.normaliser import RunNormaliser
from tipl.integrations.pytorch.agent import TorchAgent, agent_of_sb3
from tipl.policies.actions import refolded
from tipl.policies.layout import ParamLayout
from tipl.policies.tasks import TaskSpec

TELLING = "that would tell its task; set one by model.set_env, or give the task"
"""What a model's environment is asked for."""


class PolicyRun(NamedTuple):
    """What is read of a stable-baselines3 model and its environment."""

    agent: TorchAgent
    layout: ParamLayout
    task: TaskSpec
    normaliser: RunNormaliser

    def params(self) -> Float[np.ndarray, " P"]:
        """The policy's present weights, under its task's frozen observation normaliser."""
        statistics = self.normaliser.statistics, self.task.observation_statistics
        return refolded(self.agent.params(), self.layout, *statistics)


def read_run(model: Any, task: TaskSpec | None = None) -> PolicyRun:
    """Reads a model as `weights_from_sb3` says, which raises the same errors."""
    agent = readable_agent(model)
    layout, env = agent.known_layout, model.get_env()
    if task is None:
        task = make_task(_spec(env).id)
    if layout.shapes[0][1] != task.observation_size:
        raise TiplError(
            f"the model's policy takes {layout.shapes[0][1]} observed values, and "
            f"{task.env_id} has {task.observation_size}; give the task that the model is for"
        )
    _check_actions(model, task)
    return PolicyRun(agent, layout, task, RunNormaliser(env, task.observation_size))


def weights_from_sb3(
    model: Any, task: TaskSpec | None = None
) -> tuple[Float[np.ndarray, " P"], ParamLayout, TaskSpec]:
    """Weights, layout and task of a stable-baselines3 model's policy.

    What the model's environment normalises by (`VecNormalize`) is folded into the first layer:
    under its task's frozen observation normaliser, the policy takes raw observations and acts as
    `model.predict(..., deterministic=True)` does.

    Args:
        model: that learns from rollouts, such as PPO or A2C, with an `MlpPolicy` of tanh units.
        task: what it is for; by default that of its environment. A model without an environment
            is taken to have seen observations as they are.

    Raises:
        TiplError: the model's networks are of another kind or of another task's sizes, its actions
            have other bounds, or its environment is not known.
    """
    run = read_run(model, task)
    return run.params(), run.layout, run.task


def weights_to_sb3(
    model: Any,
    params: Float[np.ndarray, " P"],
    layout: ParamLayout,
    task: TaskSpec,
    statistics: tuple[Array, Array],
) -> None:
    """Gives a stable-baselines3 model the weights of a policy; critic and optimiser stay.

    They are folded for what the model's environment normalises observations by at present; the
    policy normalises them by the mean and std of its `statistics`.

    Raises:
        TiplError: the model's networks are of another kind or another architecture, or its
            environment is not that of the policy's task.
    """
    agent = readable_agent(model)
    if agent.layout != layout:
        raise TiplError(
            f"a policy laid out as {layout} was given to a model whose policy is "
            f"{agent.layout}; make the model with policy_kwargs="
            f"{{'net_arch': {list(layout.hidden_sizes)}}} in the policy's task"
        )
    there, here = _spec(model.get_env()).id, task.env_id.rpartition(":")[2]
    if there != here:
        raise TiplError(
            f"a policy for {here} was given to a model whose environment is {there}; give one for "
            "the same task"
        )
    now = read_run(model, task).normaliser.statistics
    agent.set_params(refolded(params, layout, statistics, now))


def _spec(env: Any) -> Any:
    """The spec of a model's environment."""
    if env is None:
        raise TiplError(f"the model has no environment {TELLING}")
    return describe(env).spec


def readable_agent(model: Any) -> TorchAgent:
    """The model's agent, with a layout."""
    agent = agent_of_sb3(model)
    _ = agent.known_layout  # raises if there is none
    return agent


def _check_actions(model: Any, task: TaskSpec) -> None:
    """Raises a TiplError if a wrapper has given a model other actions than its task has."""
    space = model.action_space
    ours: dict[str, Any] = dict(zip(("low", "high"), task.action_bounds, strict=True))
    expected = f"values from {task.action_low} to {task.action_high}"
    if task.discrete:
        ours = {"n": task.action_size, "start": task.first_action}
        expected = f"{task.action_size} numbers from {task.first_action}"
    if not all(_equal(getattr(space, name, np.nan), value) for name, value in ours.items()):
        raise TiplError(
            f"the model's actions are {space}, and those of {task.env_id} are {expected}; train it "
            "without the wrapper that changes them, or register its environment under its own id"
        )


def _equal(given: Any, expected: Any) -> bool:
    return np.shape(given) == np.shape(expected) and np.allclose(given, expected)
