"""tipl in stable-baselines3: jumps, recorded paths, policies both ways."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tipl.core.lazy import check_installed, lazy_names

__all__ = ["ForecastCallback", "PathRecorder"]

check_installed("stable_baselines3", "stable-baselines3", "sb3", "tipl.integrations.sb3")

if TYPE_CHECKING:
    from tipl.integrations.sb3.callback import ForecastCallback
    from tipl.integrations.sb3.recorder import PathRecorder
else:
    __getattr__, __dir__ = lazy_names(__name__)
