"""tipl in stable-baselines3: jumps, recorded paths, policies both ways."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tipl.integrations.sb3.callback import ForecastCallback
    from tipl.integrations.sb3.recorder import PathRecorder

__all__ = ["ForecastCallback", "PathRecorder"]

_HOME_OF = {"ForecastCallback": "callback", "PathRecorder": "recorder"}


def __getattr__(name: str) -> Any:
    """Imports what needs stable-baselines3 when it is asked for."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'tipl.integrations.sb3' has no attribute {name!r}")
    return getattr(importlib.import_module(f"tipl.integrations.sb3.{_HOME_OF[name]}"), name)
