"""What all paths of a dataset have in common: the content of its `metadata.json`."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from tipl.core import storage
from tipl.errors import TiplError
from tipl.policies.layout import ParamLayout, actor_layout
from tipl.policies.tasks import TaskSpec

FORMAT_VERSION = 1

CHECKPOINTS_PER_PART = 8
"""In a dataset that is collected; files of others open just as well."""

Networks = Literal["actor", "actor+critic"]
Initial = Literal["independent", "shared"]
Normaliser = Literal["frozen", "running"]

_COUNTS = (
    "num_trials",
    "num_checkpoints",
    "trials_per_part",
    "checkpoints_per_part",
    "checkpoint_interval",
    "steps_per_checkpoint",
)


_LEFT_OUT_IF_EMPTY = ("vary", "pptb", "jumps")
"""Fields that files of before there was such a thing do not have."""


@dataclass(frozen=True)
class PathMetadata:
    """What all paths of a dataset have in common.

    Attributes:
        task: the environment.
        layout: names and shapes in a stored parameter vector.
        hidden_sizes: units in each hidden layer.
        networks: what is stored: the actor alone, or the actor followed by the critic.
        initial: whether each trial starts from its own random network or all from the same one.
        normaliser: whether observations are normalised by the task's frozen statistics, or by
            running ones that are stored with every checkpoint.
        num_trials: number of paths, N.
        num_checkpoints: length of a path, T; checkpoint 0 is the untrained network.
        trials_per_part: trials in a part (the last ones may hold fewer).
        checkpoints_per_part: checkpoints in a part (the last ones may hold fewer).
        checkpoint_interval: PPO iterations between checkpoints.
        steps_per_checkpoint: environment steps of one trial between checkpoints.
        seed: the seed that all trials' seeds were derived from.
        ppo: hyperparameters by name.
        vary: lowest and highest factor, by name, of the physics that differ between trials; each
            trial's own factors are stored with it.
        pptb: settings of policy path trimming and boosting by name; none where PPO was left alone.
        jumps: settings of jumps to forecasts by name; none where trials made none.
        versions: versions of the libraries that made the data, by name.
        format_version: version of the format on disk.

    Raises:
        TiplError: a value is not possible, or the layout is not that of the networks.
    """

    task: TaskSpec
    layout: ParamLayout
    hidden_sizes: tuple[int, ...]
    networks: Networks
    initial: Initial
    normaliser: Normaliser
    num_trials: int
    num_checkpoints: int
    trials_per_part: int
    checkpoints_per_part: int
    checkpoint_interval: int
    steps_per_checkpoint: int
    seed: int
    ppo: dict[str, Any]
    versions: dict[str, str]
    vary: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    pptb: dict[str, Any] = dataclasses.field(default_factory=dict)
    jumps: dict[str, Any] = dataclasses.field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        choices = {"networks": Networks, "initial": Initial, "normaliser": Normaliser}
        for name, choice in choices.items():
            if getattr(self, name) not in get_args(choice):
                raise _impossible(self, name, f"one of {', '.join(get_args(choice))}")
        for name in _COUNTS:
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise _impossible(self, name, "a positive integer")
        expected = networks_layout(self.task, self.hidden_sizes, self.networks)
        if self.layout != expected:
            raise TiplError(
                f"the layout {self.layout.to_json()} is not the one of {self.networks} with hidden "
                f"sizes {self.hidden_sizes} in {self.task.env_id}; expected {expected.to_json()}"
            )

    @property
    def actor_layout(self) -> ParamLayout:
        """The layout of the policy alone."""
        return actor_layout(self.task, self.hidden_sizes)

    @cached_property
    def digest(self) -> str:
        """The `sha256` of `metadata.json`; each part's header repeats it."""
        return storage.content_digest(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """The content of `metadata.json`; it holds no times, so equal collections are equal."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        # a task read back has floats where its maker may have given integers: hash the floats
        task = TaskSpec.from_json(self.task.to_json()).to_json()
        for name in _LEFT_OUT_IF_EMPTY:
            if not plain[name]:
                del plain[name]
        return {
            **plain,
            "task": task,
            "layout": self.layout.to_json(),
            "hidden_sizes": list(self.hidden_sizes),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PathMetadata:
        """The inverse of `to_json`.

        Raises:
            TiplError: the format is another version's, or a field is missing or not possible.
        """
        data = {**{name: {} for name in _LEFT_OUT_IF_EMPTY}, **data}
        return cls(
            **stored_fields(cls, data, "the path dataset", FORMAT_VERSION)
            | {
                "task": TaskSpec.from_json(data["task"]),
                "layout": ParamLayout.from_json(data["layout"]),
                "hidden_sizes": tuple(data["hidden_sizes"]),
            }
        )


def stored_fields(kind: Any, data: Mapping[str, Any], what: str, version: int) -> dict[str, Any]:
    """The fields of a dataclass, by name, in what was read of a file.

    Raises:
        TiplError: the format is of another version, or a field is missing.
    """
    if data.get("format_version") != version:
        raise TiplError(
            f"{what} has format version {data.get('format_version')!r}, but this tipl reads "
            f"version {version}; install the tipl that wrote it, or a newer one"
        )
    missing = [field.name for field in fields(kind) if field.name not in data]
    if missing:
        raise TiplError(
            f"{what} lacks {', '.join(missing)}; restore its file from a copy, or make it again"
        )
    return {field.name: data[field.name] for field in fields(kind)}


def networks_layout(task: TaskSpec, hidden_sizes: Sequence[int], networks: Networks) -> ParamLayout:
    """The layout of what is stored of a checkpoint: of the actor, and the critic after it."""
    actor = actor_layout(task, hidden_sizes)
    if networks == "actor":
        return actor
    return actor + ParamLayout.critic(task.observation_size, hidden_sizes)


def _impossible(metadata: PathMetadata, name: str, expected: str) -> TiplError:
    given = getattr(metadata, name)
    return TiplError(f"{name} of a path dataset is {given!r}; expected {expected}: give another")


def library_versions() -> dict[str, str]:
    """Installed versions of the libraries that the numbers in a dataset depend on, by name."""
    names = ("tipl", "numpy", "numba", "mujoco", "gymnasium")
    return {name: importlib.metadata.version(name) for name in names}


def first_difference(
    found: Mapping[str, Any], expected: Mapping[str, Any], prefix: str = ""
) -> tuple[str, str, str] | None:
    """Name and both values of the first entry that differs, as JSON, or None if none does."""
    for name in sorted({**found, **expected}):
        texts = [
            json.dumps(side[name], sort_keys=True) if name in side else "absent"
            for side in (found, expected)
        ]
        if texts[0] != texts[1]:
            ours, theirs = found.get(name), expected.get(name)
            if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
                return first_difference(ours, theirs, f"{prefix}{name}.")
            return f"{prefix}{name}", f"{texts[0]:.100}", f"{texts[1]:.100}"
    return None


def read_metadata(directory: str | Path) -> PathMetadata:
    """Reads the `metadata.json` of a dataset.

    Raises:
        TiplError: there is no dataset in the directory, or its metadata is damaged.
    """
    path = Path(directory) / "metadata.json"
    data = storage.read_json(path, "the description of a path dataset (made by `tipl collect`)")
    try:
        return PathMetadata.from_json(data)
    except (TypeError, ValueError) as error:
        raise TiplError(f"{path}: {error}") from error
