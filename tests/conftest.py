"""What tests of several files need, and how their running time is measured."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

import shape_checks

shape_checks.install()  # before anything imports tipl

SHOWN = 10


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    shape_checks.start_test()


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Arrays this small gain nothing from threads, which on a busy machine wait for each other."""
    import torch  # slow to import, and not every test needs it

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# --- processor time: what a busy machine does not change -------------------------------------

_spent: dict[str, float] = {}
_until_now = 0.0


def _processor_time() -> float:
    """Seconds of this process and of those that it has started and waited for."""
    return sum(os.times()[:4])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    global _until_now
    report = yield
    before, _until_now = _until_now, _processor_time()
    report.processor_time = _until_now - before  # travels with the report to the first process
    return report


def pytest_collection_finish() -> None:
    global _until_now
    _until_now = _processor_time()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    spent = getattr(report, "processor_time", 0.0)
    _spent[report.nodeid] = _spent.get(report.nodeid, 0.0) + spent


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.section(f"{_processor_time():.0f} s of processor time; the dearest tests")
    for test, seconds in sorted(_spent.items(), key=lambda one: -one[1])[:SHOWN]:
        if seconds >= 1:
            terminalreporter.write_line(f"{seconds:6.1f} s  {test}")
