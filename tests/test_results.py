"""Results files: exact round trips, readable errors, and the terminal's table."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from results_files import read_results
from tipl.errors import TiplError
from tipl.report.results import (
    Result,
    Rows,
    place_label,
    write_results,
)
from tipl.report.tables import (
    Judged,
    Pivot,
    Table,
    format_number,
    format_result,
    results_table,
    value_and_bounds,
)

RESULT = Result(
    task="InvertedPendulum-v4",
    experiment="forecast",
    method="PathTransformer",
    metric="episodic_return",
    value=946.25,
    low=930.125,
    high=960.5,
    n_trials=32,
    n_episodes=10,
    command="tipl evaluate runs/demo --episodes 10",
    start=0.5,
    horizon=5,
)


def test_results_round_trip(tmp_path: Path) -> None:
    results = [RESULT, replace(RESULT, method='a "quoted"\nβ\u2028 name \x85', value=0.1 + 0.2)]
    write_results(tmp_path / "results.jsonl", results)
    assert list(read_results(tmp_path / "results.jsonl")) == results


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
    assert value_and_bounds(result) == (*text.split(" ", 1), "")[:2]


def test_a_lone_number_has_three_digits() -> None:
    numbers = [0.0, 0.123456, 61440.0, -12.345]
    assert [format_number(number) for number in numbers] == ["0.00", "0.123", "61,440", "−12.3"]


OTHER = replace(RESULT, method="standing still", horizon=50)
ROWS = Rows([RESULT, replace(RESULT, horizon=50), OTHER, replace(RESULT, metric="weight_error")])


def test_rows_are_found_by_their_columns() -> None:
    assert list(ROWS.where(horizon=50)) == [ROWS[1], OTHER]
    assert list(ROWS.where(metric="episodic_return", horizon={5, 7})) == [RESULT]
    assert ROWS.where(metric=["weight_error"], start=0.5) == Rows(ROWS[3:])
    assert ROWS.find(metric="weight_error", horizon=50) is None
    assert ROWS.one(metric="weight_error") is ROWS[3]
    assert ROWS.values("horizon") == [5, 50]
    assert len(ROWS.where(uses=None)) == 4


def test_what_cannot_be_found_says_why() -> None:
    with pytest.raises(TiplError, match=r"3 results have {'metric': 'episodic_return'}.* more col"):
        ROWS.find(metric="episodic_return")
    with pytest.raises(TiplError, match=r"of 4 results, none has .*'horizon': 6"):
        ROWS.one(horizon=6)
    with pytest.raises(TiplError, match="no column 'setting'; they have task, experiment"):
        ROWS.where(setting="history 50%")
    with pytest.raises(TiplError, match="no column 'setting'"):
        ROWS.pivot(["method"], ["setting"])


def test_pivot_keeps_order_and_gaps() -> None:
    cells = Rows(ROWS[:3]).pivot(["method"], ["start", "horizon"])
    short, long = (0.5, 5), (0.5, 50)
    assert list(dict.fromkeys(column for _, column in cells)) == [short, long]
    assert list(dict.fromkeys(row for row, _ in cells)) == [(RESULT.method,), (OTHER.method,)]
    found = [[cells.get(((m,), place)) for place in (short, long)] for m in ROWS.values("method")]
    assert found == [[RESULT, ROWS[1]], [None, OTHER]]
    table = Pivot("episodic_return")(ROWS)
    assert table.columns == ["method", "history 50%, horizon 5", "history 50%, horizon 50"]


def test_pivot_refuses_two_results_in_one_cell() -> None:
    with pytest.raises(TiplError, match="choose one task, experiment and metric"):
        ROWS.pivot(["method"], ["start", "horizon"])


def test_a_table_has_a_column_a_place_or_a_metric() -> None:
    table = Pivot("episodic_return", order=["standing still"], where={"horizon": 50})(ROWS)
    assert table.columns == ["method", "history 50%, horizon 50"]
    assert table.rows == [["standing still", OTHER], ["PathTransformer", ROWS[1]]]
    metrics = {"weight_error": "error", "episodic_return": "return"}
    rows = Rows([replace(RESULT, architecture="64-64"), replace(OTHER, metric="weight_error")])
    table = Pivot(metrics, ("method", "architecture"), headings={"architecture": "layers"})(rows)
    assert table.columns == ["method", "layers", "error", "return"]
    assert table.rows[0] == ["PathTransformer", "64\N{NON-BREAKING HYPHEN}64", None, rows[0]]
    assert table.rows[1] == ["standing still", "", rows[1], None]


def test_the_terminal_shows_values_intervals_and_hostile_names() -> None:
    hostile = replace(RESULT, method="[bold]name[/bold]", start=None, horizon=None, part="[red]")
    pivot = Pivot("episodic_return", columns=("start", "horizon", "part"), caption="Returns [mean]")
    console = Console(width=80, color_system=None)
    with console.capture() as capture:
        console.print(results_table(pivot(Rows([RESULT, hostile]))))
    for text in ("Returns [mean]", "946", "[930, 960]", "[bold]name[/bold]", "[red]"):
        assert text in capture.get()


def test_the_terminal_shows_whether_a_statement_holds() -> None:
    rows = [["it", Judged(RESULT, holds, "so")] for holds in (True, False, None)]
    console = Console(width=80, color_system=None)
    with console.capture() as capture:
        console.print(results_table(Table("Judged", ["method", "return"], rows)))
    for text in ("✓ 946", "✗ 946", "~ 946"):
        assert text in capture.get()
    assert capture.get().count("[930, 960]") == 3
    assert "Judged(" not in capture.get()


# --- the place of a number, and the files in which only its setting says it -----------------------

PLACES: list[tuple[dict[str, Any], str]] = [
    ({"start": 0.0, "horizon": 30}, "untrained network, horizon 30"),
    ({"start": 0.25, "horizon": 5}, "history 25%, horizon 5"),
    ({"env_steps": 0}, "start"),
    ({"env_steps": 61_440}, "end (61,440 steps)"),
    ({"training_trials": 96}, "96 training trials"),
    ({"share": 0.75}, "75% of PPO's improvement"),
    ({"part": "whole stage"}, "whole stage"),
    ({"part": "layer 1 (inputs)", "center": "raw weights"}, "layer 1 (inputs), raw weights"),
    ({"architecture": "64-48", "uses": 1.0}, "64-48, 1 use"),
    ({"architecture": "64-48", "uses": 1000.0}, "64-48, 1,000 uses"),
    ({"architecture": "64", "uses": math.inf}, "64, infinitely many uses"),
    ({"architecture": "8-8", "beside": "RELEX, gated"}, "8-8, less RELEX, gated"),
    ({"start": 0.5, "world": "heavy"}, "history 50%, world heavy"),
    ({"split": "extrapolation", "beside": "PPO"}, "extrapolation worlds, less PPO"),
    ({"part": "a, b, c, d"}, "a, b, c, d"),
    ({}, ""),
]


@pytest.mark.parametrize(("place", "setting"), PLACES)
def test_a_setting_is_its_place_in_words_and_is_read_back(
    place: dict[str, Any], setting: str, tmp_path: Path
) -> None:
    result = Result("task", "experiment", "method", "metric", 1.0, 0.5, 2.0, 3, 4, "tipl", **place)
    assert result.setting == place_label(**place) == setting
    write_results(tmp_path / "new.jsonl", [result])
    assert list(read_results(tmp_path / "new.jsonl")) == [result]
    line = json.loads((tmp_path / "new.jsonl").read_text())
    old = {name: line[name] for name in list(line)[:11]}  # as files of before have it
    assert old["setting"] == setting
    (tmp_path / "old.jsonl").write_text(json.dumps(old) + "\n")
    assert list(read_results(tmp_path / "old.jsonl")) == [result]


def test_an_exact_start_is_kept_beside_its_label(tmp_path: Path) -> None:
    results = [replace(RESULT, start=n / 29) for n in range(30)]
    write_results(tmp_path / "results.jsonl", results)
    assert list(read_results(tmp_path / "results.jsonl")) == results
    assert results[1].setting == "history 3%, horizon 5"


def test_trials_of_one_network_are_told_apart_as_they_always_were(tmp_path: Path) -> None:
    shared = replace(RESULT, initial="shared")
    write_results(tmp_path / "results.jsonl", [RESULT, shared])
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [line["experiment"] for line in lines] == [
        "forecast",
        "forecast, shared initial network",
    ]
    assert list(read_results(tmp_path / "results.jsonl")) == [RESULT, shared]


@pytest.mark.parametrize("name", ["accelerate-InvertedPendulum-v4", "benchmark-HalfCheetah-v4"])
def test_the_numbers_of_the_documentation_can_be_read(name: str) -> None:
    path = Path(__file__).parents[1] / "docs" / "results" / f"{name}.jsonl"
    header, *lines = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    found = read_results(path)
    assert len(found) == len(lines)
    for result, line in zip(found, lines, strict=True):
        old = dict(zip(header["columns"], line, strict=True))
        shared = ", shared initial network" if result.initial else ""
        assert (result.experiment + shared, result.setting) == (old["experiment"], old["setting"])
    assert found.values("task") == [header["task"]]
