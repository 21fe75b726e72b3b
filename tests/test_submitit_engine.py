"""Groups of trials as jobs of submitit, whose local executor runs them here."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("submitit")

from test_collection import content
from test_engines import OPTIONS, TASK
from tipl.collection.collect import collect
from tipl.core.engines.config import EngineConfig
from tipl.core.engines.submitit import Submitit
from tipl.errors import TiplError

HERE = EngineConfig(engine="submitit", address="local")
FEW = {"num_trials": 2}


def test_jobs_give_the_same_bytes(tmp_path: Path) -> None:
    collect(TASK, out=tmp_path / "threads", progress=False, **OPTIONS | FEW)
    for _ in range(2):  # the second time nothing is left to do
        collect(
            TASK, out=tmp_path / "jobs", threads=2, progress=False, engine=HERE, **OPTIONS | FEW
        )
    assert content(tmp_path / "jobs") == content(tmp_path / "threads")
    logs = {path.name for path in (tmp_path / "jobs.jobs").iterdir()}
    assert len([name for name in logs if name.endswith("_log.err")]) == 2


def test_parameters_that_sbatch_does_not_have_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TiplError, match=r"does not take the parameters .*'tiem': 5"):
        Submitit("local", ["tiem=5"], None).executor(tmp_path / "paths", 1)
