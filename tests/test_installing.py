"""The wheel, in an environment of its own: small, whole, and as quick as README promises."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LARGEST = 20e6
"""Bytes of the wheel."""

MOST_SECONDS = 60
"""Of processor time, from an empty environment to the return of a policy."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("dist")
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    words = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(place), str(ROOT)]
    subprocess.run([*pip, *words], check=True)
    [built] = place.glob("tipl-*.whl")
    return built


def _seconds() -> float:
    """Processor time of all processes that have ended by now."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_the_wheel_makes_a_good_policy_in_an_empty_directory(wheel: Path, tmp_path: Path) -> None:
    assert wheel.stat().st_size <= LARGEST
    begun = _seconds()
    venv.create(tmp_path / "venv", symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    paths = {"base": str(tmp_path / "venv"), "platbase": str(tmp_path / "venv")}
    packages = Path(sysconfig.get_path("purelib", "venv", paths))
    # what a download would bring; tipl is not among it, as files there are not read as .pth
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "-q",
        "--disable-pip-version-check",
    ]
    subprocess.run([*pip, "install", "--no-deps", "--no-index", str(wheel)], check=True)
    empty = tmp_path / "empty"
    empty.mkdir()
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "NUMBA_CACHE_DIR")}
    environment = clean | {"OMP_NUM_THREADS": "1", "PATH": f"{python.parent}:{os.environ['PATH']}"}

    def tipl(*words: str) -> str:
        command = [str(python.parent / "tipl"), *words]
        return subprocess.run(
            command, cwd=empty, env=environment, check=True, capture_output=True, text=True
        ).stdout

    tipl("optimize", "HalfCheetah-v4", "--out", "runner")
    said = tipl("evaluate", "runner", "--episodes", "20")
    found = subprocess.run(
        [python, "-c", "import tipl; print(tipl.__file__)"],
        cwd=empty, env=environment, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert str(tmp_path) in found  # and not the sources
    mean = float(said.split("mean episodic return")[1].split()[0].replace(",", ""))
    assert mean > 3_000
    assert [path.name for path in empty.iterdir()] == ["runner"]
    assert _seconds() - begun < MOST_SECONDS
