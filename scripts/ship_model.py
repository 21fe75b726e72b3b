r"""Puts a trained model among those that ship with tipl.

    python scripts/ship_model.py runs/models/InvertedPendulum-v4 --half

The model goes to `src/tipl/forecast/pretrained/<env_id>/`; what it does is measured then, and its
card, `README.md`, is made by `scripts/update_pretrained_docs.py`.
"""

from __future__ import annotations

from pathlib import Path

import tyro

from tipl.forecast.hub import SHIPPED
from tipl.forecast.trained import TrainedForecaster

LIMIT_MB = 15
"""Of all models that ship with tipl, together."""


def main(model: Path, /, half: bool = False) -> None:
    """Ships a model.

    Args:
        model: directory of the trained model
        half: in half precision
    """
    forecaster = TrainedForecaster.from_pretrained(model)
    directory = SHIPPED / forecaster.task.env_id
    (directory / "README.md").unlink(missing_ok=True)  # only a model's own files are replaced
    forecaster.save_pretrained(directory, half=half)
    size = sum(file.stat().st_size for file in SHIPPED.rglob("*.*")) / 1e6
    print(f"{directory}: {size:.1f} MB of shipped models in all, of {LIMIT_MB} at most")


if __name__ == "__main__":
    tyro.cli(main)
