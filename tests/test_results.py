"""Results files: exact round trips, readable errors, and the terminal's table."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from tipl.errors import TiplError
from tipl.report.results import (
    Result,
    format_bounds,
    format_number,
    format_result,
    pivot,
    read_results,
    results_table,
    write_results,
)

RESULT = Result(
    task="InvertedPendulum-v4",
    experiment="forecast",
    method="PathTransformer",
    setting="history 50%, horizon 5",
    metric="episodic_return",
    value=946.25,
    low=930.125,
    high=960.5,
    n_trials=32,
    n_episodes=10,
    command="tipl evaluate runs/demo --episodes 10",
)


def test_results_round_trip(tmp_path: Path) -> None:
    results = [RESULT, replace(RESULT, method='a "quoted"\nβ\u2028 name \x85', value=0.1 + 0.2)]
    write_results(tmp_path / "results.jsonl", results)
    assert read_results(tmp_path / "results.jsonl") == results


def test_each_line_is_one_result_as_json(tmp_path: Path) -> None:
    write_results(tmp_path / "results.jsonl", [RESULT, RESULT])
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    assert [json.loads(line)["value"] for line in lines] == [946.25, 946.25]


def test_nan_is_null_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    write_results(path, [replace(RESULT, low=math.nan, high=math.nan)])
    assert '"low": null' in path.read_text()
    (result,) = read_results(path)
    assert math.isnan(result.low)
    assert result.value == RESULT.value


def test_an_infinite_number_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(TiplError, match=r"high of 'PathTransformer'.* is infinite"):
        write_results(tmp_path / "results.jsonl", [RESULT, replace(RESULT, high=math.inf)])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda line: line[:40], "line 2 is not JSON"),
        (lambda line: "[1]", "line 2 holds list; expected the fields task"),
        (lambda line: line.replace('"task"', '"env"'), "line 2 holds .*env.*; expected the fields"),
        (lambda line: line.replace("946.25", '"946"'), "line 2 has value = '946'; expected float"),
        (lambda line: line.replace("946.25", "true"), "line 2 has value = True; expected float"),
        (lambda line: line.replace(": 32", ": 32.5"), "line 2 has n_trials = 32.5; expected int"),
        (lambda line: line.replace(": 32", ": null"), "line 2 has n_trials = None; expected int"),
        (lambda line: line.replace(": 32", ": true"), "line 2 has n_trials = True; expected int"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, damage: Callable[[str], str], message: str) -> None:
    path = tmp_path / "results.jsonl"
    write_results(path, [RESULT] * 3)
    lines = path.read_text().splitlines()
    lines[1] = damage(lines[1])
    path.write_text("\n".join(lines))
    with pytest.raises(TiplError, match=message):
        read_results(path)


def test_whole_numbers_are_read_as_float(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    write_results(path, [RESULT])
    path.write_text(path.read_text().replace("946.25", "946"))
    assert isinstance(read_results(path)[0].value, float)


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TiplError, match="No such file"):
        read_results(tmp_path / "none.jsonl")
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TiplError, match="not UTF-8"):
        read_results(tmp_path / "binary.jsonl")


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (946.25, 930.125, 960.5, "946 [930, 960]"),
        (999.71, 999.52, 999.93, "999.71 [999.52, 999.93]"),
        (0.0123, 0.0101, 0.015, "0.0123 [0.0101, 0.0150]"),
        (12345.6, 11000.0, 13000.0, "12,346 [11,000, 13,000]"),
        (1000.004, 1000.001, 1000.008, "1,000.0 [1,000.0, 1,000.0]"),
        (-0.5, -0.75, 0.0, "−0.50 [−0.75, 0.00]"),
        (5.0, 5.0, 5.0, "5.00 [5.00, 5.00]"),
        (0.123456, math.nan, math.nan, "0.123"),
        (math.nan, math.nan, math.nan, "–"),
        (12345.6, 11000.0, math.inf, "12,346 [11,000, –]"),
        (math.inf, 0.25, math.inf, "– [0.250, –]"),
        (math.inf, math.inf, math.inf, "–"),
    ],
)
def test_digits_follow_the_interval(value: float, low: float, high: float, text: str) -> None:
    result = replace(RESULT, value=value, low=low, high=high)
    assert format_result(result) == text
    assert text.endswith(format_bounds(result)) or not math.isfinite(low)


def test_a_lone_number_has_three_digits() -> None:
    numbers = [0.0, 0.123456, 61440.0, -12.345]
    assert [format_number(number) for number in numbers] == ["0.00", "0.123", "61,440", "−12.3"]


def test_pivot_keeps_order_and_gaps() -> None:
    later = replace(RESULT, setting="horizon 50")
    other = replace(later, method="standing still")
    settings, rows = pivot([RESULT, later, other])
    assert settings == [RESULT.setting, "horizon 50"]
    assert rows == {"PathTransformer": [RESULT, later], "standing still": [None, other]}


def test_pivot_refuses_two_results_in_one_cell() -> None:
    with pytest.raises(TiplError, match="choose one task, experiment and metric"):
        pivot([RESULT, replace(RESULT, metric="weight_error")])


def test_the_terminal_shows_values_intervals_and_hostile_names() -> None:
    hostile = replace(RESULT, method="[bold]name[/bold]", setting="[red]")
    table = results_table([RESULT, hostile], title="Returns [mean]")
    console = Console(width=80, color_system=None)
    with console.capture() as capture:
        console.print(table)
    for text in ("Returns [mean]", "946", "[930, 960]", "[bold]name[/bold]", "[red]"):
        assert text in capture.get()
