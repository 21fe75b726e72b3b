"""Policy learning paths on disk: their format, and datasets to write, read, split and check."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tipl.core.lazy import lazy_names

__all__ = [
    "EvaluationSummary",
    "PartRange",
    "PathDataset",
    "PathMetadata",
    "PathSummary",
    "PolicyPath",
    "ReturnRange",
    "Split",
    "create_dataset",
    "part_ranges",
    "parts_present",
    "read_metadata",
    "summarize",
    "verify",
    "write_part",
]

if TYPE_CHECKING:
    from tipl.paths.checks import EvaluationSummary, PathSummary, ReturnRange, summarize, verify
    from tipl.paths.dataset import PathDataset, PolicyPath, Split
    from tipl.paths.grid import PartRange, part_ranges
    from tipl.paths.metadata import PathMetadata, read_metadata
    from tipl.paths.parts import create_dataset, parts_present, write_part
else:
    __getattr__, __dir__ = lazy_names(__name__)
