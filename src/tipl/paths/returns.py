"""Deterministic returns of stored checkpoints: how they lie on disk, beside the weights.

An evaluation is a directory in that of the dataset::

    evaluation/evaluation.json                             episodes, every, seed, versions
    evaluation/trials-00000-00063.checkpoints-00000-00007.safetensors
    ...

Its files are the same grid over trials and checkpoints as those in `parts/`, and like them they
never change once written. The header of each repeats its ranges, the hash of the dataset's
`metadata.json` and that of `evaluation.json`. With n trials, t checkpoints and E episodes it holds:

======================  ==================  ======================================================
`deterministic_return`  `[n, t, E]` f32     undiscounted return of each episode in which the policy
                                            acted by its mean; NaN where it was not evaluated
======================  ==================  ======================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64

from tipl.core import storage
from tipl.core.atomic import explained
from tipl.core.options import at_least
from tipl.errors import TiplError
from tipl.paths.metadata import PathMetadata, first_difference, stored_fields
from tipl.paths.parts import PartRange, array_specs, part_ranges

FORMAT_VERSION = 1


@dataclass(frozen=True)
class EvaluationMetadata:
    """What all returns of an evaluation have in common: the content of `evaluation.json`.

    Attributes:
        dataset: digest of the metadata of the dataset whose checkpoints were run.
        episodes: episodes of each checkpoint, E.
        every: checkpoints 0, every, 2 every, ... were run, and always the last.
        seed: of the episodes' starts.
        versions: versions of the libraries that ran them, by name.
        format_version: version of the format on disk.

    Raises:
        TiplError: `episodes` or `every` is below 1, or the seed below 0.
    """

    dataset: str
    episodes: int
    every: int
    seed: int
    versions: dict[str, str]
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        at_least(1, episodes=self.episodes, every=self.every)
        at_least(0, seed=self.seed)

    @property
    def settings(self) -> str:
        """What was asked for, for messages."""
        return f"episodes={self.episodes}, every={self.every}, seed={self.seed}"

    @cached_property
    def digest(self) -> str:
        """The `sha256` of `evaluation.json`; the header of each file of returns repeats it."""
        return storage.content_digest(self.to_json())

    def chosen(self, num_checkpoints: int) -> Bool[np.ndarray, " T"]:
        """Which checkpoints of a path are run."""
        chosen = np.asarray(np.arange(num_checkpoints) % self.every == 0)
        chosen[-1] = True
        return chosen

    def to_json(self) -> dict[str, Any]:
        """The content of `evaluation.json`; it holds no times, so equal evaluations are equal."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> EvaluationMetadata:
        """The inverse of `to_json`.

        Raises:
            TiplError: the format is another version's, or a field is missing or not possible.
        """
        values = stored_fields(cls, data, "the evaluation", FORMAT_VERSION)
        for name in ("episodes", "every", "seed"):
            if not isinstance(values[name], int):
                raise TiplError(f"{name} is {values[name]!r}; expected a whole number")
        return cls(**values)


def evaluation_folder(directory: str | Path) -> Path:
    """Where the returns lie in a dataset's directory."""
    return Path(directory) / "evaluation"


def settings_path(directory: str | Path) -> Path:
    """Where an evaluation says what was asked for; there is one where this file is."""
    return evaluation_folder(directory) / "evaluation.json"


def returns_path(directory: str | Path, part: PartRange) -> Path:
    """Where the returns of a part's checkpoints lie in a dataset's directory."""
    return evaluation_folder(directory) / part.file_name


def missing_returns(directory: str | Path, parts: Sequence[PartRange]) -> list[PartRange]:
    """Those parts whose checkpoints have no returns yet.

    Raises:
        TiplError: the directory cannot be read.
    """
    with explained("read", evaluation_folder(directory)):
        return [part for part in parts if not returns_path(directory, part).exists()]


def read_evaluation(directory: str | Path, metadata: PathMetadata) -> EvaluationMetadata:
    """Reads the `evaluation.json` of a dataset.

    Raises:
        TiplError: there is none, it is damaged, or it speaks of another dataset.
    """
    path = settings_path(directory)
    with explained("read", path):
        if not path.exists():
            raise TiplError(
                f"there is no {path}, so the checkpoints have not been evaluated; run "
                f"`tipl paths evaluate {directory}` first"
            )
    data = storage.read_json(path)
    try:
        evaluation = EvaluationMetadata.from_json(data)
    except (TiplError, TypeError) as error:
        raise TiplError(f"{path}: {error}") from error
    if evaluation.dataset != metadata.digest:
        raise TiplError(
            f"{path} belongs to another dataset than the metadata.json beside its folder; remove "
            f"{path.parent} and run `tipl paths evaluate {directory}` again"
        )
    return evaluation


def _header(evaluation: EvaluationMetadata, part: PartRange) -> dict[str, Any]:
    return {
        "kind": "deterministic returns",
        "format_version": evaluation.format_version,
        "dataset": evaluation.dataset,
        "evaluation": evaluation.digest,
        "trials": [part.first_trial, part.last_trial],
        "checkpoints": [part.first_checkpoint, part.last_checkpoint],
    }


def write_part_returns(
    directory: str | Path,
    evaluation: EvaluationMetadata,
    part: PartRange,
    returns: Float32[np.ndarray, "n t E"],
) -> None:
    """Writes the returns of a part's checkpoints.

    Raises:
        TiplError: the file cannot be written.
    """
    tensors = {"deterministic_return": returns}
    storage.write_tensors(returns_path(directory, part), tensors, _header(evaluation, part))


def read_part_returns(
    directory: str | Path, evaluation: EvaluationMetadata, part: PartRange
) -> Float32[np.ndarray, "n t E"]:
    """Reads the returns of a part's checkpoints, and checks every byte of them.

    Raises:
        TiplError: the file is missing, damaged, or another one.
    """
    path = returns_path(directory, part)
    tensors, header = storage.read_tensors(path, "a file of deterministic returns")
    shape = (part.num_trials, part.num_checkpoints, evaluation.episodes)
    difference = first_difference(
        {**header, **array_specs(tensors)},
        {**_header(evaluation, part), "deterministic_return": ("float32", shape)},
    )
    if difference:
        name, found, expected = difference
        raise TiplError(
            f"{path} holds {name} = {found}, but {expected} is expected under that name; delete it "
            "and run `tipl paths evaluate` with the same settings to make it again"
        )
    return tensors["deterministic_return"]


def read_returns(
    directory: str | Path, metadata: PathMetadata, trials: Int64[np.ndarray, " N"]
) -> Float32[np.ndarray, "N T E"]:
    """The deterministic returns of trials, by their numbers in the dataset.

    Raises:
        TiplError: the checkpoints have not been evaluated, not all of them, or a file is damaged.
    """
    evaluation = read_evaluation(directory, metadata)
    parts = part_ranges(metadata)
    missing = missing_returns(directory, parts)
    if missing:
        raise TiplError(
            f"the evaluation of {directory} is unfinished: {len(parts) - len(missing)} of "
            f"{len(parts)} files are there; run `tipl paths evaluate` with the same settings "
            f"({evaluation.settings}) to go on"
        )
    shape = (len(trials), metadata.num_checkpoints, evaluation.episodes)
    returns = np.full(shape, np.nan, np.float32)
    for part in parts:
        rows = np.flatnonzero((part.first_trial <= trials) & (trials <= part.last_trial))
        if len(rows):
            block = read_part_returns(directory, evaluation, part)
            columns = slice(part.first_checkpoint, part.last_checkpoint + 1)
            returns[rows, columns] = block[trials[rows] - part.first_trial]
    return returns
