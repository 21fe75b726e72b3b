"""Makes the tables of what helps a NeuronTransformer in `docs/ablations.md`.

    python scripts/update_ablation_docs.py

Reads `docs/results/ablations-*.json`, which `benchmarks/ablations.py` writes with `--json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from update_collection_docs import ROOT, commands, number, read, replace_between, table


def cell(row: Mapping[str, Any] | None) -> str:
    """Mean return with its interval, and the weight error where there is one."""
    if row is None:
        return ""
    text = f"{number(row['mean'])} [{number(row['low'])}, {number(row['high'])}]"
    return f"{text}, {row['weight_error']:.2f}" if "weight_error" in row else text


def variants(result: Mapping[str, Any]) -> str:
    """The table of one task and target, one row a variant."""
    variants = result["variants"]
    names = sorted(variants, key=lambda name: (name != "base", name))
    columns = [column for column in variants["base"]["rows"] if _differs(variants, column)]
    body = [
        [
            name,
            number(variants[name]["seconds"]),
            *(cell(variants[name]["rows"].get(column)) for column in columns),
        ]
        for name in names
    ]
    truth = [cell(result["truth"].get(column)) for column in columns]
    found = table(["", "seconds", *columns], [["PPO itself", "", *truth], *body])
    return "\n\n".join([found, *wishes(variants)])


def wishes(variants: Mapping[str, Any]) -> list[str]:
    """A table of the variants that were asked for returns, if there are any."""
    base = variants["base"]["rows"]
    asked = {
        name: {column: row for column, row in variant["rows"].items() if column not in base}
        for name, variant in variants.items()
    }
    asked = {name: rows for name, rows in asked.items() if rows}
    columns = list(dict.fromkeys(column for rows in asked.values() for column in rows))
    body = [[name, *(wish(rows.get(column)) for column in columns)] for name, rows in asked.items()]
    return [table(["", *columns], body)] if body else []


def wish(row: Mapping[str, Any] | None) -> str:
    """Mean return with its interval, and the environment steps that the choice took, if any."""
    steps = (row or {}).get("env_steps_per_network")
    return cell(row) if steps is None else f"{cell(row)} ({number(steps)} steps a network)"


def _target(result: Mapping[str, Any]) -> str:
    return "elite" if "--target elite" in result["command"] else "own"


def _differs(variants: Mapping[str, Any], column: str) -> bool:
    """Whether returns in a column are not all within 1% of the base's."""
    found = [variant["rows"][column]["mean"] for variant in variants.values()]
    base = variants["base"]["rows"][column]["mean"]
    return max(abs(mean - base) for mean in found) > 0.01 * abs(base)


def main() -> None:
    """Writes the tables."""
    results = read("ablations-*")
    tables = [
        f"**{result['env_id']}, {_target(result)}**\n\n{variants(result)}" for result in results
    ]
    text = "\n\n".join([*tables, commands(results)])
    replace_between(ROOT / "docs" / "ablations.md", "ablations", text)


if __name__ == "__main__":
    main()
