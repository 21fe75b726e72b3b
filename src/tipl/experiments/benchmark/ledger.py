"""The ledger: environment steps, processor seconds, floating-point operations and memory.

Processor seconds and memory of a stage are those of its process. Floating-point operations are
counted for matrix products, by torch where torch does them and for PPO by what its networks do;
the physics are not counted among them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from tipl.core import storage
from tipl.core.schemas import JsonFile, NotNegative
from tipl.report.results import Result

COSTS = "costs.json"
"""The file in a run's directory."""

WHOLE_STAGES = {
    "forecast": "all forecasts of the held-out trials, rivals included",
    "evaluate": "running them in the environment",
}
"""Stages whose parts are not told apart, and what they do."""

Work = Literal["collect", "train", "forecast", "stage"]
WORDS: dict[Work, str] = {"collect": "collect ", "train": "train: ", "forecast": "forecast: "}
"""How the words for a piece of work begin; those of a whole stage are what it does."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a piece of work takes; NaN is not counted."""

    kind: Work
    name: str  # of the model or method, or of the stage
    env_steps: float
    cpu_seconds: float  # of all threads together
    flops: float  # two for each multiplication and addition
    peak_rss_mb: float  # largest resident memory of its process
    command: str

    @property
    def work(self) -> str:
        """What is done, in words."""
        return WORDS.get(self.kind, "") + (
            WHOLE_STAGES.get(self.name, self.name) if self.kind == "stage" else self.name
        )


class _WrittenCost(msgspec.Struct):
    """A cost in a file; null is not counted."""

    env_steps: NotNegative | None
    cpu_seconds: NotNegative | None
    flops: NotNegative | None
    peak_rss_mb: NotNegative | None
    command: str
    kind: Work = "stage"
    name: str = ""
    work: str = ""  # of an earlier version, which kept the words alone

    def known(self) -> Cost:
        """The cost that was written."""
        kind, name = self.kind, self.name
        if self.work:
            stages = {words: name for name, words in WHOLE_STAGES.items()}
            name = stages.get(self.work, self.work)
            for one, beginning in WORDS.items():
                if self.work.startswith(beginning):
                    kind, name = one, self.work.removeprefix(beginning)
        numbers = {
            number: math.nan if getattr(self, number) is None else getattr(self, number)
            for number in ("env_steps", "cpu_seconds", "flops", "peak_rss_mb")
        }
        return Cost(kind, name, **numbers, command=self.command)


class _Ledger(msgspec.Struct):
    """What `costs.json` says."""

    costs: list[_WrittenCost]


LEDGER = JsonFile(COSTS, _Ledger, "the costs of a run (made by `tipl costs`)")


COST_FILE = storage.own_json("costs", lambda found: "costs" in found)


def finite(row: Result) -> Result:
    """A row for a file: NaN where a goal is not reached."""
    value, low, high = (math.nan if math.isinf(x) else x for x in (row.value, row.low, row.high))
    return dataclasses.replace(row, value=value, low=low, high=high)


def write_costs(file: Path, costs: Sequence[Cost]) -> None:
    """Writes costs for `read_costs`."""
    values = [
        {name: None if value != value else value for name, value in vars(cost).items()}
        for cost in costs
    ]
    storage.write_json(file, {"costs": values})


def read_costs(file: Path) -> list[Cost]:
    """Reads what `write_costs` wrote.

    Raises:
        TiplError: there is no such file, or it is damaged.
    """
    return [cost.known() for cost in LEDGER.read(file).costs]


def uses_until_paid(cost: float, saved: float) -> float:
    """Uses that save as much as something has cost; infinite if a use saves nothing."""
    return float(math.ceil(cost / saved)) if saved > 0 else math.inf
