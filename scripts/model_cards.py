"""The model cards of the models that ship with tipl."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from update_collection_docs import number, table

from tipl.forecast.trained import TrainedForecaster


def units(text: str) -> tuple[int, ...]:
    """Hidden layers, such as "64-64", as numbers."""
    return tuple(map(int, text.split("-")))


def wrapped(command: str) -> str:
    """A command of the shell in lines of a readable length."""
    lines = textwrap.wrap(command, 92, break_long_words=False, break_on_hyphens=False)
    return " \\\n    ".join(lines)


def returns_table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown rows of one architecture."""
    body = []
    for name, row in rows.items():
        bounds = "" if row["low"] is None else f" [{number(row['low'])}, {number(row['high'])}]"
        mean = number(row["mean"]) + bounds
        body.append([name, mean, number(row["lowest"]), str(row["policies"])])
    return table(["", "mean return [95%]", "lowest", "policies"], body)


def card(model: TrainedForecaster, results: Mapping[str, Any], recipe: Sequence[str]) -> str:
    """The model card; the recipe is the commands that made the model."""
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
        f"returns\n{number(elite['mean_return'])} on average.\n"
        if elite
        else ""
    )
    lines = "\n".join(map(wrapped, recipe))
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

Measured by {" and ".join(f"`{line}`" for line in results["commands"])}.

## What it is not for

Other tasks, physics, activations or observation normalisers: it refuses them. `elite` leads to one
known behaviour; where the architecture is the training paths' own, copying that policy is as good.

## How it was made

```bash
{lines}
```
"""
