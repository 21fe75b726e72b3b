"""What all paths of a dataset have in common, as its `metadata.json` says it."""

from __future__ import annotations

import importlib.metadata
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, cast, get_args

from tipl.core import storage
from tipl.core.options import one_of
from tipl.errors import TiplError
from tipl.policies.actions import OBSERVATION_CLIP, checked_clip
from tipl.policies.layout import ParamLayout, actor_layout
from tipl.policies.tasks import TaskSpec

CHECKPOINTS_PER_PART = 8
"""In a dataset that is collected; files of others open just as well."""

Networks = Literal["actor", "actor+critic"]
Initial = Literal["independent", "shared"]
Normaliser = Literal["frozen", "running"]
Kind = TypeVar("Kind", bound="Described")

_OWNER = "a path dataset"
_LEFT_OUT: dict[str, Any] = {
    "vary": {}, "pptb": {}, "jumps": {}, "algorithm": "PPO", "observation_clip": OBSERVATION_CLIP,
}  # fmt: skip
"""What the file does not say where it is so: there was a time when nothing else was possible."""


class Described:
    """A dataclass that is stored as JSON, and says what the arrays beside it have in common.

    Fields with a default are ones that files of before there was such a thing do not have.
    """

    what: ClassVar[str]
    format_version: int

    @cached_property
    def digest(self) -> str:
        """The `sha256` of the file; the headers of what it describes repeat it."""
        return storage.content_digest(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """The content of the file; it holds no times, so equal arrays are described alike."""
        return {one.name: getattr(self, one.name) for one in fields(cast(Any, self))}

    @classmethod
    def from_json(cls: type[Kind], data: Mapping[str, Any]) -> Kind:
        """The inverse of `to_json`.

        Raises:
            TiplError: the format is another version's, or a field is missing or not possible.
        """
        given = data.get("format_version")
        if given != cls.format_version:
            raise TiplError(
                f"{cls.what} has format version {given!r}, but this tipl reads version "
                f"{cls.format_version}; install the tipl that wrote it, or a newer one"
            )
        known = fields(cast(Any, cls))
        needed = [one.name for one in known if one.default is one.default_factory is MISSING]
        missing = [name for name in needed if name not in data]
        if missing:
            raise TiplError(
                f"{cls.what} lacks {', '.join(missing)}; restore its file from a copy, or make it "
                "again"
            )
        values = {one.name: data[one.name] for one in known if one.name in data}
        return cls(**cls._parsed(values))

    @classmethod
    def _parsed(cls, values: dict[str, Any]) -> dict[str, Any]:
        """The fields' values, from what stands for them in JSON."""
        return values

    @classmethod
    def read(cls: type[Kind], path: Path, expected: str) -> Kind:
        """Reads the file; where there is none, a TiplError says that `expected` should be."""
        data = storage.read_json(path, expected)
        try:
            return cls.from_json(data)
        except (TypeError, ValueError) as error:
            raise TiplError(f"{path}: {error}") from error


@dataclass(frozen=True)
class PathMetadata(Described):
    """What all paths of a dataset have in common.

    Raises:
        TiplError: a value is not possible, or the layout is not that of the networks.
    """

    what: ClassVar = "the path dataset"

    task: TaskSpec
    layout: ParamLayout
    """of a stored parameter vector"""
    hidden_sizes: tuple[int, ...]
    networks: Networks
    """what is stored: the actor alone, or the actor followed by the critic"""
    initial: Initial
    """whether each trial starts from its own random network or all from the same"""
    normaliser: Normaliser
    """by what observations are normalised: the task's frozen statistics, or running ones that are
    stored with every checkpoint"""
    num_trials: int | None
    """number of paths, N; None in a dataset of recorded runs, which holds those that there were"""
    num_checkpoints: int | None
    """length of a path, T; checkpoint 0 is the untrained network; None of recorded runs, each of
    which has its own"""
    trials_per_part: int
    """the last parts may hold fewer"""
    checkpoints_per_part: int
    """likewise"""
    checkpoint_interval: int
    """PPO iterations between checkpoints"""
    steps_per_checkpoint: int
    """environment steps of one trial between checkpoints, without those of tests of forecasts"""
    seed: int
    """that all trials' seeds were derived from"""
    ppo: dict[str, Any]
    """hyperparameters by name"""
    versions: dict[str, str]
    """of the libraries that made the data, by name"""
    vary: dict[str, list[float]] = field(default_factory=dict)
    """lowest and highest factor, by name, of the physics that differ between trials; each trial's
    own factors are stored with it"""
    pptb: dict[str, Any] = field(default_factory=dict)
    """settings by name, of policy path trimming and boosting, and of jumps to forecasts; none where
    PPO was left alone"""
    jumps: dict[str, Any] = field(default_factory=dict)
    algorithm: str = "PPO"
    """what `ppo` are the hyperparameters of"""
    observation_clip: float = OBSERVATION_CLIP
    """of how many standard deviations normalised observations may be; infinity for no clip"""
    format_version: int = 1

    def __post_init__(self) -> None:
        one_of(get_args(Networks), _OWNER, networks=self.networks)
        one_of(get_args(Initial), _OWNER, initial=self.initial)
        one_of(get_args(Normaliser), _OWNER, normaliser=self.normaliser)
        checked_clip(self.observation_clip)
        sizes = ["trials_per_part", "checkpoints_per_part", "checkpoint_interval"]
        planned = [] if self.recorded else ["num_trials", "num_checkpoints"]
        for name in (*planned, *sizes, "steps_per_checkpoint"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise TiplError(f"{name} of {_OWNER} is {value!r}; expected a positive integer")
        units = self.layout.activation, self.layout.squashed
        expected = networks_layout(self.task, self.hidden_sizes, self.networks, *units)
        if self.layout != expected:
            raise TiplError(
                f"the layout {self.layout.to_json()} is not the one of {self.networks} with hidden "
                f"sizes {self.hidden_sizes} in {self.task.env_id}; expected {expected.to_json()}"
            )

    @property
    def actor_layout(self) -> ParamLayout:
        """The layout of the policy alone."""
        units = self.layout.activation, self.layout.squashed
        return actor_layout(self.task, self.hidden_sizes, *units)

    @property
    def recorded(self) -> bool:
        """Whether it holds runs as they happened (of `PathRecorder`), and not planned trials."""
        return self.num_trials is None and self.num_checkpoints is None

    def remedy(self, purpose: str, before: str = "") -> str:
        """What brings back a file that is missing or damaged, for messages.

        That is a command, which is run for some purpose, and maybe something `before` it; recorded
        runs are made again by none.
        """
        if self.recorded:
            return "restore it from a copy, or remove all files of its trial"
        again = "run `tipl collect` with the same arguments"
        if "stable-baselines3" in self.versions:
            again = "run `tipl collect --from-sb3`, or what recorded it, with the same arguments"
        return f"{before}{again} to {purpose}"

    def to_json(self) -> dict[str, Any]:
        """The content of `metadata.json`, without the settings of what there was not."""
        plain = super().to_json()
        if math.isinf(self.observation_clip):
            plain["observation_clip"] = None
        said = {n: v for n, v in plain.items() if n not in _LEFT_OUT or v != _LEFT_OUT[n]}
        return {
            **said,
            # a task read back has floats where its maker may have given integers: hash the floats
            "task": TaskSpec.from_json(self.task.to_json()).to_json(),
            "layout": self.layout.to_json(),
            "hidden_sizes": list(self.hidden_sizes),
        }

    @classmethod
    def _parsed(cls, values: dict[str, Any]) -> dict[str, Any]:
        clip = values.get("observation_clip", OBSERVATION_CLIP)
        return values | {
            "task": TaskSpec.from_json(values["task"]),
            "layout": ParamLayout.from_json(values["layout"]),
            "hidden_sizes": tuple(values["hidden_sizes"]),
            "observation_clip": math.inf if clip is None else clip,
        }


def networks_layout(
    task: TaskSpec,
    hidden_sizes: Sequence[int],
    networks: Networks,
    activation: str = "tanh",
    squashed: bool = False,
) -> ParamLayout:
    """The layout of what is stored of a checkpoint: of the actor, and the critic after it."""
    actor = actor_layout(task, hidden_sizes, activation, squashed)
    if networks == "actor":
        return actor
    return actor + ParamLayout.critic(task.observation_size, hidden_sizes)


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
    expected = "the description of a path dataset (made by `tipl collect` or a PathRecorder)"
    return PathMetadata.read(Path(directory) / "metadata.json", expected)
