"""What a collection is told: its trials, their networks and what is stored of them."""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated, Any

import numpy as np
from tyro.conf import UseAppendAction

from tipl.envs import make_task, make_vec
from tipl.envs.variation import parse_ranges
from tipl.errors import TiplError
from tipl.jumps.config import JumpConfig
from tipl.jumps.pptb import PPTBConfig
from tipl.paths import PathMetadata
from tipl.paths.metadata import Initial, Networks, Normaliser, library_versions
from tipl.policies.layout import ParamLayout, actor_layout, check_hidden_sizes
from tipl.policies.policy import Policy
from tipl.policies.tasks import TaskSpec
from tipl.ppo.config import PPOConfig

__all__ = ["CollectConfig"]

CHECKPOINTS_PER_PART = 8


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
    trials_per_group: int | None = None
    """trials in one batched loop, which one thread runs; by default at most 64, and half of all"""
    vary: Annotated[tuple[str, ...], UseAppendAction] = ()
    """give each trial its own physics, such as gravity=0.7..1.4 or body_mass:pole=0.5..2: factors
    of the original values, drawn from a range (may be given several times)"""
    ppo: PPOConfig = dataclasses.field(default_factory=PPOConfig)
    """hyperparameters of PPO"""
    pptb: PPTBConfig = dataclasses.field(default_factory=PPTBConfig)
    """policy path trimming and boosting: replace the weights every few PPO iterations"""
    jumps: JumpConfig = dataclasses.field(default_factory=JumpConfig)
    """jump to forecasts of the weights where these are better"""

    @property
    def group_size(self) -> int:
        """Trials in one batched loop, the last of which may have fewer."""
        if self.trials_per_group is not None:
            return min(self.trials_per_group, self.num_trials)
        return min(64, -(-self.num_trials // 2))  # two threads have work

    @property
    def num_iterations(self) -> int:
        """PPO iterations of each trial."""
        return self.total_steps // self.ppo.num_steps

    def __post_init__(self) -> None:
        check_hidden_sizes(self.hidden_sizes)
        for name in ("num_trials", "checkpoint_interval", "trials_per_group"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise TiplError(f"{name} is {value}; expected at least 1")
        if self.seed < 0:
            raise TiplError(f"the seed is {self.seed}; expected 0 or more")
        parse_ranges(self.vary)
        self._check_ppo()
        self.pptb.check()
        self.jumps.check()
        if self.pptb.rank is not None and self.jumps.forecaster is not None:
            raise TiplError(
                "both PPTB and jumps were given, and both replace weights; give one of them"
            )
        if self.normaliser == "running" and self.jumps.forecaster is not None:
            raise TiplError(
                "jumps were given with normaliser='running', under which no two policies see the "
                "same observations; collect with normaliser='frozen'"
            )
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

    def _check_jumps(self, task: TaskSpec) -> None:
        """Raises a TiplError unless the forecaster of jumps fits trials of the task."""
        if self.jumps.forecaster is not None:
            from tipl.jumps import check_fits, jump_forecaster

            forecaster = jump_forecaster(self.jumps.forecaster, self.jumps.target)
            check_fits(forecaster, Policy.initial(task, hidden=self.hidden_sizes))

    def metadata(self, env_id: str) -> PathMetadata:
        """What the dataset of this collection says of itself."""
        task = make_task(env_id)
        ranges = parse_ranges(self.vary)
        if ranges:  # says now what cannot vary, before anything is written
            make_vec(env_id, 1, physics={name: np.ones(1) for name in ranges}).close()
        self._check_jumps(task.with_physics({name: low for name, (low, _) in ranges.items()}))
        layout = actor_layout(task, self.hidden_sizes)
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
            trials_per_part=self.group_size,
            checkpoints_per_part=CHECKPOINTS_PER_PART,
            checkpoint_interval=self.checkpoint_interval,
            steps_per_checkpoint=self.checkpoint_interval * self.ppo.num_steps,
            seed=self.seed,
            vary={name: list(bounds) for name, bounds in ranges.items()},
            ppo=dataclasses.asdict(self.ppo),
            pptb={} if self.pptb.rank is None else dataclasses.asdict(self.pptb),
            jumps={} if self.jumps.forecaster is None else _plain(self.jumps),
            versions=library_versions(),
        )


def _plain(config: JumpConfig) -> dict[str, Any]:
    """The settings as plain JSON values."""
    return {**dataclasses.asdict(config), "horizons": list(config.horizons)}
