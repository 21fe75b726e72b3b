"""tipl in stable-baselines3: jumps, recorded paths, policies both ways."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tipl.core.lazy import is_installed, lazy_names
from tipl.errors import TiplError

__all__ = ["ForecastCallback", "PathRecorder"]

if not is_installed("stable_baselines3"):
    raise TiplError(
        "tipl.integrations.sb3 needs stable-baselines3, which is not installed; "
        "`pip install 'tipl[sb3]'` brings it"
    )

if TYPE_CHECKING:
    from tipl.integrations.sb3.callback import ForecastCallback
    from tipl.integrations.sb3.recorder import PathRecorder
else:
    __getattr__, __dir__ = lazy_names(__name__)
