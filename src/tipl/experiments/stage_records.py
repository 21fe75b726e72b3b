"""What the stages of an experiment took: the `stages.json` of its directory."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from tipl.core.schemas import JsonFile, Natural, NotNegative
from tipl.experiments.clearing import FILE


@dataclass(frozen=True)
class StageRecord:
    """What a stage took, also before it was interrupted."""

    name: str
    command: str
    seconds: NotNegative  # wall time
    cpu_seconds: NotNegative = math.nan  # of all threads together; NaN is not known
    peak_rss_mb: Natural = 0  # largest resident memory of its process
    digest: str = ""  # of the command and of the stages that it needs; empty if it is not done
    unfinished: str = ""  # that of a command that was interrupted or failed
    reads: Mapping[str, str] = field(default_factory=dict)  # digests of the directories

    @property
    def note(self) -> str:
        """What a report says of it."""
        return f"peak memory {self.peak_rss_mb:,} MB"

    def to_json(self) -> dict[str, Any]:
        """The record as JSON, without what is not known."""
        values = dataclasses.asdict(self)
        unknown = {"cpu_seconds"} if math.isnan(self.cpu_seconds) else set()
        unknown |= {name for name in ("unfinished", "reads") if not values[name]}
        return {name: values[name] for name in values if name not in unknown}


class _Stages(msgspec.Struct):
    """What `stages.json` says."""

    stages: list[StageRecord]


STAGES = JsonFile(FILE, _Stages, "the record of an experiment's stages")


def read_records(directory: str | Path) -> dict[str, StageRecord]:
    """What the stages in an experiment's directory took, by name, in order of their first run.

    Raises:
        TiplError: the `stages.json` is damaged.
    """
    file = Path(directory) / FILE
    if not file.exists():
        return {}
    return {record.name: record for record in STAGES.read(file).stages}
