"""Groups of trials that learn in one batched loop, saved after every iteration."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from tipl.collection.config import CollectConfig
from tipl.collection.physics import EpisodePhysics, draw_physics
from tipl.core import storage
from tipl.core.arrays import Array
from tipl.core.atomic import make_folder
from tipl.core.engines.work import Report
from tipl.core.locks import FileLock
from tipl.core.ownership import ANYTHING
from tipl.core.schemas import Natural, TensorsFile, conforming
from tipl.core.unfinished import remove_unfinished
from tipl.envs import make_vec
from tipl.envs.worlds import World
from tipl.errors import TiplError
from tipl.jumps.lineage import Lineage
from tipl.jumps.plug_in import ForecastJumps, PathBooster
from tipl.paths import PathMetadata
from tipl.paths.grid import PartRange
from tipl.paths.values import PER_CHECKPOINT
from tipl.paths.writing import PartWriter
from tipl.ppo.ppo import PPO, StoppedError


class TrialGroup:
    """One batched loop over a part of the trials.

    After every iteration its state is saved, together with the checkpoints of the part that is
    still growing, so that a kill loses no finished checkpoint. A lock keeps other processes away.
    """

    def __init__(
        self,
        directory: Path,
        config: CollectConfig,
        metadata: PathMetadata,
        parts: list[PartRange],
        actor: Array | None = None,
        worlds: Sequence[World] = (),
    ) -> None:
        self.directory, self.config = directory, config
        self.metadata, self.parts, self.actor = metadata, parts, actor
        self.trials = list(range(parts[0].first_trial, parts[0].last_trial + 1))
        self.holder: str | None = None  # the process that collects them instead, if there is any
        self.report: Report = lambda *args, **kwargs: None  # is told of environment steps
        self._name = f"trials-{self.trials[0]:05d}"
        self._resume = directory / "resume"
        self._state_file = self._resume / f"{self._name}.safetensors"
        self.record = self._resume / f"{self._name}.failure.txt"
        self.lock = FileLock(self._resume / f"{self._name}.lock")
        self.stop = threading.Event()  # once another thread sets it, `run` returns soon
        draws = [
            worlds[trial].factors if worlds else draw_physics(metadata.vary, metadata.seed, trial)
            for trial in (self.trials if metadata.own_physics else [])
        ]
        self._physics = {
            name: np.array([draw[name] for draw in draws]) for name in metadata.own_physics
        }
        self._redraw: EpisodePhysics | None = None
        if metadata.redraw != "never":
            E = config.ppo.num_envs
            self._redraw = EpisodePhysics(metadata.seed, self.trials, E, metadata.vary, worlds)

    def is_complete(self) -> bool:
        """Whether all parts are there."""
        return all(part.path(self.directory).exists() for part in self.parts)

    def saved_checkpoints(self) -> int | None:
        """How many checkpoints are safe, of a group under way; None if there is no saved state."""
        try:
            with storage.open_tensors(self._state_file) as file:
                header = conforming(file.metadata, _Header, str(self._state_file))
        except TiplError:
            return None
        return header.checkpoints if header.dataset == self.metadata.digest else None

    def run(self) -> None:
        """Takes the trials from where they were to their end, unless another process does.

        Raises:
            TiplError: a file cannot be written. What was saved before stays as it is.
        """
        if not self._locked():
            self.holder = self.lock.holder
            return
        try:
            remove_unfinished(self.directory / "parts", self._name)
            remove_unfinished(self._resume, self._name)
            if not self.is_complete():
                self._learn()
            for file in (self._state_file, self.record):
                file.unlink(missing_ok=True)
        except StoppedError:
            pass  # what it did since the last save is repeated when the collection goes on
        finally:
            self.lock.release()

    def _locked(self) -> bool:
        """Takes the trials' lock if it is free, and says whether it was."""
        while True:
            make_folder(self._resume)
            try:
                return self.lock.acquire()
            except TiplError as error:  # who finished last may just have removed the empty folder
                if not isinstance(error.__cause__, FileNotFoundError) or self._resume.exists():
                    raise

    def _learn(self) -> None:
        ppo, writer = self._resumed() or (self._untrained(), self._writer())
        if not writer.finished:
            ppo.start()
        self.report(self._steps(ppo.iteration), self.trials[0], fresh=False)
        last = self.config.num_iterations
        while True:
            stored = ppo.iteration % self.config.checkpoint_interval == 0
            checkpoint = self._checkpoint(ppo) if stored else {}
            rollout = ppo.rollout()
            self.report(self._steps(1), self.trials[0], rollout.episodic_return)
            if stored:
                checkpoint["episodic_return"] = rollout.episodic_return.astype(np.float32)
                checkpoint["num_episodes"] = rollout.num_episodes
                writer.add(checkpoint)
            if ppo.iteration == last:
                break  # the last rollout only tells the return of the last weights
            ppo.update(rollout)
            self._save(ppo, writer)
        ppo.envs.close()

    def _writer(self) -> PartWriter:
        return PartWriter(self.directory, self.metadata, self.parts)

    def _untrained(self) -> PPO:
        """The trials before their first step."""
        config = self.config
        task = self.metadata.task
        E = config.ppo.num_envs
        physics = {name: np.repeat(factors, E) for name, factors in self._physics.items()}
        envs = make_vec(task, len(self.trials) * E, physics=physics, redraw=self._redraw)
        options = config.hidden, config.normaliser, config.initial, config.seed
        ppo = PPO(envs, task, self.trials, config.num_iterations, config.ppo, *options)
        ppo.stop = self.stop
        if config.pptb.rank is not None:
            ppo.plug_in = PathBooster(config.pptb)
        if config.jumps.forecaster is not None:
            ppo.plug_in = ForecastJumps(config.jumps, self._physics)
        if self.actor is not None:
            ppo.plug_in = Lineage(self.actor, ppo.plug_in)
        return ppo

    def _resumed(self) -> tuple[PPO, PartWriter] | None:
        """The trials as `_save` left them; None if there is nothing to go on from.

        A state that is damaged, of another dataset, or whose parts somebody has removed is of no
        use: the same trials then run again from their start, to the same end.
        """
        if not self._state_file.exists():
            return None
        try:
            state, header = RESUME.read(self._state_file)
            count, writer = header.growing, self._writer()
            if header.dataset != self.metadata.digest or count > header.checkpoints:
                return None
            writer.finished = header.checkpoints
            written = [p for p in self.parts if p.first_checkpoint < writer.finished - count]
            if not all(part.path(self.directory).exists() for part in written):
                return None
            for i in range(count):
                writer.growing.append(self._stored_checkpoint(writer, state, i))
            ppo = self._untrained()
            ppo.set_state(state)
        except (ArithmeticError, AttributeError, TiplError, LookupError, TypeError, ValueError):
            return None
        return ppo, writer

    def _stored_checkpoint(
        self, writer: PartWriter, state: dict[str, Array], i: int
    ) -> dict[str, Array]:
        """Takes the i-th checkpoint of the part that grows out of a saved state.

        Raises:
            LookupError: it is not there, or has other arrays than a part.
        """
        part = self.parts[0]._replace(last_checkpoint=self.parts[0].first_checkpoint)
        column = {}
        for name, (dtype, shape) in writer.files.arrays(part).items():
            column[name] = array = state.pop(f"growing.{i}.{name}")
            once = shape[:-1] if name in PER_CHECKPOINT else (shape[0], *shape[2:])  # no [t]
            if (array.dtype.name, array.shape) != (dtype, once):
                raise LookupError(name)
        return column

    def _save(self, ppo: PPO, writer: PartWriter) -> None:
        """Replaces the saved state by the present one, whole or not at all."""
        columns = {
            f"growing.{i}.{name}": array
            for i, column in enumerate(writer.growing)
            for name, array in column.items()
        }
        counts = {"checkpoints": writer.finished, "growing": len(writer.growing)}
        header = {"dataset": self.metadata.digest, **counts}
        state = ppo.state() | columns
        storage.write_tensors(self._state_file, state, header, own=ANYTHING)

    def _checkpoint(self, ppo: PPO) -> dict[str, Array]:
        """The trials' present weights and what is known of them before they act."""
        checkpoint = {
            "params": ppo.params[:, : self.metadata.layout.size].astype(np.float32),
            "diverged": ppo.diverged.copy(),
            "global_step": np.array(self._steps(ppo.iteration) // len(self.trials), np.int64),
            "iteration": np.array(ppo.iteration, np.int64),
        }
        if self.config.normaliser == "running":
            mean, std = ppo.observation_statistics()
            checkpoint |= {"observation_mean": mean.copy(), "observation_std": std.copy()}
        checkpoint |= ppo.plug_in.checkpoint()
        if self._physics:
            checkpoint["physics"] = np.stack(list(self._physics.values()), axis=1)  # [n, V]
        return checkpoint

    def _steps(self, iterations: int) -> int:
        """Environment steps of all trials in some iterations."""
        return iterations * self.config.ppo.rollout_steps * len(self.trials)


class _Header(msgspec.Struct):
    """What the header of a saved state says."""

    dataset: str
    checkpoints: Natural  # that are finished
    growing: Natural  # of them those in the part that is not written yet


RESUME = TensorsFile(".safetensors", _Header, "where a collection goes on")
