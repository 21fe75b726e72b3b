"""The report of a benchmark of worlds: whether it is a test, who wins in it, and at what cost."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from tipl.envs.worlds import TRAINING
from tipl.experiments.worlds import figures
from tipl.experiments.worlds.comparing import Rival
from tipl.experiments.worlds.film import film
from tipl.experiments.worlds.material import FACTORS, HOME
from tipl.experiments.worlds.outcome import (
    DIFFERENCE,
    HARM,
    RETURN,
    SCORE,
    SPENT,
    WORST,
    WorldsBenchmark,
    verdict,
)
from tipl.experiments.worlds.rivals import (
    ELITE,
    KNOWN,
)
from tipl.report.page import Entry, Report, Section, sections_of
from tipl.report.results import Result
from tipl.report.tables import Cell, Judged, Table, format_whole, listed, results_table

WORDS = {"wins": (True, "wins against"), "ties": (None, "ties with"), "loses": (False, "loses to")}
"""What a paired difference says: whether the model is better, and what comes before a rival."""


def headline_methods(found: WorldsBenchmark) -> list[Rival]:
    """The methods of the tables: without ablations, and without PPO on its way."""
    return [one for one in found.methods if not one.ablation or one is found.ppo]


def by_split(
    found: WorldsBenchmark, metric: str, caption: str, methods: Sequence[Rival] | None = None
) -> Table:
    """A row a method, a column a split."""
    rows: list[list[Cell]] = [
        [one.name, *(found.find(one, metric, split) for split in found.config.splits)]
        for one in methods or headline_methods(found)
    ]
    return Table(caption, ["method", *found.config.splits], rows)


def _headline(found: WorldsBenchmark) -> Table:
    """Returns, with what each method knows and spends."""
    rows: list[list[Cell]] = []
    for one in headline_methods(found):
        cells = (found.find(one, RETURN, split) for split in found.config.splits)
        rows.append([one.name, one.knows, _steps(found, one), *cells])
    columns = ["method", "knows of the world", "steps there", *found.config.splits]
    return Table("Mean return in the held-out worlds [95% interval over worlds]", columns, rows)


def _steps(found: WorldsBenchmark, method: Rival) -> str:
    """Environment steps that a method spends in a world, on average over the splits' worlds."""
    spent = [found.find(method, SPENT, split).value for split in found.config.splits]
    return format_whole(sum(spent) / len(spent))


# --- whether it is a test ---------------------------------------------------------------------


def _regime(found: WorldsBenchmark) -> Section:
    elite, ppo = found.method(ELITE), found.ppo
    home = found.rows.one(metric=RETURN, world=HOME)
    rows: list[list[Cell]] = [["home", home, None, None]]
    for split in found.config.splits:
        here, there = (found.find(one, RETURN, split) for one in (elite, ppo))
        rows.append([split, here, there, _share(here.value, home.value)])
    return Section(
        "Is it a test at all?",
        "A task is a test of adaptation where a policy that knows nothing of the world returns "
        "clearly less there than it could. The elite of home is such a policy; PPO goes on from it "
        "in each held-out world itself.",
        table=Table(
            "Mean return by groups of worlds [95% interval over worlds]",
            ["worlds", elite.name, ppo.name, "elite, of its return at home"],
            rows,
        ),
    )


def _share(value: float, whole: float) -> str:
    return f"{value / whole:.0%}" if whole > 0 else "–"


def _single_factors(found: WorldsBenchmark) -> Section:
    rows: list[list[Cell]] = []
    for name in found.worlds.physics:
        cells = (found.rows.one(metric=RETURN, world=f"{name} x{size:g}").value for size in FACTORS)
        rows.append([name, *map(format_whole, cells)])
    return Section(
        "One factor at a time",
        "What the elite of home returns where one factor alone is another. A factor that does "
        "nothing here may still matter together with others.",
        table=Table(
            "Mean return of the elite", ["factor", *(f"×{size:g}" for size in FACTORS)], rows
        ),
    )


# --- who wins ---------------------------------------------------------------------------------


def _judged(result: Result) -> Cell:
    said = verdict(result)
    return Judged(result, WORDS[said][0], said)


def _verdicts(found: WorldsBenchmark, ours: Rival) -> Section:
    """One of the model's ways beside all others."""
    rows: list[list[Cell]] = []
    for other in headline_methods(found):
        if other is not ours:
            cells = (
                _judged(found.find(ours, DIFFERENCE, split, beside=other.name))
                for split in found.config.splits
            )
            rows.append([other.name, *cells])
    title = ours.name[0].upper() + ours.name[1:]
    return Section(
        f"{title}, beside each other method",
        "By how much it returns more, paired by world: where the interval is above 0 it wins (✓), "
        "below 0 it loses (✗), else it ties (~).",
        table=Table(
            "Difference of mean returns [95% interval over worlds]",
            ["less", *found.config.splits],
            rows,
        ),
    )


def _tables(found: WorldsBenchmark) -> list[Section]:
    return [
        Section(
            "Score",
            "How much a method gains over the elite of home, in units of what PPO gains in the "
            "held-out world itself until its end. A dash: PPO gains nothing.",
            table=by_split(found, SCORE, "Score of the means [95% interval over worlds]"),
        ),
        *(_verdicts(found, one) for one in found.judged),
        Section(
            "The worst tenth of the worlds",
            "Means hide the worlds in which a method fails.",
            table=by_split(found, WORST, "Mean return in its own worst tenth of the worlds [95%]"),
        ),
        Section(
            "Harm",
            "In how many worlds a method returns less than the elite of home would, copied.",
            table=by_split(found, HARM, "Share of worlds below the elite [95% interval]"),
        ),
    ]


def _ablations(found: WorldsBenchmark) -> Section:
    methods = [found.method(KNOWN)]
    methods += [one for one in found.methods if one.ablation and one.method.ours]
    return Section(
        "Ablations",
        "The model told the physics of another world, and as networks of other architectures that "
        "are carried to its teacher; and models of lineages, which learn from trials in worlds of "
        "their own instead of a universal policy.",
        table=by_split(found, RETURN, "Mean return [95% interval over worlds]", methods),
    )


def _methods(found: WorldsBenchmark) -> Section:
    rows = [[one.name, one.knows, one.method.sentence] for one in found.methods]
    return Section(
        "What is compared",
        "Returns are of fresh episodes that start alike for all methods. What a method runs in a "
        "held-out world before is counted as its environment steps there.",
        table=Table("The methods", ["method", "knows of the world", "what it is"], rows),
    )


SECTIONS: list[Entry[WorldsBenchmark]] = [
    film,
    _regime,
    _single_factors,
    _tables,
    figures.scatter,
    figures.distance,
    figures.steps,
    figures.training_worlds,
    _ablations,
    _methods,
]
"""What a report shows below its headline, in order."""


# --- the report -------------------------------------------------------------------------------


def worlds_report(found: WorldsBenchmark) -> Report:
    """The report's content."""
    return Report(
        title=f"{found.config.env_id}: policies for worlds that nobody has trained in",
        lead=lead(found),
        points=points(found),
        headline=_headline(found),
        sections=sections_of(SECTIONS, found, found.rows),
        results=found.rows,
        commands=[found.command, *(stage.command for stage in found.stages)],
        stages=found.stages,
    )


def print_headline(found: WorldsBenchmark, console: Console) -> None:
    """Prints the headline, as far as a terminal has room for it."""
    console.print(results_table(by_split(found, RETURN, "mean return in held-out worlds")))


def lead(found: WorldsBenchmark) -> list[str]:
    """What was compared, in sentences."""
    config = found.config
    home = found.rows.one(metric=RETURN, world=HOME)
    trained = len(found.worlds.worlds(TRAINING))
    return [
        f"The model is made of a universal policy: PPO from the elite in {trained} worlds, drawn "
        f"anew at each episode, for {config.redrawn_share} environment steps as the trials in "
        f"{config.num_worlds} of them take together, {config.total_steps:,} each.",
        f"{config.held_out_worlds} worlds of each other split are held out. At home the elite "
        f"returns {format_whole(home.value)}.",
    ]


def points(found: WorldsBenchmark) -> list[str]:
    """What the numbers say: in each split what is there to gain, and whom the model beats."""
    config, elite, ppo = found.config, found.method(ELITE), found.ppo
    said = []
    for split in config.splits:
        here, end = (format_whole(found.find(one, RETURN, split).value) for one in (elite, ppo))
        said.append(
            f"{split[0].upper()}{split[1:]}: the elite returns {here}, and PPO from it {end} after "
            f"{config.total_steps:,} steps in each world."
        )
        for ours in found.judged:
            value = format_whole(found.find(ours, RETURN, split).value)
            said.append(
                f"The {ours.name}, returns {value} there: it {_beside(found, ours, split)}."
            )
    return said


def _beside(found: WorldsBenchmark, ours: Rival, split: str) -> str:
    """Against how many others one of the model's ways wins, with whom it ties, to whom it loses."""
    others = [other for other in headline_methods(found) if not other.method.ours]
    by_verdict: dict[str, list[str]] = {word: [] for word in WORDS}
    for other in others:
        difference = found.find(ours, DIFFERENCE, split, beside=other.name)
        by_verdict[verdict(difference)].append(f"“{other.name}”")
    won = len(by_verdict.pop("wins"))
    parts = [f"wins against {won} of {len(others)} others"]
    parts += [f"{WORDS[word][1]} {listed(names)}" for word, names in by_verdict.items() if names]
    return "; ".join(parts)
