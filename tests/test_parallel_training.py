"""Training in two processes gives what one gives: shares of batches, and who prints and writes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import tipl
from all_trainings import KINDS, LITTLE, train_all
from tipl import Policy, PPOConfig
from tipl.core import storage
from tipl.envs.worlds import Worlds
from tipl.models import parallel
from tipl.models.network import Network
from tipl.models.parallel import Share
from tipl.policies.layout import ParamLayout

TASK = "InvertedPendulum-v4"
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("data")
    ppo = PPOConfig(num_steps=32, num_minibatches=2, update_epochs=1, learning_rate=0.01)
    paths = tipl.collect(
        TASK, out=place / "paths", num_trials=5, total_steps=256, hidden_sizes=(4,), ppo=ppo,
        threads=1, progress=False,
    )  # fmt: skip
    tipl.train(
        paths, model="neuron", targets=("elite",), num_steps=2, width=8, heads=2, memory=64,
        fresh_widths=(4, 6), fresh_depths=(1,), out=place / "carrier", threads=1, progress=False,
    )  # fmt: skip
    factors = [{"actuator_gear": g, "gravity": f} for g in (0.5, 1.0, 2.0) for f in (0.8, 1.25)]
    tipl.collect(
        TASK, out=place / "lineage", worlds=Worlds.from_factors(TASK, {"training": factors}),
        start=Policy.initial(TASK, 3, (4,)), total_steps=64, ppo=ppo, threads=1, progress=False,
    )  # fmt: skip
    return place


@pytest.fixture(scope="module")
def models(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Where one process has put models of all kinds, and where two have."""
    one, two = (tmp_path_factory.mktemp(name) for name in ("one", "two"))
    with pytest.MonkeyPatch.context() as patch:
        for module, name, value in LITTLE:
            patch.setattr(module, name, value)
        train_all(data, one)
    script = Path(__file__).parent / "all_trainings.py"
    done = subprocess.run(
        [*TORCHRUN, script, data, two], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert {file.name for file in two.iterdir()} == {"0-of-2", "1-of-2", *KINDS}
    return one, two


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_train_the_model_of_one(models: tuple[Path, Path], kind: str) -> None:
    said = [storage.read_json(place / kind / "config.json") for place in models]
    for one, two in zip(*(one["settings"]["curves"].values() for one in said), strict=True):
        assert one["step"] == two["step"]
        for name in ("train_loss", "held_out_loss", "standing_still_loss"):
            losses = (np.array(curve[name], np.float64) for curve in (one, two))
            np.testing.assert_allclose(*losses, rtol=2e-3, atol=1e-6)
    assert said[0]["settings"]["train"] == said[1]["settings"]["train"]


@pytest.fixture
def second_of_three() -> Iterator[None]:
    before = parallel._place.set((1, 3))
    yield
    parallel._place.reset(before)


@pytest.mark.parametrize(
    ("count", "part", "weight"),
    [(6, (2, 4), 1.0), (7, (2, 4), 6 / 7), (2, (0, 1), 1.5), (1, (0, 1), 0.0)],
)
def test_a_batch_is_shared_among_processes(
    second_of_three: None, count: int, part: tuple[int, int], weight: float
) -> None:
    share = Share.of(count)
    batch = torch.arange(float(count))
    assert share(batch).tolist() == batch[slice(*part)].tolist()
    assert float(share.scaled(torch.tensor(1.0))) == pytest.approx(weight)
    layout = ParamLayout.actor(4, 1, (3,))
    network = Network.from_flat(torch.randn(count, 1, layout.size), layout)
    assert torch.equal(share(network).flat(), network.flat()[slice(*part)])


def test_members_that_count_more_weigh_more(second_of_three: None) -> None:
    share, counts = Share.of(3), torch.tensor([1, 6, 5])
    assert float(share.scaled(torch.tensor(2.0), counts)) == pytest.approx(2 * 6 / 12 * 3)


def test_one_process_shares_nothing() -> None:
    assert parallel.is_first()
    share, loss = Share.of(5), torch.tensor(3.0)
    assert share(torch.arange(5)).tolist() == [0, 1, 2, 3, 4]
    assert share.scaled(loss) is loss
    assert parallel.average(loss) is loss


def test_processes_on_one_machine_share_its_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "thread_count", lambda threads: threads or 8)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert (parallel.threads_each(None), parallel.threads_each(3)) == (4, 3)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "20")
    assert parallel.threads_each(None) == 1


def test_the_command_prints_once(data: Path, tmp_path: Path) -> None:
    words = ["-m", "tipl", "train", str(data / "paths"), "--num-steps", "3", "--held-out", "0.4"]
    out = tmp_path / "model"
    done = subprocess.run(
        [*TORCHRUN, *words, "--out", out], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("PathTransformer, 3 training and 2 held-out trials") == 1
    assert done.stderr.count("loss") <= 4  # of one progress bar
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


def test_a_process_that_has_gone_is_said_to_have(data: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    words = ["-m", "tipl", "train", str(data / "paths"), "--num-steps", "100000"]
    goes = "import os; from tipl.models.parallel import joined\nwith joined(): os._exit(0)"
    first, second = (
        subprocess.Popen(
            [sys.executable, *given], env={**os.environ, **place, "RANK": rank},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank, given in (("0", [*words, "--out", str(tmp_path / "model")]), ("1", ["-c", goes]))
    )  # fmt: skip
    said = first.communicate(timeout=120)[1]
    second.communicate()
    assert first.returncode == 2, said
    assert "tipl: another process that trains this model has gone" in said
    assert "Traceback" not in said
    assert not [*tmp_path.iterdir()]  # no step was done
