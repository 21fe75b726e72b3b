"""Files and options whose numbers are beyond sense are refused before anything is built."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

import tipl
from tipl.errors import TiplError
from tipl.policies.layout import ParamLayout, check_hidden_sizes

TASK = tipl.Policy.initial("InvertedPendulum-v4", hidden=(3,)).task


@pytest.fixture(autouse=True)
def little_memory() -> Any:
    """Whatever is refused is refused before it takes any."""
    tracemalloc.start()
    yield
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50 << 20


# --- networks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sizes", [(), (0,), (-1,), (True,), (10**9,), (65_537,), (3,) * 65, (10**400,)]
)
def test_hidden_sizes_beyond_sense_are_refused(sizes: tuple[int, ...]) -> None:
    with pytest.raises(TiplError, match=r"hidden sizes .* were given; expected one positive"):
        check_hidden_sizes(sizes)
    with pytest.raises(TiplError, match="hidden sizes"):
        tipl.Policy.initial(TASK, hidden=sizes)


def test_so_are_networks_of_too_many_weights() -> None:
    with pytest.raises(TiplError, match="at most 100,000,000 parameters"):
        tipl.Policy.initial(TASK, hidden=(65_536, 65_536))


@pytest.mark.parametrize(
    "data",
    [
        [["a", [10**12]]],
        [["a", [10**6, 10**6]]],
        [["a", [-1]]],
        [["a", [0]]],
        [["a", [True]]],
        [["a", [2.0]]],
        [["a", ["2"]]],
        [["a", [2]], ["a", [2]]],
        [["a", [10**400]]],
        [[1, [2]]],
        [["a", 2]],
        [],
        ["ab"],
        {"a": [2]},
        {"arrays": [["a", [2]]], "squashed": 1},
        {"arrays": [["a", [2]]], "activation": 3},
        {"arrays": None},
        None,
        3,
    ],
)
def test_layouts_of_files_are_of_possible_arrays(data: Any) -> None:
    with pytest.raises(TiplError, match="parameter layout"):
        ParamLayout.from_json(data)
