"""What a comparison of PPO with and without jumps does: its methods, networks and trials."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from tipl.errors import TiplError
from tipl.forecast.hub import shipped_models
from tipl.policies.layout import check_hidden_sizes
from tipl.ppo.config import PPOConfig

__all__ = ["PPO_ALONE", "AccelerationConfig", "Method", "acceleration_config"]

PPO_ALONE = "PPO"
"""The method that all others are compared with."""


@dataclasses.dataclass(frozen=True)
class Method:
    """One way to train.

    Attributes:
        name: what tables and figures call it.
        key: the name of its directory.
        options: of `tipl collect`, beside those that all methods share.
        any_width: whether it works for every architecture, not the first alone.
    """

    name: str
    key: str
    options: tuple[str, ...]
    any_width: bool = True


@dataclasses.dataclass(frozen=True)
class AccelerationConfig:
    """What is compared, and on which trials."""

    env_id: str
    """the task"""
    num_trials: int = 16
    """trials of each method and architecture, paired by their seeds"""
    total_steps: int = 200_704
    """environment steps of PPO in each trial"""
    checkpoint_interval: int = 1
    """PPO iterations between two checkpoints, at which policies are run"""
    widths: tuple[int, ...] = (64, 48)
    """units in each of the two hidden layers; one architecture a number"""
    episodes: int = 1
    """episodes of each checkpoint, acting by its mean"""
    seed: int = 7_000_000
    """of the trials: one that no model was trained with"""
    model: str | None = None
    """model that forecasts, or its directory (default: the one that ships for the task, if any)"""
    nino: str | None = None
    """directory of a neural-graph nowcaster (default: that rival is left out)"""
    paths: str | None = None
    """dataset whose best policy of a training trial is copied (default: that rival is left out)"""

    def __post_init__(self) -> None:
        for name, least in {"num_trials": 2, "episodes": 1, "checkpoint_interval": 1}.items():
            if getattr(self, name) < least:
                raise TiplError(f"{name} is {getattr(self, name)}; expected at least {least}")
        check_hidden_sizes(self.widths)
        if len(set(self.widths)) < len(self.widths):
            raise TiplError(f"widths {self.widths} were given; expected each one once")

    def methods(self, best_policy: Path) -> list[Method]:
        """All ways to train that are compared, PPO alone first.

        Args:
            best_policy: directory of the policy that is copied.
        """
        blind = ("--jumps.no-gate", "--jumps.max-jumps", "1")
        found = [Method(PPO_ALONE, "ppo", ())]
        if self.paths is not None:
            copied = ("--jumps.forecaster", str(best_policy), *blind)
            found.append(Method("best stored policy, copied", "copy", copied, any_width=False))
        found.append(Method("PPTB", "pptb", ("--pptb.rank", "16", "--pptb.boost", "0.1")))
        relex = ("--jumps.forecaster", "relex", *self._early_if_short())
        found.append(Method("RELEX, gated", "relex", relex))
        if self.nino is not None:
            every = str(max(8, 4 * self.checkpoint_interval))
            often = ("--jumps.no-gate", "--jumps.every", every, "--jumps.horizons", "5")
            found.append(Method("NiNo", "nino", ("--jumps.forecaster", self.nino, *often)))
        if self.forecaster is not None:
            ours = ("--jumps.forecaster", self.forecaster)
            found.append(Method("NeuronTransformer, gated", "ours", ours))
            found.append(Method("NeuronTransformer, no gate", "ours-blind", (*ours, *blind)))
        return found

    def _early_if_short(self) -> tuple[str, ...]:
        """Lets extrapolations begin early in trials that would be half over otherwise."""
        iterations = self.total_steps // PPOConfig().num_steps
        return () if iterations >= 64 else ("--jumps.min-history", str(max(2, iterations // 4)))

    @property
    def forecaster(self) -> str | None:
        """The model that forecasts, if there is one."""
        if self.model is not None:
            return self.model
        return self.env_id if self.env_id in shipped_models() else None


TASKS: dict[str, dict[str, Any]] = {
    "InvertedPendulum-v4": {"num_trials": 32, "total_steps": 61_440, "episodes": 2},
    "HalfCheetah-v4": {"total_steps": 1_000_000, "checkpoint_interval": 8},
    "Hopper-v4": {"total_steps": 500_000, "checkpoint_interval": 4},
    "Swimmer-v4": {"total_steps": 500_000, "checkpoint_interval": 4},
}
"""What differs from the defaults."""

QUICK: dict[str, Any] = {
    "num_trials": 2,
    "total_steps": 20_480,
    "checkpoint_interval": 2,
    "episodes": 1,
    "widths": (64, 32),
}
"""A smoke run: everything is made, nothing is shown by its numbers."""


def acceleration_config(env_id: str, *, quick: bool = False, **options: Any) -> AccelerationConfig:
    """The comparison on a task.

    Args:
        env_id: a Gymnasium id.
        quick: a smoke run of minutes.
        **options: fields of `AccelerationConfig` that shall differ; None leaves them as they are.

    Raises:
        TiplError: an option is impossible.
    """
    chosen = {name: value for name, value in options.items() if value is not None}
    return AccelerationConfig(env_id, **(TASKS.get(env_id, {}) | (QUICK if quick else {}) | chosen))
