"""Names of physics, which are told from misspelt ones before anything heavy comes in."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tipl import TiplError
from tipl.envs import make_vec
from tipl.envs.physics import _OBJECTS, _float_fields
from tipl.policies.factors import OWNERS, check_name


def test_every_name_of_a_model_passes() -> None:
    model = make_vec("HalfCheetah-v4", 1).model(0)  # type: ignore[attr-defined]
    for field in _float_fields(model):
        check_name(field)
        check_name(f"{field}:torso")
    for name in ("gravity", "impratio", "mass", "mass:torso"):
        check_name(name)
    assert {*OWNERS} == {*_OBJECTS}


@pytest.mark.parametrize(
    "name", ["gravty", "mas:torso", "gravity:torso", "", "body", "timestep", "qpos0", ":torso"]
)
def test_others_are_refused(name: str) -> None:
    with pytest.raises(TiplError, match="no physics '"):
        check_name(name)


def test_what_is_known_of_a_model_decides() -> None:
    check_name("body_mass:torso", ["body_mass"])
    with pytest.raises(TiplError, match="did you mean body_mass"):
        check_name("body_mas", ["body_mass"])


@pytest.mark.parametrize(
    "words",
    [
        ["worlds", "make", "Hopper-v4", "--vary", "gravty=1..2", "--splits", "training=2"],
        ["collect", "Hopper-v4", "--vary", "gravty=1..2"],
    ],
)
def test_the_engine_is_not_imported_for_a_misspelt_name(words: list[str]) -> None:
    code = (
        "import sys; from tipl.cli import main\n"
        f"try: main({[*words, '--out', 'nowhere']!r})\n"
        "finally: print('mujoco' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "did you mean gravity?" in done.stderr.replace("\n", " ")
    assert done.stdout.strip() == "False"
