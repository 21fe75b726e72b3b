"""What a jump touches in an actor-critic agent of PyTorch, whatever library it belongs to."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box
from jaxtyping import Float, Float32
from torch import Tensor, nn

from tipl.core.arrays import Array
from tipl.errors import TiplError
from tipl.integrations.pytorch.reading import (
    READABLE,
    Chain,
    chains,
    difference,
    outputs_and_rounding,
    random_observations,
    undisturbed,
)
from tipl.integrations.standing_aside import Guard
from tipl.policies.layout import ParamLayout

RIDGE = 1e-4
"""Of fitting the critic's last layer, in units of the mean square of its inputs."""


MINIBATCH = 64
"""Observations from which the critic learns at a time, when it is refitted."""

UNREADABLE = (
    f"the model's policy is not {READABLE}, which is all that a tipl.Policy can be; train one with "
    "'MlpPolicy'"
)
"""Why there is no layout of an actor, in general."""


@dataclasses.dataclass(eq=False, kw_only=True)
class TorchActor:
    """The weights that a policy acts by."""

    actor: list[nn.Parameter]
    """all that actions depend on; where tipl reads it, as its layout says"""
    layout: ParamLayout | None
    """of a multi-layer perceptron that shares nothing with the critic; otherwise None"""
    unread: str = UNREADABLE
    """why there is no layout, if there is none"""

    @property
    def known_layout(self) -> ParamLayout:
        """The layout of an actor that tipl can read.

        Raises:
            TiplError: it is of another kind.
        """
        if self.layout is None:
            raise TiplError(self.unread)
        return self.layout

    @property
    def size(self) -> int:
        """Number P of the actor's parameters."""
        return sum(parameter.numel() for parameter in self.actor)

    def differs(self, inputs: Float[np.ndarray, "B O"], theirs: Float[np.ndarray, "B A"]) -> float:
        """By how much the outputs of its layout are others than given ones, beyond rounding."""
        ours, rounding = outputs_and_rounding(self.params(), self.known_layout, inputs)
        return difference(ours, theirs, rounding)

    def params(self) -> Float32[np.ndarray, " P"]:
        """The actor's parameters, flat: a copy."""
        flat = nn.utils.parameters_to_vector(self.actor)
        return flat.detach().cpu().numpy().astype(np.float32)

    def set_params(self, params: Float[np.ndarray, " P"]) -> None:
        """Gives the actor other parameters, in place.

        Raises:
            TiplError: they are not finite, or not as many as the actor has.
        """
        if params.shape != (self.size,) or not np.isfinite(params).all():
            raise TiplError(
                f"parameters of shape {params.shape} were given to an actor of {self.size}, "
                f"{np.count_nonzero(~np.isfinite(params))} of them NaN or infinite; expected as "
                "many as it has, all finite"
            )
        sizes = [parameter.numel() for parameter in self.actor]
        pieces = torch.split(torch.from_numpy(np.ascontiguousarray(params)), sizes)
        with torch.no_grad():
            for parameter, own in zip(self.actor, pieces, strict=True):
                parameter.copy_(own.reshape(parameter.shape))


@dataclasses.dataclass(eq=False, kw_only=True)
class TorchAgent(TorchActor):
    """The weights of an agent, its optimiser, and how it acts and values."""

    critic: list[nn.Parameter]
    """those that values alone depend on"""
    optimizer: torch.optim.Optimizer
    """of all of them"""
    value: Callable[[Tensor], Tensor]
    """values [B] of normalised observations [B, O]"""
    act: Callable[[Array], Array]
    """most likely actions of such, as the environment takes them"""
    value_head: tuple[nn.Linear, Callable[[Tensor], Tensor]] | None
    """the critic's last layer, and what gives its inputs [B, D]; None if it is not of that kind"""
    step_scale: Float[np.ndarray, " O"] | None = None
    """what the optimiser's steps of the first layers are divided by; see `scale_first_steps`"""
    _hooks: list[Any] = dataclasses.field(default_factory=list)

    def reset_moments(self) -> None:
        """Lets the optimiser forget the actor: its next step is like the first one."""
        for parameter in self.actor:
            self.optimizer.state.pop(parameter, None)

    def scale_first_steps(
        self, std: Float[np.ndarray, " O"] | None, guard: Guard | None = None
    ) -> None:
        """Lets the optimiser move the first layers as if observations were divided by `std`.

        Adam moves all weights alike, whatever the observations' units. Weights that were learned
        for normalised observations stand a step of that size in those units alone. A `std` of
        None ends it, and so does a step in which it fails: that one is the optimiser's own. The
        `guard` keeps the exception out of the optimiser; by default there is none.
        """
        guard = guard or Guard(strict=True)
        for hook in self._hooks:
            hook.remove()
        self._hooks, self.step_scale = [], std
        if std is None:
            return
        scale = torch.as_tensor(np.asarray(std, np.float32), device=self.actor[0].device)
        first = [self.actor[0], *self.critic[:1]]
        before: list[Tensor] = []

        def end() -> None:  # the hooks themselves may not go while the optimiser calls them
            self.step_scale = None

        def remember(*_: Any) -> None:
            if self.step_scale is None:
                return
            with guard:
                guard.remember(end)
                before[:] = [weight.detach().clone() for weight in first]

        @torch.no_grad()
        def shorten(*_: Any) -> None:
            if self.step_scale is None:
                return
            with guard:
                guard.remember(end)
                moved = [old + (new - old) / scale for new, old in zip(first, before, strict=True)]
                for weight, shorter in zip(first, moved, strict=True):
                    weight.copy_(shorter)

        self._hooks = [
            self.optimizer.register_step_pre_hook(remember),
            self.optimizer.register_step_post_hook(shorten),
        ]

    def snapshot(self) -> tuple[list[Tensor], dict[Tensor, Any]]:
        """All that a jump changes, for `restore`: each parameter, and the optimiser's moments."""
        parameters = [parameter.detach().clone() for parameter in [*self.actor, *self.critic]]
        return parameters, _copies(self.optimizer.state)

    @torch.no_grad()
    def restore(self, snapshot: tuple[list[Tensor], dict[Tensor, Any]]) -> None:
        """Sets weights and the optimiser's moments back to those of `snapshot`."""
        values, moments = snapshot[0], _copies(snapshot[1])
        for parameter, value in zip([*self.actor, *self.critic], values, strict=True):
            parameter.copy_(value)
        self.optimizer.state.clear()
        self.optimizer.state.update(moments)

    def refit_critic(
        self,
        observations: Float[Tensor, "B ..."],
        targets: Float[Tensor, " B"],
        epochs: int,
        learning_rate: float,
        seed: int,
    ) -> None:
        """Fits the critic to targets, and nothing else: its last layer exactly, then all by Adam.

        Values may be hundreds of times as large as before a jump, too far for Adam to go. The
        observations are normalised; Adam takes them `epochs` times, in orders that `seed` fixes.
        """
        device = self.critic[0].device
        observations, targets = observations.to(device), targets.to(device)
        self._fit_value_head(observations, targets)
        adam = torch.optim.Adam(self.critic, lr=learning_rate, eps=1e-5)
        generator = torch.Generator().manual_seed(seed)
        theirs = [parameter.grad for parameter in self.critic]
        try:
            for _ in range(epochs):
                order = torch.randperm(len(targets), generator=generator).numpy()
                for start in range(0, len(order), MINIBATCH):
                    chosen = order[start : start + MINIBATCH]
                    loss = (self.value(observations[chosen]) - targets[chosen]).square().mean()
                    self._set_gradients(torch.autograd.grad(loss, self.critic))
                    adam.step()
        finally:
            self._set_gradients(theirs)

    def _set_gradients(self, gradients: Sequence[Tensor | None]) -> None:
        """Gives the critic's parameters gradients, or none."""
        for parameter, gradient in zip(self.critic, gradients, strict=True):
            parameter.grad = gradient

    @torch.no_grad()
    def _fit_value_head(self, observations: Tensor, targets: Tensor) -> None:
        """Fits the critic's last layer by ridge regression."""
        if self.value_head is None:
            return
        head, features_of = self.value_head
        features = features_of(observations).double()
        features = torch.cat([features, torch.ones_like(features[:, :1])], dim=1)
        gram = features.T @ features
        ridge = RIDGE * gram.diagonal().mean() * torch.eye(len(gram), device=gram.device)
        solved = torch.linalg.solve(gram + ridge, features.T @ targets.double())
        head.weight.copy_(solved[None, :-1])
        head.bias.copy_(solved[-1:])


def _copies(moments: Mapping[Tensor, Any]) -> dict[Tensor, Any]:
    """An optimiser's moments, which stay those of the same parameters."""
    return {parameter: copy.deepcopy(state) for parameter, state in moments.items()}


def agent_of_cleanrl(agent: nn.Module, optimizer: torch.optim.Optimizer) -> TorchAgent:
    """The agent of a script of CleanRL's style.

    It has a `critic`, and either `actor_mean` and `actor_logstd` or `actor`.

    Raises:
        TiplError: the agent has no such parts, or others beside them.
    """
    mean = getattr(agent, "actor_mean", getattr(agent, "actor", None))
    critic, log_std = getattr(agent, "critic", None), getattr(agent, "actor_logstd", None)
    if (
        not isinstance(mean, nn.Module)
        or not isinstance(critic, nn.Module)
        or hasattr(agent, "actor_mean") != isinstance(log_std, nn.Parameter)
    ):
        raise TiplError(
            f"an agent of the class {type(agent).__name__} was given; expected one with `critic`, "
            "and `actor_mean` with `actor_logstd` or `actor`, as in CleanRL's scripts of PPO"
        )
    _check_nothing_else(agent, [*mean.parameters(), *critic.parameters(), log_std])
    everything = [*mean.parameters(), *([] if log_std is None else [log_std])]
    read = _read(mean, log_std) or TorchActor(actor=everything, layout=None)
    actor, layout = read.actor, read.layout
    acting = {id(parameter) for parameter in actor}
    valued = [p for p in critic.parameters() if id(p) not in acting]
    if len(valued) < len(list(critic.parameters())):
        layout = None  # what is shared cannot move without the critic

    def act(observations: Array) -> Array:
        with torch.no_grad():
            inputs = torch.as_tensor(observations, dtype=actor[0].dtype, device=actor[0].device)
            outputs = mean(inputs).cpu()
        return np.asarray(outputs if log_std is not None else outputs.argmax(dim=-1))

    head = None
    *before, last = _layers(critic)
    if isinstance(last, nn.Linear) and last.bias is not None and id(last.weight) not in acting:
        head = last, nn.Sequential(*before)
    return TorchAgent(
        actor=actor,
        critic=valued,
        optimizer=optimizer,
        layout=layout,
        value=lambda observations: critic(observations)[:, 0],
        act=act,
        value_head=head,
    )


def _check_nothing_else(agent: nn.Module, known: Sequence[Any]) -> None:
    """Raises a TiplError if an agent has parameters that are none of those known."""
    ids = {id(parameter) for parameter in known}
    other = [name for name, parameter in agent.named_parameters() if id(parameter) not in ids]
    if other:
        raise TiplError(
            f"the agent of the class {type(agent).__name__} has {', '.join(other[:3])} beside its "
            "actor and critic, which may read what that makes of observations; expected an actor "
            "and a critic that are fed observations: put shared layers into both of them"
        )


def _layers(network: nn.Module) -> list[nn.Module]:
    return list(network) if isinstance(network, nn.Sequential) else [network]


def _read(network: nn.Module, log_std: Any) -> TorchActor | None:
    """The actor that puts out what a network does, on random inputs; None if there is none."""
    first = next((m for m in network.modules() if isinstance(m, nn.Linear)), None)
    if first is None:
        return None
    inputs = random_observations(Box(-np.inf, np.inf, (first.in_features,)))
    together = np.concatenate(inputs)

    @torch.no_grad()
    def outputs(given: Array) -> Array:
        return np.asarray(network(torch.as_tensor(given, device=first.weight.device)).cpu())

    with undisturbed(network):
        try:
            found = chains(network, lambda: outputs(together), together)
        except Exception:  # somebody else's code, which may take other inputs
            return None
        for chain in found:
            read = actor_of(chain, log_std)
            if (
                read is not None
                and {*network.parameters()} <= {*read.actor}
                and not any(read.differs(one, outputs(one)) for one in inputs)
            ):
                return read
    return None


def actor_of(chain: Chain, log_std: Any, squashed: bool = False) -> TorchActor | None:
    """The actor of a chain, with the noise of its actions; None if that is of other actions."""
    if log_std is None:
        layout = ParamLayout.mlp("actor", chain.sizes, chain.activation, squashed)
        return TorchActor(actor=chain.parameters, layout=layout)
    observed, *hidden, size = chain.sizes
    if log_std.numel() != size:
        return None
    layout = ParamLayout.actor(observed, size, hidden, chain.activation)
    return TorchActor(actor=[*chain.parameters, log_std], layout=layout)
