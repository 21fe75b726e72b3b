"""`tipl paths verify`."""

from __future__ import annotations

from pathlib import Path

from tyro.conf import Positional

from tipl.paths import verify

__all__ = ["paths_verify"]


def paths_verify(directory: Positional[Path], /) -> None:
    """Check every byte of a dataset of paths, and say what is wrong and where.

    Exits with status 1 if anything is wrong.

    Args:
        directory: the dataset
    """
    problems = verify(directory)
    for problem in problems:
        print(problem)
    if problems:
        raise SystemExit(1)
    print(f"{directory} is intact: every byte is as it was written")
