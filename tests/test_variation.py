"""What a collection is told: ranges of physics, what trials draw from them, and at what cost."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from tipl.collection.config import parse_ranges
from tipl.collection.physics import draw_physics
from tipl.errors import TiplError


def test_ranges_are_read_and_sorted() -> None:
    texts = ["gravity=0.7..1.4", "body_mass:pole=.5..2e0", "dof_damping=3..3"]
    assert list(parse_ranges(texts).items()) == [
        ("body_mass:pole", (0.5, 2.0)),
        ("dof_damping", (3.0, 3.0)),
        ("gravity", (0.7, 1.4)),
    ]
    assert parse_ranges([]) == {}
    reversed_ = parse_ranges(["actuator_gear:bthigh=-1.5..-0.5"])
    assert reversed_ == {"actuator_gear:bthigh": (-1.5, -0.5)}
    assert draw_physics({"actuator_gear": (-1.5, -0.5)}, 7, 0)["actuator_gear"] == pytest.approx(
        -draw_physics({"actuator_gear": (0.5, 1.5)}, 7, 0)["actuator_gear"]
    )


NO_RANGES = """
gravity
gravity=
gravity=1
gravity=1..
gravity=2..1
=1..2
gravity=0..1
gravity=-1..1
gravity=nan..1
gravity=1..inf
gravity=1..2..3
gravity=-2..-1
body_mass=-2..-1
actuator_gear=-1..1
actuator_gear=0..1
actuator_gear=-1..-2
"""


@pytest.mark.parametrize("text", NO_RANGES.splitlines())
def test_what_is_no_range_is_explained(text: str) -> None:
    with pytest.raises(TiplError, match=r"was given as what varies; expected a name and a range"):
        parse_ranges([text])


def test_a_name_has_one_range() -> None:
    with pytest.raises(TiplError, match="gravity varies twice"):
        parse_ranges(["gravity=1..2", "gravity=1..3"])


def test_draws_are_even_in_the_logarithm() -> None:
    ranges = {"gravity": (0.5, 2.0), "viscosity": (1.0, 100.0)}
    draws = [draw_physics(ranges, 7, trial) for trial in range(2_000)]
    for name, (low, high) in ranges.items():
        share = np.log([draw[name] / low for draw in draws]) / np.log(high / low)
        assert 0 <= share.min() < 0.01
        assert 0.99 < share.max() <= 1
        quartiles = np.quantile(share, [0.25, 0.5, 0.75])
        np.testing.assert_allclose(quartiles, [0.25, 0.5, 0.75], atol=0.04)
    logs = np.log([list(draw.values()) for draw in draws])
    assert abs(np.corrcoef(logs.T)[0, 1]) < 0.06


def test_a_draw_depends_on_seed_and_trial_alone() -> None:
    ranges = {"gravity": (0.5, 2.0)}
    assert draw_physics(ranges, 1, 4) == draw_physics(ranges, 1, 4)
    assert draw_physics(ranges, 1, 4) != draw_physics(ranges, 1, 5)
    assert draw_physics(ranges, 1, 4) != draw_physics(ranges, 2, 4)
    assert draw_physics({"gravity": (1.0, 1.0)}, 1, 4) == {"gravity": 1.0}


@pytest.mark.parametrize("room", ["collection", "ppo", "jumps"])
def test_a_configuration_needs_no_environment_no_model_and_no_compiler(room: str) -> None:
    code = f"import sys, tipl.{room}.config; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"gymnasium", "matplotlib", "mujoco", "numba", "scipy", "torch"}
    assert heavy & set(done.stdout.split()) == set()
