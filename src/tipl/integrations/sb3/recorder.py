"""Paths of policies in stable-baselines3, as datasets: of your own runs, or of whole trials."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv

from tipl.collection.collect import default_directory
from tipl.collection.config import CollectConfig
from tipl.collection.groups import PartWriter
from tipl.core.arrays import Array
from tipl.core.progress import CollectionProgress
from tipl.errors import TiplError
from tipl.integrations.environment.members import make_quietly
from tipl.integrations.sb3.callback import on_policy
from tipl.integrations.sb3.weights import PolicyRun, read_run
from tipl.paths import PathDataset, PathMetadata
from tipl.paths.metadata import CHECKPOINTS_PER_PART, library_versions
from tipl.paths.parts import create_dataset, part_ranges, parts_present

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


class PathRecorder(BaseCallback):
    """Records the path of a run's policy as one trial of a `PathDataset`.

    Checkpoint 0 is the untrained network; another one follows every few rollouts, with the mean
    return of the episodes that ended in the rollout after it. Several runs of the same settings are
    the trials of one dataset: give each its number; they may run in any order, and in several
    processes.

    Where `VecNormalize` normalises observations, its statistics are stored with each checkpoint;
    otherwise weights are stored as they would be under the task's frozen normaliser.

    Args:
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
        self._seed = 0  # of a collection that the run belongs to
        self._report: Callable[..., None] = lambda *args: None  # is told of each rollout

    def _on_training_start(self) -> None:
        model = on_policy(self)
        if model.num_timesteps:
            raise TiplError(
                f"the run has done {model.num_timesteps:,} steps already, and a path begins "
                "with an untrained network; record runs from their start"
            )
        self._begin(model, self.locals["total_timesteps"])

    def _begin(self, model: OnPolicyAlgorithm, total_timesteps: int) -> None:
        """Makes the dataset, or makes sure that the one that is there has the same settings."""
        self.run: PolicyRun = read_run(model)
        rollout_steps = model.n_steps * model.n_envs
        iterations = -(-total_timesteps // rollout_steps)
        ours = {"stable-baselines3": importlib.metadata.version("stable-baselines3")}
        self.metadata = PathMetadata(
            task=self.run.task,
            layout=self.run.layout,
            hidden_sizes=self.run.layout.hidden_sizes,
            networks="actor",
            initial="independent",
            normaliser="frozen" if self.run.normaliser.moments is None else "running",
            num_trials=self.num_trials,
            num_checkpoints=iterations // self.every + 1,
            trials_per_part=1,
            checkpoints_per_part=CHECKPOINTS_PER_PART,
            checkpoint_interval=self.every,
            steps_per_checkpoint=self.every * rollout_steps,
            seed=self._seed,
            ppo=_hyperparameters(model),
            versions=library_versions() | ours,
        )
        create_dataset(self.directory, self.metadata)
        parts = [part for part in part_ranges(self.metadata) if part.first_trial == self.trial]
        self.writer = PartWriter(self.directory, self.metadata, parts)
        self.rollouts, self.acting = 0, False
        self.returns: list[float] = []  # of the episodes that ended in this rollout

    def _on_rollout_start(self) -> None:
        if self.rollouts % self.every == 0:
            self.checkpoint = self._checkpoint()
        self.returns, self.acting = [], True

    def _on_step(self) -> bool:
        self.returns += [float(i["episode"]["r"]) for i in self.locals["infos"] if "episode" in i]
        return True

    def _on_rollout_end(self) -> None:
        mean = np.array([np.mean(self.returns or np.nan)])
        if self.rollouts % self.every == 0:
            self.checkpoint["episodic_return"] = mean.astype(np.float32)
            self.checkpoint["num_episodes"] = np.array([len(self.returns)], np.int32)
            self.writer.add(self.checkpoint)
        self.rollouts, self.acting = self.rollouts + 1, False
        steps = self.metadata.steps_per_checkpoint // self.every
        self._report(steps, self.trial, mean if self.returns else None)

    def _on_training_end(self) -> None:
        if self.acting:
            return  # another callback stopped the run: these weights have not learned since
        if self.rollouts % self.every == 0:
            self.writer.add(self._checkpoint())

    def _checkpoint(self) -> dict[str, Array]:
        """The policy at present, and that nothing is known of its returns yet."""
        steps = self.metadata.steps_per_checkpoint
        if self.run.normaliser.moments is None:
            params, normaliser = self.run.params(), {}
        else:
            params = self.run.agent.params()
            mean, std = (array[None].copy() for array in self.run.normaliser.statistics)
            normaliser = {"observation_mean": mean, "observation_std": std}
        return {
            "params": params[None],
            "diverged": np.array([not np.isfinite(params).all()]),
            "iteration": np.array(self.rollouts, np.int64),
            "global_step": np.array(self.rollouts // self.every * steps, np.int64),
            "episodic_return": np.full(1, np.nan, np.float32),
            "num_episodes": np.zeros(1, np.int32),
            **normaliser,
        }


def _hyperparameters(model: OnPolicyAlgorithm) -> dict[str, Any]:
    """A run's hyperparameters; of what follows a schedule the value at its start."""
    names = HYPERPARAMETERS | {"batch_size": "batch_size", "n_envs": "num_envs"}
    found = {ours: getattr(model, theirs, None) for theirs, ours in names.items()}
    known: dict[str, Any] = {n: v for n, v in found.items() if isinstance(v, (int, float))}
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
            every, num_trials = config.checkpoint_interval, config.num_trials
            recorder = PathRecorder(directory, every=every, trial=trial, num_trials=num_trials)
            recorder._seed, recorder._report = config.seed, bar.advance
            model = _untrained(env_id, config, trial)
            recorder._begin(model, steps)
            present = parts_present(directory, recorder.metadata)
            if set(recorder.writer.parts) <= set(present):
                bar.advance(steps, trial, fresh=False)
            else:
                model.learn(steps, callback=recorder)
            envs = model.get_env()
            if envs is not None:
                envs.close()
    return PathDataset.open(directory)


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

    seed = int(np.random.SeedSequence((config.seed, trial)).generate_state(1)[0])
    return PPO(
        "MlpPolicy",
        DummyVecEnv([lambda: Monitor(make_quietly(env_id))]),
        **{theirs: getattr(ppo, ours) for theirs, ours in HYPERPARAMETERS.items()},
        batch_size=ppo.num_steps // ppo.num_minibatches,
        learning_rate=learning_rate,
        clip_range=ppo.clip_coef,
        clip_range_vf=ppo.clip_coef if ppo.clip_vloss else None,
        policy_kwargs={
            "net_arch": list(config.hidden_sizes),
            "activation_fn": torch.nn.Tanh,
            "optimizer_kwargs": {"eps": ppo.adam_eps},
        },
        seed=seed % 2**31,
        device="cpu",
    )
