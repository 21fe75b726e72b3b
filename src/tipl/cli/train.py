"""`tipl train`."""

from __future__ import annotations

import argparse
import functools
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import OmitArgPrefixes, Positional, arg

from tipl.cli import Prepared
from tipl.core.terminal import note, say
from tipl.errors import TiplError
from tipl.models import TrainConfig
from tipl.models.kinds import all_kinds, check_option, find_kind

if TYPE_CHECKING:
    from tipl.forecast.trained import TrainedForecaster
    from tipl.paths.dataset import PathDataset


def train(
    paths: Positional[tuple[Path, ...]],
    /,
    config: Annotated[TrainConfig, OmitArgPrefixes, arg(name="model")],
    out: Path,
    held_out: float = 0.25,
    first_trials: int | None = None,
    order: int | None = None,
    resume: bool = False,
    threads: int | None = None,
) -> dict[str, Any] | None:
    """Train a model of how weights change, or a rival of such models.

    Until the model is there, the state of its training is kept beside it, in
    OUT.training.safetensors: after a kill, an interruption or a divergence --resume goes on from
    there. `torchrun --nproc-per-node 2 -m tipl train ...` trains the same model in two processes,
    each of which learns from half of every batch.

    Args:
        paths: the dataset of paths; a NeuronTransformer learns from several of one task at once
        config: of the kind of model that --model names
        out: directory of the model
        held_out: share of the trials that the model does not learn from
        first_trials: learn from so many first trials instead, such as those in a nested set of
            worlds, and hold out all others
        order: a seed by which the trials that are not held out are shuffled before the first ones
            of them are taken, so that more trials contain fewer; others are held out as without
        resume: go on with a training that has not been finished; the learning rate may be another
        threads: of a NeuronTransformer's training (default: one for each processor)
    """
    from tipl.core.ownership import check_directory
    from tipl.forecast.trained import MODEL_FILES
    from tipl.paths.dataset import PathDataset

    check_directory(out, MODEL_FILES)  # before the datasets are opened
    opened = [PathDataset.open(directory) for directory in paths]
    training, others = _split(opened, held_out, first_trials, order)
    from tipl.models.parallel import is_first, joined  # bring PyTorch, for which no refusal waits
    from tipl.models.train import train as train_model

    with joined():
        model = train_model(
            training, held_out=others, config=config, out=out, resume=resume, threads=threads
        )
        return _told(model, others, out) if is_first() else None


def _told(model: TrainedForecaster, others: Sequence[PathDataset], out: Path) -> dict[str, Any]:
    """Says what was trained on what, and how well it does on what was held out."""
    trials = sum(map(len, model.training_trials.values()))
    held_out = sum(int((~those.diverged()).sum()) for those in others)
    note(f"{out}: {model.kind}, {trials} training and {held_out} held-out trials")
    for target, curve in model.curves.items():
        held_out_loss, still = (
            "unknown" if curve[name][-1] is None else f"{curve[name][-1]:.3f}"
            for name in ("held_out_loss", "standing_still_loss")
        )
        name = f"{model.name}, {target}"  # such as the observer of a model of worlds
        if target in model.targets:
            name = model.with_options(target=target).name
        say(f"  {name}: held-out loss {held_out_loss}, standing still {still}")
    numbers = {"num_training_trials": trials, "num_held_out_trials": held_out}
    return {"model": out, "kind": model.kind, **numbers, "curves": model.curves}


def _split(
    datasets: Sequence[PathDataset], held_out: float, first: int | None, order: int | None
) -> tuple[list[PathDataset], list[PathDataset]]:
    """The trials of each dataset to learn from, and those that are held out, where there are."""
    if order is not None and first is None:
        raise TiplError("an order of trials was given without how many; give --first-trials")
    if first is None or order is not None:
        splits = [dataset.split(held_out) for dataset in datasets]
        training, others = ([split[i] for split in splits] for i in (0, 1))
    else:
        training = list(datasets)
        others = [one.select(one.trials[first:]) for one in datasets if one.num_trials > first]
    if first is not None:
        from tipl.paths.nesting import first_trials

        training = [first_trials(one, first, order) for one in training]
    return training, others


def prepared(command: Callable[..., None], arguments: list[str]) -> Prepared:
    """The command with the options of the kind of model that the arguments name, and no others.

    Raises:
        TiplError: there is no such kind, or an option is another kind's.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--model", nargs="?", const="", default=TrainConfig.model)
    kind = find_kind(parser.parse_known_args(arguments)[0].model)
    others = {name for other in all_kinds() for name in other.options} - {*kind.options}
    for argument in arguments:
        name = argument.partition("=")[0].removeprefix("--").removeprefix("no-").replace("-", "_")
        if argument.startswith("--") and name in others:
            check_option(kind, name)
    purpose = (inspect.getdoc(command) or "").partition("\n\nArgs:")[0]
    models = "; ".join(f"{one.name}, {one.summary}" for one in all_kinds())
    options = f"The model options below are those of --model {kind.name}."
    description = f"{purpose}\n\nModels: {models}. {options}"
    return functools.partial(command, config=kind.config_class()), description
