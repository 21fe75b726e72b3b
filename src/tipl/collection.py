"""Collecting policy learning paths: many PPO trials, in groups, into a dataset on disk."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from tipl import storage
from tipl.envs import make_task, make_vec
from tipl.errors import TiplError
from tipl.options import config_from_options, thread_count
from tipl.paths import PathDataset, PathMetadata
from tipl.paths.metadata import Initial, Networks, Normaliser
from tipl.paths.parts import PartRange, create_dataset, part_ranges, parts_present, write_part
from tipl.policy import ParamLayout, check_hidden_sizes
from tipl.ppo import PPO, PPOConfig
from tipl.progress import CollectionProgress

__all__ = ["CollectConfig", "collect"]

Array = np.ndarray[Any, np.dtype[Any]]

CHECKPOINTS_PER_PART = 8
"""A killed collection repeats at most this many checkpoints of the groups that were running."""


@dataclasses.dataclass(frozen=True)
class CollectConfig:
    """What to collect. Equal configurations give equal bytes, whatever the number of threads."""

    num_trials: int = 128
    """independent PPO trials"""
    total_steps: int = 61_440
    """environment steps of each trial (rounded down to whole PPO iterations)"""
    seed: int = 0
    """seed from which every trial's own random numbers are derived"""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """units in each hidden layer of actor and critic"""
    initial: Initial = "independent"
    """give each trial its own random initial network, or all the same"""
    normaliser: Normaliser = "frozen"
    """observation statistics: the task's, the same for all, or running ones as in CleanRL"""
    networks: Networks = "actor"
    """what is stored of each checkpoint"""
    checkpoint_interval: int = 1
    """PPO iterations between checkpoints"""
    trials_per_group: int = 64
    """trials in one batched loop, which one thread runs"""
    ppo: PPOConfig = dataclasses.field(default_factory=PPOConfig)
    """hyperparameters of PPO"""

    @property
    def num_iterations(self) -> int:
        """PPO iterations of each trial."""
        return self.total_steps // self.ppo.num_steps

    def __post_init__(self) -> None:
        check_hidden_sizes(self.hidden_sizes)
        for name in ("num_trials", "checkpoint_interval", "trials_per_group"):
            if getattr(self, name) < 1:
                raise TiplError(f"{name} is {getattr(self, name)}; expected at least 1")
        if self.seed < 0:
            raise TiplError(f"the seed is {self.seed}; expected 0 or more")
        self._check_ppo()
        if self.num_iterations < self.checkpoint_interval:
            raise TiplError(
                f"total_steps is {self.total_steps}, but one checkpoint takes "
                f"{self.ppo.num_steps * self.checkpoint_interval} steps (num_steps x "
                "checkpoint_interval); give more steps"
            )
        if self.num_iterations % self.checkpoint_interval:
            raise TiplError(
                f"{self.total_steps} steps are {self.num_iterations} iterations, which "
                f"a checkpoint_interval of {self.checkpoint_interval} does not divide; the last "
                "weights would be lost: choose a divisor"
            )

    def _check_ppo(self) -> None:
        for name, value in dataclasses.asdict(self.ppo).items():
            if not math.isfinite(value):
                raise TiplError(f"{name} is {value}; expected a finite number")
        for name in ("num_minibatches", "update_epochs"):
            if getattr(self.ppo, name) < 1:
                raise TiplError(f"{name} is {getattr(self.ppo, name)}; expected at least 1")
        if self.ppo.num_steps < 2 * self.ppo.num_minibatches:
            raise TiplError(
                f"num_steps is {self.ppo.num_steps} with {self.ppo.num_minibatches} minibatches; "
                "expected at least 2 steps in each, whose advantages can be normalised"
            )

    def metadata(self, env_id: str) -> PathMetadata:
        """What the dataset of this collection says of itself."""
        task = make_task(env_id)
        layout = ParamLayout.actor(task.observation_size, task.action_size, self.hidden_sizes)
        if self.networks == "actor+critic":
            layout += ParamLayout.critic(task.observation_size, self.hidden_sizes)
        return PathMetadata(
            task=task,
            layout=layout,
            hidden_sizes=tuple(self.hidden_sizes),
            networks=self.networks,
            initial=self.initial,
            normaliser=self.normaliser,
            num_trials=self.num_trials,
            num_checkpoints=self.num_iterations // self.checkpoint_interval + 1,
            trials_per_part=min(self.trials_per_group, self.num_trials),
            checkpoints_per_part=CHECKPOINTS_PER_PART,
            checkpoint_interval=self.checkpoint_interval,
            steps_per_checkpoint=self.checkpoint_interval * self.ppo.num_steps,
            seed=self.seed,
            ppo=dataclasses.asdict(self.ppo),
            versions={
                name: importlib.metadata.version(name)
                for name in ("tipl", "numpy", "mujoco", "gymnasium")
            },
        )


def collect(
    env_id: str,
    *,
    out: str | Path | None = None,
    threads: int | None = None,
    progress: bool = True,
    config: CollectConfig | None = None,
    **options: Any,
) -> PathDataset:
    """Runs independent PPO trials and stores the path of each policy's weights.

    What is already in the directory is kept: a complete dataset of the same configuration is
    opened, an interrupted one goes on where it was and ends in the same bytes as an undisturbed
    one.

    Args:
        env_id: a Gymnasium id, such as `"InvertedPendulum-v4"`.
        out: the dataset's directory; by default a name under `runs/paths/` that tells the task,
            trials, steps and seed.
        threads: groups of trials that run at once; by default one for each processor.
        progress: show a progress bar.
        config: what to collect, as an alternative to `options`.
        **options: fields of `CollectConfig`, such as `num_trials=128` or `total_steps=61_440`.

    Raises:
        TiplError: the environment is unknown or unsupported, an option is impossible, or the
            directory holds something else. Nothing has been written then.
    """
    available = thread_count(threads)
    config = config_from_options(CollectConfig, config, options, "collect")
    metadata = config.metadata(env_id)
    directory = Path(out) if out is not None else default_directory(env_id, config)
    create_dataset(directory, metadata)
    unfinished = _unfinished_groups(directory, metadata)
    if unfinished:
        count = min(available, len(unfinished))
        steps = config.ppo.num_steps * metadata.num_trials * (config.num_iterations + 1)
        with CollectionProgress(metadata.num_trials, steps, progress) as bar:
            groups = [_Group(directory, env_id, config, metadata, parts, bar)
                      for parts in unfinished]  # fmt: skip
            done = metadata.num_trials - sum(len(group.trials) for group in groups)
            bar.advance(done * config.ppo.num_steps * (config.num_iterations + 1), fresh=False)
            _run_groups(groups, count, directory)
    shutil.rmtree(directory / "resume", ignore_errors=True)
    return PathDataset.open(directory)


def default_directory(env_id: str, config: CollectConfig) -> Path:
    """Where `collect` puts a dataset that was given no directory."""
    name = f"{env_id}-{config.num_trials}x{config.total_steps}-seed{config.seed}"
    return Path("runs") / "paths" / name.replace("/", "-")


def _unfinished_groups(directory: Path, metadata: PathMetadata) -> list[list[PartRange]]:
    """The parts of each group of trials of which at least one is missing."""
    present = set(parts_present(directory, metadata))
    groups: dict[int, list[PartRange]] = {}
    for part in part_ranges(metadata):
        groups.setdefault(part.first_trial, []).append(part)
    return [parts for parts in groups.values() if not present.issuperset(parts)]


def _run_groups(groups: list[_Group], threads: int, directory: Path) -> None:
    """Runs groups in threads; an interruption or an error stops all of them soon."""
    # Each thread computes alone: BLAS threads of one group would fight with the other group's.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(group.run) for group in groups]
        try:
            for future in futures:
                future.result()
        except BaseException as error:
            for group in groups:
                group.stop.set()
            pool.shutdown(cancel_futures=True)
            if isinstance(error, KeyboardInterrupt):
                raise TiplError(
                    f"interrupted; finished checkpoints are safe in {directory}: run the same "
                    "command again to go on"
                ) from error
            raise


class _Group:
    """One batched loop over a part of the trials, committed part by part."""

    def __init__(
        self,
        directory: Path,
        env_id: str,
        config: CollectConfig,
        metadata: PathMetadata,
        parts: list[PartRange],
        progress: CollectionProgress,
    ) -> None:
        self.directory, self.env_id, self.config = directory, env_id, config
        self.metadata, self.parts, self.progress = metadata, parts, progress
        self.trials = list(range(parts[0].first_trial, parts[0].last_trial + 1))
        self.resume_file = directory / "resume" / f"trials-{self.trials[0]:05d}.safetensors"
        self.stop = threading.Event()

    def run(self) -> None:
        """Runs the trials from where they were to their end."""
        envs = make_vec(self.env_id, len(self.trials))
        ppo = PPO(
            envs,
            self.metadata.task,
            self.trials,
            self.config.num_iterations,
            self.config.ppo,
            self.config.hidden_sizes,
            self.config.normaliser,
            self.config.initial,
            self.config.seed,
        )
        for part in self._remaining_parts(ppo):
            tensors = self._collect_part(ppo, part)
            if tensors is None:
                break
            write_part(
                self.directory, self.metadata, part.first_trial, part.first_checkpoint, tensors
            )
            self._save_state(ppo)
        else:
            self.resume_file.unlink(missing_ok=True)
        envs.close()

    def _remaining_parts(self, ppo: PPO) -> list[PartRange]:
        """The parts still to make, after taking the trials to where the first of them starts."""
        if not self.resume_file.exists():
            return self.parts
        try:
            state, header = storage.read_tensors(self.resume_file)
        except TiplError:
            return self.parts  # damaged: the same trials, from their start
        if header.get("dataset") != self.metadata.digest:
            return self.parts
        first = int(state["ppo.iteration"]) // self.config.checkpoint_interval
        earlier = [part for part in self.parts if part.first_checkpoint < first]
        if not all(part.path(self.directory).exists() for part in earlier):
            return self.parts  # one was removed since, such as a damaged one
        ppo.set_state(state)
        self._report(ppo.iteration, fresh=False)
        return self.parts[len(earlier) :]

    def _save_state(self, ppo: PPO) -> None:
        if not hasattr(ppo.envs, "state"):
            return  # an environment that cannot be saved: an interrupted group starts over
        self.resume_file.parent.mkdir(exist_ok=True)
        storage.write_tensors(self.resume_file, ppo.state(), {"dataset": self.metadata.digest})

    def _collect_part(self, ppo: PPO, part: PartRange) -> dict[str, Array] | None:
        """The arrays of one part; None if the collection is being stopped."""
        columns: list[dict[str, Array]] = []
        interval = self.config.checkpoint_interval
        last = min((part.last_checkpoint + 1) * interval - 1, self.config.num_iterations)
        while ppo.iteration <= last:
            checkpoint = self._checkpoint(ppo) if ppo.iteration % interval == 0 else None
            rollout = ppo.rollout()
            if checkpoint is not None:
                checkpoint["episodic_return"] = rollout.episodic_return.astype(np.float32)
                checkpoint["num_episodes"] = rollout.num_episodes
                columns.append(checkpoint)
            self._report(1, rollout.episodic_return)
            if ppo.iteration == self.config.num_iterations:
                break  # the last rollout only tells the return of the last weights
            ppo.update(rollout)
            if self.stop.is_set():
                return None
        return {
            name: np.stack(
                [column[name] for column in columns],
                axis=0 if name in ("global_step", "iteration") else 1,
            )
            for name in columns[0]
        }

    def _checkpoint(self, ppo: PPO) -> dict[str, Array]:
        """The trials' present weights and what is known of them before they act."""
        steps = ppo.iteration * self.config.ppo.num_steps
        checkpoint = {
            "params": ppo.params[:, : self.metadata.layout.size].astype(np.float32),
            "diverged": ppo.diverged.copy(),
            "global_step": np.array(steps, np.int64),
            "iteration": np.array(ppo.iteration, np.int64),
        }
        if self.config.normaliser == "running":
            mean, std = ppo.observation_statistics()
            checkpoint |= {"observation_mean": mean.copy(), "observation_std": std.copy()}
        return checkpoint

    def _report(
        self, iterations: int, episodic_return: Array | None = None, fresh: bool = True
    ) -> None:
        steps = iterations * self.config.ppo.num_steps * len(self.trials)
        self.progress.advance(steps, self.trials[0], episodic_return, fresh)
