"""The path of a stable-baselines3 run's policy, recorded as one trial of a dataset."""

from __future__ import annotations

import functools
import importlib.metadata
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.type_aliases import TrainFrequencyUnit

from tipl.core.arrays import Array
from tipl.core.options import at_least
from tipl.errors import TiplError
from tipl.integrations.sb3.weights import read_run
from tipl.integrations.standing_aside import Guard, guarded, watched
from tipl.paths import PathMetadata, create_dataset
from tipl.paths.metadata import CHECKPOINTS_PER_PART, library_versions
from tipl.paths.parts import PartFiles
from tipl.paths.values import PER_CHECKPOINT
from tipl.paths.writing import Checkpoint, PlannedTrial, TrialWriter

HYPERPARAMETERS = {
    "n_steps": "num_steps",
    "n_epochs": "update_epochs",
    "gamma": "gamma",
    "gae_lambda": "gae_lambda",
    "normalize_advantage": "norm_adv",
    "ent_coef": "ent_coef",
    "vf_coef": "vf_coef",
    "max_grad_norm": "max_grad_norm",
}
"""Hyperparameters of stable-baselines3's PPO, and what tipl calls them."""

OTHERS = ("buffer_size", "learning_starts", "tau", "gradient_steps", "policy_delay")
"""Hyperparameters of algorithms that learn from a replay buffer."""

EVERY_STEPS = 2048
"""Environment steps between two checkpoints of those, unless somebody says otherwise."""


class PathRecorder(BaseCallback):
    """Records the path of a run's policy as one trial of a `PathDataset`.

    Checkpoints are what acts at the start of a rollout, every few rollouts or environment steps,
    and what has been learned in the end; checkpoint 0 is the untrained network. Each is on disk
    from its first step on, whatever ends the run. With it go the steps of the run so far, tests of
    forecasts included, and the mean return of the episodes that ended in its rollout; for an
    algorithm without rollouts of a fixed length (SAC, TD3, ...), of those until the next
    checkpoint.

    Runs of the same settings are trials of one dataset, of whatever lengths and from whatever
    processes. One that goes on (`reset_num_timesteps=False`), with this recorder or another one,
    goes on with its trial. A trial that is there is never written over.

    Where `VecNormalize` normalises observations, its statistics are stored with each checkpoint;
    otherwise weights are stored as they would be under the task's frozen normaliser.

    Args:
        directory: of the dataset; made if it is not there.
        every: rollouts between two checkpoints; by default 1, of algorithms that learn from
            rollouts.
        every_steps: environment steps between them instead, up to the start of a rollout; by
            default 2,048, of the other algorithms.
        trial: number of this run; by default that of the trial that it goes on with, or the next
            free one.
        num_trials: is not needed any more; that `trial` has to be below it is all it says.
        strict: raise what goes wrong; otherwise it is said in one sentence, and the run goes on,
            recorded no further.

    Raises:
        TiplError: a number is out of range. If `strict`, when training starts: the policy is none
            that tipl reads, its environment is not known, the run goes on from where no trial ends,
            or the directory holds another dataset or this trial.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        every: int | None = None,
        every_steps: int | None = None,
        trial: int | None = None,
        num_trials: int | None = None,
        strict: bool = False,
    ) -> None:
        super().__init__()
        at_least(1, every=every, every_steps=every_steps, num_trials=num_trials)
        at_least(0, trial=trial)
        if every is not None and every_steps is not None:
            raise TiplError(f"every={every} and every_steps={every_steps} were given; give one")
        if trial is not None and num_trials is not None and trial >= num_trials:
            raise TiplError(
                f"the run is trial {trial} of {num_trials}; expected a number from 0 to "
                f"{num_trials - 1}, or no num_trials, which is not needed"
            )
        self.directory, self.every, self.every_steps = Path(directory), every, every_steps
        self.guard = Guard(strict, functools.partial(getattr, self, "logger"))
        self._given = trial
        self._writer: TrialWriter | PlannedTrial | None = None
        self._on_policy = True
        self._iteration = 0  # rollouts of the run so far
        self._acting = self._first = False  # in a rollout; and it has had no step yet
        self._seen: tuple[Array, ...] = ()  # the policy at its start, where that is a checkpoint
        self._listening = False  # whether the episodes that end are the last checkpoint's
        self._episodes: list[float] = []  # the returns of those

    @property
    def trial(self) -> int | None:
        """Number of the run's trial; None until it is given, or the first checkpoint is there."""
        return self._given if self._writer is None else self._writer.trial

    def _init_callback(self) -> None:
        self.guard.reason = None  # what could not be recorded before may be now

    @guarded
    def _on_training_start(self) -> None:
        before, self._writer = self.trial, None
        metadata = self._prepare()
        self._acting = self._listening = False
        self._iteration, self._episodes = 0, []
        if self.model.num_timesteps:
            self._writer = self._go_on(metadata, before)
        else:
            self._writer = self._new_trial(metadata)

    @watched
    def _on_rollout_start(self) -> None:
        self._acting = self._first = True
        self._seen = ()
        if self._due(self.model.num_timesteps):
            self._see()

    def _on_step(self) -> bool:
        self._see_step()
        return True

    @watched
    def _see_step(self) -> None:
        """Records what acts at a rollout's first step, and the returns of episodes that ended."""
        if self._first:
            self._first = False
            self._begin_rollout()
        if self._listening:
            infos = self.locals["infos"]
            self._episodes += [float(info["episode"]["r"]) for info in infos if "episode" in info]

    @watched
    def _on_rollout_end(self) -> None:
        if self._on_policy:  # what acts next is another policy
            self._tell_returns()
            self._listening = False
        self._iteration, self._acting = self._iteration + 1, False

    @guarded
    def _on_training_end(self) -> None:
        if self._writer is None:
            return
        self._tell_returns()
        stopped = self._acting and self._on_policy  # nothing was learned of this rollout
        if not stopped and self._due(self.model.num_timesteps):
            self._append(self.model.num_timesteps, self._policy())
        self._writer.sync()

    # --- checkpoints -------------------------------------------------------------------------

    @guarded
    def _see(self) -> None:
        self._seen = self._policy()

    def _begin_rollout(self) -> None:
        """Records what acts in a rollout, if it is time, once its first step tells what that is.

        At its start, callbacks after this one may have jumped, and their tests taken steps.
        """
        steps = self.model.num_timesteps - self.model.n_envs
        if self._due(steps):
            self._record(steps)
        elif self._on_policy:
            self._listen_on()
        else:
            self._listening = True

    @guarded
    def _record(self, steps: int) -> None:
        """Records what acts, after some steps of the run."""
        policy = self._policy()
        if self._seen and np.array_equal(policy[0], self._seen[0], equal_nan=True):
            policy = self._seen  # with the statistics of before the first step
        self._tell_returns()
        self._append(steps, policy)
        self._listening = True

    def _due(self, steps: int) -> bool:
        """Whether it is time for a checkpoint, after some steps of the run."""
        if self._writer is None or self._writer.last is None:
            return self._writer is not None
        last = {name: int(self._writer.last[name]) for name in PER_CHECKPOINT}
        rollouts = self._iteration - last["iteration"]
        if self._every_steps is None:
            return rollouts >= self._every
        return (
            rollouts > 0 and steps // self._every_steps > last["global_step"] // self._every_steps
        )

    @guarded
    def _listen_on(self) -> None:
        """Goes on with the last checkpoint's episodes, if a run that goes on acts by it still."""
        last = None if self._writer is None else self._writer.last
        if last is not None and int(last["iteration"]) == self._iteration:
            params = self._policy()[0]
            self._listening = np.array_equal(params, last["params"][0], equal_nan=True)

    def _policy(self) -> tuple[Array, ...]:
        """Present weights, and the mean and std of observations if the run normalises them."""
        if self._run.normaliser.moments is None:
            return (self._run.params(),)
        return (self._run.agent.params(), *(a.copy() for a in self._run.normaliser.statistics))

    def _append(self, steps: int, policy: tuple[Array, ...]) -> None:
        """Records a policy, of whose returns nothing is known yet."""
        names = ("params", "observation_mean", "observation_std")
        checkpoint: Checkpoint = {
            **{name: array[None] for name, array in zip(names, policy, strict=False)},
            "diverged": np.array([not np.isfinite(policy[0]).all()]),
            "iteration": np.array(self._iteration, np.int64),
            "global_step": np.array(steps, np.int64),
            "episodic_return": np.full(1, np.nan, np.float32),
            "num_episodes": np.zeros(1, np.int32),
        }
        self._episodes = []
        if self._writer is not None:
            self._writer.append(checkpoint)

    @guarded
    def _tell_returns(self) -> None:
        """Records what the last checkpoint's episodes have returned, if any has ended."""
        if self._writer is not None and self._listening and self._episodes:
            mean = np.array([np.mean(self._episodes)], np.float32)
            count = np.array([len(self._episodes)], np.int32)
            self._writer.amend({"episodic_return": mean, "num_episodes": count})

    # --- the trial ---------------------------------------------------------------------------

    def _prepare(self) -> PathMetadata:
        """Reads the run, and makes its dataset or makes sure that the one there is like it."""
        self._on_policy = isinstance(self.model, OnPolicyAlgorithm)
        self._run = read_run(self.model)
        metadata = self._described()
        create_dataset(self.directory, metadata)
        return metadata

    def _new_trial(self, metadata: PathMetadata) -> TrialWriter | PlannedTrial:
        """Where a run that begins is written to."""
        return TrialWriter(self.directory, metadata, self._given)

    def _go_on(self, metadata: PathMetadata, number: int | None) -> TrialWriter:
        """The trial that a run goes on with, as it was left.

        That is the one that ends with the run's weights. One that was given or that this recorder
        has recorded may also end a little earlier: what was learned since its last checkpoint, it
        cannot tell.
        """
        steps, params = self.model.num_timesteps, self._policy()[0]
        there = list(PartFiles(self.directory, metadata).lengths)
        for trial in there if self._given is None else {self._given} & {*there}:
            writer = TrialWriter.resume(self.directory, metadata, trial)
            last = writer.last or {}
            since = steps - int(last["global_step"])
            same = np.array_equal(params, last["params"][0], equal_nan=True)
            little = trial == number and 0 < since <= metadata.steps_per_checkpoint
            if (same and since >= 0) or little:
                rollouts = since // _rollout_steps(self.model, metadata.steps_per_checkpoint)
                self._iteration = int(last["iteration"]) + rollouts
                count = int(last["num_episodes"][0])
                self._episodes = [float(last["episodic_return"][0])] * count
                return writer
        which = "no trial" if number is None else f"its trial {number}, if there is one, does not"
        ends = f"{which} of {self.directory} ends" if number is None else f"{which} end"
        raise TiplError(
            f"the run has done {steps:,} steps already, and {ends} there with these weights; "
            "record runs from their start, or go on with the model that a recording ended with"
        )

    def _described(self) -> PathMetadata:
        """What the runs of the dataset have in common."""
        model, run = self.model, self._run
        self._every, self._every_steps = self.every or 1, self.every_steps
        if not self._on_policy and self.every is None:
            self._every_steps = self.every_steps or EVERY_STEPS
        rollout = _rollout_steps(model, self._every_steps)
        steps = self._every_steps or self._every * rollout
        normalises = run.normaliser.moments is not None
        ours = {"stable-baselines3": importlib.metadata.version("stable-baselines3")}
        return PathMetadata(
            task=run.task,
            layout=run.layout,
            hidden_sizes=run.layout.hidden_sizes,
            networks="actor",
            initial="independent",
            normaliser="running" if normalises else "frozen",
            **self._planned(),
            trials_per_part=1,
            checkpoints_per_part=CHECKPOINTS_PER_PART,
            checkpoint_interval=max(1, -(-steps // rollout)),
            steps_per_checkpoint=steps,
            ppo=_hyperparameters(model),
            algorithm=type(model).__name__,
            observation_clip=run.normaliser.clip if normalises else math.inf,
            versions=library_versions() | ours,
        )

    def _planned(self) -> dict[str, Any]:
        """What is known of the trials before they are run."""
        return {"num_trials": None, "num_checkpoints": None, "seed": 0}


def _rollout_steps(model: BaseAlgorithm, otherwise: int | None) -> int:
    """Environment steps of a rollout, of all environments; if rollouts are episodes, `otherwise`.

    Raises:
        TiplError: they are, and nothing was given otherwise.
    """
    if isinstance(model, OnPolicyAlgorithm):
        return model.n_steps * model.n_envs
    frequency: Any = getattr(model, "train_freq", None)
    if getattr(frequency, "unit", None) is TrainFrequencyUnit.STEP:
        return int(frequency.frequency) * model.n_envs
    if otherwise is None:
        raise TiplError("the run's rollouts are of no fixed length; give every_steps, not every")
    return otherwise


def _hyperparameters(model: BaseAlgorithm) -> dict[str, Any]:
    """A run's hyperparameters; of what follows a schedule the value at its start."""
    names = HYPERPARAMETERS | {"batch_size": "batch_size", "n_envs": "num_envs"}
    names |= {name: name for name in OTHERS}
    found = {ours: getattr(model, theirs, None) for theirs, ours in names.items()}
    known: dict[str, Any] = {n: v for n, v in found.items() if isinstance(v, (int, float))}
    known["learning_rate"] = float(model.lr_schedule(1.0))
    known["anneal_lr"] = float(model.lr_schedule(0.0)) == 0.0
    optimizer = getattr(model.policy, "optimizer", None)
    if isinstance(optimizer, torch.optim.Adam):
        known["adam_eps"] = float(optimizer.defaults["eps"])
    clip_range: Any = getattr(model, "clip_range", None)  # of PPO, a schedule as well
    if callable(clip_range):
        known["clip_coef"] = float(clip_range(1.0))
        known["clip_vloss"] = getattr(model, "clip_range_vf", None) is not None
    return known
