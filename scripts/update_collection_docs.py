"""Makes the tables of speed and returns in the documentation from measurements.

    python scripts/update_collection_docs.py

Reads `docs/results/*.json`, which `benchmarks/collect.py` and `benchmarks/reference_returns.py`
write with `--json`, and writes what stands between the `speed` and `returns` marks of
`docs/collection.md`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import scipy.stats

from tipl.core import storage

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"

SPEED_ROWS = {
    "raw_steps_per_s": "`mujoco.batch` alone, steps/s",
    "collector_steps_per_s": "tipl, steps/s",
    "sb3_steps_per_s": "stable-baselines3, one process a core, steps/s in all",
    "single_trial_steps_per_s": "a CleanRL-style loop, one trial, steps/s",
    "share_of_raw": "tipl's share of the physics' speed",
    "times_sb3": "times stable-baselines3",
    "times_single_trial": "times the single trial",
    "peak_rss_mb": "tipl's memory, MB",
}


def table(head: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 0) -> str:
    """A Markdown table, numbers to the right; the first column and the last `texts` are none."""
    numbers = len(head) - 1 - texts
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * numbers}{'---|' * texts}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def number(value: float) -> str:
    """A number with as many places as it deserves."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.2f}"


def read(pattern: str) -> list[dict[str, Any]]:
    """The results whose files match, in the order of their names."""
    return [storage.read_json(path) for path in sorted(RESULTS.glob(pattern))]


def commands(results: Sequence[Mapping[str, Any]]) -> str:
    """The commands that measured them, as a code block."""
    return "\n".join(["```text", *(result["command"] for result in results), "```"])


def speed(results: Sequence[Mapping[str, Any]]) -> str:
    """The table of speeds, one column a task."""
    rows = [
        [name, *(number(result["rows"][key]) for result in results)]
        for key, name in SPEED_ROWS.items()
    ]
    repeats = results[0]["num_repetitions"]
    return "\n".join(
        [
            table(["", *(result["task"] for result in results)], rows),
            "",
            f"128 trials on two processors, files included; medians of {repeats} interleaved "
            "repetitions, ratios within each. All have two hidden layers of 64, 2,048 steps, "
            "minibatches of 64 and 10 epochs.",
        ]
    )


def scaling(results: Sequence[Mapping[str, Any]]) -> str:
    """The table of speed against the number of trials."""
    head = ["trials", *(f"{r['task']}, steps/s (MB)" for r in results)]
    rows = [
        [
            str(rows[0]["n"]),
            *(f"{number(row['steps_per_s'])} ({row['peak_rss_mb']:,.0f})" for row in rows),
        ]
        for rows in zip(*(result["scaling"] for result in results), strict=True)
    ]
    return table(head, rows)


def interval(row: Mapping[str, float]) -> str:
    """A mean with its interval and the range over trials."""
    return (
        f"{number(row['mean'])} [{number(row['low'])}, {number(row['high'])}], "
        f"{number(row['min'])} to {number(row['max'])}"
    )


def normalisers(results: Sequence[Mapping[str, Any]]) -> str:
    """Final returns with each normaliser, one row a task and number of steps."""
    rows: dict[tuple[str, str], dict[str, Mapping[str, float]]] = {}
    for result in results:
        match = re.search(r"--steps (\d+)", result["command"])
        steps = f"{int(match[1]):,}" if match else ""
        for row in result["rows"]:
            rows.setdefault((result["task"], steps), {})[row["normaliser"]] = row
    body = []
    for (task, steps), found in rows.items():
        sides = [found.get(name) for name in ("running", "frozen")]
        cells = [f"{interval(side)} ({side['n']})" if side else "" for side in sides]
        difference = welch(found["frozen"], found["running"]) if all(sides) else ""
        body.append([task, steps, *cells, difference])
    head = ["task", "steps", "running", "frozen (default)", "frozen less running"]
    return table(head, body)


def welch(first: Mapping[str, float], second: Mapping[str, float]) -> str:
    """The difference of two means with Welch's 95% interval."""
    difference = first["mean"] - second["mean"]
    variances = [side["std"] ** 2 / side["n"] for side in (first, second)]
    if not sum(variances):
        return number(difference)
    weights = [v**2 / (side["n"] - 1) for v, side in zip(variances, (first, second), strict=True)]
    freedom = sum(variances) ** 2 / sum(weights)
    margin = float(scipy.stats.t.ppf(0.975, freedom)) * sum(variances) ** 0.5
    return f"{number(difference)} [{number(difference - margin)}, {number(difference + margin)}]"


def parity(results: Sequence[Mapping[str, Any]]) -> str:
    """Final returns beside those of single trials."""
    body = []
    for result in results:
        single, ours = result["rows"]
        difference = ours["against_single_trial"]
        match = re.search(r"--steps (\d+)", result["command"])
        body.append(
            [
                result["task"],
                f"{int(match[1]):,}" if match else "",
                f"{interval(single)} ({single['n']})",
                f"{interval(ours)} ({ours['n']})",
                f"{number(difference['difference'])} [{number(difference['low'])}, "
                f"{number(difference['high'])}]",
            ]
        )
    return table(["task", "steps", "single trials", "tipl", "difference"], body)


def replace_between(path: Path, mark: str, text: str) -> None:
    """Puts a text between `<!-- mark:begin -->` and `<!-- mark:end -->` of a file."""
    marks = re.compile(rf"(<!-- {mark}:begin -->\n).*?(<!-- {mark}:end -->)", re.DOTALL)
    old = path.read_text(encoding="utf-8")
    path.write_text(marks.sub(lambda m: f"{m[1]}{text}\n{m[2]}", old), encoding="utf-8")


def main() -> None:
    """Writes all tables."""
    speeds, returns, parities = read("speed-*"), read("returns-*"), read("parity-*")
    page = ROOT / "docs" / "collection.md"
    replace_between(page, "speed", "\n\n".join([speed(speeds), scaling(speeds), commands(speeds)]))
    intro = (
        "Final training return: the mean of the episodes that ended in the last fifth of the "
        "steps, one value a trial. Mean [95% interval], lowest to highest trial (number of trials)."
    )
    tables = [parity(parities)] if parities else []
    tables += [normalisers(returns)] if returns else []
    text = "\n\n".join([intro, *tables, commands([*parities, *returns])])
    replace_between(page, "returns", text)


if __name__ == "__main__":
    main()
