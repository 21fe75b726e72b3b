"""Jumps: forecasts of a run's own weights that replace them while training goes on."""

from tipl.jumps.config import JumpConfig
from tipl.jumps.forecasters import check_fits, fitting_forecaster, jump_forecaster
from tipl.jumps.jumper import Jumper, Jumps, JumpTry
from tipl.jumps.plug_in import ForecastJumps

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
