"""The report: one HTML file with the figures, the numbers and the commands that made them.

The file needs nothing else: the style sheet and every drawing are within it, there is no script,
and it opens offline, on a phone and on paper, in light and dark. Each figure is drawn twice, for a
wide and for a narrow page, and the style sheet shows the one that fits.
"""

from __future__ import annotations

import base64
import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import jinja2
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from tipl.core.atomic import write_bytes_atomically
from tipl.report.methods import method_of
from tipl.report.results import Result, Rows, write_results
from tipl.report.style import ACCENT, NARROW, WIDE, figure_svg, save_figure
from tipl.report.tables import Cell, Judged, Number, Pivot, Table, format_bounds, format_number

Drawing = Callable[..., Figure]
"""Draws a figure `width` inches wide: called as `drawing(width=...)`, for a page and for a phone.

A `functools.partial` of a function of `tipl.report.charts` is one.
"""


@dataclass(frozen=True)
class Picture:
    """A raster picture that is embedded in the page.

    Attributes:
        data: the file's bytes: PNG or GIF.
        text: what it shows, for readers who do not see it.
        still: a PNG of the same, shown instead on paper and to readers who prefer no motion.
        narrow: the same for a narrow page.
    """

    data: bytes
    text: str
    still: bytes | None = None
    narrow: bytes | None = None

    @property
    def sources(self) -> list[tuple[str, str]]:
        """What is shown instead of the picture, as data URIs, by the media that ask for it."""
        by_media = {
            "print, (prefers-reduced-motion: reduce)": self.still,
            "(max-width: 36rem)": self.narrow,
        }
        return [(media, _data_uri(data)) for media, data in by_media.items() if data is not None]

    @property
    def source(self) -> str:
        """The picture as a data URI."""
        return _data_uri(self.data)


def _data_uri(data: bytes) -> str:
    kind = "gif" if data.startswith(b"GIF8") else "png"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


@dataclass(frozen=True)
class Section:
    """A title and a sentence that says what to see; then what there is to see.

    Charts and pivots are of the results of the report that the section stands in.

    Attributes:
        title: of the section.
        sentence: what to see.
        figure: a drawing.
        details: a table that is folded away: the raw values.
        table: a table that is shown.
        pictures: raster pictures.
        chart: draws results: called as `chart(results, width=...)`.
    """

    title: str
    sentence: str
    figure: Drawing | None = None
    details: Table | Pivot | None = None
    table: Table | Pivot | None = None
    pictures: Sequence[Picture] = ()
    chart: Callable[..., Figure] | None = None

    def has_any(self, results: Rows) -> bool:
        """Whether there is anything for its chart to draw."""
        drawn = getattr(self.chart, "drawn", None)
        return drawn is None or len(drawn(results)) > 0

    def of(self, results: Rows) -> Section:
        """The section with its chart and its tables made of results."""
        return dataclasses.replace(
            self,
            figure=self.figure if self.chart is None else partial(self.chart, results),
            details=self.details(results) if isinstance(self.details, Pivot) else self.details,
            table=self.table(results) if isinstance(self.table, Pivot) else self.table,
            chart=None,
        )


Subject = TypeVar("Subject")
Entry = Section | Callable[[Subject], Section | Iterable[Section]]
"""An entry in the list of a report's sections: one, or what makes one or several of a subject."""


def sections_of(
    entries: Iterable[Entry[Subject]], subject: Subject, results: Rows
) -> list[Section]:
    """The sections of a report, in order; without those whose chart has nothing to draw.

    Args:
        entries: the list.
        subject: what the report is about, such as a run.
        results: of the report.
    """
    found: list[Section] = []
    for entry in entries:
        made = entry if isinstance(entry, Section) else entry(subject)
        found += [made] if isinstance(made, Section) else made
    return [section.of(results) for section in found if section.has_any(results)]


@runtime_checkable
class TimedStage(Protocol):
    """A stage of the work that the report is about."""

    @property
    def name(self) -> str:
        """What the stage does."""

    @property
    def seconds(self) -> float:
        """Wall time that it took."""

    @property
    def note(self) -> str:
        """A word on it."""


@dataclass(frozen=True)
class Report:
    """All that a report shows, in order."""

    title: str
    lead: Sequence[str]  # sentences
    headline: Table
    sections: Sequence[Section]
    results: Rows = field(default_factory=Rows)
    commands: Sequence[str] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    stages: Sequence[TimedStage] = ()


def render_report(report: Report) -> str:
    """Returns the report as one HTML page."""
    drawings = [_draw(section, n) for n, section in enumerate(report.sections, 1)]
    return _ENVIRONMENT.get_template("report.html").render(
        report=report,
        sections=list(zip(report.sections, drawings, strict=True)),
        longest=max((stage.seconds for stage in report.stages), default=0) or 1,
        seconds=sum(stage.seconds for stage in report.stages),
        results_table=_raw_results(report.results),
        accent=ACCENT,
    )


def write_report(report: Report, path: str | Path) -> None:
    """Writes the report to an HTML file, whole or not at all.

    Raises:
        TiplError: the file cannot be written.
    """
    write_bytes_atomically(path, render_report(report).encode())


def save_figures(report: Report, directory: Path) -> None:
    """Writes every figure of a report as SVG and PNG, named by the titles of their sections."""
    directory.mkdir(exist_ok=True)
    for number, section in enumerate(report.sections, 1):
        if section.figure is not None:
            words = "".join(c if c.isalnum() else " " for c in section.title.lower()).split()
            name = f"{number:02d}-{'-'.join(words)}"
            save_figure(section.figure(width=WIDE), directory, name)


def write_report_with_figures(report: Report, directory: Path) -> None:
    """Writes `report.html`, its numbers as `results.jsonl`, and its figures as `figures`.

    Raises:
        TiplError: a file cannot be written.
    """
    write_results(directory / "results.jsonl", report.results)
    write_report(report, directory / "report.html")
    save_figures(report, directory / "figures")


def _draw(section: Section, number: int) -> tuple[Markup, Markup] | None:
    """The wide and the narrow drawing of a figure. Matplotlib has escaped the text in them."""
    if section.figure is None:
        return None
    return (
        Markup(figure_svg(section.figure(width=WIDE), prefix=f"f{number}-")),
        Markup(figure_svg(section.figure(width=NARROW), prefix=f"n{number}-")),
    )


def _raw_results(results: Sequence[Result]) -> Table:
    columns = ["setting", "metric", "value", "low", "high", "n_trials", "n_episodes", "command"]
    rows = [
        [result.method, result.experiment_label, *(getattr(result, column) for column in columns)]
        for result in results
    ]
    columns = ["method", "experiment", *columns]
    return Table("Every number, with its 95% interval and its command", columns, rows)


def _raw_number(value: Number) -> str:
    """A number of a table as it is, to six digits; NaN is a dash."""
    if not math.isfinite(value):
        return "–"
    return f"{value:,}" if isinstance(value, int | np.integer) else f"{float(value):.6g}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _is_number(cell: Cell) -> bool:
    return isinstance(cell, int | float | np.number)


def _is_result(cell: Cell) -> bool:
    return isinstance(cell, Result)


def _is_judged(cell: Cell) -> bool:
    return isinstance(cell, Judged)


def _is_numeric(table: Table, column: int) -> bool:
    return column > 0 and any(
        _is_number(row[column]) or _is_result(row[column]) or _is_judged(row[column])
        for row in table.rows
    )


def _is_ours(name: Cell) -> bool:
    return isinstance(name, str) and method_of(name).ours


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tipl.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "bounds": format_bounds,
        "duration": _duration,
        "number": format_number,
        "raw": _raw_number,
    }
    environment.tests |= {
        "a_number": _is_number,
        "a_result": _is_result,
        "judged": _is_judged,
        "numeric_in": _is_numeric,
        "ours": _is_ours,
    }
    return environment


_ENVIRONMENT = _environment()
