"""What tests of several files need, and how their running time is measured."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

import shape_checks

shape_checks.install()  # before anything imports tipl

SHOWN = 10


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


def _processor_time() -> float:
    """Seconds of this process and of those that it has started and waited for."""
    return sum(os.times()[:4])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    start = _processor_time()
    result = yield
    _spent[item.nodeid] = _processor_time() - start
    return result


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):  # one of several processes: tells the first one
        session.config.workeroutput["spent"] = _spent


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_testnodedown(node: object) -> None:
    _spent.update(getattr(node, "workeroutput", {}).get("spent", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.section(f"{_processor_time():.0f} s of processor time; the dearest tests")
    for test, seconds in sorted(_spent.items(), key=lambda one: -one[1])[:SHOWN]:
        if seconds >= 1:
            terminalreporter.write_line(f"{seconds:6.1f} s  {test}")
