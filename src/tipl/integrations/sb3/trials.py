"""Whole trials of stable-baselines3's PPO, collected as a dataset."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from tipl.collection.collect import default_directory
from tipl.collection.config import CollectConfig
from tipl.core.progress import CollectionProgress
from tipl.errors import TiplError
from tipl.integrations.environment.members import make_quietly
from tipl.integrations.sb3.recorder import HYPERPARAMETERS, PathRecorder
from tipl.paths import PathDataset, PathMetadata, part_ranges, parts_present
from tipl.paths.writing import PlannedTrial

OURS_ALONE = (
    *("initial", "normaliser", "networks", "trials_per_group", "vary", "worlds", "split"),
    *("trials_per_world", "redraw", "observe", "start", "pptb", "jumps"),
)
"""Options that stable-baselines3's PPO knows nothing of."""


class _PlannedRecorder(PathRecorder):
    """Records one of several trials whose length is known.

    Args:
        report: is told of each rollout, as `CollectionProgress.advance` is.
    """

    def __init__(
        self, directory: Path, config: CollectConfig, trial: int, report: Callable[..., None]
    ) -> None:
        super().__init__(directory, every=config.checkpoint_interval, trial=trial, strict=True)
        self.config, self.number, self.report = config, trial, report

    def is_complete(self, model: PPO) -> bool:
        """Whether a model's trial is there, in a dataset that has these settings.

        Raises:
            TiplError: it has others, or a part is damaged.
        """
        self.init_callback(model)
        metadata = self._prepare()
        present = set(parts_present(self.directory, metadata))
        return present >= {p for p in part_ranges(metadata) if p.first_trial == self.number}

    def _on_rollout_end(self) -> None:
        returns = np.mean(self._episodes, keepdims=True) if self._episodes else None
        super()._on_rollout_end()
        self.report(self.config.ppo.num_steps, self.number, returns)

    def _new_trial(self, metadata: PathMetadata) -> PlannedTrial:
        return PlannedTrial(self.directory, metadata, self.number)

    def _planned(self) -> dict[str, Any]:
        config = self.config
        return {
            "num_trials": config.trials,
            "num_checkpoints": config.num_iterations // config.checkpoint_interval + 1,
            "seed": config.seed,
        }


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
    with CollectionProgress(config.trials, steps * config.trials, progress) as bar:
        for trial in range(config.trials):
            recorder = _PlannedRecorder(directory, config, trial, bar.advance)
            model = _untrained(env_id, config, trial)
            if recorder.is_complete(model):
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
    of_ppo = ("reward_clip", "num_envs")  # rewards are taken as they are, of one environment
    changed += [f"ppo.{n}" for n in of_ppo if getattr(config.ppo, n) != getattr(defaults.ppo, n)]
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
            "net_arch": list(config.hidden),
            "activation_fn": torch.nn.Tanh,
            "optimizer_kwargs": {"eps": ppo.adam_eps},
        },
        seed=seed % 2**31,
        device="cpu",
    )
