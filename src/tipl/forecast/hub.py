"""From a name or a directory to a trained model."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from tipl.core import storage
from tipl.core.arrays import Array
from tipl.core.lazy import resolve
from tipl.core.system_errors import explained
from tipl.errors import TiplError, shown

if TYPE_CHECKING:
    from tipl.forecast.base import Forecaster
    from tipl.forecast.trained import TrainedForecaster


SHIPPED = Path(__file__).parent / "pretrained"
"""One folder for each model that ships with tipl, as `save_pretrained` wrote it."""

MODEL_FORMAT_VERSION = 1


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
        f"there, and {str(source)!r} is not one of the models that ship with tipl "
        f"({', '.join(names) or 'there are none'}); check the spelling, or make a model by "
        "`tipl train`"
    )


def load_model(source: str | Path, expected: type[Forecaster]) -> TrainedForecaster:
    """The model in a directory or of a name, an instance of a class: see `from_pretrained`."""
    directory = model_directory(source)
    config = storage.read_json(directory / "config.json", "a model (made by `tipl train`)")
    model_class = _model_class(directory, config)
    if not issubclass(model_class, expected):
        raise TiplError(
            f"{directory} holds a model of the kind {model_class.kind}, but a {expected.__name__} "
            f"is expected; use {model_class.__name__}.from_pretrained, or "
            "Forecaster.from_pretrained for a model of any kind"
        )
    weights = directory / "model.safetensors"
    tensors, _ = storage.read_tensors(weights, "the model's weights")
    check_finite(str(weights), tensors)
    try:
        return model_class._from_files(config, tensors)
    except (KeyError, RuntimeError) as error:
        raise TiplError(
            f"{weights} is not of the model in the config.json beside it; restore both from a "
            "copy, or train the model again"
        ) from error


def check_finite(whose: str, tensors: Mapping[str, Array]) -> None:
    """Raises a TiplError if a model's arrays hold anything that is not finite."""
    for name, array in tensors.items():
        if not np.isfinite(array).all():
            raise TiplError(
                f"{whose} has {np.count_nonzero(~np.isfinite(array))} of {array.size} numbers of "
                f"{shown(name)} that are NaN or infinite; use another model, or train "
                "it again with a smaller learning rate"
            )


def _model_class(directory: Path, config: Mapping[str, Any]) -> type[TrainedForecaster]:
    """The class that reads a model, by what its `config.json` says."""
    version, kind = config.get("format_version"), config.get("kind")
    if version != MODEL_FORMAT_VERSION:
        raise TiplError(
            f"{directory} holds a model of format version {shown(version)}, but this tipl reads "
            f"version {MODEL_FORMAT_VERSION}; update tipl"
        )
    kinds = importlib.import_module("tipl.models.kinds")  # the one door to the models of tipl
    forecasters = {entry.title: entry.forecaster for entry in kinds.all_kinds()}
    if kind not in forecasters:
        raise TiplError(
            f"{directory} holds a model of the kind {shown(kind)}, but this tipl reads "
            f"{', '.join(sorted(forecasters))}; update tipl, or import the module that registers "
            "the kind"
        )
    return cast("type[TrainedForecaster]", resolve(forecasters[kind]))
