"""What factors of physics may be: one rule, whoever reads or takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from path_data import make_dataset, make_metadata, write_parts
from tipl.errors import TiplError
from tipl.paths import PathDataset, PathMetadata
from tipl.policies.factors import are_factors, checked_factors, parse_factors
from tipl.policies.tasks import TaskSpec, get_task

IMPOSSIBLE = [
    *(("gravity", factor) for factor in (0.0, -1.0, np.nan, np.inf)),
    *(("actuator_gear", factor) for factor in (0.0, np.nan, np.inf, -np.inf)),
    ("actuator_gearprm", -1.0),
    ("mass:actuator_gear", -1.0),
]


@pytest.mark.parametrize(("name", "factor"), IMPOSSIBLE)
def test_what_is_no_factor_is_refused_everywhere(name: str, factor: float) -> None:
    task = get_task("InvertedPendulum-v4")
    assert not are_factors(name, np.array(factor))
    with pytest.raises(TiplError, match=r"have the factor .*; expected .*, of which 1 changes"):
        checked_factors({name: factor})
    with pytest.raises(TiplError, match="expected"):
        parse_factors([f"{name}={factor}"])
    with pytest.raises(TiplError, match=r"the task spec of .* have the factor"):
        task.with_physics({name: factor})
    with pytest.raises(TiplError, match="'physics'"):
        TaskSpec.from_json(task.to_json() | {"physics": {name: factor}})
    with pytest.raises(TiplError, match=f"{name} varies from"):
        make_metadata(vary={name: [factor, 2.0]})


@pytest.mark.parametrize("name", ["actuator_gear", "actuator_gear:slide"])
def test_a_gear_may_be_reversed_everywhere(name: str, tmp_path: Path) -> None:
    task = get_task("InvertedPendulum-v4").with_physics({name: -0.5})
    assert TaskSpec.from_json(task.to_json()) == task
    assert parse_factors([f"{name}=-0.5", "gravity=2"]) == {name: -0.5, "gravity": 2.0}
    metadata = make_metadata(vary={name: [-2.0, -0.5], "gravity": [1.0, 2.0]})
    assert PathMetadata.from_json(metadata.to_json()) == metadata


@pytest.mark.parametrize("text", ["gravity", "=1", "gravity=", "gravity=x", "gravity=1=2", "g=1,2"])
def test_what_is_no_text_of_a_factor_is_explained(text: str) -> None:
    with pytest.raises(TiplError, match="was given as physics; expected a name and a factor"):
        parse_factors([text])
    with pytest.raises(TiplError, match="'gravity' were given twice"):
        parse_factors(["gravity=1", "gravity=1"])


@pytest.mark.parametrize("factor", [True, "1", None, 1j, 10**400, np.float64(np.nan)])
def test_what_is_no_number_is_no_factor(factor: Any) -> None:
    with pytest.raises(TiplError, match="the physics 'gravity' have the factor"):
        checked_factors({"gravity": factor})


def test_stored_factors_are_checked_by_their_names(tmp_path: Path) -> None:
    vary = {"actuator_gear": [-2.0, -0.5], "gravity": [0.5, 2.0]}
    arrays = make_dataset(tmp_path / "good", vary=vary)
    metadata = make_metadata(vary=vary)
    arrays["physics"][..., 0] = -1.0
    for part in (tmp_path / "good" / "parts").iterdir():
        part.unlink()
    write_parts(tmp_path / "good", metadata, arrays)
    assert PathDataset.open(tmp_path / "good").physics()["actuator_gear"].tolist() == [-1.0] * 5
    arrays["physics"][1, :, 1] = -1.0  # of gravity
    with pytest.raises(TiplError, match="trial 1, have an impossible factor of its physics"):
        write_parts(tmp_path / "good", metadata, arrays)
