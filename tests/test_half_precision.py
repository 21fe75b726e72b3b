"""Models in half precision: half the file, the same policies, and nothing that it cannot hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tiny_worlds import tiny_world_model
from tipl import Forecaster, TiplError
from tipl.core import storage


def test_a_model_in_half_precision_does_the_same(tmp_path: Path) -> None:
    model = tiny_world_model()
    model.save_pretrained(tmp_path / "whole")
    model.save_pretrained(tmp_path / "half", half=True)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("half", "whole")]
    assert sizes[0] < 0.7 * sizes[1]  # names and shapes are as long in both
    again = Forecaster.from_pretrained(tmp_path / "half")
    for name, array in model._tensors().items():
        read = again._tensors()[name]
        assert read.dtype == array.dtype
        np.testing.assert_allclose(read, array, rtol=5e-4, atol=1e-7)
    again.save_pretrained(tmp_path / "again", half=True)  # nothing is lost a second time
    halves = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("half", "again")]
    assert halves[0] == halves[1]


def test_what_is_beyond_half_precision_is_not_written(tmp_path: Path) -> None:
    model = tiny_world_model()
    with torch.no_grad():
        model.teacher.slopes[0, 0] = 7e4
    with pytest.raises(TiplError, match=r"slopes' holds 70000, but half precision ends at 65504"):
        model.save_pretrained(tmp_path / "half", half=True)
    assert not list(tmp_path.iterdir())


def test_double_precision_is_no_model_of_ours(tmp_path: Path) -> None:
    tiny_world_model().save_pretrained(tmp_path)
    arrays, header = storage.read_tensors(tmp_path / "model.safetensors", "")
    wide = {name: array.astype(np.float64) for name, array in arrays.items()}
    storage.write_tensors(tmp_path / "model.safetensors", wide, header)
    with pytest.raises(TiplError, match=r"is not of the model in the config.json"):
        Forecaster.from_pretrained(tmp_path)
