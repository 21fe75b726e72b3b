"""What hidden units make of their inputs: the activations that policies may have, in NumPy.

Each is as `torch.nn` has it by default: ELU with alpha 1, LeakyReLU with slope 0.01, GELU by erf.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tipl.core.arrays import Array
from tipl.errors import TiplError, shown


def _elu(x: Array) -> Array:
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def _silu(x: Array) -> Array:
    from scipy.special import expit  # a tenth of a second that other activations do without

    return np.asarray(x * expit(x), x.dtype)


def _gelu(x: Array) -> Array:
    from scipy.special import erf

    return np.asarray(0.5 * x * (1 + erf(x / x.dtype.type(math.sqrt(2)))), x.dtype)


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "elu": _elu,
    "silu": _silu,
    "leaky_relu": lambda x: np.where(x > 0, x, x.dtype.type(0.01) * x),
    "gelu": _gelu,
}
"""By name; `tipl.models.network` has the same in PyTorch."""


def check_activation(name: str) -> None:
    """Raises a TiplError unless there is an activation of this name."""
    if name not in ACTIVATIONS:
        raise TiplError(
            f"the activation {shown(name)} was given; expected one of {', '.join(ACTIVATIONS)}"
        )
