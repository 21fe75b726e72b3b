"""Forecasts of many held-out trials: made, stored, run in the environment, and compared.

A case is one forecaster, one history and one horizon; each case is forecast for every trial. A
history that ends at checkpoint 0 is the untrained network alone: its forecasts optimise a policy
from nothing.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from jaxtyping import Float32, Float64

from tipl.core import atomic, storage
from tipl.core.addresses import absolute
from tipl.core.arrays import Array
from tipl.core.ownership import ROWS, OwnDirectory
from tipl.core.schemas import ArrayType, Count, JsonFile, Natural, TensorsFile
from tipl.core.trust import check_named
from tipl.errors import TiplError
from tipl.paths import PathDataset
from tipl.policies.actions import best_actions
from tipl.policies.tasks import TaskSpec

FORECAST_FILES = OwnDirectory(
    "a set of forecasts",
    {
        "forecasts.json": storage.own_json(
            "a set of forecasts", lambda found: found.get("kind") == "forecasts"
        ),
        "forecasts.safetensors": storage.own_tensors("forecasts"),
        "returns.safetensors": storage.own_tensors("returns"),
        "results.jsonl": ROWS,
    },
)
"""What `ForecastSet.save` writes and replaces, and what `tipl evaluate` adds."""

NUM_ANCHORS, STEPS_OF_ANCHOR, NUM_STATES = 4, 200, 512
"""Checkpoints of each true path that are run, for so many steps each, to see the states on which
actions are compared, and how many of these are kept."""


@dataclasses.dataclass(frozen=True)
class ForecastCase:
    """Which forecaster, from where, how far."""

    method: str  # name of the forecaster
    start: Natural  # last checkpoint of the history
    horizon: Count  # checkpoints ahead

    @property
    def target(self) -> int:
        """The true checkpoint that the forecast stands beside."""
        return self.start + self.horizon


@dataclasses.dataclass(frozen=True)
class ForecastReturns:
    """What forecasts and true checkpoints did in the environment."""

    forecasts: Float64[np.ndarray, "F N E"]  # episodic returns of each case
    checkpoints: Float64[np.ndarray, "N T E"]  # episodic returns of the true checkpoints
    action_errors: Float64[np.ndarray, "F N"] | None = None
    """see `ForecastSet.action_errors`; None where physics vary"""

    def __post_init__(self) -> None:
        """Raises a TiplError if a number is not finite."""
        for name, array in vars(self).items():
            if array is not None and not np.isfinite(array).all():
                raise TiplError(
                    f"the {name} of a set of forecasts are NaN or infinite in "
                    f"{np.count_nonzero(~np.isfinite(array))} of {array.size} places; expected "
                    "finite numbers: see to the environment's rewards, then run `tipl evaluate` "
                    "again"
                )

    def save(self, directory: str | Path, command: str) -> None:
        """Keeps them in the forecasts' directory, with the command line that measured them."""
        tensors = {name: array for name, array in vars(self).items() if array is not None}
        path = Path(directory) / RETURNS.name
        storage.write_tensors(path, tensors, {"kind": "returns", "command": command})

    @classmethod
    def load(cls, directory: str | Path) -> tuple[ForecastReturns, str]:
        """Reads what `save` wrote: the returns, and the command line that measured them.

        Raises:
            TiplError: the forecasts have not been evaluated, or the file is damaged.
        """
        tensors, header = RETURNS.read(
            Path(directory) / RETURNS.name,
            {
                "forecasts": ArrayType("float64", ("F", "N", "E")),
                "checkpoints": ArrayType("float64", ("N", "T", "E")),
                "action_errors": ArrayType("float64", ("F", "N"), optional=True),
            },
        )
        return cls(**tensors), header.command


@dataclasses.dataclass(frozen=True)
class ForecastSet:
    """Forecasts of the same trials in several cases."""

    paths: PathDataset  # the held-out trials
    cases: list[ForecastCase]
    params: Float32[np.ndarray, "F N P"]  # forecast weights
    settings: dict[str, Any]  # how they were made, for the record
    end_distances: Float32[np.ndarray, "F N"] | None = None
    """How far each forecast is from the nearest end of a training path, in units of the distance of
    the trial's true end from its own nearest one; None if no training path is of this dataset, or
    if a trial ends where one does."""

    def __post_init__(self) -> None:
        """Raises a TiplError if a case is not of the paths, or a forecast is not finite."""
        end = self.paths.num_checkpoints - 1
        if late := [case for case in self.cases if case.target > end]:
            raise TiplError(
                f"a forecast of checkpoint {late[0].target} was given, but the paths of "
                f"{self.paths.directory} end at checkpoint {end}; run `tipl forecast` again"
            )
        broken = np.argwhere(~np.isfinite(self.params).all(axis=2))  # [broken, 2]: of F and of N
        if len(broken):
            case, trial = self.cases[broken[0][0]], self.paths.trials[broken[0][1]]
            raise TiplError(
                f"{case.method} forecasts weights that are NaN or infinite for trial {trial}, "
                f"{case.horizon} checkpoints after checkpoint {case.start}; leave out the method, "
                "or trials with so large weights"
            )
        if self.end_distances is not None and not np.isfinite(self.end_distances).all():
            raise TiplError(
                "the end distances of a set of forecasts are NaN or infinite; run `tipl forecast` "
                "again"
            )

    def save(self, directory: str | Path) -> None:
        """Writes `forecasts.json` and `forecasts.safetensors`, whole or not at all."""
        with atomic.new_directory(directory, FORECAST_FILES) as new:
            tensors = {"params": self.params}
            if self.end_distances is not None:
                tensors["end_distances"] = self.end_distances
            storage.write_tensors(new / FORECASTS.name, tensors, {"kind": "forecasts"})
            record = {
                "kind": "forecasts",
                "dataset": absolute(self.paths.directory),
                "dataset_digest": self.paths.metadata.digest,
                "trials": self.paths.trials.tolist(),
                "cases": [dataclasses.asdict(case) for case in self.cases],
                "settings": self.settings,
            }
            storage.write_json(new / RECORD.name, record)

    @classmethod
    def load(cls, directory: str | Path) -> ForecastSet:
        """Reads what `save` wrote, and opens the dataset it speaks of.

        Raises:
            TiplError: there are no forecasts in the directory, a file is damaged, or the dataset
                is gone or has changed.
        """
        directory = Path(directory)
        record = RECORD.read(directory / RECORD.name)
        check_named(record.dataset, f"the set of forecasts in {directory}")
        paths = PathDataset.open(record.dataset)
        if paths.metadata.digest != record.dataset_digest:
            raise TiplError(
                f"the forecasts in {directory} were made from another dataset than the one now in "
                f"{record.dataset}; run `tipl forecast` again"
            )
        trials, F = paths.select(record.trials), len(record.cases)
        tensors, _ = FORECASTS.read(
            directory / FORECASTS.name,
            {
                "params": ArrayType("float32", (F, len(trials), paths.layout.size)),
                "end_distances": ArrayType("float32", (F, len(trials)), optional=True),
            },
        )
        return cls(trials, record.cases, settings=record.settings, **tensors)

    def weight_errors(self) -> Float64[np.ndarray, "F N"]:
        """Distance of each forecast from the true checkpoint, in units of standing still's."""
        true = self.paths.params().astype(np.float64)
        errors = np.empty(self.params.shape[:2])
        for f, case in enumerate(self.cases):
            missed = np.linalg.norm(self.params[f] - true[:, case.target], axis=1)
            moved = np.linalg.norm(true[:, case.start] - true[:, case.target], axis=1)
            errors[f] = missed / moved
        return errors

    def evaluate(
        self, episodes: int, *, seed: int = 0, threads: int | None = None, progress: bool = False
    ) -> ForecastReturns:
        """Runs every forecast, and every true checkpoint of its trial, in the environment.

        Raises:
            TiplError: the dataset's observation normaliser is a running one, which a forecast of
                weights alone does not carry, or `episodes` is below 1.
        """
        if self.paths.metadata.normaliser != "frozen":
            raise TiplError(
                f"the paths in {self.paths.directory} were collected with normaliser="
                f"{self.paths.metadata.normaliser!r}, whose statistics a forecast does not carry; "
                "collect with normaliser='frozen'"
            )
        from tipl.evaluation.returns import (
            evaluate_stack,  # late, as those below: reading needs none
        )

        true = self.paths.params()
        (F, N), (_, T, P) = self.params.shape[:2], true.shape
        policies = np.concatenate([self.params.reshape(-1, P), true.reshape(-1, P)])
        trials = np.concatenate([np.tile(np.arange(N), F), np.repeat(np.arange(N), T)])
        physics = {name: factors[trials] for name, factors in self.paths.physics().items()}
        # Equal weights, such as those of standing still, are run once in the same physics.
        which = equal_rows(policies, *physics.values())
        _, distinct = np.unique(which, return_index=True)
        returns = evaluate_stack(
            policies[distinct], self.paths.layout, self.paths.task, episodes,
            physics={name: factors[distinct] for name, factors in physics.items()},
            clip=self.paths.metadata.observation_clip,
            seed=seed, threads=threads, progress=progress,
        ).returns[which]  # fmt: skip
        return ForecastReturns(
            returns[: F * N].reshape(F, N, episodes),
            returns[F * N :].reshape(N, T, episodes),
            None if physics else self.action_errors(seed),
        )

    def action_errors(self, seed: int = 0) -> Float64[np.ndarray, "F N"]:
        """Distance of each forecast's actions from the true checkpoint's, on the same states.

        The root mean square over states that PPO's own policies visit along the held-out paths, in
        units of standing still's. Of discrete actions, the share of states with another action. The
        seed is of the environments in which the states are visited.
        """
        from tipl.ppo.networks import stacked_actors

        true, task, layout = self.paths.params(), self.paths.task, self.paths.layout
        states = self._visited_states(seed)
        errors = np.empty(self.params.shape[:2])

        def acted(params: Array) -> Array:
            actor = stacked_actors(np.ascontiguousarray(params), layout)
            outputs = actor.forward(np.repeat(states[None], len(params), axis=0))
            return best_actions(task, outputs, layout.squashed)

        actions = functools.cache(lambda checkpoint: acted(true[:, checkpoint]))
        for f, case in enumerate(self.cases):
            wanted = actions(case.target)
            missed = _action_distance(task, acted(self.params[f]), wanted)
            still = _action_distance(task, actions(case.start), wanted)
            errors[f] = missed / np.maximum(still, 1e-12)
        return errors

    def _visited_states(self, seed: int) -> Float32[np.ndarray, "S O"]:
        """A fixed sample of normalised observations along the true paths."""
        from tipl.evaluation.behaviour import visited_observations

        true, layout = self.paths.params(), self.paths.layout
        anchors = np.unique(np.linspace(0, true.shape[1] - 1, NUM_ANCHORS + 1).round())[1:]
        policies = true[:, anchors.astype(int)].reshape(-1, layout.size)  # [N, C, P] -> [N * C, P]
        clip = self.paths.metadata.observation_clip
        seen = visited_observations(
            policies, layout, self.paths.task, STEPS_OF_ANCHOR, seed=seed, clip=clip
        )
        states = seen.reshape(-1, seen.shape[-1])  # [N * C, S, O] -> [N * C * S, O]
        chosen = np.random.default_rng(seed).permutation(len(states))[:NUM_STATES]
        return np.ascontiguousarray(states[np.sort(chosen)])


class _Settings(msgspec.Struct):
    """What others read of how forecasts were made."""

    best_checkpoint: tuple[Natural, Natural] | None = None  # trial and checkpoint


class _Record(msgspec.Struct):
    """What `forecasts.json` says."""

    dataset: str
    dataset_digest: str
    trials: list[Natural]
    cases: list[ForecastCase]
    settings: dict[str, Any]

    def __post_init__(self) -> None:
        msgspec.convert(self.settings, _Settings)


class _Header(msgspec.Struct):
    """What the header of forecasts says."""


class _ReturnsHeader(msgspec.Struct):
    """What the header of returns says."""

    command: str


RECORD = JsonFile("forecasts.json", _Record, "a set of forecasts (made by `tipl forecast`)")
FORECASTS = TensorsFile("forecasts.safetensors", _Header, "the forecasts")
RETURNS = TensorsFile(
    "returns.safetensors", _ReturnsHeader, "the returns of the forecasts (made by `tipl evaluate`)"
)


def equal_rows(*columns: Array) -> list[int]:
    """Which rows of some arrays, taken together, are equal: a number a row, rising from 0.

    Told by digests, so that no copy of the arrays is made.
    """
    numbers: dict[bytes, int] = {}
    which = []
    for rows in zip(*columns, strict=True):
        digest = hashlib.blake2b(digest_size=16)
        for row in rows:
            digest.update(row.tobytes())
        which.append(numbers.setdefault(digest.digest(), len(numbers)))
    return which


def _action_distance(task: TaskSpec, actions: Array, others: Array) -> Float64[np.ndarray, " N"]:
    """How far actions of N policies on S states are from others."""
    if task.discrete:
        return np.asarray((actions != others).mean(axis=1, dtype=np.float64))
    from tipl.evaluation.behaviour import action_unit

    apart = (actions.astype(np.float64) - others) / action_unit(task)  # [N, S, A]
    return np.asarray(np.sqrt(np.square(apart).mean(axis=(1, 2))))
