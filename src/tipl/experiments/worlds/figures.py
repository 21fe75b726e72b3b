"""The figures of a benchmark of worlds, each a section of its report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from tipl.experiments.worlds.comparing import Rival
from tipl.experiments.worlds.outcome import RETURN, SPENT, WorldsBenchmark
from tipl.experiments.worlds.rivals import (
    ELITE,
    KNOWN,
    NEAREST,
    lineage_key,
)
from tipl.experiments.worlds.stages import RANDOMISED, lineage_models
from tipl.report.charts import INTERVAL, STEPS, Line, curve, line_chart
from tipl.report.methods import line_styles
from tipl.report.page import Section
from tipl.report.palette import GREY, SERIES

DOT = {"linestyle": "", "marker": "o", "ms": 4.5, "mew": 0, "alpha": 0.7}

BINS = 6
"""Of equally many worlds, over whose distances returns are averaged."""


def _note(found: WorldsBenchmark) -> str:
    episodes = found.config.episodes
    return (
        f"{found.config.held_out_worlds} worlds of a split, {episodes} "
        f"episode{'s' * (episodes > 1)} in each"
    )


def _colour(method: Rival) -> str:
    return method.method.colour


def scatter(found: WorldsBenchmark) -> Section:
    """The model and PPO over the elite, a dot a world."""
    panels = {}
    for split in found.config.splits:
        x = found.returns(split, ELITE)
        lines = []
        for method in (found.ppo, found.method(KNOWN)):
            look = {"color": _colour(method), **DOT}
            lines.append(Line(x, found.returns(split, method.key), look, method.name))
        ends = np.array([x.min(), max(x.max(), *(float(np.max(one.y)) for one in lines))])
        equal = {"color": GREY, "lw": 1, "linestyle": "--"}
        panels[split] = [Line(ends, ends, equal, "as the elite"), *lines]
    return Section(
        "World by world",
        "What the model, told the physics, and PPO itself return in each held-out world, over what "
        "the elite of home returns there. Below the dashed line a method does harm.",
        partial(
            line_chart, panels, x_label="return of the elite of home", y_label="return",
            share_y=True, note=f"{_note(found)}; a dot a world",
        ),
    )  # fmt: skip


def distance(found: WorldsBenchmark) -> Section:
    """Returns over the distance from what was learned from."""
    splits = found.config.splits
    x = np.concatenate([found.distances(split) for split in splits])
    order = np.argsort(x)
    bins = np.array_split(order, max(1, min(BINS, len(x) // 2)))
    methods = [found.method(key) for key in (ELITE, NEAREST, KNOWN)] + [found.ppo]
    lines = []
    for method in methods:
        y = np.concatenate([found.returns(split, method.key) for split in splits])
        look = line_styles([method.name])[method.name]
        lines.append(Line(x, y, {**DOT, "color": look["color"], "ms": 3, "alpha": 0.35}))
        means = np.array([[x[one].mean(), y[one].mean()] for one in bins])
        lines.append(Line(means[:, 0], means[:, 1], look, method.name))
    return Section(
        "Return over the distance from training",
        "How far a held-out world is from the nearest one that was learned from: the Euclidean "
        "distance of the factors' logarithms. Dots are worlds of all splits, lines the means of "
        f"{len(bins)} groups of equally many.",
        partial(
            line_chart, {"": lines}, x_label="distance from the nearest training world",
            y_label="return", note=_note(found),
        ),
    )  # fmt: skip


def _intervals(found: WorldsBenchmark, methods: Sequence[Rival], split: str) -> Any:
    rows = (found.find(one, RETURN, split) for one in methods)
    return np.array([(row.value, row.low, row.high) for row in rows])


def steps(found: WorldsBenchmark) -> Section:
    """Returns over the environment steps that methods spend in a world."""
    return Section(
        "Return over steps spent in the world",
        "What each method returns after how many environment steps in the held-out world. Lines "
        "across the panel are of methods that take no step there.",
        partial(
            line_chart,
            {split: list(_over_steps(found, split)) for split in found.config.splits},
            x_label=STEPS, y_label="return", x_axis="log steps", share_y=True, also=INTERVAL,
            note=f"{_note(found)}, mean and 95% interval",
        ),
    )  # fmt: skip


def _over_steps(found: WorldsBenchmark, split: str) -> Iterator[Line]:
    """Lines across for what takes no step, then a line for each kind of experience."""
    randomised = (RANDOMISED,) if found.config.randomised else ()
    rivals = (ELITE, *randomised, NEAREST, KNOWN)
    across = [found.method(key) for key in rivals]
    styles = line_styles([one.name for one in across])
    for one in across:
        look = {**styles[one.name], "lw": 1.3}
        if one.key == KNOWN:  # told apart from the model's own lines over steps
            look["linestyle"] = ":"
        yield Line(None, found.find(one, RETURN, split).value, look, one.name)
    kinds: dict[str, list[Rival]] = {}
    for one in found.methods:
        if one.series:
            kinds.setdefault(one.series, []).append(one)
    for name, methods in kinds.items():
        spent = np.array([found.find(one, SPENT, split).value for one in methods])
        look = {"color": _colour(methods[0]), "linestyle": methods[0].method.dashes or "-"}
        yield curve(spent, _intervals(found, methods, split), look, name)


def training_worlds(found: WorldsBenchmark) -> Section:
    """The return of models of lineages over the number of worlds that they have learned from."""
    counts = list(lineage_models(found.config))
    methods = [found.method(lineage_key(count)) for count in counts]
    lines = []
    for colour, split in zip(SERIES, found.config.splits, strict=False):
        look = {"color": colour}
        lines.append(curve(np.array(counts), _intervals(found, methods, split), look, split))
    return Section(
        "Return over the number of training worlds",
        "Models of lineages, told the physics, that have learned from the trials in the first so "
        "many training worlds: nested sets, whose trials and held-out worlds are the same.",
        partial(
            line_chart, {"": lines}, x_label="training worlds", y_label="return", x_axis="log",
            also=INTERVAL, note=f"{_note(found)}, mean and 95% interval",
        ),
    )  # fmt: skip
