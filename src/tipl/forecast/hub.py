"""From a name or a directory to a trained model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tipl.core import storage
from tipl.core.arrays import Array
from tipl.core.schemas import check_arrays, conforming
from tipl.core.system_errors import explained
from tipl.errors import TiplError, shown
from tipl.forecast.description import MODEL, MODEL_WEIGHTS, described_task

if TYPE_CHECKING:
    from tipl.forecast.base import Forecaster
    from tipl.forecast.trained import TrainedForecaster
    from tipl.policies.tasks import TaskSpec


SHIPPED = Path(__file__).parent / "pretrained"
"""One folder for each model that ships with tipl, as `save_pretrained` wrote it."""


def shipped_models() -> list[str]:
    """Names of the models that ship with tipl, for `Forecaster.from_pretrained`."""
    return sorted(config.parent.name for config in SHIPPED.glob("*/config.json"))


def model_directory(source: str | Path) -> Path:
    """The directory of a model that is given so or by name; raises a TiplError if it is neither."""
    directory = Path(source)
    with explained("read", directory):
        if directory.is_dir():
            return directory
    names = shipped_models()
    if str(source) in names:
        return SHIPPED / source
    raise TiplError(
        f"there is no {directory / 'config.json'}, but a model (made by `tipl train`) is expected "
        f"there, and {shown(str(source))} is not one of the models that ship with tipl "
        f"({', '.join(names) or 'there are none'}); check the spelling, or make a model by "
        "`tipl train`"
    )


def load_model(source: str | Path, expected: type[Forecaster]) -> TrainedForecaster:
    """The model in a directory or of a name, an instance of a class: see `from_pretrained`."""
    directory = model_directory(source)
    said = MODEL.read(directory / MODEL.name)
    model_class = said.forecaster
    if not issubclass(model_class, expected):
        raise TiplError(
            f"{directory} holds a model of the kind {model_class.kind}, but a {expected.__name__} "
            f"is expected; use {model_class.__name__}.from_pretrained, or "
            "Forecaster.from_pretrained for a model of any kind"
        )
    weights = directory / MODEL_WEIGHTS.name
    mismatch = TiplError(
        f"{weights} is not of the model in the {MODEL.name} beside it; restore both from a copy, "
        "or train the model again"
    )
    arrays = model_class._array_types(said.config)

    def check(header: Mapping[str, Any], specs: storage.ArraySpecs) -> None:
        try:
            conforming(header, MODEL_WEIGHTS.schema, str(weights))
            if arrays is not None:
                check_arrays(specs, arrays, str(weights))
        except TiplError as error:
            raise mismatch from error

    tensors, _ = storage.read_tensors(weights, MODEL_WEIGHTS.expected, check)
    check_finite(str(weights), tensors)
    try:
        return model_class._from_files(said.config, tensors)
    except TiplError:
        raise
    except (LookupError, RuntimeError, TypeError, ValueError) as error:
        raise mismatch from error


def check_model(source: str | Path) -> TaskSpec:
    """The task of a model, after all has been looked at that needs none of its libraries.

    Raises:
        TiplError: what `load_model` would raise of files that are missing, damaged or not finite.
    """
    directory = model_directory(source)
    task = described_task(storage.read_json(directory / MODEL.name, MODEL.expected))
    weights = directory / MODEL_WEIGHTS.name
    tensors, _ = storage.read_tensors(weights, MODEL_WEIGHTS.expected)
    check_finite(str(weights), tensors)
    return task


def check_finite(whose: str, tensors: Mapping[str, Array]) -> None:
    """Raises a TiplError if a model's arrays hold anything that is not finite."""
    for name, array in tensors.items():
        if not np.isfinite(array).all():
            raise TiplError(
                f"{whose} has {np.count_nonzero(~np.isfinite(array))} of {array.size} numbers of "
                f"{shown(name)} that are NaN or infinite; use another model, or train "
                "it again with a smaller learning rate"
            )
