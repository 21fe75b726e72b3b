"""Reports as Markdown: what the pages of the documentation take from whole runs."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path

from update_collection_docs import RESULTS

from tipl.core.atomic import write_bytes_atomically
from tipl.core.ownership import ANYTHING
from tipl.report.page import Section
from tipl.report.results import Result
from tipl.report.style import save_figure
from tipl.report.tables import Cell, Judged, Table, format_result

WIDTH = 7.2
"""Of the figures, in inches."""

COLUMNS = ("experiment", "method", "setting", "metric", "value", "low", "high", "n_trials")
"""Of a line of numbers."""


def cell(content: Cell) -> str:
    """A cell of a table in Markdown."""
    if content is None:
        return ""
    if isinstance(content, Judged):
        return f"{content.sign[0]} {format_result(content.result)}"
    if isinstance(content, Result):
        return format_result(content)
    if isinstance(content, str):
        return content
    value = float(content)
    if value != value:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:,.3g}"


def markdown(table: Table) -> str:
    """A table in Markdown, its caption below."""
    lines = [f"| {' | '.join(table.columns)} |", f"|---|{'---:|' * (len(table.columns) - 1)}"]
    lines += [f"| {' | '.join(map(cell, row))} |" for row in table.rows]
    return "\n".join([*lines, "", table.caption])


def slug(title: str) -> str:
    """A file's name from a title."""
    return "-".join("".join(c if c.isalnum() else " " for c in title.lower()).split())


def results_folder(name: str) -> Path:
    """An empty folder for the figures of a run, in `docs/results`."""
    folder = RESULTS / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def section_lines(section: Section, folder: Path) -> list[str]:
    """A section in Markdown; its figure, or a still of its film, is written to the folder."""
    lines = [f"#### {section.title}", "", section.sentence, ""]
    if section.figure is not None:
        name = slug(section.title)
        (folder / f"{name}.png").unlink(missing_ok=True)
        save_figure(section.figure(width=WIDTH), folder, name)
        (folder / f"{name}.svg").unlink()  # pages show the PNG
        lines += [f"![{section.title}](results/{folder.name}/{name}.png)", ""]
    for picture in section.pictures:  # stills, which a page of documentation has room for
        name = slug(section.title)
        still = picture.still or picture.data
        write_bytes_atomically(folder / f"{name}.png", still, own=ANYTHING)
        lines += [f"![{picture.text}](results/{folder.name}/{name}.png)", ""]
    if section.table is not None:
        lines += [markdown(section.table), ""]
    return lines


def write_numbers(results: Sequence[Result], task: str, command: str, path: Path) -> None:
    """Every number on a line of its own, to six digits, below a line that names the columns."""
    lines = [json.dumps({"task": task, "command": command, "columns": COLUMNS})]
    for result in results:
        row = [result.experiment_label, *(getattr(result, column) for column in COLUMNS[1:])]
        values = [float(f"{x:.6g}") if isinstance(x, float) else x for x in row]
        known = [None if isinstance(x, float) and math.isnan(x) else x for x in values]
        lines.append(json.dumps(known, ensure_ascii=False, separators=(",", ":")))
    write_bytes_atomically(path, ("\n".join(lines) + "\n").encode(), own=ANYTHING)
