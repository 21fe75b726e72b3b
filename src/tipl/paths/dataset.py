"""Policy learning paths, read from disk: whole, by slices, split by trial, or as windows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64

from tipl.core.arrays import Array
from tipl.core.cards import card
from tipl.errors import TiplError, printable
from tipl.paths.metadata import PathMetadata, read_metadata
from tipl.paths.parts import PartFiles, parts_present
from tipl.paths.returns import ReturnFiles
from tipl.paths.rows import RowReader
from tipl.paths.values import JUMP_COUNTS
from tipl.policies.layout import ParamLayout
from tipl.policies.policy import Policy
from tipl.policies.tasks import TaskSpec


@dataclass(frozen=True, eq=False)
class PolicyPath:
    """The checkpoints of one trial, in order: its number, and what `PathDataset` says of each.

    Examples:
        >>> path = tipl.PathDataset.open("runs/paths")[0]
        >>> path.trial, path.params.shape
        (0, (7, 20))
    """

    trial: int
    params: Float32[np.ndarray, "T P"]
    episodic_return: Float32[np.ndarray, " T"]
    global_step: Int64[np.ndarray, " T"]
    iteration: Int64[np.ndarray, " T"]
    diverged: Bool[np.ndarray, " T"]


class PathDataset:
    """Policy learning paths with one layout, on disk: all trials of a directory, or a view of some.

    All paths of a dataset that is open have one length. Recorded runs may have gone on for longer
    or shorter: they are read up to the end of the shortest of the trials that were opened.

    Each part's hash is checked the first time that something of its trials is read; after that,
    slices are read by memory map: a TiplError names a part that is damaged, or that holds NaN
    weights which are not labelled as diverged. Positions `i` count the view's trials, not those of
    the directory.

    Attributes:
        directory: where the dataset lies.
        metadata: what all its paths have in common; `task` and `layout` are of it.
        trials: the trials in this view, by their numbers in the dataset, `[N]`.
        num_trials: their number, N.
        num_checkpoints: length of each path, T.

    Examples:
        >>> paths = tipl.PathDataset.open("runs/paths")
        >>> paths
        PathDataset('runs/paths', InvertedPendulum-v4: 5 trials, 7 checkpoints, 20 parameters)
        >>> paths.params().shape
        (5, 7, 20)
        >>> train, held_out = paths.split()
    """

    def __init__(
        self, files: PartFiles, trials: Int64[np.ndarray, " N"], num_checkpoints: int
    ) -> None:
        """Use `PathDataset.open`, `select` or `split`."""
        self._files = files  # shared between views
        self.directory: Path = files.directory
        self.metadata: PathMetadata = files.metadata
        self.task: TaskSpec = self.metadata.task
        self.layout: ParamLayout = self.metadata.layout
        self.trials = trials
        self.num_trials = len(trials)
        self.num_checkpoints = num_checkpoints

    @classmethod
    def open(
        cls, directory: str | Path, trials: Sequence[int] | Int64[np.ndarray, " N"] | None = None
    ) -> PathDataset:
        """Opens a dataset: of planned trials a complete one, of recorded runs what there is.

        Args:
            directory: where it lies.
            trials: numbers of the trials to open; by default all that are there.

        Raises:
            TiplError: there is none in the directory, parts of it are missing, or their headers
                are damaged; nothing was recorded yet; or there is no such trial.
        """
        files = PartFiles(Path(directory), read_metadata(directory))
        parts_present(directory, files.metadata)  # raises if the header of one is damaged
        files.require_all()
        paths = cls(files, np.array(list(files.lengths)), min(files.lengths.values()))
        if trials is None:
            return paths
        paths = paths.select(trials)
        paths.num_checkpoints = int(paths.lengths.min())
        return paths

    @classmethod
    def of(cls, given: PathDataset | str | Path) -> PathDataset:
        """A dataset that is given as such, or by its directory; raises what `open` does."""
        return given if isinstance(given, PathDataset) else cls.open(given)

    @property
    def lengths(self) -> Int64[np.ndarray, " N"]:
        """Number of checkpoints `[N]` that there are of each trial, T or more."""
        return np.array([self._files.lengths[int(trial)] for trial in self.trials])

    @property
    def global_step(self) -> Int64[np.ndarray, " T"]:
        """Environment steps of one trial before each checkpoint, `[T]`.

        Recorded runs may differ in theirs: this is their mean, and `env_steps` has them all.
        """
        return np.asarray(self._axes("global_step").mean(axis=0), np.int64)

    @property
    def iteration(self) -> Int64[np.ndarray, " T"]:
        """PPO iterations before each checkpoint, `[T]`; of recorded runs the mean, likewise."""
        return np.asarray(self._axes("iteration").mean(axis=0), np.int64)

    def __len__(self) -> int:
        return self.num_trials

    def __iter__(self) -> Iterator[PolicyPath]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, i: int) -> PolicyPath:
        one = self._only(i)
        return PolicyPath(
            trial=int(one.trials[0]),
            params=one.params()[0],
            episodic_return=one.episodic_return()[0],
            global_step=one.global_step,
            iteration=one.iteration,
            diverged=one._read("diverged")[0],
        )

    def __repr__(self) -> str:
        longest = int(self.lengths.max())
        more = f" (of up to {longest})" if longest > self.num_checkpoints else ""
        place = printable(str(self.directory))
        return (
            f"PathDataset({place!r}, {self.task.label}: {self.num_trials} trials, "
            f"{self.num_checkpoints} checkpoints{more}, {self.layout.size} parameters)"
        )

    def _repr_html_(self) -> str:
        lengths = f"{int(self.lengths.min()):,} to {int(self.lengths.max()):,}"
        facts = {
            "directory": self.directory,
            "task": self.task.label,
            "trials": f"{self.num_trials:,}",
            "checkpoints": lengths,
            "environment steps of a trial": f"{int(self.global_step[-1]):,}",
            "parameters": f"{self.layout.size:,}",
        }
        return card("PathDataset", facts)

    def params(self, checkpoints: slice | None = None) -> Float32[np.ndarray, "*both P"]:
        """Flat weights `[N, T, P]`, of all checkpoints or of a slice of them."""
        return self._read("params", checkpoints)

    def checkpoints(
        self, i: Int64[np.ndarray, "*i"], checkpoint: Int64[np.ndarray, "*t"]
    ) -> Float32[np.ndarray, "*both P"]:
        """Flat weights `[..., P]` of single checkpoints, read from where they lie on the disk.

        Args:
            i: positions in this view, of any shape.
            checkpoint: numbers of checkpoints, of a shape that goes with the other one's.

        Raises:
            TiplError: there is no such trial or checkpoint, or its part is damaged.
        """
        places, at = np.broadcast_arrays(i, checkpoint)
        for values, size, what in (
            (places, self.num_trials, "trial"), (at, self.num_checkpoints, "checkpoint"),
        ):  # fmt: skip
            for outermost in (values.min(initial=0), values.max(initial=0)):
                _position(int(outermost), size, what)
        trials = self.trials[places.ravel() % self.num_trials]
        rows = self._rows.read(trials, at.ravel() % self.num_checkpoints)
        return rows.reshape(*places.shape, self.layout.size)  # [M, P] -> [*shape, P]

    @cached_property
    def _rows(self) -> RowReader:
        return RowReader(self._files)

    def episodic_return(self) -> Float32[np.ndarray, "N T"]:
        """Mean return `[N, T]` of the training episodes at each checkpoint; NaN if none ended."""
        return self._read("episodic_return")

    def num_episodes(self) -> Int32[np.ndarray, "N T"]:
        """Number `[N, T]` of training episodes that ended while each checkpoint's policy acted."""
        return self._read("num_episodes")

    def deterministic_return(self) -> Float32[np.ndarray, "N T E"]:
        """Returns `[N, T, E]` of episodes in which each checkpoint's policy acted by its mean.

        They are there after `tipl paths evaluate`; NaN at the checkpoints that it left out, and
        where a trial had diverged. Episode e starts alike for all trials and checkpoints.

        Raises:
            TiplError: the dataset has not been evaluated, not to the end, or a file is damaged.
        """
        files = ReturnFiles(self.directory, self.metadata)
        files.require_all()
        return files.read("deterministic_return", self.trials, range(self.num_checkpoints))

    def physics(self) -> dict[str, Float64[np.ndarray, " N"]]:
        """Each trial's factors of the original physics, `[N]` by name.

        Empty if none varies between trials: also where they are redrawn at each episode.
        """
        names = self.metadata.own_physics
        if not names:
            return {}
        factors = self._read("physics", slice(0, 1))[:, 0]  # [N, 1, V] -> [N, V]
        return dict(zip(names, factors.T, strict=True))

    @property
    def worlds(self) -> tuple[str, ...]:
        """The name of each trial's world, `[N]`; empty unless trials were given worlds by name."""
        given = self.metadata.worlds
        if given is None or not self.metadata.own_physics:
            return ()
        return tuple(given.names[int(trial) // given.trials_per_world] for trial in self.trials)

    def jump_counts(self) -> dict[str, Int64[np.ndarray, "N T"]]:
        """What forecasts have done to each trial before each checkpoint: arrays `[N, T]` by name.

        `jump_steps` are the environment steps that tests of forecasts have taken, `jumps` the
        number of jumps, and `rollbacks` those that were undone; empty if trials make no jumps.
        """
        if not self.metadata.jumps:
            return {}
        return {name: self._read(name) for name in JUMP_COUNTS}

    def env_steps(self) -> Int64[np.ndarray, "N T"]:
        """Environment steps `[N, T]` of each trial before each checkpoint, tests included."""
        own = self._axes("global_step")
        if len(own) == 1:
            own = np.tile(own, (self.num_trials, 1))
        return own + self.jump_counts().get("jump_steps", 0)

    def diverged(self) -> Bool[np.ndarray, " N"]:
        """Whether each trial became NaN at any checkpoint, `[N]`."""
        return np.asarray(self._read("diverged").any(axis=1))

    def usable_trials(self) -> Int64[np.ndarray, " M"]:
        """The numbers of the trials that never diverged, in the dataset's order."""
        return np.asarray(self.trials[~self.diverged()])

    def observation_statistics(
        self,
    ) -> tuple[Float64[np.ndarray, "N T O"], Float64[np.ndarray, "N T O"]]:
        """Mean and standard deviation of the observation normaliser at each checkpoint."""
        if self.metadata.normaliser == "running":
            return self._read("observation_mean"), self._read("observation_std")
        shape = (self.num_trials, self.num_checkpoints, self.task.observation_size)
        mean, std = self.task.observation_statistics
        return np.broadcast_to(mean, shape), np.broadcast_to(std, shape)

    def policy(self, i: int, checkpoint: int) -> Policy:
        """The policy of a trial at a checkpoint, without a stored critic, in the trial's physics.

        Negative numbers of either count from the end.

        Raises:
            TiplError: there is no such trial or checkpoint, or the trial has diverged there.
        """
        one = self._only(i)
        t = _position(checkpoint, self.num_checkpoints, "checkpoint")
        at = slice(t, t + 1)
        layout = self.metadata.actor_layout
        actor = one.params(at)[0, 0, : layout.size]  # a stored critic comes after it
        task = self.task
        if self.metadata.own_physics:
            task = task.with_physics({name: float(f[0]) for name, f in one.physics().items()})
        names = ("observation_mean", "observation_std")
        running = self.metadata.normaliser == "running"
        statistics = {n: one._read(n, at)[0, 0] for n in names if running}
        clip = self.metadata.observation_clip
        return Policy(actor, layout, task, **statistics, observation_clip=clip)

    def select(self, trials: Sequence[int] | Int64[np.ndarray, " N"]) -> PathDataset:
        """A view of some of this view's trials, by their numbers in the dataset, in that order.

        Its paths have the length of this view's; `open` takes `trials` to read longer ones to
        their end.

        Raises:
            TiplError: no trials were given, or one of them is not in this view.
        """
        selected = np.array(trials, dtype=np.int64)
        unknown = np.setdiff1d(selected, self.trials)
        if unknown.size or not selected.size:
            given = f"trial {unknown[0]} is not among" if unknown.size else "no trial was given of"
            raise TiplError(
                f"{given} the {self.num_trials} trials of this view of {self.directory}; choose "
                "from its `trials`"
            )
        return PathDataset(self._files, selected, self.num_checkpoints)

    def split(self, held_out: float = 0.25, seed: int = 0) -> Split:
        """Splits the trials at random into training ones and a share of held-out ones.

        Diverged trials are in neither. The same trials and seed give the same split.

        Raises:
            TiplError: the share is not between 0 and 1, or fewer than two trials did not diverge.
        """
        if not 0 < held_out < 1:
            raise TiplError(
                f"{held_out} was given as the share of held-out trials; expected a number between "
                "0 and 1, such as 0.25"
            )
        usable = np.sort(self.usable_trials())
        if len(usable) < 2:
            raise TiplError(
                f"{len(usable)} of {self.num_trials} trials of {self.directory} can be used (the "
                "rest diverged), but a split needs two at least; collect more trials"
            )
        count = min(max(round(held_out * len(usable)), 1), len(usable) - 1)
        shuffled = np.random.default_rng(seed).permutation(usable)
        train, held_out_trials = np.sort(shuffled[count:]), np.sort(shuffled[:count])
        return Split(self.select(train), self.select(held_out_trials))

    def windows(self, context: int, horizon: int) -> Int64[np.ndarray, "M 2"]:
        """All places where a history of `context` checkpoints has a target `horizon` later.

        Returns:
            Pairs `[M, 2]` of a position `i` in this view and a first checkpoint `start`: the
            history is `start` to `start + context - 1`, the target is checkpoint
            `start + context + horizon - 1`. Diverged trials are included.

        Raises:
            TiplError: context or horizon is below 1, or together they are longer than a path.
        """
        for name, value in (("context", context), ("horizon", horizon)):
            if value < 1:
                raise TiplError(f"a {name} of {value} was given; expected 1 or more checkpoints")
        per_path = self.num_checkpoints - context - horizon + 1
        if per_path < 1:
            raise TiplError(
                f"a context of {context} and a horizon of {horizon} need {context + horizon} "
                f"checkpoints, but the paths in {self.directory} have {self.num_checkpoints}; "
                "choose smaller ones, or collect longer paths"
            )
        i, start = np.indices((self.num_trials, per_path))
        return np.stack([i.ravel(), start.ravel()], axis=1)  # two [N, per_path] -> [M, 2]

    def _only(self, i: int) -> PathDataset:
        trial = self.trials[_position(i, self.num_trials, "trial")]
        return PathDataset(self._files, np.array([trial]), self.num_checkpoints)

    def _read(self, name: str, checkpoints: slice | None = None) -> Array:
        chosen = range(self.num_checkpoints)[checkpoints or slice(None)]
        return self._files.read(name, self.trials, chosen)

    def _axes(self, name: str) -> Array:
        return self._files.read_axes(name, self.trials, self.num_checkpoints)


class Split(NamedTuple):
    """Two views of one dataset that share no trial."""

    train: PathDataset
    held_out: PathDataset


def _position(index: int, size: int, what: str) -> int:
    """An index as Python counts it, from the front."""
    if not -size <= index < size:
        raise TiplError(
            f"there is no {what} {index}: expected one from {-size} to {size - 1}, where negative "
            "numbers count from the end"
        )
    return index % size
