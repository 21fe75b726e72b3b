"""Jumps: forecasts of a run's own weights that replace them while training goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tipl.core.lazy import lazy_names

__all__ = [
    "ForecastJumps",
    "JumpConfig",
    "JumpTry",
    "Jumper",
    "Jumps",
    "check_fits",
    "fitting_forecaster",
    "jump_forecaster",
]

if TYPE_CHECKING:
    from tipl.jumps.config import JumpConfig
    from tipl.jumps.forecasters import check_fits, fitting_forecaster, jump_forecaster
    from tipl.jumps.jumper import Jumper, Jumps, JumpTry
    from tipl.jumps.plug_in import ForecastJumps
else:
    __getattr__, __dir__ = lazy_names(__name__)
