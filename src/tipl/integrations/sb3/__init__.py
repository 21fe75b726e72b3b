"""tipl in stable-baselines3: jumps, recorded paths, policies both ways."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tipl.core.lazy import lazy_names

__all__ = ["ForecastCallback", "PathRecorder"]

if TYPE_CHECKING:
    from tipl.integrations.sb3.callback import ForecastCallback
    from tipl.integrations.sb3.recorder import PathRecorder
else:
    __getattr__, __dir__ = lazy_names(__name__)
