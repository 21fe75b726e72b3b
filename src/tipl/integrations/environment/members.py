"""The environments of a run's vector, and their specs: asked for only what can be answered."""

from __future__ import annotations

import contextlib
import pickle
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec

from tipl.envs.batched_mujoco import silent_mujoco
from tipl.errors import TiplError

LIKE_IT = "give an eval_env like it"
"""What helps wherever another environment cannot be made."""


def sb3_class(name: str) -> tuple[Any, ...]:
    """A class of stable-baselines3's vectors, for `isinstance`; none if it is not in use."""
    module = sys.modules.get("stable_baselines3.common.vec_env")
    return () if module is None else (getattr(module, name),)


def inner(env: Any) -> Any:
    """What a wrapper, of one environment or of a vector, is around; None of anything else."""
    if isinstance(env, gym.Wrapper | gym.vector.VectorWrapper):
        return env.env
    return env.venv if isinstance(env, sb3_class("VecEnvWrapper")) else None


def unwrapped_layers(env: Any) -> list[Any]:
    """An environment or a vector, and all that it wraps, from the outside in."""
    layers = []
    while env is not None:
        layers.append(env)
        env = inner(env)
    return layers


def members_here(vector: Any) -> list[Any] | None:
    """The environments of a vector that has no wrappers; None if they are not in this process."""
    if isinstance(vector, gym.Env):
        return [vector]
    known = (gym.vector.SyncVectorEnv, *sb3_class("DummyVecEnv"))
    return list(vector.envs) if isinstance(vector, known) else None


def all_layers(env: Any) -> Iterator[Any]:
    """All wrappers of a run's environment and of each member in this process, and these."""
    layers = unwrapped_layers(env)
    yield from layers
    for member in members_here(layers[-1]) or [] if layers else []:
        if member is not layers[-1]:
            yield from unwrapped_layers(member)


def first_member(env: Any) -> gym.Env[Any, Any] | None:
    """The first environment of a vector, with its wrappers; None if it is in another process."""
    return next((layer for layer in all_layers(env) if isinstance(layer, gym.Env)), None)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No word of an environment that a run has already been told everything about."""
    with warnings.catch_warnings(), silent_mujoco():
        warnings.simplefilter("ignore")
        yield


class _Unsendable(type):
    def __instancecheck__(cls, env: Any) -> bool:
        try:
            pickle.dumps(env.spec)
        except Exception:
            return True
        return False


class UnsendableSpec(metaclass=_Unsendable):
    """Environments are instances of it if their spec cannot leave their process.

    A worker that cannot send what it was asked for dies, and the run with it. Whether an
    environment is wrapped in a class is a question that every worker can answer, and it answers it
    by `isinstance`.
    """


def member_specs(vector: Any) -> Sequence[EnvSpec]:
    """The Gymnasium specs of a vector's environments, as the run has made them.

    The vector has no wrappers. Of one whose environments are in processes of Gymnasium's, which
    makes the first one in this process as well, the spec is that of another first one.

    Raises:
        TiplError: they are not known, or cannot be asked for.
    """
    specs: Sequence[Any]
    with quiet():
        if (members := members_here(vector)) is not None:
            specs = [member.spec for member in members]
        elif isinstance(vector, gym.vector.AsyncVectorEnv):
            with contextlib.closing(vector.env_fns[0]()) as first:
                specs = [first.spec]
        elif isinstance(vector, sb3_class("SubprocVecEnv")):
            specs = _specs_of_workers(vector)
        elif isinstance(vector, gym.vector.VectorEnv) and vector.spec is not None:
            specs = [gym.spec(vector.spec.id)]
        else:
            raise TiplError(
                f"the run's vector of environments is of a class of its own, "
                f"{type(vector).__name__}, of which no other one can be made; {LIKE_IT}"
            )
    if any(spec is None for spec in specs):
        raise TiplError(
            "the run's environment was not made by gymnasium.make, so that no other one can be "
            f"made; register it and make it by its id, or {LIKE_IT}"
        )
    return specs


def normalises_elsewhere(vector: Any) -> bool:
    """Whether environments in other processes each normalise observations, as far as is known."""
    wrapper = gym.wrappers.NormalizeObservation
    if isinstance(vector, sb3_class("SubprocVecEnv")):
        return any(vector.env_is_wrapped(wrapper))
    if isinstance(vector, gym.vector.AsyncVectorEnv):
        with quiet(), contextlib.closing(vector.env_fns[0]()) as first:
            return any(isinstance(layer, wrapper) for layer in unwrapped_layers(first))
    return False


def make_quietly(spec: Any) -> gym.Env[Any, Any]:
    """`gymnasium.make` for somebody who has been told that their version of a task is old."""
    with quiet():
        return gym.make(spec)


def _specs_of_workers(vector: Any) -> Sequence[Any]:
    if not all(vector.env_is_wrapped(gym.Wrapper)):
        return [None]  # as gymnasium.make makes them, they are wrapped
    if any(vector.env_is_wrapped(UnsendableSpec)):
        raise TiplError(
            "the run's environments are in processes of their own and were made with functions or "
            f"other things that cannot be sent from there; {LIKE_IT}"
        )
    # one at a time: after an error nothing must be left unread that the next step would read
    return [vector.get_attr("spec", indices=i)[0] for i in range(vector.num_envs)]
