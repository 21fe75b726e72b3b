"""Names and shapes of a policy's flat weights, and freshly drawn ones."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import reprlib
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Annotated, Any, TypeVar

import msgspec
import numpy as np
from jaxtyping import Float

from tipl.core.arrays import Array
from tipl.core.options import is_count
from tipl.core.schemas import Count
from tipl.errors import TiplError
from tipl.policies.activations import check_activation
from tipl.policies.tasks import TaskSpec

ArrayT = TypeVar("ArrayT", bound=Any)

MAX_PARAMETERS = 100_000_000
"""Of a network: its weights in float32 take 400 MB, and a learning path many times that."""

MAX_UNITS, MAX_LAYERS = 65_536, 64
"""Of hidden layers."""


@dataclasses.dataclass(frozen=True)
class ParamLayout:
    """Names, shapes and order of the arrays in a flat parameter vector of length P.

    Raises:
        TiplError: the activation is none of `tipl.policies.activations.ACTIVATIONS`, a name is
            given twice, a size is not positive, weights are no matrix, or there are more than
            `MAX_PARAMETERS`.

    Examples:
        >>> layout = tipl.ParamLayout.actor(4, 1, (8,))
        >>> print(layout)
        actor.0.weight 8x4, actor.0.bias 8, actor.1.weight 1x8, actor.1.bias 1, log_std 1
        >>> layout.unflatten(np.zeros(layout.size))["actor.0.weight"].shape
        (8, 4)
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    activation: str = "tanh"
    """what hidden units make of their inputs"""
    squashed: bool = False
    """whether outputs become actions by tanh, scaled to the action bounds, as in SAC and TD3;
    otherwise they are actions as they are, clipped to the bounds"""

    def __post_init__(self) -> None:
        check_activation(self.activation)
        sizes = [*itertools.chain(*self.shapes)]
        if len(set(self.names)) < len(self.names) or len(self.shapes) != len(self.names):
            raise TiplError(
                f"the arrays {reprlib.repr(self.names)} of {len(self.shapes)} shapes were given "
                "for a parameter layout; expected a name of its own for each shape"
            )
        if not all(is_count(size) for size in sizes) or self.size > MAX_PARAMETERS:
            raise TiplError(
                f"arrays of the shapes {reprlib.repr(self.shapes)} were given for a parameter "
                f"layout; expected positive sizes and at most {MAX_PARAMETERS:,} parameters: use a "
                "smaller network"
            )

        named = zip(self.names, self.shapes, strict=True)
        if odd := [name for name, shape in named if name.endswith(".weight") and len(shape) != 2]:
            raise TiplError(
                f"the weights {reprlib.repr(odd[0])} of a parameter layout have not two axes; "
                "expected [out, in], as torch.nn.Linear has them"
            )

    @classmethod
    def mlp(
        cls, prefix: str, sizes: Sequence[int], activation: str = "tanh", squashed: bool = False
    ) -> ParamLayout:
        """Layout of an MLP with the layer sizes `[inputs, hidden..., outputs]`.

        Weights are `[out, in]`, as in `torch.nn.Linear`, and named `{prefix}.{layer}.weight`.
        """
        arrays: dict[str, tuple[int, ...]] = {}
        for layer, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            arrays[f"{prefix}.{layer}.weight"] = (fan_out, fan_in)
            arrays[f"{prefix}.{layer}.bias"] = (fan_out,)
        return cls(tuple(arrays), tuple(arrays.values()), activation, squashed)

    @classmethod
    def actor(
        cls,
        observation_size: int,
        action_size: int,
        hidden_sizes: Sequence[int],
        activation: str = "tanh",
    ) -> ParamLayout:
        """Layout of a Gaussian policy: the MLP of its mean action, then `log_std [A]`."""
        mean = cls.mlp("actor", [observation_size, *hidden_sizes, action_size], activation)
        return mean + cls(("log_std",), ((action_size,),), activation)

    @classmethod
    def critic(cls, observation_size: int, hidden_sizes: Sequence[int]) -> ParamLayout:
        """Layout of a state-value MLP."""
        return cls.mlp("critic", [observation_size, *hidden_sizes, 1])

    def __str__(self) -> str:
        arrays = zip(self.names, self.shapes, strict=True)
        listed = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in arrays)
        units = "" if self.activation == "tanh" else f" ({self.activation})"
        return f"{listed}{units}{' (squashed)' if self.squashed else ''}"

    def __add__(self, other: ParamLayout) -> ParamLayout:
        """The arrays of both, with the units of the first."""
        names, shapes = self.names + other.names, self.shapes + other.shapes
        return dataclasses.replace(self, names=names, shapes=shapes)

    @property
    def size(self) -> int:
        """Length P of the flat vector."""
        return sum(math.prod(shape) for shape in self.shapes)

    @property
    def layer_shapes(self) -> list[tuple[int, ...]]:
        """Units of each layer of the actor, and of the one before: `(out, in)`."""
        shapes = dict(zip(self.names, self.shapes, strict=True))
        return [shapes[weight] for weight, _ in layer_names(self.names)]

    @property
    def hidden_sizes(self) -> tuple[int, ...]:
        """Units in each hidden layer of the actor."""
        return tuple(units for units, _ in self.layer_shapes[:-1])

    @property
    def hidden_units(self) -> str:
        """The hidden layers for readers, such as "(64, 64) tanh units"."""
        squashed = ", squashed outputs" if self.squashed else ""
        return f"{self.hidden_sizes} {self.activation} units{squashed}"

    @functools.cached_property
    def slices(self) -> dict[str, slice]:
        """Where each array lies in the flat vector."""
        ends = np.cumsum([0, *map(math.prod, self.shapes)]).tolist()
        return dict(zip(self.names, itertools.starmap(slice, pairwise(ends)), strict=True))

    def unflatten(self, params: ArrayT) -> dict[str, ArrayT]:
        """Views of the named arrays `[*batch, *shape]` in a flat one `[*batch, P]`, or a tensor."""
        return {
            # [*batch, prod(shape)] -> [*batch, *shape]
            name: params[..., at].reshape(*params.shape[:-1], *shape)
            for (name, at), shape in zip(self.slices.items(), self.shapes, strict=True)
        }

    def to_json(self) -> list[list[Any]] | dict[str, Any]:
        """A list of `[name, shape]` pairs; of other than plain tanh units as "arrays" of a dict."""
        pairs = [[name, list(shape)] for name, shape in zip(self.names, self.shapes, strict=True)]
        if self.activation == "tanh" and not self.squashed:
            return pairs  # as in the files of before there were others
        return {"arrays": pairs, "activation": self.activation, "squashed": self.squashed}

    @classmethod
    def from_json(cls, data: Any) -> ParamLayout:
        """The inverse of `to_json`; raises a TiplError if the data is nothing of the kind."""
        described = data if isinstance(data, dict) else {"arrays": data}
        try:
            said = msgspec.convert(described, _Described)
        except msgspec.ValidationError as error:
            raise TiplError(
                "a parameter layout must be a list of [name, shape] pairs, but "
                f"{reprlib.repr(data)} was given; the file was not written by tipl or has been "
                "edited"
            ) from error
        names, shapes = (tuple(part) for part in zip(*said.arrays, strict=True))
        return cls(names, shapes, said.activation, said.squashed)


class _Described(msgspec.Struct):
    """A layout in JSON."""

    arrays: Annotated[list[tuple[str, tuple[Count, ...]]], msgspec.Meta(min_length=1)]
    activation: str = "tanh"
    squashed: bool = False


def layer_names(names: Iterable[str], network: str = "actor") -> list[tuple[str, str]]:
    """Names of the weight and the bias of each layer of a network, in a layout's order."""
    weights = [n for n in names if n.startswith(f"{network}.") and n.endswith(".weight")]
    return [(weight, weight.removesuffix("weight") + "bias") for weight in weights]


def layer_group(layer: int, count: int) -> int:
    """0 of the first of `count` layers, 2 of the last one, 1 of those between."""
    return 0 if layer == 0 else 2 if layer == count - 1 else 1


def initial_gain(layer: int, count: int, network: str = "actor") -> float:
    """Size of the weights that one of `count` layers starts with (CleanRL's)."""
    if layer < count - 1:
        return math.sqrt(2.0)
    return 0.01 if network == "actor" else 1.0


def actor_layout(
    task: TaskSpec, hidden_sizes: Sequence[int], activation: str = "tanh", squashed: bool = False
) -> ParamLayout:
    """The layout of a policy for a task: of its means and `log_std`, or of its logits.

    The means of a `squashed` policy, of continuous actions, come without `log_std`.

    Raises:
        TiplError: a squashed policy of actions that are discrete or have no bounds, or no such
            activation.
    """
    if squashed and (task.discrete or not np.isfinite(task.action_bounds).all()):
        kind = "discrete actions" if task.discrete else "actions without bounds"
        raise TiplError(
            f"a squashed policy was asked for, and {task.env_id} has {kind}; leave squashed out"
        )
    sizes = [task.observation_size, *hidden_sizes, task.action_size]
    if task.discrete or squashed:
        return ParamLayout.mlp("actor", sizes, activation, squashed)
    return ParamLayout.actor(sizes[0], sizes[-1], hidden_sizes, activation)


def initial_params(layout: ParamLayout, seed: int | Sequence[int]) -> Float[np.ndarray, " P"]:
    """A freshly drawn actor, critic, or both: CleanRL's initialisation for PPO.

    Each layer's weights are (semi-)orthogonal (Saxe et al., 2014) times `initial_gain`; biases and
    `log_std` are zero. Equal seeds give equal weights, in float32.
    """
    rng = np.random.default_rng(seed)
    params = np.zeros(layout.size, np.float32)
    arrays: dict[str, Array] = layout.unflatten(params)
    for network in ("actor", "critic"):
        layers = layer_names(layout.names, network)
        for layer, (weight, _) in enumerate(layers):
            rows, columns = arrays[weight].shape
            gaussian = rng.standard_normal((max(rows, columns), min(rows, columns)))
            q, r = np.linalg.qr(gaussian)
            q *= np.sign(np.diag(r))  # without this, QR's sign convention would bias the draw
            gain = initial_gain(layer, len(layers), network)
            arrays[weight][:] = gain * (q if rows >= columns else q.T)
    return params


def check_hidden_sizes(hidden_sizes: Sequence[int]) -> None:
    """Raises a TiplError unless there is at least one hidden layer and all are of a usual size.

    That is from 1 to `MAX_UNITS` units in each of `MAX_LAYERS` layers at most.
    """
    if not 1 <= len(hidden_sizes) <= MAX_LAYERS or not all(
        is_count(units) and units <= MAX_UNITS for units in hidden_sizes
    ):
        raise TiplError(
            f"hidden sizes {reprlib.repr(tuple(hidden_sizes))} were given; expected one positive "
            f"number of units for each hidden layer, such as (64, 64), of at most {MAX_UNITS:,} "
            f"units and {MAX_LAYERS} layers"
        )
