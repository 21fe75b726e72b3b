"""A network of another shape that does what a teacher does: no learning, linear algebra alone.

Where every layer is as wide as the teacher's it does exactly the same (function-preserving, Chen et
al., "Net2Net: Accelerating Learning via Knowledge Transfer", ICLR 2016). A narrower layer keeps
those of the teacher's units from which least squares rebuild best what the next layer is fed, as in
layerwise pruning (He et al., "Channel Pruning for Accelerating Very Deep Neural Networks", ICCV
2017).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Float64

from tipl.policies.layout import ParamLayout

RIDGE = 1e-5
"""Of least squares, in units of the units' mean square."""

FITTED = 1.2
"""Half the range of actions, times this, is where what is fitted ends: beyond the bounds all
actions are alike."""

LINEAR = 0.02
"""Share of its inputs that a layer is fed which a teacher does not have: so little that tanh is
nearly the identity."""


class Layer(NamedTuple):
    """A linear layer: `h W^T + b`."""

    weight: Float64[np.ndarray, "m n"]
    bias: Float64[np.ndarray, " m"]

    def __call__(self, inputs: Float64[np.ndarray, "S n"]) -> Float64[np.ndarray, "S m"]:
        """What the layer makes of inputs."""
        return np.asarray(inputs @ self.weight.T + self.bias)


def can_morph(layout: ParamLayout, teacher: ParamLayout) -> bool:
    """Whether networks of a layout can be made to do what those of the teacher's do."""
    deep = len(layout.hidden_sizes) >= len(teacher.hidden_sizes)
    return deep and layout.activation == teacher.activation == "tanh"


def morphed(
    teacher: Float[np.ndarray, " P"],
    teacher_layout: ParamLayout,
    given: Float[np.ndarray, " Q"],
    layout: ParamLayout,
    observations: Float[np.ndarray, "S O"],
    bounds: tuple[Float[np.ndarray, " A"], Float[np.ndarray, " A"]],
) -> Float32[np.ndarray, " Q"]:
    """The weights of a network of a layout that acts as the teacher does.

    Args:
        teacher: its weights.
        teacher_layout: their layout, for which `can_morph` holds.
        given: weights of the layout, of which the units stay that are not needed, without effect.
        layout: the layout of what is returned.
        observations: normalised ones, on which narrower layers are fitted.
        bounds: lowest and highest actions.
    """
    layers = _as_deep(_layers(teacher, teacher_layout), len(layout.hidden_sizes))
    seen = np.asarray(observations, np.float64)
    layers = _narrowed(layers, layout.hidden_sizes, seen, bounds)
    made = np.array(given, np.float64)
    arrays = layout.unflatten(made)
    used = 0  # units of the layer before that the teacher has
    for i, layer in enumerate(layers):
        weight, bias = arrays[f"actor.{i}.weight"], arrays[f"actor.{i}.bias"]
        rows, columns = layer.weight.shape
        weight[:rows, :columns], bias[:rows] = layer.weight, layer.bias
        if i:
            weight[:rows, used:] = 0  # others of the layer before have no say
        used = rows
    if "log_std" in arrays:
        arrays["log_std"][:] = teacher_layout.unflatten(np.asarray(teacher))["log_std"]
    return made.astype(np.float32)


def _layers(params: Float[np.ndarray, " P"], layout: ParamLayout) -> list[Layer]:
    arrays = layout.unflatten(np.asarray(params, np.float64))
    count = len(layout.hidden_sizes) + 1
    return [Layer(arrays[f"actor.{i}.weight"], arrays[f"actor.{i}.bias"]) for i in range(count)]


def _as_deep(layers: list[Layer], hidden_layers: int) -> list[Layer]:
    """The same function with more hidden layers before the output, which are nearly linear."""
    layers = list(layers)
    while len(layers) <= hidden_layers:
        last = layers[-1]
        units = last.weight.shape[1]
        layers[-1:] = [
            Layer(LINEAR * np.eye(units), np.zeros(units)),
            Layer(last.weight / LINEAR, last.bias),
        ]
    return layers


def _narrowed(
    layers: list[Layer],
    widths: tuple[int, ...],
    observations: Float64[np.ndarray, "S O"],
    bounds: tuple[Float[np.ndarray, " A"], Float[np.ndarray, " A"]],
) -> list[Layer]:
    """The layers with no more units than these, from the last hidden one to the first."""
    narrow = [i for i, width in enumerate(widths) if layers[i].weight.shape[0] > width]
    if not narrow:
        return layers
    actions = _outputs(layers, observations)
    middle, half = (bounds[1] + bounds[0]) / 2.0, (bounds[1] - bounds[0]) / 2.0
    actions = np.clip(actions, middle - FITTED * half, middle + FITTED * half)
    for i in reversed(narrow):
        units = np.tanh(_outputs(layers[: i + 1], observations))
        wanted = layers[i + 1](units) if i + 1 < len(widths) else actions
        kept = _most_telling(units, wanted, widths[i])
        layers[i] = Layer(layers[i].weight[kept], layers[i].bias[kept])
        layers[i + 1] = _least_squares(units[:, kept], wanted)
    # the last layer makes up for what all before it have lost
    units = np.tanh(_outputs(layers[:-1], observations))
    layers[-1] = _least_squares(units, actions)
    return layers


def _outputs(
    layers: list[Layer], observations: Float64[np.ndarray, "S O"]
) -> Float64[np.ndarray, "S m"]:
    """What the last of some layers makes, without tanh."""
    values = layers[0](observations)
    for layer in layers[1:]:
        values = layer(np.tanh(values))
    return values


def _least_squares(units: Float64[np.ndarray, "S n"], wanted: Float64[np.ndarray, "S m"]) -> Layer:
    """The linear layer that makes best of some units what is wanted."""
    mean, target = units.mean(axis=0), wanted.mean(axis=0)
    centred = units - mean
    gram = centred.T @ centred
    ridge = RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram))
    weight = np.linalg.solve(gram + ridge, centred.T @ (wanted - target)).T
    return Layer(weight, target - weight @ mean)


def _most_telling(
    units: Float64[np.ndarray, "S n"], wanted: Float64[np.ndarray, "S m"], count: int
) -> list[int]:
    """The units, in order, from which least squares make best what is wanted.

    One after the other is left out, each time that without which the error grows least.
    """
    centred = units - units.mean(axis=0)
    gram = centred.T @ centred
    inverse = np.linalg.inv(gram + RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram)))
    products = centred.T @ (wanted - wanted.mean(axis=0))
    kept = list(range(units.shape[1]))
    while len(kept) > count:
        weight = inverse @ products[kept]
        worst = int(((weight**2).sum(axis=1) / np.diag(inverse)).argmin())
        rest = [k for k in range(len(kept)) if k != worst]
        column = inverse[rest][:, [worst]]
        inverse = inverse[rest][:, rest] - column @ column.T / inverse[worst, worst]
        kept.pop(worst)
    return kept
