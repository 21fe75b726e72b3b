"""Policy learning paths on disk: their format, and datasets to write, read, split and check."""

from tipl.paths.checks import EvaluationSummary, PathSummary, ReturnRange, summarize, verify
from tipl.paths.dataset import PathDataset, PolicyPath, Split
from tipl.paths.metadata import PathMetadata, read_metadata
from tipl.paths.parts import PartRange, create_dataset, part_ranges, parts_present, write_part

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
