"""`tipl forecast`."""

from __future__ import annotations

from pathlib import Path

from tyro.conf import Positional

from tipl.errors import TiplError
from tipl.experiments.config import HORIZONS, STARTS

__all__ = ["forecast"]


def forecast(
    models: Positional[tuple[str, ...]],
    /,
    paths: Path,
    out: Path,
    starts: tuple[float, ...] = STARTS,
    horizons: tuple[int, ...] = HORIZONS,
) -> None:
    """Forecast the weights of all trials that the models have not seen.

    All rivals are forecast beside them: standing still, what extrapolates a history, and what
    remembers the models' training paths. `tipl evaluate` then runs the forecasts in the
    environment.

    Args:
        models: directories of trained models, or names of models that ship with tipl
        paths: the dataset of paths
        out: directory of the forecasts
        starts: where histories end, as fractions of the path; 0 is the untrained network alone
        horizons: checkpoints ahead, one or more; the jump to the path's end comes on top
    """
    from tipl.core.atomic import check_replaceable
    from tipl.experiments.forecasts import make_forecasts
    from tipl.forecast.base import Forecaster
    from tipl.paths import PathDataset

    if not models:
        raise TiplError(
            "no model was given; expected one or more before the options: directories that "
            "`tipl train` made, or names of models that ship with tipl"
        )
    check_replaceable(out, replaces="forecasts.json")
    forecasters = [Forecaster.from_pretrained(model) for model in models]
    forecasts = make_forecasts(forecasters, PathDataset.open(paths), starts, horizons)
    forecasts.save(out)
    print(
        f"{out}: {len(forecasts.cases)} forecasts of each of {len(forecasts.paths)} trials; run "
        f"`tipl evaluate {out}` to see what they return"
    )
