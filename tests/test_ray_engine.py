"""Groups of trials on a Ray cluster, of which a machine and the driver are killed on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")

from test_collection import content
from tipl.collection.collect import collect
from tipl.ppo.config import PPOConfig

TASK = "HalfCheetah-v4"
OPTIONS: dict[str, Any] = {
    "num_trials": 4,
    "trials_per_group": 1,
    "total_steps": 3072,
    "hidden_sizes": (4,),
    "ppo": PPOConfig(num_steps=128, num_minibatches=2, update_epochs=1),
}
WORDS = (
    *("collect", TASK, "--num-trials", "4", "--trials-per-group", "1", "--total-steps", "3072"),
    *("--hidden-sizes", "4", "--ppo.num-steps", "128", "--ppo.num-minibatches", "2"),
    *("--ppo.update-epochs", "1", "--engine", "ray", "--out", "paths"),
)
NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head without processors and two nodes with one each, whose processes end with the test."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    one = Cluster(initialize_head=True, head_node_args=NODE | {"num_cpus": 0})
    one.nodes = [one.add_node(**NODE, wait=False) for _ in range(2)]
    yield one
    one.shutdown()


def driver(cluster: Any, folder: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tipl", *WORDS, "--address", cluster.address]
    with (folder / "errors").open("w") as errors:
        return subprocess.Popen(command, cwd=folder, stderr=errors, stdout=subprocess.DEVNULL)


def wait_for(folder: Path, pattern: str, count: int, process: subprocess.Popen[bytes]) -> None:
    while len(list(folder.glob(pattern))) < count:
        assert process.poll() is None, (folder / "errors").read_text()
        time.sleep(0.05)


def test_a_node_and_the_driver_may_die(cluster: Any, tmp_path: Path) -> None:
    first = driver(cluster, tmp_path)
    wait_for(tmp_path, "paths/resume/*.safetensors", 2, first)  # both nodes are at work
    cluster.remove_node(cluster.nodes[0], allow_graceful=False)
    wait_for(tmp_path, "paths/parts/*", 4, first)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    cluster.add_node(**NODE, wait=False)
    second = driver(cluster, tmp_path)
    assert second.wait() == 0, (tmp_path / "errors").read_text()
    collect(TASK, out=tmp_path / "threads", threads=2, progress=False, **OPTIONS)
    assert content(tmp_path / "paths") == content(tmp_path / "threads")
