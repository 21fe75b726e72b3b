"""Paths of policies in stable-baselines3, as datasets: of your own runs, or of whole trials."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from tipl.collection.collect import default_directory
from tipl.collection.config import CollectConfig
from tipl.core.arrays import Array
from tipl.core.progress import CollectionProgress
from tipl.errors import TiplError
from tipl.integrations import sb3_required
from tipl.integrations.pytorch.agent import TorchAgent
from tipl.integrations.pytorch.normaliser import RunNormaliser
from tipl.integrations.sb3.weights import check_actions, readable_agent, task_of
from tipl.paths import PathDataset, PathMetadata
from tipl.paths.metadata import CHECKPOINTS_PER_PART, library_versions
from tipl.paths.parts import create_dataset, part_ranges, parts_present, write_part
from tipl.policies.actions import refolded
from tipl.policies.tasks import TaskSpec

with sb3_required("tipl.integrations.sb3.recorder"):
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.monitor import Monitor
    from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
    from stable_baselines3.common.vec_env import DummyVecEnv


HYPERPARAMETERS = {
    "n_steps": "num_steps",
    "n_epochs": "update_epochs",
    "gamma": "gamma",
    "gae_lambda": "gae_lambda",
    "normalize_advantage": "norm_adv",
    "ent_coef": "ent_coef",
    "vf_coef": "vf_coef",
    "max_grad_norm": "max_grad_norm",
    "batch_size": "batch_size",
    "n_envs": "num_envs",
}
"""What is written of a run's hyperparameters, and what tipl calls them."""


class PathRecorder(BaseCallback):
    """Records the path of a run's policy as one trial of a `PathDataset`.

    Checkpoint 0 is the untrained network; another one follows every few rollouts, with the mean
    return of the episodes that ended in the rollout after it. Several runs of the same settings are
    the trials of one dataset: give each its number; they may run in any order, and in several
    processes.

    Where `VecNormalize` normalises observations, its statistics are stored with each checkpoint;
    otherwise weights are stored as they would be under the task's frozen normaliser.

    Args:
        directory: of the dataset.
        every: rollouts between two checkpoints.
        trial: number of this run.
        num_trials: runs that the dataset shall hold.

    Raises:
        TiplError: a number is out of range. When training starts: the policy is no multi-layer
            perceptron of tanh units, its environment is not known, the run goes on from an earlier
            one, or the directory holds another dataset.
    """

    def __init__(
        self, directory: str | Path, *, every: int = 1, trial: int = 0, num_trials: int = 1
    ) -> None:
        super().__init__()
        if every < 1 or not 0 <= trial < num_trials:
            raise TiplError(
                f"every is {every} and trial {trial} of {num_trials}; expected every 1 or more "
                "rollouts, and trials from 0 to one less than there are"
            )
        self.directory, self.every = Path(directory), every
        self.trial, self.num_trials = trial, num_trials
        self._forget()

    def _forget(self) -> None:
        """Makes what is known of a run what is known before its start."""
        self.rollouts, self.finished, self.acting = 0, 0, False
        self.growing: list[dict[str, Array]] = []
        self.returns: list[float] = []  # of the episodes that ended in this rollout

    def _on_training_start(self) -> None:
        if not isinstance(self.model, OnPolicyAlgorithm):
            raise TiplError(
                f"a PathRecorder was given to {type(self.model).__name__}; expected an algorithm "
                "that learns from rollouts, such as stable_baselines3.PPO"
            )
        if self.model.num_timesteps:
            raise TiplError(
                f"the run has done {self.model.num_timesteps:,} steps already, and a path begins "
                "with an untrained network; record runs from their start"
            )
        self._begin(self.model, self.locals["total_timesteps"])

    def _begin(self, model: OnPolicyAlgorithm, total_timesteps: int) -> None:
        """Makes the dataset, or makes sure that the one that is there has the same settings."""
        self._forget()
        self.agent: TorchAgent = readable_agent(model)
        self.task: TaskSpec = task_of(model)
        check_actions(model, self.task)
        self.normaliser = RunNormaliser(model.get_env(), self.task.observation_size)
        self.metadata = self._metadata(model, total_timesteps)
        create_dataset(self.directory, self.metadata)

    def _metadata(self, model: OnPolicyAlgorithm, total_timesteps: int) -> PathMetadata:
        layout = self.agent.known_layout
        rollout_steps = model.n_steps * model.n_envs
        iterations = -(-total_timesteps // rollout_steps)
        return PathMetadata(
            task=self.task,
            layout=layout,
            hidden_sizes=layout.hidden_sizes,
            networks="actor",
            initial="independent",
            normaliser="frozen" if self.normaliser.moments is None else "running",
            num_trials=self.num_trials,
            num_checkpoints=iterations // self.every + 1,
            trials_per_part=1,
            checkpoints_per_part=CHECKPOINTS_PER_PART,
            checkpoint_interval=self.every,
            steps_per_checkpoint=self.every * rollout_steps,
            seed=0,
            ppo=_hyperparameters(model),
            versions=library_versions()
            | {"stable-baselines3": importlib.metadata.version("stable-baselines3")},
        )

    def _on_rollout_start(self) -> None:
        self._finish_checkpoint()
        if self.rollouts % self.every == 0:
            self.growing.append(self._checkpoint())
        self.returns, self.acting = [], True

    def _on_step(self) -> bool:
        self.returns += [float(i["episode"]["r"]) for i in self.locals["infos"] if "episode" in i]
        return True

    def _on_rollout_end(self) -> None:
        if self.rollouts % self.every == 0 and self.growing:
            known = bool(self.returns)
            self.growing[-1]["episodic_return"] = np.array(
                np.mean(self.returns) if known else np.nan, np.float32
            )
            self.growing[-1]["num_episodes"] = np.array(len(self.returns), np.int32)
        self.rollouts, self.acting = self.rollouts + 1, False

    def _on_training_end(self) -> None:
        if self.acting:
            return  # another callback stopped the run: these weights have not learned since
        self._finish_checkpoint()
        if self.rollouts % self.every == 0:
            self.growing.append(self._checkpoint())
            self._finish_checkpoint()

    def _checkpoint(self) -> dict[str, Array]:
        """The policy at present, and that nothing is known of its returns yet."""
        params = self.agent.params()
        checkpoint: dict[str, Array] = {
            "diverged": np.array(not np.isfinite(params).all()),
            "iteration": np.array(self.rollouts, np.int64),
            "global_step": np.array(
                self.rollouts // self.every * self.metadata.steps_per_checkpoint, np.int64
            ),
            "episodic_return": np.array(np.nan, np.float32),
            "num_episodes": np.array(0, np.int32),
        }
        if self.normaliser.moments is None:
            frozen = (np.array(self.task.observation_mean), np.array(self.task.observation_std))
            params = refolded(params, self.agent.known_layout, self.normaliser.statistics, frozen)
        else:
            mean, std = self.normaliser.statistics
            checkpoint |= {"observation_mean": mean.copy(), "observation_std": std.copy()}
        return {"params": params, **checkpoint}

    def _finish_checkpoint(self) -> None:
        """Writes the part that ends with the last checkpoint, if one does."""
        first = self.finished - self.finished % CHECKPOINTS_PER_PART
        if len(self.growing) == self.finished - first:
            return  # none was begun since
        self.finished += 1
        for part in part_ranges(self.metadata):
            if (part.first_trial, part.last_checkpoint) == (self.trial, self.finished - 1):
                tensors = {
                    name: np.stack([checkpoint[name] for checkpoint in self.growing])
                    for name in self.growing[0]
                }
                for name in set(tensors) - {"global_step", "iteration"}:
                    tensors[name] = tensors[name][None]  # [t, ...] -> [1, t, ...]
                write_part(
                    self.directory, self.metadata, self.trial, part.first_checkpoint, tensors
                )
                self.growing.clear()


def _hyperparameters(model: OnPolicyAlgorithm) -> dict[str, Any]:
    """A run's hyperparameters; of what follows a schedule the value at its start."""
    found = {theirs: getattr(model, theirs, None) for theirs in HYPERPARAMETERS}
    known: dict[str, Any] = {
        HYPERPARAMETERS[name]: value
        for name, value in found.items()
        if isinstance(value, (int, float))
    }
    known["learning_rate"] = float(model.lr_schedule(1.0))
    known["anneal_lr"] = float(model.lr_schedule(0.0)) == 0.0
    if isinstance(model.policy.optimizer, torch.optim.Adam):
        known["adam_eps"] = float(model.policy.optimizer.defaults["eps"])
    clip_range: Any = getattr(model, "clip_range", None)  # of PPO, a schedule as well
    if callable(clip_range):
        known["clip_coef"] = float(clip_range(1.0))
        known["clip_vloss"] = getattr(model, "clip_range_vf", None) is not None
    return known


# --- collecting trials -----------------------------------------------------------------------

OURS_ALONE = ("initial", "normaliser", "networks", "trials_per_group", "vary", "pptb", "jumps")
"""Options that stable-baselines3's PPO knows nothing of."""


def collect_with_sb3(
    env_id: str, config: CollectConfig, out: str | Path | None = None, progress: bool = True
) -> PathDataset:
    """Runs trials of stable-baselines3's PPO and stores the path of each policy's weights.

    Trials that are complete are left as they are; others run from their start.

    Args:
        env_id: a Gymnasium id.
        config: what to collect. The learning rate is annealed, and values and ratios are clipped,
            as it says; rewards and observations are not normalised, but the stored weights are
            those under the task's frozen observation normaliser.
        out: the dataset's directory; by default as `tipl.collect` names it, with `-sb3`.
        progress: show a progress bar.

    Raises:
        TiplError: the environment is unknown, an option is impossible here, or the directory
            holds another dataset.
    """
    _check_options(config)
    directory = Path(f"{default_directory(env_id, config)}-sb3") if out is None else Path(out)
    steps = config.num_iterations * config.ppo.num_steps
    with CollectionProgress(config.num_trials, steps * config.num_trials, progress) as bar:
        for trial in range(config.num_trials):
            recorder = _TrialRecorder(directory, config, trial, bar.advance)
            model = _untrained(env_id, config, trial)
            recorder._begin(model, steps)
            if recorder.is_complete():
                bar.advance(steps, trial, fresh=False)
            else:
                model.learn(steps, callback=recorder)
            envs = model.get_env()
            if envs is not None:
                envs.close()
    return PathDataset.open(directory)


class _TrialRecorder(PathRecorder):
    """Tells a progress bar of each rollout, and the dataset of the collection's seed."""

    def __init__(
        self, directory: Path, config: CollectConfig, trial: int, report: Callable[..., None]
    ) -> None:
        super().__init__(
            directory,
            every=config.checkpoint_interval,
            trial=trial,
            num_trials=config.num_trials,
        )
        self.seed, self.report = config.seed, report

    def is_complete(self) -> bool:
        """Whether all of the trial's parts are there."""
        present = parts_present(self.directory, self.metadata)
        own = sum(part.num_checkpoints for part in present if part.first_trial == self.trial)
        return own == self.metadata.num_checkpoints

    def _metadata(self, model: OnPolicyAlgorithm, total_timesteps: int) -> PathMetadata:
        return dataclasses.replace(super()._metadata(model, total_timesteps), seed=self.seed)

    def _on_rollout_end(self) -> None:
        super()._on_rollout_end()
        returns = np.array([np.mean(self.returns)]) if self.returns else None
        self.report(self.metadata.steps_per_checkpoint // self.every, self.trial, returns)


def _check_options(config: CollectConfig) -> None:
    """Raises a TiplError unless stable-baselines3 can do what the configuration says."""
    defaults = CollectConfig()
    changed = [n for n in OURS_ALONE if getattr(config, n) != getattr(defaults, n)]
    if config.ppo.reward_clip != defaults.ppo.reward_clip:
        changed.append("ppo.reward_clip")  # rewards are taken as they are
    if changed:
        raise TiplError(
            f"{', '.join(changed)} was given together with stable-baselines3, which has no such "
            "thing; leave it out, or collect with tipl's own PPO"
        )


def _untrained(env_id: str, config: CollectConfig, trial: int) -> PPO:
    """An untrained model with a trial's own seed."""
    ppo = config.ppo

    def learning_rate(left: float | int) -> float:
        return ppo.learning_rate * (left if ppo.anneal_lr else 1.0)

    def environment() -> gym.Env[Any, Any]:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*is out of date", DeprecationWarning)
            return Monitor(gym.make(env_id))

    seed = int(np.random.SeedSequence((config.seed, trial)).generate_state(1)[0])
    return PPO(
        "MlpPolicy",
        DummyVecEnv([environment]),
        n_steps=ppo.num_steps,
        batch_size=ppo.num_steps // ppo.num_minibatches,
        n_epochs=ppo.update_epochs,
        learning_rate=learning_rate,
        gamma=ppo.gamma,
        gae_lambda=ppo.gae_lambda,
        clip_range=ppo.clip_coef,
        clip_range_vf=ppo.clip_coef if ppo.clip_vloss else None,
        normalize_advantage=ppo.norm_adv,
        ent_coef=ppo.ent_coef,
        vf_coef=ppo.vf_coef,
        max_grad_norm=ppo.max_grad_norm,
        policy_kwargs={
            "net_arch": list(config.hidden_sizes),
            "activation_fn": torch.nn.Tanh,
            "optimizer_kwargs": {"eps": ppo.adam_eps},
        },
        seed=seed % 2**31,
        device="cpu",
    )
