"""Makes the tables of what the models that ship with tipl do: `docs/pretrained.md` and the cards.

    python scripts/update_pretrained_docs.py

Reads `docs/results/optimize-*.json`, which `benchmarks/optimize_networks.py` writes with `--json`.
The card of a model, `README.md` beside its files, shows the commands of `scripts/pretrain.py` that
made it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from model_cards import card, units
from pretrain import commands
from update_collection_docs import ROOT, number, read, replace_between, table

from tipl.forecast.hub import SHIPPED
from tipl.forecast.trained import TrainedForecaster

METHODS = (
    "standing still",
    "nearest training path",
    "best stored policy, copied",
    "best stored policy, output layer fitted",
    "NeuronTransformer (own)",
    "NeuronTransformer (elite)",
    "NeuronTransformer (elite), nearest of 8",
    "NeuronTransformer (elite), best of 2 episodes",
)


def cell(row: Mapping[str, Any] | None) -> str:
    """Mean return, and that of the lowest policy."""
    if row is None:
        return ""
    return f"{number(row['mean'])} ({number(row['lowest'])})"


def optimized(result: Mapping[str, Any]) -> str:
    """The table of one task, one column an architecture."""
    architectures = sorted(result["architectures"], key=units)
    found = {text: result["architectures"][text] for text in architectures}
    rows = [
        [name, *(cell(found[text].get(name)) for text in architectures)]
        for name in METHODS
        if any(name in rows for rows in found.values())
    ]
    counts = sorted({found[text]["standing still"]["policies"] for text in architectures})
    ppo = result["ppo"]["PPO, end of the training paths"]
    best = result["ppo"]["best stored policy"]
    return "\n".join(
        [
            table([f"{result['env_id']}, hidden layers", *architectures], rows),
            "",
            f"Mean return of fresh random networks ({' or '.join(map(str, counts))} of each "
            "architecture), one call, no environment step; in brackets, of the lowest one. PPO "
            f"ended at {number(ppo['mean'])} (median {number(ppo['median'])}, best stored policy "
            f"{number(best['mean'])}). `{result['command']}`",
        ]
    )


def main() -> None:
    """Writes the tables and the cards."""
    results = read("optimize-*")
    tables = [optimized(result) for result in results]
    replace_between(ROOT / "docs" / "pretrained.md", "pretrained", "\n\n".join(tables))
    for result in results:
        env_id = result["env_id"]
        text = card(TrainedForecaster.from_pretrained(env_id), result, commands(env_id))
        (SHIPPED / env_id / "README.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
