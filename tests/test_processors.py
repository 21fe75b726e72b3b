"""Threads: as many as there are processors for this process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tipl.core import processors
from tipl.core.options import thread_count
from tipl.core.processors import usable_processors

NAMES = "0::/mine/part\n"
NAMES_1 = "9:cpuset:/other\n4:cpu,cpuacct:/mine/part\n0::/\n"


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where control groups are, of a process that may run on 8 processors."""
    monkeypatch.setattr(processors, "_GROUPS", tmp_path)
    monkeypatch.setattr(processors, "_PROC", tmp_path / "names")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    return tmp_path


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_affinity_counts(groups: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert usable_processors() == 8
    assert (thread_count(None), thread_count(3)) == (8, 3)
    monkeypatch.delattr(os, "sched_getaffinity")
    assert usable_processors() == 64


@pytest.mark.parametrize(
    ("own", "outer", "expected"),
    [
        ("200000 100000", "max 100000", 2),
        ("max 100000", "150000 100000", 2),  # of a part of a processor a thread makes use
        ("50000 100000", "max 100000", 1),
        ("1600000 100000", "max 100000", 8),
        ("max 100000", "max 100000", 8),
        ("no number", "0 0", 8),
        ("", "", 8),
    ],
)
def test_quotas_of_containers_count(groups: Path, own: str, outer: str, expected: int) -> None:
    write(groups, names=NAMES)
    write(groups / "mine", cpu__max=outer)
    write(groups / "mine" / "part", cpu__max=own)
    assert usable_processors() == expected


def test_inside_a_container_its_own_limits_are_at_the_top(groups: Path) -> None:
    write(groups, names=NAMES, cpu__max="300000 100000")
    assert usable_processors() == 3


@pytest.mark.parametrize(("quota", "expected"), [("300000", 3), ("-1", 8), ("x", 8)])
def test_control_groups_of_version_1(groups: Path, quota: str, expected: int) -> None:
    write(groups, names=NAMES_1)
    part = groups / "cpu" / "mine" / "part"
    write(part, **{"cpu.cfs_quota_us": quota, "cpu.cfs_period_us": "100000\n"})
    assert usable_processors() == expected


def test_names_that_make_no_sense_are_passed_over(groups: Path) -> None:
    write(groups, names="what\n1:cpu\n")
    assert usable_processors() == 8
