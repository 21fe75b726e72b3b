"""Policies that travel between tipl and stable-baselines3."""

from __future__ import annotations

from typing import Any

import numpy as np

from tipl.envs import make_task
from tipl.errors import TiplError
from tipl.integrations.observation_frames import refolded
from tipl.integrations.run_normaliser import RunNormaliser
from tipl.integrations.torch_agent import TorchAgent, agent_of_sb3
from tipl.policy import Policy
from tipl.tasks import TaskSpec

__all__ = ["policy_from_sb3", "policy_to_sb3", "readable_agent", "task_of"]


def policy_from_sb3(model: Any, task: TaskSpec | None = None) -> Policy:
    """The policy of a stable-baselines3 model, under its task's frozen observation normaliser.

    What the model's environment normalises by (`VecNormalize`) is folded into the first layer, so
    the policy takes raw observations and acts as `model.predict(..., deterministic=True)` does.

    Args:
        model: that learns from rollouts, such as PPO or A2C, with an `MlpPolicy` of tanh units.
        task: what it is for; by default that of its environment.

    Raises:
        TiplError: the model's networks are of another kind or of another task's sizes, or its
            environment is not known.
    """
    agent = readable_agent(model)
    spec = task_of(model) if task is None else task
    normaliser = RunNormaliser(model.get_env(), spec.observation_size)
    assert agent.layout is not None
    if agent.layout.shapes[0][1] != spec.observation_size:
        raise TiplError(
            f"the model's policy takes {agent.layout.shapes[0][1]} observed values, and "
            f"{spec.env_id} has {spec.observation_size}; give the task that the model is for"
        )
    frozen = (np.array(spec.observation_mean), np.array(spec.observation_std))
    params = refolded(agent.params(), agent.layout, normaliser.statistics, frozen)
    return Policy(params, agent.layout, spec)


def policy_to_sb3(policy: Policy, model: Any) -> None:
    """Gives a stable-baselines3 model the weights of a policy; critic and optimiser stay.

    They are folded for what the model's environment normalises observations by at present.

    Args:
        policy: what the model shall act as.
        model: of the same architecture.

    Raises:
        TiplError: the model's networks are of another kind or another architecture.
    """
    agent = readable_agent(model)
    if agent.layout != policy.layout:
        raise TiplError(
            f"a policy laid out as {policy.layout} was given to a model whose policy is "
            f"{agent.layout}; make the model with policy_kwargs="
            f"{{'net_arch': {list(policy.layout.hidden_sizes)}}} in the policy's task"
        )
    normaliser = RunNormaliser(model.get_env(), policy.task.observation_size)
    old = (policy.observation_mean, policy.observation_std)
    agent.set_params(refolded(policy.params, policy.layout, old, normaliser.statistics))


def readable_agent(model: Any) -> TorchAgent:
    """The model's agent, with a layout."""
    agent = agent_of_sb3(model)
    if agent.layout is None:
        raise TiplError(
            "the model's policy is no multi-layer perceptron of tanh units that shares nothing "
            "with the critic, which is all that a tipl.Policy can be; train one with 'MlpPolicy'"
        )
    return agent


def task_of(model: Any) -> TaskSpec:
    """The task of a model's environment."""
    env = model.get_env()
    spec = None if env is None else env.get_attr("spec")[0]
    if spec is None:
        raise TiplError(
            "the model has no environment with a Gymnasium spec that would tell its task; set one "
            "by model.set_env, or give the task"
        )
    return make_task(spec.id)
