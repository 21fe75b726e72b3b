"""From a name or a directory to a trained model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tipl.core import storage
from tipl.core.addresses import is_address, located
from tipl.core.arrays import Array
from tipl.core.schemas import ArrayType, check_arrays, conforming
from tipl.core.system_errors import explained
from tipl.errors import TiplError, shown
from tipl.forecast.description import MODEL, MODEL_WEIGHTS, described_task
from tipl.policies.versions import in_version

if TYPE_CHECKING:
    from tipl.forecast.base import Forecaster
    from tipl.forecast.trained import TrainedForecaster
    from tipl.policies.tasks import TaskSpec


SHIPPED = Path(__file__).parent / "pretrained"
"""One folder for each model that ships with tipl, as `save_pretrained` wrote it."""


def shipped_models() -> list[str]:
    """Names of the models that ship with tipl, for `Forecaster.from_pretrained`."""
    return sorted(config.parent.name for config in SHIPPED.glob("*/config.json"))


class ShippedModel(NamedTuple):
    """A model that ships with tipl, by its name."""

    name: str
    kind: str
    """such as NeuronTransformer"""
    tasks: tuple[str, ...]
    """ids of the environments whose policies it takes: that of its training first"""


def describe_shipped() -> list[ShippedModel]:
    """What the models that ship with tipl are for."""
    found = []
    for name in shipped_models():
        config = storage.read_json(SHIPPED / name / MODEL.name, MODEL.expected)
        task, serves = described_task(config)
        found.append(ShippedModel(name, config["kind"], (task.bare_id, *serves)))
    return found


def model_directory(source: str | Path) -> Path:
    """The directory of a model that is given so or by name; raises a TiplError if it is neither."""
    return _found(source)[0]


def _found(source: str | Path) -> tuple[Path, str | None]:
    """The directory of a model, and the version of its task that its name asks for, if another.

    `HalfCheetah-v5` names the model HalfCheetah-v4, which serves that version as well.

    Raises:
        TiplError: it is neither a directory nor such a name.
    """
    directory = located(Path(source))
    if is_address(directory):
        return directory, None
    with explained("read", directory):
        if directory.is_dir():
            return directory, None
    names = shipped_models()
    if str(source) in names:
        return SHIPPED / source, None
    for name in names:
        task, serves = _described(SHIPPED / name)
        for version in serves:
            if name.replace(task.bare_id, version) == str(source):
                return SHIPPED / name, version
    raise TiplError(
        f"there is no {directory / 'config.json'}, but a model (made by `tipl train`) is expected "
        f"there, and {shown(str(source))} is not one of the models that ship with tipl "
        f"({', '.join(names) or 'there are none'}); check the spelling, or make a model by "
        "`tipl train`"
    )


def load_model(source: str | Path, expected: type[Forecaster]) -> TrainedForecaster:
    """The model in a directory or of a name, an instance of a class: see `from_pretrained`."""
    directory, version = _found(source)
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
                check_arrays(_in_single_precision(specs, arrays), arrays, str(weights))
        except TiplError as error:
            raise mismatch from error

    tensors, _ = storage.read_tensors(weights, MODEL_WEIGHTS.expected, check)
    check_finite(str(weights), tensors)
    try:
        model = model_class._from_files(said.config, _single(tensors, arrays))
        model.serves = tuple(said.config.get("serves", ()))
        return model if version is None else model.in_version(version)
    except TiplError:
        raise
    except (LookupError, RuntimeError, TypeError, ValueError) as error:
        raise mismatch from error


def _in_single_precision(
    specs: storage.ArraySpecs, expected: Mapping[str, ArrayType]
) -> storage.ArraySpecs:
    """The arrays of a file as they will be, where some were saved in half precision."""
    return {
        name: ("float32" if _is_halved(name, dtype, expected) else dtype, shape)
        for name, (dtype, shape) in specs.items()
    }


def _single(
    tensors: Mapping[str, Array], expected: Mapping[str, ArrayType] | None
) -> dict[str, Array]:
    """Arrays of which those are in single precision that were saved in half of it."""
    return {
        name: array.astype(np.float32) if _is_halved(name, array.dtype.name, expected) else array
        for name, array in tensors.items()
    }


def _is_halved(name: str, dtype: str, expected: Mapping[str, ArrayType] | None) -> bool:
    """Whether an array is in half precision that need not be so in its model."""
    own = None if expected is None else expected.get(name)
    return dtype == "float16" and (own is None or own.dtype == "float32")


def check_model(source: str | Path) -> TaskSpec:
    """The task of a model, after all has been looked at that needs none of its libraries.

    Raises:
        TiplError: what `load_model` would raise of files that are missing, damaged or not finite.
    """
    directory, version = _found(source)
    task, _ = _described(directory)
    weights = directory / MODEL_WEIGHTS.name
    tensors, _ = storage.read_tensors(weights, MODEL_WEIGHTS.expected)
    check_finite(str(weights), tensors)
    return task if version is None else in_version(task, version)


def _described(directory: Path) -> tuple[TaskSpec, list[str]]:
    """The task of the model in a directory, and the other versions that it serves."""
    return described_task(storage.read_json(directory / MODEL.name, MODEL.expected))


def check_finite(whose: str, tensors: Mapping[str, Array]) -> None:
    """Raises a TiplError if a model's arrays hold anything that is not finite."""
    for name, array in tensors.items():
        if not np.isfinite(array).all():
            raise TiplError(
                f"{whose} has {np.count_nonzero(~np.isfinite(array))} of {array.size} numbers of "
                f"{shown(name)} that are NaN or infinite; use another model, or train "
                "it again with a smaller learning rate"
            )
