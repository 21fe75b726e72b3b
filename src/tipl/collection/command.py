"""The command that collects a dataset, as its metadata tell it."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tipl.collection.config import DEFAULT_TRIALS, CollectConfig
from tipl.paths.metadata import PathMetadata, read_metadata
from tipl.paths.parts import PartFiles


def collect_command(metadata: PathMetadata, directory: Path) -> str | None:
    """What to type to make what is missing of a dataset of planned trials.

    What the metadata know by its digest alone, such as a start, is left to the reader, in capitals.

    Returns:
        The command; None if tipl's own PPO has not made the dataset.
    """
    if metadata.recorded or "stable-baselines3" in metadata.versions:
        return None
    words = ["tipl", "collect", metadata.task.env_id, *_options(metadata)]
    return shlex.join([*words, "--out", str(directory)])


def remedies(directory: Path) -> list[str]:
    """Sentences about how to make the groups of trials that are missing of a dataset, if any are.

    Raises:
        TiplError: there is no dataset, or its metadata cannot be read.
    """
    metadata = read_metadata(directory)
    command = collect_command(metadata, directory)
    if command is None:
        return []
    size = metadata.trials_per_part
    missing = sorted(
        {part.first_trial // size for part in PartFiles(directory, metadata).missing()}
    )
    if not missing:
        return []
    count = -(-(metadata.num_trials or 0) // size)
    indices = ",".join(map(str, missing))
    return [
        f"to make what is missing: {command}",
        f"or, in jobs of an array: --array={indices}, in each of them the same with --shard "
        f"auto/{count}",
    ]


def _options(metadata: PathMetadata) -> Iterator[str]:
    """Options with other values than they have by default."""
    usual = CollectConfig()
    steps = ((metadata.num_checkpoints or 1) - 1) * metadata.steps_per_checkpoint
    given: dict[str, Any] = {
        "num_trials": None if metadata.worlds else metadata.num_trials,
        "total_steps": steps,
        "trials_per_group": metadata.trials_per_part,
        **{
            name: getattr(metadata, name)
            for name in (
                "seed",
                "initial",
                "normaliser",
                "networks",
                "checkpoint_interval",
                "redraw",
            )
        },
        "hidden_sizes": metadata.hidden_sizes,
        "observe": "physics" if metadata.task.observed else "nothing",
        "start": "DIRECTORY-OF-THE-START" if metadata.start else None,
    }
    if metadata.hidden_sizes == usual.hidden:
        del given["hidden_sizes"]
    if metadata.num_trials == DEFAULT_TRIALS:
        del given["num_trials"]
    if metadata.worlds is not None:
        given |= {"worlds": "FILE-OF-WORLDS", "split": metadata.worlds.split}
        given["trials_per_world"] = metadata.worlds.trials_per_world
        given["num_trials"] = metadata.num_trials
    for name, value in given.items():
        if value is not None and value != getattr(usual, name):
            yield from _option(name, value)
    if metadata.worlds is None:
        for name, (low, high) in metadata.vary.items():
            yield from _option("vary", f"{name}={low!r}..{high!r}")
    settings = {"ppo": metadata.ppo, "pptb": metadata.pptb, "jumps": metadata.jumps}
    for group, values in settings.items():
        defaults = getattr(usual, group)
        for field in dataclasses.fields(defaults):
            value = values.get(field.name, getattr(defaults, field.name))
            if _plain(value) != _plain(getattr(defaults, field.name)):
                yield from _option(f"{group}.{field.name}", value)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _option(name: str, value: Any) -> list[str]:
    """The words of an option."""
    dashed = name.replace("_", "-")
    if isinstance(value, bool):
        group, _, last = dashed.rpartition(".")
        return [f"--{group}{'.' if group else ''}{'' if value else 'no-'}{last}"]
    values = value if isinstance(value, list | tuple) else [value]
    return [f"--{dashed}", *map(str, values)]
