"""The report of a comparison: where jumps win, tie or lose, and what they cost."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from rich.console import Console

from tipl.evaluation.stats import mean_curve
from tipl.experiments.acceleration.outcome import COUNTS, SHARES, USES, Comparison, to_share
from tipl.experiments.acceleration.trials import Architecture, Trained
from tipl.report.charts import INTERVAL, STEPS, ZERO, Axis, Line, curve, line_chart
from tipl.report.methods import line_styles, method_with_key
from tipl.report.page import Drawing, Entry, Report, Section, sections_of
from tipl.report.palette import ACCENT, GOLD, PURPLE
from tipl.report.results import Result, place_label
from tipl.report.tables import Cell, Pivot, Table, column_text, format_whole, listed, results_table

Metrics = Mapping[str, str]
"""What a table has columns of, and what it calls them."""

HEADLINE = {
    **{to_share("env_steps", share): f"thousand steps to {share:.0%}" for share in SHARES},
    "final_return": "return",
    "final_return_minus_ppo": "less PPO's",
}
"""What comes first."""

DRAWN_USES = {1.0: GOLD, 10.0: PURPLE, 100.0: ACCENT}
"""Among how many uses a model's cost is shared in the figure, and the colour of each."""

VERDICTS = {"wins": ("above", "against"), "ties": ("beside", "with"), "loses": ("below", "to")}
"""What a paired difference says: where the return then lies, and what comes before a rival."""


def _plain_zero(result: Result) -> Cell:
    """Nothing at all, of which no trial has any, needs neither decimals nor interval."""
    return 0 if result.value == result.low == result.high == 0 else result


def _thousands(result: Result) -> Cell:
    """A result in thousands, if it is a number of environment steps."""
    if not result.metric.startswith("env_steps"):
        return _plain_zero(result)
    value, low, high = (bound / 1000 for bound in (result.value, result.low, result.high))
    return _plain_zero(dataclasses.replace(result, value=value, low=low, high=high))


def _numbers(caption: str, metrics: Metrics, cell: Callable[[Result], Cell] = _plain_zero) -> Pivot:
    """A row a method and architecture that has any of the metrics; a column a metric."""
    return Pivot(
        metrics, ("method", "architecture"), caption=caption, headings={"architecture": "layers"},
        where={"architecture": bool, "beside": None, "uses": None}, cell=cell,
    )  # fmt: skip


# --- the figures ------------------------------------------------------------------------------


def _methods(comparison: Comparison) -> Section:
    trained = comparison.architectures[0].trained
    rows = [[one.name, method_with_key(one.method.key).sentence] for one in trained]
    return Section(
        "What is compared",
        "Every method trains the same trials, with the same initial networks and seeds. The "
        "environment steps of tests count as a trial's own.",
        table=Table("The methods", ["method", "what it is"], rows),
    )


def _curves(architecture: Architecture) -> list[Line]:
    """Mean returns over environment steps, a line a method."""
    styles = line_styles([one.name for one in architecture.trained])
    return [
        curve(*mean_curve(one.curves, architecture.end), styles[one.name], one.name, stepped=True)
        for one in architecture.trained
    ]


def _chart(
    comparison: Comparison, lines: Callable[[Architecture], list[Line]], *,
    x_label: str = STEPS, x_axis: Axis = "steps",
) -> Drawing:  # fmt: skip
    """Returns over what they cost, a panel an architecture."""
    panels = {f"layers of {a.name}": [*lines(a), ZERO] for a in comparison.architectures}
    trials = [str(a.num_trials) for a in comparison.architectures]
    if len(set(trials)) == 1:
        trials = trials[:1]
    episodes = comparison.architectures[0].episodes
    note = f"{' and '.join(trials)} paired trials, {episodes} episode{'s' * (episodes > 1)} of "
    return partial(
        line_chart, panels, y_label="episodic return", share_y=len(panels) > 1, also=INTERVAL,
        note=f"{note}each checkpoint by mean actions", x_label=x_label, x_axis=x_axis,
    )  # fmt: skip


def _over_seconds(architecture: Architecture) -> list[Line]:
    """The same over processor seconds."""
    pairs = zip(architecture.trained, _curves(architecture), strict=True)
    return [dataclasses.replace(line, x=line.x * one.cpu_seconds_per_step) for one, line in pairs]


def _amortised(comparison: Comparison) -> Iterator[Section]:
    """What a use takes if it has to pay its part of the model's data and training."""
    cost = comparison.cost
    if cost is None:
        return
    env_steps = cost.env_steps

    def lines(architecture: Architecture) -> list[Line]:
        by_name = {line.label: line for line in _curves(architecture)}
        own, ppo = (by_name[one.name] for one in (architecture.gated, architecture.ppo))
        low, high = ppo.band or ((), ())
        # 0 has no logarithm
        found = [dataclasses.replace(ppo, x=ppo.x[1:], y=ppo.y[1:], band=(low[1:], high[1:]))]
        for uses, colour in DRAWN_USES.items():
            label, look = f"{own.label}, {place_label(uses=uses)}", {**own.look, "color": colour}
            x = own.x + env_steps / uses
            found.append(dataclasses.replace(own, x=x, label=label, look=look))
        return found

    alike = " The model at hand learned from other paths; the costs are those of one made alike."
    yield Section(
        "When data and training are counted",
        f"The training paths and training took {env_steps:,.0f} environment steps. Shared out "
        "among so many uses, they move the curve to the right; where it is still left of PPO's, "
        f"the model has paid for itself.{'' if cost.own else alike}",
        _chart(comparison, lines, x_label="environment steps of one use", x_axis="log steps"),
        table=_amortised_table(comparison),
    )


def _amortised_table(comparison: Comparison) -> Table:
    rows: list[list[Cell]] = []

    def add(one: Trained, label: str, metric: str, uses: float | None = None) -> None:
        metrics = (metric.format(unit) for unit in ("env_steps", "cpu_seconds"))
        cells = (comparison.find(one, metric, uses=uses) for metric in metrics)
        rows.append([label, column_text("architecture", one.method.architecture), *cells])

    for a in comparison.architectures:
        add(a.ppo, a.ppo.name, to_share("{}", 1.0))
        for uses in USES:
            add(a.gated, f"{a.gated.name}, {place_label(uses=uses)}", "{}_amortised", uses)
        add(a.gated, "uses until it has paid for itself", "uses_to_pay_back_{}")
    return Table(
        "What one use takes until PPO's final mean return [95% interval over trials]; a dash: it "
        "does not get there, or never pays",
        ["method", "layers", "environment steps", "CPU seconds"],
        rows,
    )


def _measured(
    title: str, sentence: str, caption: str, metrics: Metrics, figure: Drawing | None = None
) -> Section:
    """A section with a table of numbers."""
    return Section(title, sentence, figure, table=_numbers(caption, metrics))


SECTIONS: list[Entry[Comparison]] = [
    _methods,
    lambda comparison: Section(
        "Return over environment steps",
        "Each method's mean return after how many environment steps of a trial. A line further to "
        "the left gets there with fewer steps. A return holds until the next checkpoint; the flat "
        "part before a jump is its test.",
        _chart(comparison, _curves),
    ),
    _measured(
        "Return at equal steps",
        "The last checkpoint within as many environment steps as PPO takes in all; methods that "
        "test forecasts have learned from fewer of them.",
        "Interquartile mean of the return; mean return in units of PPO's (a dash: PPO's is not "
        "above 0); share of the trials that return more than under PPO, where a tie counts one "
        "half [95% interval over trials]",
        {
            "final_return_iqm": "interquartile mean",
            "final_return_relative_to_ppo": "times PPO's",
            "probability_of_improvement": "better trials",
        },
    ),
    _measured(
        "Steps to PPO's return, as a share of PPO's own",
        "Below 1 a method is faster than PPO. PPO's own mean return may reach that of its end "
        "before the end.",
        "Environment steps until 95% and 100% of PPO's final mean return, in units of the steps "
        "that PPO itself needs; a dash: not within PPO's steps",
        {f"{to_share('env_steps', s)}_relative_to_ppo": f"to {s:.0%}" for s in SHARES},
    ),
    _measured(
        "Area under the curve",
        "The mean of the return over all of PPO's environment steps: it rewards what is good early "
        "as well as what is good in the end.",
        "Mean return over the environment steps, and its difference from PPO's, paired by trial",
        {"return_over_training": "mean return", "return_over_training_minus_ppo": "less PPO's"},
    ),
    lambda comparison: Section(
        f"{comparison.architectures[0].gated.name}, beside each other method",
        "By how much it returns more than each other method: above 0, interval included, it wins; "
        "below 0 it loses; else it is a tie.",
        table=Pivot(
            {
                "final_return_difference": "at equal steps",
                "return_over_training_difference": "over the training",
            },
            ("beside", "architecture"),
            where={"beside": bool},
            caption="Difference of mean returns, paired by trial [95% interval]",
            headings={"beside": "method", "architecture": "layers"},
        ),
    ),
    _measured(
        "Tests, jumps and rollbacks",
        "What forecasts did in a trial until the end of its training. Jumps without a test take no "
        "steps of their own; those that were undone are among the jumps.",
        "Means over trials",
        dict(zip(COUNTS.values(), ("steps of tests", "jumps", "undone"), strict=True)),
    ),
    lambda comparison: _measured(
        "Return over CPU seconds",
        "The same returns over processor time: each method's environment steps, times the seconds "
        "that its trials took for one, learning and forecasts included. Lines end at equal steps: "
        "one that ends further to the right takes longer for a step.",
        "CPU seconds of one trial until PPO's final mean return (a dash: not within PPO's steps); "
        "of all trials together, to the end; of a step, in units of PPO's",
        {
            to_share("cpu_seconds", 1.0): "to 100%",
            "cpu_seconds": "in all",
            "cpu_seconds_per_env_step_relative_to_ppo": "a step",
        },
        _chart(comparison, _over_seconds, x_label="CPU seconds of one trial"),
    ),
    _amortised,
]
"""The figures of a comparison's report, in order."""


# --- the report -------------------------------------------------------------------------------


def comparison_report(comparison: Comparison) -> Report:
    """The report's content."""
    headline = _numbers(
        "Thousands of environment steps of one trial, tests of forecasts included, until the mean "
        "return is 95% and 100% of that of PPO's end (a dash: not within PPO's steps); mean return "
        f"at PPO's {comparison.architectures[0].end:,} steps, and its difference from PPO's, "
        "paired by trial. 95% intervals over trials.",
        HEADLINE,
        _thousands,
    )
    return Report(
        title=f"{comparison.config.env_id}: does PPO learn faster when its weights jump?",
        lead=lead(comparison),
        headline=headline(comparison.rows),
        sections=sections_of(SECTIONS, comparison, comparison.rows),
        results=comparison.results,
        commands=[stage.command for stage in comparison.stages],
        stages=comparison.stages,
    )


def print_headline(comparison: Comparison, console: Console) -> None:
    """Prints the headline, as far as a terminal has room for it, a table for each architecture."""
    shown = dict(list(HEADLINE.items())[1:])
    for architecture in comparison.architectures:
        title = f"{comparison.config.env_id}, layers of {architecture.name}, "
        title += f"{architecture.num_trials} trials: environment steps to PPO's final mean return; "
        where = {"architecture": architecture.name, "beside": None, "uses": None}
        table = Pivot(shown, where=where, caption=f"{title}return at equal steps", cell=_thousands)
        console.print(results_table(table(comparison.rows)))


def lead(comparison: Comparison) -> list[str]:
    """What the numbers say, in sentences: of each architecture, and of the model's cost."""
    first = comparison.architectures[0]
    sentences = [
        f"{first.num_trials + first.left_out} trials of each method, paired by their seeds; PPO "
        f"takes {first.end:,} environment steps in each, and tests of forecasts count as steps.",
    ]
    for architecture in comparison.architectures:
        sentences += _of_architecture(comparison, architecture)
    if comparison.cost is not None:
        parts = []
        for a in comparison.architectures:
            uses = comparison.find(a.gated, "uses_to_pay_back_env_steps").value
            after = f"are paid after {uses:,.0f} uses" if math.isfinite(uses) else "are never paid"
            parts.append(f"with {column_text('architecture', a.name)} they {after}")
        sentences.append(
            f"Data and training of such a model take {comparison.cost.env_steps:,.0f} environment "
            f"steps: {listed(parts)}."
        )
    return sentences


def _of_architecture(comparison: Comparison, architecture: Architecture) -> Iterator[str]:
    """Who wins at equal steps, how soon it is where PPO ends, and how it does beside rivals."""
    find, gated, ppo = comparison.find, architecture.gated, architecture.ppo
    layers = column_text("architecture", architecture.name)
    if architecture.left_out:
        yield (
            f"Left out with layers of {layers}, since they diverged under some method: "
            f"{architecture.left_out} of the trials."
        )
    own, reference = (format_whole(find(one, "final_return").value) for one in (gated, ppo))
    verdict = _verdict(find(gated, "final_return_minus_ppo"))
    yield (
        f"Layers of {layers}: {gated.name} {verdict} at equal steps, with a mean return of "
        f"{own} {VERDICTS[verdict][0]} PPO's {reference}; {_speed(comparison, gated, ppo)}."
    )
    rivals: dict[str, list[str]] = {verdict: [] for verdict in VERDICTS}
    for one in architecture.trained[1:]:
        if one is not gated:
            found = find(gated, "final_return_difference", beside=one.name)
            rivals[_verdict(found)].append(f"“{one.name}”")
    parts = [
        f"{verdict} {VERDICTS[verdict][1]} {listed(names)}"
        for verdict, names in rivals.items()
        if names
    ]
    if parts:
        yield f"It {'; it '.join(parts)}."


def _speed(comparison: Comparison, gated: Trained, ppo: Trained) -> str:
    """How soon the gated method is where PPO ends."""
    metric, find = to_share("env_steps", 1.0), comparison.find
    own, reference = (find(one, metric).value for one in (gated, ppo))
    if math.isinf(own):
        return "it does not come to PPO's final mean return within PPO's steps"
    share = find(gated, f"{metric}_relative_to_ppo")
    verdict = "neither faster nor slower beyond doubt"
    if share.high < 1 or share.low > 1:
        verdict = "faster" if share.high < 1 else "slower"
    return (
        f"it comes to PPO's final mean return after {format_whole(own)} steps, where PPO "
        f"needs {format_whole(reference)}: {verdict}"
    )


def _verdict(difference: Result) -> str:
    """What a paired difference says of the first of two methods."""
    if difference.low > 0:
        return "wins"
    return "loses" if difference.high < 0 else "ties"
