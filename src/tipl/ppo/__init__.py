"""PPO for N independent trials in one batched loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tipl.core.lazy import lazy_names

__all__ = ["PPO", "PPOConfig", "PlugIn", "StoppedError"]

if TYPE_CHECKING:
    from tipl.ppo.config import PPOConfig
    from tipl.ppo.ppo import PPO, PlugIn, StoppedError
else:
    __getattr__, __dir__ = lazy_names(__name__)
