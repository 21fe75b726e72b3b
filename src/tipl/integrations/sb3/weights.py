"""Policies that travel between tipl and stable-baselines3: `Policy.from_sb3` and `to_sb3`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from gymnasium.spaces import Box
from jaxtyping import Float, Shaped
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from torch import nn

from tipl.core.terminal import warn
from tipl.errors import TiplError
from tipl.integrations.environment.normaliser import RunNormaliser
from tipl.integrations.pytorch.agent import TorchActor
from tipl.integrations.pytorch.reading import random_observations, undisturbed
from tipl.integrations.sb3.agent import actor_of_sb3, visited_observations
from tipl.integrations.sb3.task import check_actions, environment_spec, task_of_model
from tipl.policies.actions import (
    best_actions,
    mlp_outputs,
    normalise_observations,
    refolded,
)
from tipl.policies.layout import ParamLayout
from tipl.policies.tasks import TaskSpec

TYPICAL = 256
"""Observations as the policy's normaliser has them, on which a policy and its copy are compared."""

FAR = 1e-3
"""Actions that differ by more are other actions, in units of the largest action."""


class PolicyRun(NamedTuple):
    """What is read of a stable-baselines3 model and its environment."""

    agent: TorchActor
    layout: ParamLayout
    task: TaskSpec
    normaliser: RunNormaliser

    def params(self) -> Float[np.ndarray, " P"]:
        """The policy's present weights, under its task's frozen observation normaliser."""
        statistics = self.normaliser.statistics, self.task.observation_statistics
        return refolded(self.agent.params(), self.layout, *statistics)


def read_run(model: Any, task: TaskSpec | str | None = None) -> PolicyRun:
    """Reads a model as `weights_from_sb3` says, which raises the same errors."""
    agent, task = actor_of_sb3(model), task_of_model(model, task)
    layout = agent.known_layout
    if layout.shapes[0][1] != task.observation_size:
        raise TiplError(
            f"the model's policy takes {layout.shapes[0][1]} observed values, and "
            f"{task.env_id} has {task.observation_size}; give the task that the model is for"
        )
    check_actions(model, task)
    return PolicyRun(agent, layout, task, _normaliser(model, task.observation_size))


def _normaliser(model: Any, size: int) -> RunNormaliser:
    """What a model's environment normalises observations by, or did when the model was trained.

    Raises:
        TiplError: it normalises in another way than by statistics that can be read, or is not here.
    """
    env = model.get_env()
    if env is None:
        _check_saw_them_as_they_are(model)
    normaliser, around = RunNormaliser(env, size), model.get_vec_normalize_env()
    if around is not None and around.norm_obs:
        raw = np.concatenate(random_observations(model.observation_space))
        expected = np.reshape(around.normalize_obs(raw), (len(raw), -1))  # [B, *shape] -> [B, O]
        # [B, *shape] -> [B, O]
        if not np.allclose(normaliser.normalise(raw.reshape(len(raw), -1)), expected, atol=1e-5):
            raise TiplError(
                f"the {type(around).__name__} of the model's environment normalises otherwise than "
                "by its mean, its variance and its clip; use VecNormalize as it is"
            )
    return normaliser


def _check_saw_them_as_they_are(model: Any) -> None:
    """Raises a TiplError if a model without an environment was trained under VecNormalize.

    Where that cannot be told, a warning of the logger `tipl` says so.
    """
    gave: Any = getattr(model, "_last_original_obs", None)
    saw: Any = getattr(model, "_last_obs", None)
    if gave is None:
        return
    remedy = "load its statistics by VecNormalize.load and give that to model.set_env"
    # algorithms with a replay buffer keep the last observation but one there, if nothing normalises
    kept = isinstance(model, OffPolicyAlgorithm) and np.shape(gave) == np.shape(saw)
    if not kept or np.asarray(gave).dtype != np.asarray(saw).dtype:
        raise TiplError(
            "the model was trained under VecNormalize, and has no environment that would tell how "
            f"that normalises observations; {remedy}"
        )
    if np.asarray(saw).dtype == np.float32:  # to which VecNormalize rounds
        warn(
            f"the {type(model).__name__} is taken to have seen observations as they are; if it was "
            f"trained under VecNormalize, {remedy}"
        )


class Weights(NamedTuple):
    """What a policy is made of, in the order in which `tipl.Policy` takes it."""

    params: Float[np.ndarray, " P"]
    layout: ParamLayout
    task: TaskSpec
    observation_mean: Float[np.ndarray, " O"]
    observation_std: Float[np.ndarray, " O"]
    observation_clip: float


def weights_from_sb3(model: Any, task: TaskSpec | str | None = None) -> Weights:
    """A stable-baselines3 model's policy, exactly as the model acts.

    It takes raw observations. Its normaliser is the run's own (`VecNormalize`, with its clip), or
    mean 0, std 1 and no clip where the run has none.

    Args:
        model: whose actor is a multi-layer perceptron of one of
            `tipl.policies.activations.ACTIVATIONS`: PPO, A2C or TRPO, or a deterministic actor of
            SAC, TD3, DDPG or TQC. MaskablePPO is read as it acts without a mask, unless its
            environment has masks.
        task: what it is for, or its Gymnasium id; by default that of its environment, with its
            arguments, limit of steps and wrappers. Wrappers that the environment is known to have,
            a given task has to have, too.

    Raises:
        TiplError: the model acts otherwise than any such network, its sizes or its actions are
            another task's, or its environment is not known.
    """
    run = read_run(model, task)
    mean, std = run.normaliser.statistics
    return Weights(run.agent.params(), run.layout, run.task, mean, std, run.normaliser.clip)


def weights_to_sb3(model: Any, weights: Weights) -> None:
    """Gives a stable-baselines3 model the weights of a policy; critic and optimiser stay.

    They are folded for what the model's environment normalises observations by at present. Where
    the clip of one of the normalisers lets the model act otherwise than the policy, a warning of
    the logger `tipl` says so. Target networks of the actor (TD3) are given the same weights.

    Raises:
        TiplError: the model's networks are of another kind or another architecture, or its
            environment is not that of the policy's task.
    """
    agent, (params, layout, task, mean, std, _) = actor_of_sb3(model), weights
    if agent.layout != layout:
        raise TiplError(
            f"a policy laid out as {layout} was given to a model whose policy is "
            f"{agent.layout}; make the model with policy_kwargs="
            f"{{'net_arch': {list(layout.hidden_sizes)}}} and the policy's activation in its task"
        )
    env = model.get_env()
    if env is None:
        raise TiplError("the model has no environment to act in; set one by model.set_env")
    there, here = environment_spec(env).id, task.bare_id
    if there != here:
        raise TiplError(
            f"a policy for {here} was given to a model whose environment is {there}; give one for "
            "the same task"
        )
    normaliser = read_run(model, task).normaliser
    agent.set_params(refolded(params, layout, (mean, std), normaliser.statistics))
    target = getattr(model.policy, "actor_target", None)
    if isinstance(target, nn.Module):
        target.load_state_dict(model.policy.actor.state_dict())
    _tell_of_clips(model, weights, normaliser)


# --- clips -----------------------------------------------------------------------------------


def _tell_of_clips(model: Any, weights: Weights, normaliser: RunNormaliser) -> None:
    """Warns if a model acts otherwise than the policy that it was given, where clips bite."""
    raw = _raw_observations(model, weights, normaliser)
    inputs = normalise_observations(raw, *weights[3:5], clip=weights.observation_clip)
    arrays = weights.layout.unflatten(weights.params)
    outputs = mlp_outputs(arrays, "actor", inputs, weights.layout.activation)
    ours = best_actions(weights.task, outputs, weights.layout.squashed)
    # [B, O] -> [B, *shape]
    seen = normaliser.normalise(raw).reshape(-1, *model.observation_space.shape)
    with undisturbed(model.policy):
        theirs = model.predict(seen, deterministic=True)[0]
    # [B] or [B, A] -> [B]
    gaps = np.abs(ours.astype(np.float64) - theirs).reshape(len(raw), -1).max(axis=1)
    far = gaps > FAR * max(1.0, float(np.abs(ours).max()))
    if far.any():
        warn(
            f"the model acts otherwise than the policy that it was given on {far.mean():.1%} of "
            f"{len(raw)} observations, by up to {gaps.max():.3g}: normalised observations are "
            f"clipped at {weights.observation_clip:g} by the policy and at {normaliser.clip:g} by "
            "the model's environment; give that the same clip_obs, or train a little"
        )


def _raw_observations(
    model: Any, weights: Weights, normaliser: RunNormaliser
) -> Shaped[np.ndarray, "B O"]:
    """Observations as the environment gives them: typical ones, and those that were visited."""
    rng, space = np.random.default_rng(0), model.observation_space
    mean, std = weights.observation_mean, weights.observation_std
    typical = mean + std * rng.standard_normal((TYPICAL, len(mean)))
    if normaliser.moments is None and isinstance(space, Box):
        typical = np.clip(typical, space.low.reshape(-1), space.high.reshape(-1))  # [*shape] -> [O]
    now_mean, now_std = normaliser.statistics
    visited = [
        now_mean + now_std * one.reshape(len(one), -1) for one in visited_observations(model)
    ]
    return np.concatenate([typical, *visited]).astype(np.float32)
