r"""Puts a trained model among those that ship with tipl, with its model card.

    python scripts/ship_model.py runs/models/pendulum \
        docs/results/optimize-InvertedPendulum-v4.json \
        scripts/pretrain_inverted_pendulum.sh

The model goes to `src/tipl/forecast/pretrained/<env_id>/`. Its card, `README.md`, is made from the
results of `benchmarks/optimize_networks.py` and shows the commands of the recipe as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tyro
from update_collection_docs import table
from update_pretrained_docs import units

from tipl.core import storage
from tipl.core.atomic import write_bytes_atomically
from tipl.forecast.base import Forecaster
from tipl.forecast.hub import SHIPPED
from tipl.forecast.trained import TrainedForecaster

LIMIT_MB = 15
"""Of all models that ship with tipl, together."""


def returns_table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown rows of one architecture."""
    body = []
    for name, row in rows.items():
        bounds = "" if row["low"] is None else f" [{row['low']:,.0f}, {row['high']:,.0f}]"
        mean = f"{row['mean']:,.0f}{bounds}"
        body.append([name, mean, f"{row['lowest']:,.0f}", str(row["policies"])])
    return table(["", "mean return [95%]", "lowest", "policies"], body)


def card(model: TrainedForecaster, results: Mapping[str, Any], recipe: Path) -> str:
    """The model card."""
    env_id, settings = model.task.env_id, model.settings
    trials = sum(map(len, model.training_trials.values()))
    first = "-".join(map(str, model.hidden_sizes))
    others = sorted(results["architectures"].keys() - {first}, key=units)
    names = " and ".join(f"`{target}`" for target in model.targets)
    methods = [model.with_options(target=target).name for target in model.targets]
    widths = {
        text: {
            name: row
            for name, row in results["architectures"][text].items()
            if name.startswith(tuple(methods))
        }
        for text in others
    }
    other_rows = {
        f"{text}: {name}": row for text, rows in widths.items() for name, row in rows.items()
    }
    elite = settings.get("elite")
    behaviour = (
        f"The behaviour that `elite` leads to is that of one training trial's checkpoint, which "
        f"returns\n{elite['mean_return']:,.0f} on average.\n"
        if elite
        else ""
    )
    return f"""# NeuronTransformer for {env_id}

Weights in, better weights out: it reads a policy network for {env_id}, with 1 to 3
hidden layers of tanh units and the frozen observation normaliser, and forecasts its weights, with
no gradient step and no environment step. Targets: {names}. How it works: `docs/design.md`.

    tipl optimize {env_id} --out policy/
    tipl evaluate policy/ --episodes 20

It learned from {trials} trials of PPO, each {model.num_checkpoints} checkpoints long, and from
{settings["env_steps"]:,} environment steps that were taken to see what policies do.
{behaviour}
## Fresh random networks, one call, no environment step

Hidden layers {first}, none of the networks seen in training:

{returns_table(results["architectures"][first])}

Other hidden layers:

{returns_table(other_rows)}

PPO and the best of its policies on the training trials:

{returns_table(results["ppo"])}

Measured by `{results["command"]}`.

## What it is not for

Other tasks, physics, activations or observation normalisers: it refuses them. `elite` leads to one
known behaviour; where the architecture is the training paths' own, copying that policy is as good.

## How it was made

```bash
{recipe.read_text(encoding="utf-8").strip()}
```
"""


def main(model: Path, results: Path, recipe: Path, /) -> None:
    """Ships a model.

    Args:
        model: directory of the trained model
        results: what `benchmarks/optimize_networks.py` measured of it
        recipe: script with the commands that made it
    """
    forecaster = Forecaster.from_pretrained(model)
    directory = SHIPPED / forecaster.task.env_id
    (directory / "README.md").unlink(missing_ok=True)  # only a model's own files are replaced
    forecaster.save_pretrained(directory)
    text = card(forecaster, storage.read_json(results), recipe)
    write_bytes_atomically(directory / "README.md", text.encode())
    size = sum(file.stat().st_size for file in SHIPPED.rglob("*.*")) / 1e6
    print(f"{directory}: {size:.1f} MB of shipped models in all, of {LIMIT_MB} at most")


if __name__ == "__main__":
    tyro.cli(main)
