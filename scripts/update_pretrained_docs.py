"""Makes the tables of what the models that ship with tipl do: `docs/pretrained.md` and the cards.

    python scripts/update_pretrained_docs.py

Reads `docs/results/optimize-*.json`, which `benchmarks/optimize_networks.py` writes with `--json`;
where there are several of a task, the rows of those count that were measured without its paths. The
card of a model, `README.md` beside its files, shows the commands of `scripts/pretrain.py` that made
it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from model_cards import card, units
from pretrain import commands
from update_collection_docs import ROOT, number, read, replace_between, table

from tipl.forecast.hub import SHIPPED
from tipl.forecast.trained import TrainedForecaster

CARRIED = "NeuronTransformer (elite)"
COPIED = "best stored policy, copied"
NEAREST, CHECKED = f"{CARRIED}, nearest of 8", f"{CARRIED}, best of 2 episodes"

METHODS = (
    "standing still",
    "nearest training path",
    COPIED,
    "best stored policy, output layer fitted",
    "NeuronTransformer (own)",
    CARRIED,
    NEAREST,
    CHECKED,
)

PPO = "PPO, end of the training paths", "best stored policy"


def cell(row: Mapping[str, Any] | None) -> str:
    """Mean return, and that of the lowest policy."""
    if row is None:
        return ""
    return f"{number(row['mean'])} ({number(row['lowest'])})"


def measured() -> list[dict[str, Any]]:
    """What was measured of each task, with all commands that did."""
    tasks: dict[str, dict[str, Any]] = {}
    for result in sorted(read("optimize-*"), key=lambda one: not one["ppo"]):
        task = tasks.setdefault(result["env_id"], {**result, "commands": []})
        hidden_sizes = TrainedForecaster.from_pretrained(result["env_id"]).hidden_sizes
        task["hidden"] = "-".join(map(str, hidden_sizes))
        task["commands"].append(result["command"])
        for text, rows in result["architectures"].items():
            task["architectures"][text] = task["architectures"].get(text, {}) | rows
    return list(tasks.values())


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
    ppo, best = (result["ppo"][name] for name in PPO)
    return "\n".join(
        [
            table([f"{result['env_id']}, hidden layers", *architectures], rows),
            "",
            f"Mean return of fresh random networks ({' or '.join(map(str, counts))} of each "
            "architecture), one call, no environment step but for the row of two episodes; in "
            "brackets, of the lowest one. PPO "
            f"ended at {number(ppo['mean'])} (median {number(ppo['median'])}, best stored policy "
            f"{number(best['mean'])}). {' '.join(f'`{line}`' for line in result['commands'])}",
        ]
    )


def without_steps(rows: Mapping[str, Any]) -> Mapping[str, Any]:
    """What `tipl optimize` makes of networks of one architecture by default."""
    return next(rows[name] for name in (NEAREST, CARRIED) if name in rows)


def way_gone(value: float, rows: Mapping[str, Any], best: float) -> float:
    """Share of the way from random networks to the best stored policy."""
    start = float(rows["standing still"]["mean"])
    return (value - start) / (best - start)


def overview(results: Sequence[Mapping[str, Any]]) -> str:
    """What all models do, a row a task."""
    body, reached = [], 0
    for result in results:
        first, ppo = result["hidden"], result["ppo"][PPO[0]]["mean"]
        best = result["architectures"][first][COPIED]["mean"]
        found = {text: without_steps(rows) for text, rows in result["architectures"].items()}
        shares = {
            text: way_gone(row["mean"], result["architectures"][text], best)
            for text, row in found.items()
        }
        share, worst = shares.pop(first), min(shares.values())
        reached += share >= 0.95
        everywhere = all(row["mean"] >= ppo for row in found.values())
        means = [ppo, best, found[first]["mean"]]
        ways = [f"{share:.0%}", f"{worst:.0%}", "yes" if everywhere else "no"]
        body.append([result["env_id"], *map(number, means), *ways, lowest_checked(result)])
    head = [
        "task",
        "PPO",
        "best stored policy",
        "one call",
        "share of the way",
        "elsewhere, at least",
    ]
    head += ["PPO reached", "lowest with 2 episodes"]
    return "\n".join(
        [
            table(head, body),
            "",
            "Mean returns: of PPO at the end of the training paths, of the best policy in "
            "them in the episodes of the networks, and of fresh random networks of their "
            "architecture after one call without an environment step. The share of the way is"
            " from a random network to the best stored policy, for that architecture and for "
            "the worst of the others, which no path has; PPO is reached if no architecture "
            "falls short of its mean. The last column is the lowest of all networks when two "
            "proposals are tried in an episode each, as a share of the mean of its "
            f"architecture. {reached} of {len(results)} models go 95% of the way.",
        ]
    )


def lowest_checked(result: Mapping[str, Any]) -> str:
    """The lowest of the networks that were tried, as a share of the mean of its architecture."""
    shares = [
        way_gone(rows[CHECKED]["lowest"], rows, rows[CHECKED]["mean"])
        for rows in result["architectures"].values()
        if CHECKED in rows
    ]
    return f"{min(shares):.0%}" if shares else ""


def main() -> None:
    """Writes the tables and the cards."""
    results = measured()
    tables = [overview(results), *map(optimized, results)]
    replace_between(ROOT / "docs" / "pretrained.md", "pretrained", "\n\n".join(tables))
    for result in results:
        env_id = result["env_id"]
        text = card(TrainedForecaster.from_pretrained(env_id), result, commands(env_id))
        (SHIPPED / env_id / "README.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
