"""Deterministic returns of stored checkpoints: how they lie on disk, beside the weights.

An evaluation is a folder `evaluation/` in a dataset: `evaluation.json` says what was asked for, and
the files beside it are the same grid over trials and checkpoints as those in `parts/`. Like them
they never change once written, and their headers also repeat the hash of `evaluation.json`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool

from tipl.core import storage
from tipl.core.options import at_least, at_most
from tipl.core.schemas import Count, JsonFile, Natural
from tipl.core.storage import ArraySpecs
from tipl.core.stores import exists
from tipl.errors import TiplError
from tipl.paths.grid import PartRange, as_stored
from tipl.paths.metadata import Described, PathMetadata
from tipl.paths.parts import PartFiles

MAX_EPISODES = 10_000_000
"""Of a policy, and of all policies that are run together: what is known of each is in memory."""


@dataclass(frozen=True)
class EvaluationMetadata(Described):
    """What all returns of an evaluation have in common: the content of `evaluation.json`.

    Raises:
        TiplError: `episodes` or `every` is below 1, the seed below 0, or there are too many
            episodes.
    """

    what: ClassVar = "the evaluation"

    dataset: str  # digest of the metadata of the dataset whose checkpoints were run
    episodes: Count  # of each checkpoint, E
    every: Count  # checkpoints 0, every, 2 every, ... were run, and always the last
    seed: Natural  # of the episodes' starts
    versions: dict[str, str]  # of the libraries that ran them, by name
    format_version: int = 1

    def __post_init__(self) -> None:
        at_least(1, episodes=self.episodes, every=self.every)
        at_least(0, seed=self.seed)
        at_most(MAX_EPISODES, episodes=self.episodes)

    @property
    def settings(self) -> str:
        """What was asked for, for messages."""
        return f"episodes={self.episodes}, every={self.every}, seed={self.seed}"

    def chosen(self, num_checkpoints: int) -> Bool[np.ndarray, " T"]:
        """Which checkpoints of a path are run."""
        chosen = np.asarray(np.arange(num_checkpoints) % self.every == 0)
        chosen[-1] = True
        return chosen


EVALUATION = JsonFile("evaluation.json", EvaluationMetadata, "the settings of an evaluation")


def settings_path(directory: str | Path) -> Path:
    """Where an evaluation says what was asked for; there is one where this file is."""
    return Path(directory) / ReturnFiles.folder_name / EVALUATION.name


def read_evaluation(directory: str | Path, metadata: PathMetadata) -> EvaluationMetadata:
    """Reads the `evaluation.json` of a dataset.

    Raises:
        TiplError: there is none, it is damaged, or it speaks of another dataset.
    """
    path = settings_path(directory)
    if not exists(path):
        raise TiplError(
            f"there is no {path}, so the checkpoints have not been evaluated; run "
            f"`tipl paths evaluate {directory}` first"
        )
    evaluation = EVALUATION.read(path)
    if evaluation.dataset != metadata.digest:
        raise TiplError(
            f"{path} belongs to another dataset than the metadata.json beside its folder; remove "
            f"{path.parent} and run `tipl paths evaluate {directory}` again"
        )
    return evaluation


class ReturnFiles(PartFiles):
    """The files of deterministic returns in a dataset, one for each part.

    Attributes:
        evaluation: what all the returns have in common; by default, what is read of the dataset.
    """

    folder_name = "evaluation"
    kind = "deterministic returns"
    one, several = "a file of deterministic returns", "files of deterministic returns"

    def __init__(
        self, directory: Path, metadata: PathMetadata, evaluation: EvaluationMetadata | None = None
    ) -> None:
        super().__init__(directory, metadata)
        self.evaluation = evaluation or read_evaluation(directory, metadata)
        self.subject = f"the evaluation of {directory}"

    def remedy(self, purpose: str, before: str = "") -> str:
        """The command that makes files of returns, for some purpose."""
        again = f"run `tipl paths evaluate` with the same settings ({self.evaluation.settings})"
        return f"{before}{again} to {purpose}"

    def chosen(self, part: PartRange) -> Bool[np.ndarray, " t"]:
        """Which checkpoints of a part are run."""
        return self.evaluation.chosen(self.lengths[part.first_trial])[part.slices[1]]

    def missing(self) -> list[PartRange]:
        """The parts without a file, or with one of before they grew, in order."""
        missing = super().missing()
        if self.metadata.recorded:
            grown = [p for p in self.parts if p not in missing and self._outgrown(p)]
            missing = sorted(missing + grown)
        return missing

    def _outgrown(self, part: PartRange) -> bool:
        """Whether a file has returns of fewer checkpoints than there are now."""
        try:
            with storage.open_tensors(self.path(part)) as file:
                return as_stored(part, file.metadata, self.metadata) < part
        except TiplError:
            return False  # reading it will say what is wrong

    def arrays(self, part: PartRange) -> ArraySpecs:
        """The return of each episode; NaN where the checkpoint was not run, or had diverged."""
        shape = (part.num_trials, part.num_checkpoints, self.evaluation.episodes)
        return {"deterministic_return": ("float32", shape)}

    def header(self, part: PartRange) -> dict[str, Any]:
        """What the file of a part says of itself."""
        return super().header(part) | {
            "format_version": self.evaluation.format_version,
            "evaluation": self.evaluation.digest,
        }
