"""Every kind of model: one entry each, from which all lists of models follow.

A kind of your own is made known by `register`: then `tipl.train(paths, model="mine", ...)` trains
it, `tipl.Forecaster.from_pretrained` reads it, and tables and figures show it in its colour.

Importing this loads no model: what an entry names by a string is imported when it is used.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tipl.core.lazy import resolve
from tipl.core.schemas import conforming
from tipl.core.trust import check_named
from tipl.errors import TiplError, shown
from tipl.forecast.base import Target
from tipl.models import TrainConfig

if TYPE_CHECKING:
    from tipl.forecast.trained import TrainedForecaster


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of model: all that the rest of tipl knows of it.

    A class or a function may be given as `"module:name"`, too, and is imported when it is used.
    """

    name: str
    """what `tipl.train(model=...)` and `tipl train --model` call it"""
    title: str
    """what its files call it: the `kind` of its forecaster"""
    summary: str
    """what it is, in a line"""
    config: str | type[TrainConfig]
    """its options: a frozen dataclass that derives from `TrainConfig` and states its `model`"""
    train: str | Callable[..., TrainedForecaster]
    """`train(datasets, held_out, config, *, threads, progress)`: trains a model on a list of
    `PathDataset`; the trials held out (a list, which may be empty) are never learned from"""
    forecaster: str | type[TrainedForecaster]
    """the class that `train` returns an instance of, and that reads its files"""
    colours: Mapping[str, str]
    """by how names in tables and figures begin: a colour, such as `"#a03070"`, or one of tipl's
    (accent, blue, green, purple, gold, grey); the longest beginning counts"""
    losses: Mapping[Target, str]
    """by target: what the training's loss is, in a sentence or two"""
    several_datasets: bool = False
    """whether it learns from several datasets at once"""
    lineages: bool = False
    """whether it learns from a lineage, paths of one start, each in its own physics, and from no
    other paths"""
    rival: bool = False
    """whether it takes part as a rival of others, which tables set apart"""
    whose: str = "ours"
    """of what is no rival: whose model a benchmark's lead says that it is"""

    @property
    def config_class(self) -> type[TrainConfig]:
        """The class of its options."""
        config: type[TrainConfig] = resolve(self.config)
        return config

    @property
    def options(self) -> tuple[str, ...]:
        """The names of its options."""
        return tuple(field.name for field in dataclasses.fields(self.config_class))


_NOWCASTER_LOSS = (
    "Mean squared error of the forecast weights, in units of standing still's: the dashed line is "
    "what standing still has on the held-out paths."
)

_OURS = (
    Kind(
        name="path",
        title="PathTransformer",
        summary="a Transformer over tokens of whole checkpoints (the paper's model)",
        config="tipl.models.path_transformer:PathTrainConfig",
        train="tipl.models.path_transformer.training:train_path_transformer",
        forecaster="tipl.models.path_transformer.forecaster:PathTransformerForecaster",
        colours={"PathTransformer": "accent", "PathTransformer (joint basis": "purple"},
        losses={
            "own": "Mean squared error of the next token, in units of a mean squared one-step "
            "change: the dashed line is what standing still would have on the held-out paths."
        },
        whose="the paper's model",
    ),
    Kind(
        name="neuron",
        title="NeuronTransformer",
        summary="a Transformer over the neurons of the networks",
        config="tipl.models.neuron_transformer:NeuronTrainConfig",
        train="tipl.models.neuron_transformer.training:train_neuron_transformer",
        forecaster="tipl.models.neuron_transformer.forecaster:NeuronTransformerForecaster",
        colours={"NeuronTransformer": "accent", "NeuronTransformer (elite)": "gold"},
        losses={
            "own": "Mean squared error of the forecast weights, and of the forecast policies' "
            "actions if the training weighs them, in units of standing still's: the dashed line is "
            "what standing still has on the held-out paths.",
            "elite": "Mean squared difference of the actions of carried networks from those of the "
            "best stored policy, or of the policy that was given as the elite; held out are random "
            "networks that were never trained on, and the dashed line is what they do where they "
            "stand.",
        },
        several_datasets=True,
    ),
    Kind(
        name="world",
        title="WorldModel",
        summary="teachers for worlds that nobody has trained in, from a lineage",
        config="tipl.models.world:WorldTrainConfig",
        train="tipl.models.world.training:train_world_model",
        forecaster="tipl.models.world.forecaster:WorldForecaster",
        colours={"WorldModel": "green"},
        lineages=True,
        losses={
            "elite": "Mean squared difference of the actions of the model's teachers from those of "
            "each world's own last policy; the dashed line is the policy that all started from."
        },
    ),
    Kind(
        name="wnn",
        title="WNN",
        summary="a nowcaster of each parameter (ICML 2023), a rival",
        config="tipl.models.nowcasters:WNNTrainConfig",
        train="tipl.models.nowcasters.training:train_nowcaster",
        forecaster="tipl.models.nowcasters.forecaster:WNNForecaster",
        colours={"per-parameter nowcaster": "gold"},
        losses={"own": _NOWCASTER_LOSS},
        rival=True,
    ),
    Kind(
        name="nino",
        title="NiNo",
        summary="a nowcaster of the network as a graph (ICLR 2025), a rival",
        config="tipl.models.nowcasters:NiNoTrainConfig",
        train="tipl.models.nowcasters.training:train_nowcaster",
        forecaster="tipl.models.nowcasters.forecaster:NiNoForecaster",
        colours={"neural-graph nowcaster": "gold"},
        losses={"own": _NOWCASTER_LOSS},
        rival=True,
    ),
)
"""The kinds that tipl has."""

_REGISTERED: dict[str, Kind] = {}


def all_kinds(*, registered: bool = True) -> tuple[Kind, ...]:
    """Tipl's own kinds, then those registered, which other processes do not know."""
    return (*_OURS, *(_REGISTERED.values() if registered else ()))


def register(kind: Kind) -> None:
    """Makes a kind of model known, in this process; one registered before by its name is replaced.

    Raises:
        TiplError: a kind of tipl, or another registered one, has its name or title.
    """
    for known in all_kinds():
        taken = known.title == kind.title or known.name == kind.name
        if taken and (known in _OURS or known.name != kind.name):
            raise TiplError(
                f"the model {shown(kind.name)} with the title {shown(kind.title)} was given to "
                f"register, but there is {shown(known.name)} with the title {shown(known.title)}; "
                "choose another name and title"
            )
    _REGISTERED[kind.name] = kind


def find_kind(name: str) -> Kind:
    """The kind of a name, as in `tipl.train(model=...)`; raises a TiplError if there is none."""
    kinds = {kind.name: kind for kind in all_kinds()}
    if name not in kinds:
        raise TiplError(
            f"model is {shown(name)}; expected one of {', '.join(kinds)}, or the name of a kind "
            "that was registered (`tipl.models.kinds.register`)"
        )
    return kinds[name]


def make_config(model: str = "path", **options: Any) -> TrainConfig:
    """The configuration of a kind of model; raises a TiplError if it has no such option."""
    kind = find_kind(model)
    for name in options:
        check_option(kind, name)
    return kind.config_class(model=model, **options)


def check_option(kind: Kind, name: str) -> None:
    """Raises a TiplError unless a kind has an option; it says which kinds have it."""
    if name in kind.options:
        return
    others = [f"model={shown(other.name)}" for other in all_kinds() if name in other.options]
    having = f", which belongs to {' and '.join(others)}" if others else ""
    raise TiplError(
        f"model={shown(kind.name)} has no option {shown(name)}{having}; expected one of "
        f"{', '.join(kind.options)}"
    )


def recorded_config(record: Mapping[str, Any]) -> TrainConfig:
    """The configuration that a model's `settings["train"]` records.

    Models of older versions record the options of all kinds; those of others are left out.
    """
    kind = find_kind(record.get("model", "path"))
    options: dict[str, Any] = {
        name: value for name, value in record.items() if name in kind.options and value is not None
    }
    check_named(options.get("elite", ""), "the record of a model's training")
    return conforming(options, kind.config_class, "the record of a model's training")


def completed(config: TrainConfig) -> TrainConfig:
    """The configuration of the kind it names; of a plain `TrainConfig` what is stated counts."""
    kind = find_kind(config.model)
    if type(config) is kind.config_class:
        return config
    if type(config) is not TrainConfig:
        raise TiplError(
            f"a {type(config).__name__} was given with model={shown(config.model)}, whose options "
            f"are in {kind.config_class.__name__}; give that, or leave `model` as it is"
        )
    stated = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if getattr(config, field.name) != field.default
    }
    return make_config(**{"model": config.model, **stated})


def loss_sentence(title: str, target: Target) -> str:
    """What the loss of a kind, by its title, is for a target; empty where its entry is silent."""
    losses = {kind.title: kind.losses for kind in all_kinds()}
    return losses.get(title, {}).get(target, "")
