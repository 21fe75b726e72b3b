"""How many processors there are for this process, which may be fewer than the machine's."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")


def usable_processors() -> int:
    """Processors that this process may use: by its affinity, and by the quotas of its cgroups.

    So `taskset`, SLURM and the limits of containers count.
    """
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        allowed = os.cpu_count() or 1
    return max(1, min([allowed, *(math.ceil(quota) for quota in _quotas())]))


def _quotas() -> Iterator[float]:
    """Processors' worth of time that each control group around this process may take."""
    for hierarchy, place in _places():
        for group in (place, *place.parents):
            if group.is_relative_to(hierarchy) and (quota := _quota(group)) is not None:
                yield quota


def _places() -> Iterator[tuple[Path, Path]]:
    """The hierarchies of control groups that limit processors, and where this process is in them.

    A container may see itself at the top of a hierarchy, or under a name that is only known
    outside: then its own limits are at the top.
    """
    for line in _lines(_PROC):
        _, controllers, name = [*line.split(":", 2), "", ""][:3]
        if controllers == "":  # version 2
            hierarchy = _GROUPS
        elif "cpu" in controllers.split(","):
            hierarchy = _GROUPS / "cpu"
        else:
            continue
        place = hierarchy / name.strip("/")
        yield hierarchy, place if place.is_dir() else hierarchy


def _quota(group: Path) -> float | None:
    """Of one group: its microseconds of processor time in a period; None if it has no limit."""
    words = [word for line in _lines(group / "cpu.max") for word in line.split()]
    if not words:  # version 1
        files = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        words = [line for name in files for line in _lines(group / name)]
    try:
        quota, period = map(float, words)
    except ValueError:  # "max", or no such files
        return None
    return quota / period if quota > 0 and period > 0 else None


def _lines(file: Path) -> list[str]:
    """Of a file of the system's; none if it cannot be read."""
    try:
        return file.read_text().splitlines()
    except (OSError, ValueError):
        return []
