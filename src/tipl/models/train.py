"""Training a model on datasets of policy learning paths."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Unpack, overload

import numpy as np

from tipl.core.lazy import resolve
from tipl.core.ownership import check_directory
from tipl.errors import TiplError
from tipl.forecast.trained import MODEL_FILES, TrainedForecaster
from tipl.models import Paths, RunOptions, TrainConfig, TrainOptions
from tipl.models.kinds import Kind, completed, find_kind, make_config
from tipl.models.neuron_transformer import NeuronTrainOptions
from tipl.models.parallel import is_first
from tipl.models.path_transformer import PathTrainOptions
from tipl.models.resuming import keeping, open_state
from tipl.models.world import WorldTrainOptions
from tipl.paths import PathDataset
from tipl.policies.policy import Policy

HIGH = 99
"""Percentile of the training paths' returns that is high, yet known well enough to be asked for."""


@overload
def train(
    paths: Paths, *, model: Literal["path"] = ..., **options: Unpack[PathTrainOptions]
) -> TrainedForecaster: ...
@overload
def train(
    paths: Paths, *, model: Literal["neuron"], **options: Unpack[NeuronTrainOptions]
) -> TrainedForecaster: ...
@overload
def train(
    paths: Paths, *, model: Literal["world"], **options: Unpack[WorldTrainOptions]
) -> TrainedForecaster: ...
@overload
def train(
    paths: Paths, *, model: Literal["wnn", "nino"], **options: Unpack[TrainOptions]
) -> TrainedForecaster: ...
@overload  # also of a kind of your own
def train(
    paths: Paths, *, config: TrainConfig, **options: Unpack[RunOptions]
) -> TrainedForecaster: ...
def train(
    paths: Paths,
    *,
    model: str | None = None,
    held_out: Paths | None = None,
    config: TrainConfig | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    threads: int | None = None,
    progress: bool = True,
    **options: Any,
) -> TrainedForecaster:
    """Trains a PathTransformer, or another kind of model: see `tipl.models.kinds`.

    Args:
        paths: the training paths; diverged trials are left out. A NeuronTransformer learns from
            several datasets of one task at once, such as of networks of different widths. Each may
            be given by its directory.
        model: the kind of model; by default `"path"`, or the configuration's.
        held_out: other trials, whose loss is recorded but never learned from.
        config: how to train, as an alternative to `model` and `options`.
        out: directory of the model, which is saved there. Until it is, the state of the training is
            kept beside it, in `<out>.training.safetensors`, every half a minute or so, and when the
            training is interrupted or diverges.
        resume: go on from the state beside `out`, or from the beginning where there is none. With
            the same options and data the model ends in the same bytes as without the interruption;
            the learning rate may be another, such as a smaller one after a divergence.
        threads: of a NeuronTransformer's training, by default one for each processor; the others
            are too small to gain from more than one.
        progress: show a progress bar.
        **options: of this kind of model, such as `num_steps=2000`: the fields of its configuration.
            The `elite` of a NeuronTransformer may be a `Policy`, too.

    Returns:
        A forecaster; `settings` says how it was trained and holds the training curves.

    Raises:
        TiplError: an option is impossible or not the model's, no trial can be learned from, the
            datasets do not go together, the state to go on from is of another training, or the
            training diverges: then nothing is saved, and the last good state is kept.

    Examples:
        >>> train, held_out = tipl.PathDataset.open("runs/paths").split()
        >>> model = tipl.train(train, basis="path", num_steps=2, progress=False)
        >>> model.forecast(held_out.params()[0, :3], horizon=4).shape
        (20,)
    """
    elite = options.get("elite")
    if elite is not None:  # a configuration is text
        options["elite"] = repr(elite) if isinstance(elite, Policy) else str(elite)
    if config is None:
        config = make_config(model or "path", **options)
    elif given := sorted([*options, *(["model"] if model else [])]):
        raise TiplError(f"both config and the options {given} were given; give one")
    config = completed(config)
    kind = find_kind(config.model)
    datasets, others = _opened(paths), _opened(held_out or [])
    _check_datasets(datasets, others, kind)
    given_policy = {"elite": elite} if isinstance(elite, Policy) else {}
    run = partial(
        resolve(kind.train), datasets, others, config, threads=threads, progress=progress,
        **given_policy,
    )  # fmt: skip
    if out is None:
        if resume:
            raise TiplError("resume was given without out, beside which the state is; give both")
        return _described(run(), config, datasets)
    check_directory(out, MODEL_FILES)  # before the work, not after it
    digests = {name: policy.digest for name, policy in given_policy.items()}
    state = open_state(Path(out), config, datasets, others, resume=resume, **digests)
    with keeping(state):
        forecaster = _described(run(), config, datasets)
        if is_first():
            forecaster.save_pretrained(out)
    state.remove()
    return forecaster


def _opened(paths: Paths) -> list[PathDataset]:
    """Datasets that were given as such, or by their directories."""
    several = [paths] if isinstance(paths, PathDataset | str | Path) else paths
    return [PathDataset.of(one) for one in several]


def _described(
    forecaster: TrainedForecaster, config: TrainConfig, datasets: Sequence[PathDataset]
) -> TrainedForecaster:
    """A forecaster with settings that say how it was trained."""
    learned = [dataset.select(dataset.usable_trials()) for dataset in datasets]
    returns = np.concatenate([dataset.episodic_return().ravel() for dataset in learned])
    if np.isfinite(returns).any():
        forecaster.settings["high_return"] = float(np.nanpercentile(returns, HIGH))
    layout = datasets[0].layout
    forecaster.settings |= {"activation": layout.activation, "squashed": layout.squashed}
    forecaster.settings["steps_per_checkpoint"] = datasets[0].metadata.steps_per_checkpoint
    forecaster.settings["train"] = dataclasses.asdict(config)
    forecaster.settings["datasets"] = {
        dataset.metadata.digest: dataset.trials.tolist() for dataset in learned
    }
    return forecaster


def _check_datasets(
    datasets: Sequence[PathDataset], held_out: Sequence[PathDataset], kind: Kind
) -> None:
    if not datasets:
        raise TiplError("no dataset was given to train on; expected one at least")
    for given, what, use in (
        (datasets, "", "learns from"),
        (held_out, "held-out ", "is tested on"),
    ):
        if len(given) > 1 and not kind.several_datasets:
            raise TiplError(
                f"{len(given)} {what}datasets were given, but a {kind.title} {use} one: give one, "
                "or train with model='neuron'"
            )
    first = datasets[0]
    layouts = [dataset.layout for dataset in datasets]
    for dataset in [*datasets[1:], *held_out]:
        if not dataset.task.same_environment(first.task):
            raise TiplError(
                f"the paths in {dataset.directory} are of {dataset.task.label} and those in "
                f"{first.directory} of {first.task.label}; give datasets of one task"
            )
    for dataset in held_out:
        if dataset.layout not in layouts:
            raise TiplError(
                f"held-out paths of {dataset.layout.size} parameters were given for training "
                f"paths of {', '.join(str(layout.size) for layout in layouts)}; give paths of "
                "the same architecture"
            )
