"""Hyperparameters of PPO."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from tipl.core.options import at_least, at_most
from tipl.errors import TiplError

MAX_ENVS = 65_536
"""Environments of one trial."""


@dataclasses.dataclass(frozen=True)
class PPOConfig:
    """Hyperparameters of PPO; the defaults are CleanRL's for continuous actions.

    Examples:
        >>> tipl.PPOConfig(num_steps=256).learning_rate
        0.0003
    """

    num_steps: int = 2048
    """steps of each environment between two updates"""
    num_envs: int = 1
    """environments of each trial; it learns from the steps of all of them"""
    num_minibatches: int = 32
    """minibatches that a rollout is cut into"""
    update_epochs: int = 10
    """passes over each rollout"""
    learning_rate: float = 3e-4
    """Adam's learning rate at the start"""
    anneal_lr: bool = True
    """let the learning rate fall linearly to 0"""
    gamma: float = 0.99
    """discount factor"""
    gae_lambda: float = 0.95
    """lambda of the generalised advantage estimate"""
    norm_adv: bool = True
    """normalise the advantages of each minibatch"""
    clip_coef: float = 0.2
    """clipping range of the probability ratio and of the value"""
    clip_vloss: bool = True
    """clip the value loss, too"""
    ent_coef: float = 0.0
    """weight of the entropy bonus"""
    vf_coef: float = 0.5
    """weight of the value loss"""
    max_grad_norm: float = 0.5
    """largest gradient norm of one trial"""
    adam_eps: float = 1e-5
    """epsilon of Adam"""
    reward_clip: float = 10.0
    """scaled rewards are clipped to +- this"""

    @property
    def rollout_steps(self) -> int:
        """Environment steps of a trial between two updates."""
        return self.num_steps * self.num_envs

    def settings(self) -> dict[str, Any]:
        """All by name, as files say them.

        One environment is not mentioned: there was a time when nothing else was possible.
        """
        values = dataclasses.asdict(self)
        if self.num_envs == 1:
            del values["num_envs"]
        return values

    def check(self) -> None:
        """Raises a TiplError unless all are finite, and advantages of minibatches normalisable."""
        for name, value in dataclasses.asdict(self).items():
            if not math.isfinite(value):
                raise TiplError(f"{name} is {value}; expected a finite number")
        at_least(1, num_minibatches=self.num_minibatches, update_epochs=self.update_epochs)
        at_least(1, num_envs=self.num_envs)
        at_most(10_000, update_epochs=self.update_epochs)
        at_most(MAX_ENVS, num_envs=self.num_envs)
        if self.rollout_steps < 2 * self.num_minibatches:
            several = f" in each of {self.num_envs} environments" if self.num_envs > 1 else ""
            raise TiplError(
                f"num_steps is {self.num_steps}{several} with {self.num_minibatches} minibatches; "
                "expected at least 2 steps in each, whose advantages can be normalised"
            )
