"""Collecting paths with stable-baselines3's PPO instead of tipl's, one trial after the other."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from tipl.collection.collect import default_directory
from tipl.collection.config import CollectConfig
from tipl.core.progress import CollectionProgress
from tipl.errors import TiplError
from tipl.integrations import sb3_required
from tipl.integrations.sb3.recorder import PathRecorder
from tipl.paths import PathDataset, PathMetadata
from tipl.paths.parts import parts_present

with sb3_required("tipl collect --from-sb3"):
    from stable_baselines3 import PPO
    from stable_baselines3.common.monitor import Monitor
    from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
    from stable_baselines3.common.vec_env import DummyVecEnv

__all__ = ["collect_with_sb3"]

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
    _check(config)
    directory = Path(f"{default_directory(env_id, config)}-sb3") if out is None else Path(out)
    steps = config.num_iterations * config.ppo.num_steps
    with CollectionProgress(config.num_trials, steps * config.num_trials, progress) as bar:
        for trial in range(config.num_trials):
            recorder = _Recorder(directory, config, trial, bar.advance)
            model = _model(env_id, config, trial)
            recorder._begin(model, steps)
            if recorder.is_complete():
                bar.advance(steps, trial, fresh=False)
            else:
                model.learn(steps, callback=recorder)
            envs = model.get_env()
            if envs is not None:
                envs.close()
    return PathDataset.open(directory)


class _Recorder(PathRecorder):
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


def _check(config: CollectConfig) -> None:
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


def _model(env_id: str, config: CollectConfig, trial: int) -> PPO:
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
