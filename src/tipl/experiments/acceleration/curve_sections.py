"""The sections of a comparison's report that are figures: returns over what they cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial

from tipl.experiments.acceleration.amortised import USES, ModelCost
from tipl.experiments.acceleration.curves import mean_curve
from tipl.experiments.acceleration.measures import reach_metric, seconds_metric
from tipl.experiments.acceleration.outcome import Comparison
from tipl.experiments.acceleration.tables import layers, numbers_table
from tipl.experiments.acceleration.trials import Architecture
from tipl.report.charts import INTERVAL, STEPS, ZERO, Line, curve, line_chart
from tipl.report.methods import line_styles
from tipl.report.page import Drawing, Section
from tipl.report.results import place_label
from tipl.report.style import ACCENT, GOLD, PURPLE
from tipl.report.tables import Cell, Table

__all__ = ["amortised_return", "return_over_seconds", "return_over_steps"]

DRAWN_USES = {1.0: GOLD, 10.0: PURPLE, 100.0: ACCENT}
"""Among how many uses a model's cost is shared in the figure, and the colour of each."""

UNITS = ("env_steps", "cpu_seconds")


def return_over_steps(comparison: Comparison) -> Section:
    """Mean returns over the environment steps of a trial."""
    return Section(
        "Return over environment steps",
        "Each method's mean return after how many environment steps of a trial. A line further to "
        "the left gets there with fewer steps. A return holds until the next checkpoint; the flat "
        "part before a jump is its test.",
        _chart(comparison, {a: _curves(a) for a in comparison.architectures}),
    )


def return_over_seconds(comparison: Comparison) -> Section:
    """Mean returns over the processor time of a trial."""
    panels = {
        a: [
            dataclasses.replace(line, x=line.x * one.cpu_seconds_per_step)
            for one, line in zip(a.trained, _curves(a), strict=True)
        ]
        for a in comparison.architectures
    }
    return Section(
        "Return over CPU seconds",
        "The same returns over processor time: each method's environment steps, times the seconds "
        "that its trials took for one, learning and forecasts included. Lines end at equal steps: "
        "one that ends further to the right takes longer for a step.",
        _chart(comparison, panels, x_label="CPU seconds of one trial"),
        table=numbers_table(
            comparison,
            "CPU seconds of one trial until PPO's final mean return (a dash: not within PPO's "
            "steps); of all trials together, to the end; of a step, in units of PPO's",
            {
                seconds_metric(1.0): "to 100%",
                "cpu_seconds": "in all",
                "cpu_seconds_per_env_step_relative_to_ppo": "a step",
            },
        ),
    )


def amortised_return(comparison: Comparison, cost: ModelCost) -> Section:
    """What a use takes if it has to pay its part of the model's data and training."""
    alike = "" if cost.own else (
        " The model at hand learned from other paths; the costs are those of one made alike."
    )  # fmt: skip
    return Section(
        "When data and training are counted",
        f"The training paths and training took {cost.env_steps:,.0f} environment steps. Shared out "
        "among so many uses, they move the curve to the right; where it is still left of PPO's, "
        f"the model has paid for itself.{alike}",
        _chart(
            comparison,
            {a: _amortised_curves(a, cost) for a in comparison.architectures},
            x_label="environment steps of one use",
            log=True,
        ),
        table=_amortised_table(comparison),
    )


def _chart(
    comparison: Comparison,
    panels: Mapping[Architecture, Sequence[Line]],
    *,
    x_label: str = STEPS,
    log: bool = False,
) -> Drawing:
    """Returns over what they cost, a panel an architecture."""
    return partial(
        line_chart,
        {f"layers of {a.name}": [*lines, ZERO] for a, lines in panels.items()},
        x_label=x_label,
        y_label="episodic return",
        x_axis="log steps" if log else "steps",
        share_y=len(panels) > 1,
        also=INTERVAL,
        note=_note(comparison),
    )


def _note(comparison: Comparison) -> str:
    """How many trials and episodes the figures rest on."""
    trials = " and ".join(str(a.num_trials) for a in comparison.architectures)
    if len({a.num_trials for a in comparison.architectures}) == 1:
        trials = str(comparison.architectures[0].num_trials)
    episodes = comparison.architectures[0].episodes
    return (
        f"{trials} paired trials, {episodes} episode{'s' * (episodes > 1)} of each checkpoint by "
        "mean actions"
    )


def _curves(architecture: Architecture) -> list[Line]:
    """Mean returns over environment steps, a line a method."""
    styles = line_styles([one.name for one in architecture.trained])
    return [
        curve(*mean_curve(one.curves, architecture.end), styles[one.name], one.name, stepped=True)
        for one in architecture.trained
    ]


def _with_uses(name: str, uses: float) -> str:
    return f"{name}, {place_label(uses=uses)}"


def _amortised_curves(architecture: Architecture, cost: ModelCost) -> list[Line]:
    lines = {line.label: line for line in _curves(architecture)}
    ppo, own = lines[architecture.ppo.name], lines[architecture.gated.name]
    found = [ppo.without_first()]  # 0 has no logarithm
    for uses, colour in DRAWN_USES.items():
        x, label = own.x + cost.env_steps / uses, _with_uses(architecture.gated.name, uses)
        look = {**own.look, "color": colour}
        found.append(dataclasses.replace(own, x=x, label=label, look=look))
    return found


def _amortised_table(comparison: Comparison) -> Table:
    """For each architecture PPO's own steps and seconds, and those of each number of uses."""
    rows: list[list[Cell]] = []
    for a in comparison.architectures:
        name, own = a.gated.name, (reach_metric(1.0), seconds_metric(1.0))
        rows.append([a.ppo.name, layers(a), *(comparison.find(a.ppo, a, metric) for metric in own)])
        for uses in USES:
            cells = [comparison.find(a.gated, a, f"{u}_amortised", uses=uses) for u in UNITS]
            rows.append([_with_uses(name, uses), layers(a), *cells])
        paid = [comparison.find(a.gated, a, f"uses_to_pay_back_{unit}") for unit in UNITS]
        rows.append(["uses until it has paid for itself", layers(a), *paid])
    return Table(
        "What one use takes until PPO's final mean return [95% interval over trials]; a dash: it "
        "does not get there, or never pays",
        ["method", "layers", "environment steps", "CPU seconds"],
        rows,
    )
