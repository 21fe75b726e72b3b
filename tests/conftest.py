"""What tests of several files need, and how their running time is measured."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import shape_checks

shape_checks.install()  # before anything imports tipl

SHOWN = 10


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    shape_checks.start_test()


def pytest_configure(config: pytest.Config) -> None:
    """Kernels are compiled before there are processes, of which each would compile them all."""
    package = importlib.util.find_spec("tipl.ppo")
    assert package is not None
    assert package.origin is not None
    compiled = Path(package.origin).parent / "__pycache__"
    if config.getoption("numprocesses", None) and not [*compiled.glob("kernels.*.nbi")]:
        compile_kernels()


def compile_kernels() -> None:
    """Learns for a moment by all kernels, from arrays of both dtypes and of one and more trials."""
    import numpy as np  # all of these only where something is to be compiled

    from tipl.envs import make_task, make_vec
    from tipl.ppo import PPO, PPOConfig

    little = PPOConfig(num_steps=4, num_minibatches=2, update_epochs=1)
    for env_id in ("InvertedPendulum-v5", "CartPole-v1"):
        for dtype in (np.float32, np.float64):
            for trials in (range(1), range(2)):
                envs = make_vec(env_id, len(trials))
                ppo = PPO(envs, make_task(env_id), trials, 1, little, (2,), dtype=dtype)
                ppo.update(ppo.rollout())


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Arrays this small gain nothing from threads, which on a busy machine wait for each other."""
    import torch  # slow to import, and not every test needs it

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True, scope="module")
def measured_briefly(request: pytest.FixtureRequest) -> Iterator[None]:
    """Tasks without shipped statistics are measured in fewer steps, save where that is tested."""
    with pytest.MonkeyPatch.context() as patch:
        if request.module.__name__ not in {"test_envs", "test_equal_bytes"}:
            patch.setattr("tipl.envs.factory.MEASURED_STEPS", 100)
        yield


@pytest.fixture(autouse=True, scope="module")
def trusted_by_nobody() -> Iterator[None]:
    """What tests of one file say that they trust, those of another do not."""
    from tipl.core import trust

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trust, "_trusted", set())
        patch.setattr(trust, "_trusted_arguments", set())
        yield


# --- processor time: what a busy machine does not change -------------------------------------

_spent: dict[str, float] = {}
_counted: list[str] = []
"""What tests say that they have tried, by `record_property("counted", ...)`."""
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
    if report.when == "call":
        told = [value for name, value in report.user_properties if name == "counted"]
        _counted.extend(f"{value}  {report.nodeid}" for value in told)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.section(f"{_processor_time():.0f} s of processor time; the dearest tests")
    for test, seconds in sorted(_spent.items(), key=lambda one: -one[1])[:SHOWN]:
        if seconds >= 1:
            terminalreporter.write_line(f"{seconds:6.1f} s  {test}")
    if _counted:
        terminalreporter.section("what was tried")
        for line in sorted(_counted, key=lambda one: one.partition("  ")[2]):
            terminalreporter.write_line(line)
