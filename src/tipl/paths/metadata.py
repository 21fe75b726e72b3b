"""What all paths of a dataset have in common, as its `metadata.json` says it."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, cast, get_args, get_type_hints

import msgspec
import numpy as np

from tipl.core import storage
from tipl.core.options import one_of
from tipl.core.schemas import Count, JsonFile, Natural, Positive, conforming
from tipl.errors import TiplError, shown
from tipl.policies.actions import OBSERVATION_CLIP, checked_clip
from tipl.policies.factors import are_factors, expected_factors, is_range
from tipl.policies.layout import ParamLayout, actor_layout
from tipl.policies.tasks import TaskSpec

CHECKPOINTS_PER_PART = 8
"""In a dataset that is collected; files of others open just as well."""

MAX_TRIALS, MAX_CHECKPOINTS, MAX_PARTS = 100_000, 1_000_000, 100_000
"""Of a dataset of planned trials; a dataset of the largest networks has far fewer on any disk."""

Networks = Literal["actor", "actor+critic"]
Initial = Literal["independent", "shared"]
Normaliser = Literal["frozen", "running"]
Redraw = Literal["never", "episode"]
Kind = TypeVar("Kind", bound="Described")

_OWNER = "a path dataset"
_LEFT_OUT: dict[str, Any] = {
    "vary": {}, "pptb": {}, "jumps": {}, "algorithm": "PPO", "observation_clip": OBSERVATION_CLIP,
    "start": "", "worlds": None, "redraw": "never",
}  # fmt: skip
"""What the file does not say where it is so: there was a time when nothing else was possible."""


class Described:
    """A dataclass that is stored as JSON, and says what the arrays beside it have in common.

    Fields with a default are ones that files of before there was such a thing do not have.
    """

    what: ClassVar[str]
    in_files: ClassVar[Mapping[str, Any]] = {}
    """the types of fields that stand otherwise in a file than here"""
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
                f"{cls.what} has format version {shown(given)}, but this tipl reads version "
                f"{cls.format_version}; install the tipl that wrote it, or a newer one"
            )
        said = conforming(data, _file_schema(cast(Any, cls)), cls.what)
        values = {name: getattr(said, name) for name in said.__struct_fields__}
        return cls(**cls._parsed({n: v for n, v in values.items() if v is not msgspec.UNSET}))

    @classmethod
    def _parsed(cls, values: dict[str, Any]) -> dict[str, Any]:
        """The fields' values, from what stands for them in JSON."""
        return values


@functools.cache
def _file_schema(cls: Any) -> type[msgspec.Struct]:
    """What stands in the file of a class: its fields, of which those with a default may lack."""
    types = get_type_hints(cls, include_extras=True) | dict(cls.in_files)
    needed, others = list[Any](), list[Any]()
    for one in fields(cast(Any, cls)):
        if one.default is one.default_factory is MISSING:
            needed.append((one.name, types[one.name]))
        else:
            others.append((one.name, types[one.name] | msgspec.UnsetType, msgspec.UNSET))
    return msgspec.defstruct(cls.__name__, needed + others)


@dataclass(frozen=True)
class TrialWorlds:
    """The worlds that the trials of a dataset have learned in.

    Each trial has the factors of its own, or episodes draw from all of them.
    """

    digest: str
    """of the `tipl.envs.worlds.Worlds`"""
    split: str
    """of them"""
    trials_per_world: Count
    """K: trial i has learned in world i // K; 1 where worlds are redrawn"""
    names: tuple[str, ...]
    """of the worlds, in order"""


@dataclass(frozen=True)
class PathMetadata(Described):
    """What all paths of a dataset have in common.

    Raises:
        TiplError: a value is not possible, or the layout is not that of the networks.
    """

    what: ClassVar = "the path dataset"
    in_files: ClassVar = {
        "task": dict[str, Any],
        "layout": list[Any] | dict[str, Any],
        "observation_clip": Positive | None,
    }

    task: TaskSpec
    layout: ParamLayout
    """of a stored parameter vector"""
    hidden_sizes: tuple[Count, ...]
    networks: Networks
    """what is stored: the actor alone, or the actor followed by the critic"""
    initial: Initial
    """whether each trial starts from its own random network or all from the same"""
    normaliser: Normaliser
    """by what observations are normalised: the task's frozen statistics, or running ones that are
    stored with every checkpoint"""
    num_trials: Count | None
    """number of paths, N; None in a dataset of recorded runs, which holds those that there were"""
    num_checkpoints: Count | None
    """length of a path, T; checkpoint 0 is what they start from; None of recorded runs, each of
    which has its own"""
    trials_per_part: Count
    """the last parts may hold fewer"""
    checkpoints_per_part: Count
    """likewise"""
    checkpoint_interval: Count
    """PPO iterations between checkpoints"""
    steps_per_checkpoint: Count
    """environment steps of one trial between checkpoints, without those of tests of forecasts"""
    seed: Natural
    """that all trials' seeds were derived from"""
    ppo: dict[str, Any]
    """hyperparameters by name"""
    versions: dict[str, str]
    """of the libraries that made the data, by name"""
    vary: dict[str, Annotated[list[float], msgspec.Meta(min_length=2, max_length=2)]] = field(
        default_factory=dict
    )
    """lowest and highest factor, by name, of the physics that differ between trials; each trial's
    own factors are stored with it, unless they are redrawn"""
    pptb: dict[str, Any] = field(default_factory=dict)
    """settings by name, of policy path trimming and boosting, and of jumps to forecasts; none where
    PPO was left alone"""
    jumps: dict[str, Any] = field(default_factory=dict)
    algorithm: str = "PPO"
    """what `ppo` are the hyperparameters of"""
    observation_clip: float = OBSERVATION_CLIP
    """of how many standard deviations normalised observations may be; infinity for no clip"""
    start: str = ""
    """digest of the policy that all trials start from; empty of those that start untrained"""
    worlds: TrialWorlds | None = None
    """the worlds that trials have learned in; None where factors were drawn for each, if any"""
    redraw: Redraw = "never"
    """when the physics of an environment are drawn anew, from the ranges or the worlds: never, so
    that each trial has its own; or at each episode"""
    format_version: int = 1

    def __post_init__(self) -> None:
        one_of(get_args(Redraw), _OWNER, redraw=self.redraw)
        one_of(get_args(Networks), _OWNER, networks=self.networks)
        one_of(get_args(Initial), _OWNER, initial=self.initial)
        one_of(get_args(Normaliser), _OWNER, normaliser=self.normaliser)
        checked_clip(self.observation_clip)
        sizes = ["trials_per_part", "checkpoints_per_part", "checkpoint_interval"]
        planned = [] if self.recorded else ["num_trials", "num_checkpoints"]
        for name in (*planned, *sizes, "steps_per_checkpoint"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise TiplError(
                    f"{name} of {_OWNER} is {shown(value)}; expected a positive integer"
                )
        for name, (low, high) in self.vary.items():
            # worlds may reverse motors and not, where a range is of one sign
            both = bool(are_factors(name, np.array([low, high])).all()) and low <= high
            if not (both if self.worlds else is_range(name, low, high)):
                raise TiplError(
                    f"{name} varies from {shown(low)} to {shown(high)} in {_OWNER}; expected "
                    f"{expected_factors(name)}, the lower one first"
                )
        if not self.recorded:
            self._check_sizes()
        self._check_worlds()
        units = self.layout.activation, self.layout.squashed
        expected = networks_layout(self.task, self.hidden_sizes, self.networks, *units)
        if self.layout != expected:
            raise TiplError(
                f"the layout {self.layout.to_json()} is not the one of {self.networks} with hidden "
                f"sizes {self.hidden_sizes} in {self.task.env_id}; expected {expected.to_json()}"
            )

    def _check_worlds(self) -> None:
        """Raises a TiplError unless there is a world for each trial, or physics to redraw."""
        if self.redraw != "never":
            if not self.vary:
                raise TiplError(
                    f"{_OWNER} says that physics are redrawn, but not which; expected names of "
                    "what varies"
                )
            return
        if self.worlds and len(self.worlds.names) * self.worlds.trials_per_world != self.num_trials:
            raise TiplError(
                f"{_OWNER} of {self.num_trials} trials has {len(self.worlds.names)} worlds with "
                f"{self.worlds.trials_per_world} trials each; expected as many trials"
            )

    def _check_sizes(self) -> None:
        """Raises a TiplError if the planned trials are more than a dataset can hold."""
        trials, checkpoints = self.num_trials or 0, self.num_checkpoints or 0
        parts = -(-trials // self.trials_per_part) * -(-checkpoints // self.checkpoints_per_part)
        if trials > MAX_TRIALS or checkpoints > MAX_CHECKPOINTS or parts > MAX_PARTS:
            raise TiplError(
                f"{_OWNER} of {trials:,} trials of {checkpoints:,} checkpoints, in {parts:,} "
                f"parts, was given; expected at most {MAX_TRIALS:,} trials, {MAX_CHECKPOINTS:,} "
                f"checkpoints and {MAX_PARTS:,} parts: make several datasets, with other seeds, or "
                "store fewer checkpoints"
            )

    @property
    def actor_layout(self) -> ParamLayout:
        """The layout of the policy alone."""
        units = self.layout.activation, self.layout.squashed
        return actor_layout(self.task, self.hidden_sizes, *units)

    @property
    def own_physics(self) -> tuple[str, ...]:
        """Names of the factors that each trial has for itself, and that are stored with it, sorted.

        None where physics are redrawn: such policies belong to no world, and act at home.
        """
        return tuple(sorted(self.vary)) if self.redraw == "never" else ()

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
        if self.worlds is not None:
            plain["worlds"] = asdict(self.worlds) | {"names": list(self.worlds.names)}
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
    if json.dumps(found, sort_keys=True) == json.dumps(expected, sort_keys=True):  # as most are
        return None
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


METADATA = JsonFile(
    "metadata.json",
    PathMetadata,
    "the description of a path dataset (made by `tipl collect` or a PathRecorder)",
)


def read_metadata(directory: str | Path) -> PathMetadata:
    """Reads the `metadata.json` of a dataset.

    Raises:
        TiplError: there is no dataset in the directory, or its metadata is damaged.
    """
    return METADATA.read(Path(directory) / METADATA.name)
