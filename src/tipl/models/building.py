"""Networks of models: built in no more memory than is sensible, and filled from files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from tipl.core.arrays import Array
from tipl.core.schemas import ArrayType
from tipl.errors import TiplError
from tipl.policies.layout import MAX_PARAMETERS

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class _Undrawn(TorchFunctionMode):
    """Leaves tensors that have no memory as they are, instead of drawing numbers for them.

    To draw them torch would import its compiler, which takes seconds.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """What the function returns, or something of the same shape where it draws."""
        options = kwargs or {}
        if getattr(function, "__module__", None) == nn.init.__name__:
            return (*args, *options.values())[0]  # what was to be filled
        return (torch.empty if function is torch.randn else function)(*args, **options)


def outlined(make: Callable[[], ModuleT]) -> ModuleT:
    """A model that knows its arrays' names and shapes, and has no memory for them yet.

    Raises:
        TiplError: it has more than `MAX_PARAMETERS` numbers.
    """
    with torch.device("meta"), _Undrawn():
        model = make()
    size = sum(tensor.numel() for tensor in model.state_dict().values())
    if size > MAX_PARAMETERS:
        raise TiplError(
            f"a model of {size:,} numbers was asked for; expected at most {MAX_PARAMETERS:,}: use "
            "a smaller width, depth or memory"
        )
    return model


def array_types(model: nn.Module) -> dict[str, ArrayType]:
    """Types and shapes of a model's arrays, by name."""
    return {
        name: ArrayType(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
        for name, tensor in model.state_dict().items()
    }


def filled(model: ModuleT, arrays: Mapping[str, Array]) -> ModuleT:
    """An outlined model with these arrays; raises a RuntimeError if they are not its own."""
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    model.load_state_dict(tensors, assign=True)
    return model
