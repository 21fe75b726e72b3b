"""The task of a stable-baselines3 model: what its environment is, wrappers and all."""

from __future__ import annotations

import copy
import inspect
import json
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from stable_baselines3.common.vec_env import VecNormalize

from tipl.envs import make_task
from tipl.errors import TiplError
from tipl.integrations.environment.description import describe, is_one_of, wrappers_around
from tipl.integrations.environment.members import LIKE_IT
from tipl.policies.tasks import TaskSpec

NAME_IT = 'name the task: Policy.from_sb3(model, "Hopper-v5")'
"""What helps where an environment does not tell it."""

UNSEEN = (
    gym.wrappers.ClipAction,
    gym.wrappers.NormalizeReward,
    gym.wrappers.TransformReward,
    gym.wrappers.ClipReward,
)
"""Wrappers that change neither what a policy sees nor what it does inside its bounds."""


def task_of_model(model: Any, task: TaskSpec | str | None = None) -> TaskSpec:
    """The task of a model's environment, as that was made; or the given one, or that of an id.

    Its normaliser of observations, which becomes the policy's, is no part of it. A task that is
    given is believed, as long as the model's environment does not show wrappers of observations or
    actions that the task has not.

    Raises:
        TiplError: nothing tells the task, or it cannot be written down; or wrappers change what a
            policy sees or does.
    """
    env = model.get_env()
    if isinstance(task, str):
        task = make_task(task)
    if env is None:
        if task is None:
            raise TiplError(
                "the model has no environment that would tell its task; set one by model.set_env, "
                f"or {NAME_IT}"
            )
        return task
    _check_around(env)
    _check_masks(model, env)
    spec = environment_spec(env, known=task is not None)
    if task is None:
        return make_task(_without_normaliser(spec))
    if spec is not None:
        _check_wrappers(_without_normaliser(spec), task)
    return task


def environment_spec(env: Any, known: bool = False) -> Any:
    """The spec of a run's environment, with the wrappers that matter.

    Raises:
        TiplError: it has none; None is returned instead if the task is `known` otherwise.
    """
    try:
        return describe(env).spec
    except TiplError as error:
        if known:
            return None
        raise TiplError(f"{str(error).removesuffix(LIKE_IT)}{NAME_IT}") from error


def _check_around(env: Any) -> None:
    """Raises a TiplError if wrappers around a vector change what a policy sees or does."""
    names = [type(one).__name__ for one in wrappers_around(env) if type(one) is not VecNormalize]
    if names:
        raise TiplError(
            f"the wrapper {', '.join(names)} around the model's vector of environments may change "
            "what a policy sees or does, and a tipl.Policy does nothing of the kind; expected "
            "VecNormalize or VecMonitor alone: put wrappers of gymnasium around each environment"
        )


def _check_masks(model: Any, env: Any) -> None:
    """Raises a TiplError if a model's environment masks actions, which a policy never does."""
    takes_masks = "action_masks" in inspect.signature(model.predict).parameters
    if takes_masks and env.has_attr("action_masks"):
        raise TiplError(
            f"the environment of this {type(model).__name__} masks actions, and a tipl.Policy acts "
            "by its observation alone; expected an environment without action_masks"
        )


def _without_normaliser(spec: EnvSpec) -> EnvSpec:
    """A spec without the wrapper whose statistics become the policy's own.

    Raises:
        TiplError: what it gives is changed by other wrappers.
    """
    normalisers = [gym.wrappers.NormalizeObservation]
    kept = [one for one in spec.additional_wrappers if not is_one_of(one, normalisers)]
    if len(kept) == len(spec.additional_wrappers):
        return spec
    first = next(i for i, one in enumerate(spec.additional_wrappers) if one not in kept)
    after = [one for one in spec.additional_wrappers[first:] if one in kept]
    others = [one.name for one in after if not is_one_of(one, UNSEEN)]
    if others:
        raise TiplError(
            f"observations are normalised by NormalizeObservation and then given to "
            f"{', '.join(others)}; expected it around all others: use VecNormalize"
        )
    spec = copy.deepcopy(spec)
    spec.additional_wrappers = tuple(kept)
    return spec


def _check_wrappers(spec: EnvSpec, task: TaskSpec) -> None:
    """Raises a TiplError if an environment has other wrappers than a task."""
    theirs = [one for one in spec.additional_wrappers if not is_one_of(one, UNSEEN)]
    unseen = {f"{one.__module__}:{one.__name__}" for one in UNSEEN}
    ours = [one for one in task.wrappers if one["entry_point"] not in unseen]
    told = [_told({"entry_point": one.entry_point, "kwargs": one.kwargs}) for one in theirs]
    if told != [_told(one) for one in ours]:
        raise TiplError(
            f"the model's environment has the wrappers {_names(one.name for one in theirs)}, and "
            f"{task.label} has {_names(str(one.get('name')) for one in ours)}; expected the same, "
            "which change what a policy sees or does: leave the task out, or train without them"
        )


def _names(names: Any) -> str:
    return ", ".join(names) or "(none)"


def _told(wrapper: Mapping[str, Any]) -> str:
    """A wrapper as text; functions are told by where they are, which is nowhere else."""
    told: Sequence[Any] = (wrapper["entry_point"], wrapper["kwargs"])
    return json.dumps(told, default=lambda v: v.tolist() if hasattr(v, "tolist") else repr(v))


def check_actions(model: Any, task: TaskSpec) -> None:
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
