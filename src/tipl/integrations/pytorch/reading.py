"""Networks read by what they compute, whatever their classes and attributes are called."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium.spaces import Box
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from tipl.core.arrays import Array
from tipl.integrations.standing_aside import generators_kept
from tipl.policies.actions import mlp_outputs
from tipl.policies.activations import ACTIVATIONS
from tipl.policies.layout import ParamLayout

SCALES = (0.01, 0.1, 1.0, 10.0)
"""Standard deviations of random observations: small ones too, whose actions no bound clips."""

PER_SCALE = 96
"""Random observations of each scale; fewer of images, to hold no more than `MOST_VALUES`."""

MOST_VALUES = 200_000
"""Observed values of one scale."""

UNBOUNDED = 1e4
"""Bounds of an observation beyond this are none: nobody sees such values."""

ROUNDING = 1e-4
"""What two ways to compute outputs may differ by, in units of the largest, or of 1."""

READABLE = (
    f"a multi-layer perceptron of {', '.join(ACTIVATIONS)} units that is fed observations as they "
    "are, shares nothing with the critic, and has noise of one size for each action"
)
"""What tipl can read, as messages say it."""


@contextlib.contextmanager
def outputs_set(linear: nn.Linear, outputs: Float[np.ndarray, "B out"]) -> Iterator[None]:
    """Lets a linear layer put out what is wished, whatever it is fed."""
    wished = torch.as_tensor(outputs, device=linear.weight.device)
    hook = linear.register_forward_hook(lambda *_: wished)
    try:
        yield
    finally:
        hook.remove()


class Chain(NamedTuple):
    """Linear layers with one activation between them."""

    linears: tuple[nn.Linear, ...]
    activation: str

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Weights and biases, in the order of a `ParamLayout`."""
        pairs = ((linear.weight, linear.bias) for linear in self.linears)
        return [p for pair in pairs for p in pair if isinstance(p, nn.Parameter)]

    @property
    def sizes(self) -> list[int]:
        """Units: inputs, hidden layers, outputs."""
        return [self.linears[0].in_features, *(linear.out_features for linear in self.linears)]


class Call(NamedTuple):
    """One use of a linear layer: what it was given, and what it gave."""

    linear: nn.Linear
    inputs: Tensor
    outputs: Tensor


@contextlib.contextmanager
def linear_calls(network: nn.Module) -> Iterator[list[Call]]:
    """A list that fills with the uses of a network's linear layers, in order."""
    calls: list[Call] = []

    def remember(linear: Any, given: tuple[Any, ...], outputs: Any) -> None:
        if given:
            calls.append(Call(linear, given[0], outputs))

    linears = [module for module in network.modules() if isinstance(module, nn.Linear)]
    hooks = [linear.register_forward_hook(remember) for linear in linears]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def chains(
    network: nn.Module, act: Callable[[], Any], inputs: Float[np.ndarray, "B I"]
) -> list[Chain]:
    """All chains of a network's linear layers that lead from `inputs`, while it is made to act.

    What is fed to a layer has to be the inputs, or what the layer before gave, under one of
    `ACTIVATIONS` that all hidden layers share: it is compared by value. Chains that end in the
    layers that were used last come first; they have at least one hidden layer.
    """
    with linear_calls(network) as calls:
        act()
    found = (_chain_to(calls[: end + 1], inputs) for end in reversed(range(len(calls))))
    return [chain for chain in found if chain is not None and _is_whole(chain)]


def _chain_to(calls: list[Call], inputs: Array) -> Chain | None:
    """The chain from the inputs to the last of the calls, if there is one."""
    *earlier, last = calls
    linears, names = [last.linear], list(ACTIVATIONS)
    while not _same(inputs, _array(last.inputs)):
        while earlier:
            call, wanted = earlier.pop(), _array(last.inputs)
            fitting = [n for n in names if _same(ACTIVATIONS[n](_array(call.outputs)), wanted)]
            if fitting:
                names, last = fitting, call
                linears.insert(0, call.linear)
                break
        else:
            return None
    return Chain(tuple(linears), names[0])


def _is_whole(chain: Chain) -> bool:
    """Whether a chain has hidden layers, and parameters of its own in each."""
    layers = len(chain.linears)
    return layers > 1 and len({*chain.linears}) == layers and len(chain.parameters) == 2 * layers


def _same(ours: Array, theirs: Array) -> bool:
    return ours.shape == theirs.shape and np.allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def _array(values: Tensor) -> Array:
    return np.asarray(values.detach().cpu())


def outputs_and_rounding(
    params: Float[np.ndarray, " P"], layout: ParamLayout, inputs: Float[np.ndarray, "B I"]
) -> tuple[Float[np.ndarray, "B A"], float]:
    """What an actor puts out, and by how much more its rounding may let another's differ."""
    both = [
        mlp_outputs(
            layout.unflatten(params.astype(dtype)), "actor", inputs.astype(dtype), layout.activation
        )
        for dtype in (np.float32, np.float64)
    ]
    largest = np.abs(both[0]).max(initial=1.0)
    return both[0], float(ROUNDING * largest + 4 * np.abs(both[0] - both[1]).max(initial=0.0))


def difference(ours: Array, theirs: Array, rounding: float) -> float:
    """The largest difference, NaN included; 0 where it is no more than rounding."""
    if ours.shape != theirs.shape:
        return float("inf")
    gap = np.abs(ours.astype(np.float64) - theirs).max(initial=0.0)
    return 0.0 if gap <= rounding else float(gap)


def random_observations(space: Box) -> list[Shaped[np.ndarray, "B ..."]]:
    """Elements of a space, always the same: of each of `SCALES`, and uniform within its bounds."""
    rng = np.random.default_rng(0)
    low, high = (np.asarray(bound, np.float64) for bound in (space.low, space.high))
    bounded = (low > -UNBOUNDED) & (high < UNBOUNDED)
    count = int(np.clip(MOST_VALUES // max(low.size, 1), 8, PER_SCALE))
    normal = rng.standard_normal((len(SCALES) + 1, count, *space.shape))
    drawn = [scale * one for scale, one in zip((*SCALES, 1.0), normal, strict=True)]
    where = rng.uniform(size=drawn[-1].shape)
    uniform = np.where(bounded, low, 0) + where * np.where(bounded, high - low, 0)
    drawn[-1] = np.where(bounded, uniform, drawn[-1])
    return [np.clip(one, low, high).astype(space.dtype) for one in drawn]


def parameters_of(network: nn.Module, outputs: Tensor) -> list[nn.Parameter]:
    """The parameters that outputs depend on, of those that learn; they have been just computed."""
    learning = [p for p in network.parameters() if p.requires_grad]
    if not outputs.requires_grad or not learning:
        return []
    gradients = torch.autograd.grad(outputs.sum(), learning, allow_unused=True)
    return [p for p, gradient in zip(learning, gradients, strict=True) if gradient is not None]


@contextlib.contextmanager
def undisturbed(network: nn.Module) -> Iterator[None]:
    """Lets a network be asked as when it acts, and leaves no trace of it.

    Modes of training, buffers, and the random numbers of torch, NumPy and Python are as before.
    """
    modes = [(module, module.training) for module in network.modules()]
    buffers = [(buffer, buffer.detach().clone()) for buffer in network.buffers()]
    network.eval()
    try:
        with generators_kept():
            yield
    finally:
        for module, training in modes:
            module.training = training
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
