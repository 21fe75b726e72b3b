"""Agents of stable-baselines3 and sb3-contrib: what acts, and what a jump touches.

A network is read by what it computes: see `actor_of_sb3`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from jaxtyping import Shaped
from torch import Tensor, nn
from torch.distributions import Categorical, Normal

from tipl.core.arrays import Array
from tipl.errors import TiplError
from tipl.integrations.pytorch.agent import UNREADABLE, TorchActor, TorchAgent, actor_of
from tipl.integrations.pytorch.reading import (
    ROUNDING,
    Chain,
    chains,
    difference,
    linear_calls,
    outputs_and_rounding,
    outputs_set,
    parameters_of,
    random_observations,
    undisturbed,
)
from tipl.policies.actions import best_actions
from tipl.policies.layout import ParamLayout
from tipl.policies.tasks import TaskSpec

VISITED = 256
"""Observations that a run has visited, by which a reading is judged."""

FEW = 8
"""Observations of each kind, from which readings are proposed."""


def actor_of_sb3(model: Any) -> TorchActor:
    """What a stable-baselines3 model acts by, where that is a network that tipl can read.

    No name or class decides. Chains of linear layers are found in what the layers are fed while the
    model predicts; one is believed if nothing else acts, and if it acts as
    `model.predict(..., deterministic=True)` does on random observations of several scales and on
    those that the model has kept. Of an actor-critic (PPO, A2C, TRPO) its distribution has to agree
    as well, and its noise to be one parameter for each action; any other actor (SAC, TD3, DDPG,
    TQC) has to squash its outputs. The model and its random numbers are left as they are.

    A policy that takes masks of actions (MaskablePPO) is read as it acts without one.

    Raises:
        TiplError: the model acts by anything else; it says which difference was found.
    """
    policy = _policy(model)
    _check_kind(model)
    sets = [*random_observations(model.observation_space), *visited_observations(model)]
    few = np.concatenate([one[:FEW] for one in sets])
    with undisturbed(policy):
        acting, valuing = _asked(model, _acting, few), _asked(model, _valuing, few)
        differences = []
        for chain in chains(policy, lambda: _predict(model, few), _flat(few)):
            read = _proposal(model, chain, few)
            own = {*read.actor} if read is not None else set()
            if read is None or not {*acting} <= own or own & {*valuing}:
                continue
            worst = _largest_difference(model, read, chain.linears[-1], sets)
            if not worst:
                return read
            differences.append(worst)
    if not differences:
        raise TiplError(UNREADABLE)
    raise TiplError(
        f"{UNREADABLE}; read from its linear layers alone, it acts otherwise than model.predict, "
        f"by up to {min(differences):.3g}"
    )


def agent_of_sb3(model: Any) -> TorchAgent:
    """The agent of a stable-baselines3 model that learns from rollouts, such as PPO.

    Raises:
        TiplError: the model has no actor-critic policy with an optimiser, or none that acts by the
            present observation alone.
    """
    policy = _policy(model)
    if not hasattr(policy, "predict_values") or not hasattr(policy, "optimizer"):
        raise TiplError(
            f"a {type(model).__name__} was given; expected a stable-baselines3 model with an "
            "actor-critic policy, such as PPO"
        )

    def values(observations: Tensor) -> Tensor:
        given: Tensor = policy.predict_values(observations)
        return given[:, 0]

    one = _sampled(model)
    with undisturbed(policy):
        acting = _asked(model, _acting, one)
        tensor = policy.obs_to_tensor(one)[0]
        valued = parameters_of(policy, values(tensor))
        head = _value_head(policy, values, tensor)
    try:
        read = actor_of_sb3(model)
    except TiplError as error:
        read = TorchActor(actor=acting, layout=None, unread=str(error))
    critic = [p for p in valued if not any(p is one for one in read.actor)]
    return TorchAgent(
        actor=read.actor,
        layout=read.layout,
        unread=read.unread,
        critic=critic,
        optimizer=policy.optimizer,
        value=values,
        act=lambda observations: model.predict(observations, deterministic=True)[0],
        value_head=head if head is not None and head[0].weight in {*critic} else None,
    )


def visited_observations(model: Any) -> list[Shaped[np.ndarray, "B ..."]]:
    """Up to `VISITED` of the observations in a model's buffers and its last ones, as it saw them.

    They are those of `Box` spaces, normalised as they are for the networks.
    """
    found, shape = [], model.observation_space.shape
    for name in ("rollout_buffer", "replay_buffer"):
        buffer = getattr(model, name, None)
        kept = getattr(buffer, "observations", None)
        if buffer is None or not isinstance(kept, np.ndarray):
            continue
        whole = kept if buffer.full else kept[: buffer.pos]
        rows = whole.reshape(-1, *shape)  # [T, E, *shape] or [T * E, *shape] -> [B, *shape]
        rows = rows[:: max(1, len(rows) // VISITED)][:VISITED]
        normalise = model.get_vec_normalize_env()
        if name == "replay_buffer" and normalise is not None:  # which is filled with raw ones
            rows = normalise.normalize_obs(rows)
        found.append(rows)
    last = getattr(model, "_last_obs", None)
    if isinstance(last, np.ndarray):
        found.append(last.reshape(-1, *shape))  # [E, *shape]
    finite = [rows[np.isfinite(_flat(rows)).all(axis=1)] for rows in found if len(rows)]
    return [rows for rows in finite if len(rows)]


# --- readings --------------------------------------------------------------------------------


def _proposal(model: Any, chain: Chain, observations: Array) -> TorchActor | None:
    """The actor of a chain, if its outputs stand for actions of a known kind."""
    policy = model.policy
    if chain.sizes[-1] != _outputs(model.action_space):
        return None
    if not hasattr(policy, "get_distribution"):
        return actor_of(chain, None, squashed=True)
    distribution = _distribution(policy, observations)
    if isinstance(distribution, Categorical):
        return actor_of(chain, None)
    return _gaussian(policy, chain, distribution) if isinstance(distribution, Normal) else None


def _gaussian(policy: Any, chain: Chain, distribution: Normal) -> TorchActor | None:
    """The actor of a chain with noise of its own, if the distribution's is that parameter's."""
    log_std = getattr(policy, "log_std", None)
    if not isinstance(log_std, nn.Parameter) or log_std.shape != distribution.stddev.shape[1:]:
        return None
    agrees = torch.allclose(distribution.stddev, log_std.exp(), rtol=1e-4)
    return actor_of(chain, log_std) if agrees else None


def _largest_difference(
    model: Any, read: TorchActor, last: nn.Linear, sets: Sequence[Array]
) -> float:
    """By how much a reading acts otherwise than a model does; 0 where that is rounding alone.

    The model is asked on each set of observations, and what it would do if its last layer put out
    anything else, which may be what it learns to do.
    """
    layout, params = read.known_layout, read.params()
    found = [0.0]
    for one in sets:
        outputs, rounding = outputs_and_rounding(params, layout, _flat(one))
        found.append(_difference(model, layout, one, outputs, rounding))
    unbounded = Box(-np.inf, np.inf, (last.out_features,))
    for outputs in random_observations(unbounded):
        few = sets[0][np.arange(len(outputs)) % len(sets[0])]
        with outputs_set(last, outputs):
            rounding = ROUNDING * max(1.0, float(np.abs(outputs).max()))
            found.append(_difference(model, layout, few, outputs, rounding))
    return max(found)


def _difference(
    model: Any, layout: ParamLayout, observations: Array, outputs: Array, rounding: float
) -> float:
    """By how much a model acts otherwise than by outputs, or finds other actions likely."""
    policy, predicted = model.policy, _predict(model, observations)
    if not layout.squashed:
        distribution = _distribution(policy, observations)
        if isinstance(distribution, Categorical):
            theirs = distribution.logits.cpu().numpy()
            # what is added to all logits changes nothing
            ours = outputs - np.logaddexp.reduce(outputs, axis=1, keepdims=True)
            found = difference(ours, theirs, 2 * rounding)
        else:
            found = difference(outputs, distribution.mean.cpu().numpy(), rounding)
        if found:
            return found
    space = _task_of_spaces(model)
    acted = best_actions(space, outputs, layout.squashed)
    if not space.discrete:
        widest = 1.0 if not layout.squashed else float(np.ptp(space.action_bounds, axis=0).max())
        return difference(acted, predicted, rounding * max(1.0, widest))
    gaps = np.diff(np.sort(outputs, axis=1)[:, -2:], axis=1)
    clear = (gaps > 2 * rounding).all(axis=1)  # others are ties, up to rounding
    return difference(acted[clear], predicted[clear], 0.0)


def _task_of_spaces(model: Any) -> TaskSpec:
    """A task of a model's spaces, to act in; it has no environment."""
    space: Any = model.action_space
    size = int(np.prod(model.observation_space.shape))
    discrete = isinstance(space, Discrete)
    return TaskSpec(
        env_id="the model's spaces",
        observation_size=size,
        action_size=_outputs(space),
        action_low=() if discrete else tuple(space.low.tolist()),
        action_high=() if discrete else tuple(space.high.tolist()),
        max_episode_steps=1,
        observation_mean=(0.0,) * size,
        observation_std=(1.0,) * size,
        gymnasium_spec="{}",
        first_action=int(space.start) if discrete else None,
        action_dtype="float32" if discrete else str(space.dtype),
    )


# --- what a policy is asked ------------------------------------------------------------------


def _policy(model: Any) -> Any:
    policy = getattr(model, "policy", None)
    if not isinstance(policy, nn.Module):
        raise TiplError(
            f"a {type(model).__name__} was given; expected a stable-baselines3 model with an "
            "actor-critic policy, such as PPO, or a deterministic actor, such as SAC"
        )
    return policy


def _check_kind(model: Any) -> None:
    """Raises a TiplError unless observations, actions and policy are of kinds that tipl knows."""
    observations, actions = model.observation_space, model.action_space
    one_dimensional = isinstance(actions, Box) and len(actions.shape) == 1
    if not isinstance(observations, Box) or not (one_dimensional or isinstance(actions, Discrete)):
        raise TiplError(
            f"the model sees {observations} and acts by {actions}; expected observations of a Box "
            "and actions of a one-dimensional Box or Discrete: a tipl.Policy knows no others"
        )
    if not one_dimensional and not hasattr(model.policy, "get_distribution"):
        raise TiplError(
            f"a {type(model).__name__} was given, whose networks say what actions are worth and "
            "not how likely they are; expected an actor-critic, such as PPO"
        )


def _asked(model: Any, ask: Callable[[Any, Any], Any], observations: Any) -> Any:
    """What a model's own code says of observations; a TiplError if these are not enough for it."""
    try:
        return ask(model, observations)
    except Exception as error:  # somebody else's code
        raise TiplError(
            f"the policy of a {type(model).__name__} cannot be asked what it does on an "
            f"observation alone ({type(error).__name__}: {error}); expected one without a memory, "
            "such as PPO's 'MlpPolicy'"
        ) from error


def _predict(model: Any, observations: Any) -> Array:
    return np.asarray(model.predict(observations, deterministic=True)[0])


def _distribution(policy: Any, observations: Any) -> Any:
    """The torch distribution of a policy's actions before they are squashed or clipped."""
    with torch.no_grad():
        return policy.get_distribution(policy.obs_to_tensor(observations)[0]).distribution


def _acting(model: Any, observations: Any) -> list[nn.Parameter]:
    """The parameters that actions depend on."""
    policy = model.policy
    tensor = policy.obs_to_tensor(observations)[0]
    if not hasattr(policy, "get_distribution"):
        return parameters_of(policy, policy(tensor, deterministic=True))
    distribution = policy.get_distribution(tensor)
    return parameters_of(policy, distribution.log_prob(distribution.mode().detach()))


def _valuing(policy: Any, observations: Any) -> list[nn.Parameter]:
    """The parameters that the values of an actor-critic depend on."""
    if not hasattr(policy, "predict_values"):
        return []
    return parameters_of(policy, policy.predict_values(policy.obs_to_tensor(observations)[0]))


def _value_head(
    policy: Any, values: Callable[[Tensor], Tensor], observations: Tensor
) -> tuple[nn.Linear, Callable[[Tensor], Tensor]] | None:
    """The linear layer that values are the outputs of, and what gives its inputs."""
    with linear_calls(policy) as calls:
        given = values(observations)
    head = calls[-1].linear if calls else None
    if head is None or head.bias is None or not torch.equal(calls[-1].outputs[:, 0], given):
        return None

    def features(observations: Tensor) -> Tensor:
        with linear_calls(policy) as calls:
            values(observations)
        return calls[-1].inputs

    return head, features


def _sampled(model: Any) -> Any:
    """One observation of a model's space, of any kind, always the same."""
    space = copy.deepcopy(model.observation_space)
    space.seed(0)
    return space.sample()


def _outputs(space: gym.Space[Any]) -> int:
    """How many outputs actions of a space take."""
    return int(getattr(space, "n", 0) or np.prod(space.shape or ()))


def _flat(observations: Array) -> Array:
    """Observations `[B, ...]` as networks take them, `[B, O]` float32."""
    return observations.reshape(len(observations), -1).astype(np.float32)  # [B, ...] -> [B, O]
