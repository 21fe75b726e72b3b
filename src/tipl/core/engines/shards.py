"""Shards: a fixed share of the pieces for each of several processes that know nothing of another.

That is what arrays of jobs need: of SLURM, of Kubernetes (Indexed Jobs) and of AWS Batch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tipl.errors import TiplError, shown

MOST = 1_000_000
"""Shards of a work; more are a typing error."""

_INDICES = {
    "SLURM_ARRAY_TASK_ID": "SLURM_ARRAY_TASK_COUNT",
    "JOB_COMPLETION_INDEX": None,  # Kubernetes tells no count
    "AWS_BATCH_JOB_ARRAY_INDEX": "AWS_BATCH_JOB_ARRAY_SIZE",
}
"""Variables that tell a job its index, and those that tell how many there are."""


@dataclass(frozen=True)
class Shard:
    """Pieces i with i % count == index."""

    index: int
    """counted from 0"""
    count: int

    @classmethod
    def parse(cls, text: str, environment: Mapping[str, str]) -> Shard:
        """A shard from `"3/16"`, or from what the environment tells an array's job.

        `"auto"` takes index and count from there, `"auto/16"` the index alone.

        Raises:
            TiplError: the text is none of these, the index is none of the shards, or the
                environment does not tell.
        """
        match = re.fullmatch(r"(auto|-?\d{1,9})(?:/(-?\d{1,9}))?", text)
        if match is None or (match[1] != "auto" and match[2] is None):
            raise TiplError(
                f"{shown(text)} was given as a shard; expected an index, counted from 0, and how "
                "many there are, such as 3/16, or auto (or auto/16) in a job of an array"
            )
        if match[1] == "auto":
            shard = cls._told(environment, int(match[2]) if match[2] else None)
        else:
            shard = cls(int(match[1]), int(match[2]))
        if not (1 <= shard.count <= MOST and 0 <= shard.index < shard.count):
            raise TiplError(
                f"shard {shard} was given; expected an index from 0 to one less than the number "
                f"of shards, such as 0/{max(2, shard.count)}"
            )
        return shard

    @classmethod
    def _told(cls, environment: Mapping[str, str], count: int | None) -> Shard:
        """What the environment tells, with the count if it is known already."""
        found = next((name for name in _INDICES if name in environment), None)
        if found is None:
            raise TiplError(
                f"shard auto was given, but none of {', '.join(_INDICES)} is set, as in a job of "
                "an array; give an index and a count, such as --shard 3/16"
            )
        index = _number(found, environment)
        if count is not None:
            return cls(index, count)
        said = _INDICES[found]
        if said is None or said not in environment:
            raise TiplError(
                f"shard auto was given, and {found} is {index}, but nothing tells how many shards "
                "there are; give the number, such as --shard auto/16"
            )
        count = _number(said, environment)
        if found.startswith("SLURM"):
            first, last = (
                _number(f"SLURM_ARRAY_TASK_{end}", environment) if count > 1 else index
                for end in ("MIN", "MAX")
            )
            if first > 1 or last - first + 1 != count:
                raise TiplError(
                    f"shard auto was given in an array of {count} from {first} to {last}, which "
                    "is a part of one; give the number of all shards, such as --shard auto/16, "
                    "where indices count from 0"
                )
            index -= first
        return cls(index, count)

    def of(self, pieces: int) -> range:
        """Its share of so many pieces."""
        return range(self.index, pieces, self.count)

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def _number(name: str, environment: Mapping[str, str]) -> int:
    text = environment.get(name, "")
    if not re.fullmatch(r"\d{1,9}", text):
        raise TiplError(
            f"{name} is {shown(text)} in the environment, but an index or a count is expected; "
            "give them yourself, such as --shard 3/16"
        )
    return int(text)
