"""The report: one HTML file with the figures, the numbers and the commands that made them.

The file needs nothing else: the style sheet and every drawing are within it, there is no script,
and it opens offline, on a phone and on paper, in light and dark. Each figure is drawn twice, for a
wide and for a narrow page, and the style sheet shows the one that fits.
"""

from __future__ import annotations

import base64
import dataclasses
import importlib.metadata
import math
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import jinja2
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from tipl.core.atomic import make_folder, write_bytes_atomically
from tipl.core.ownership import PAGE
from tipl.report.files import check_report
from tipl.report.methods import method_of
from tipl.report.palette import ACCENT
from tipl.report.results import Result, Rows, write_results
from tipl.report.style import NARROW, WIDE, figure_svg, save_figure
from tipl.report.tables import Judged, Number, Pivot, Table, value_and_bounds

Drawing = Callable[..., Figure]
"""Draws a figure `width` inches wide: called as `drawing(width=...)`, for a page and for a phone.

A `functools.partial` of a function of `tipl.report.charts` is one.
"""


@dataclass(frozen=True)
class Picture:
    """A raster picture, PNG or GIF, that is embedded in the page."""

    data: bytes
    text: str  # what it shows, for readers who do not see it
    still: bytes | None = None  # shown instead on paper and to readers who prefer no motion
    narrow: bytes | None = None  # shown instead on a narrow page


@dataclass(frozen=True)
class Section:
    """A title and a sentence that says what to see; then what there is to see.

    Charts and pivots are of the results of the report that the section stands in.
    """

    title: str
    sentence: str
    figure: Drawing | None = None
    details: Table | Pivot | None = None  # the raw values, folded away
    table: Table | Pivot | None = None
    pictures: Sequence[Picture] = ()
    chart: Callable[..., Figure] | None = None  # called as `chart(results, width=...)`

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
    """The sections of a report about a subject, without those whose chart has nothing to draw."""
    found: list[Section] = []
    for entry in entries:
        made = entry if isinstance(entry, Section) else entry(subject)
        for section in [made] if isinstance(made, Section) else made:
            drawn = getattr(section.chart, "drawn", None)
            if drawn is None or drawn(results):
                found.append(section.of(results))
    return found


def installed_versions() -> dict[str, str]:
    """Versions of what a report's numbers depend on, by name."""
    libraries = ("tipl", "torch", "numpy", "mujoco", "gymnasium")
    versions = {name: importlib.metadata.version(name) for name in libraries}
    return {"Python": platform.python_version(), **versions}


@dataclass(frozen=True)
class Report:
    """All that a report shows, in order.

    Of a stage of the work, `stages` give the `name`, the `seconds` of wall time and a `note`.
    """

    title: str
    lead: Sequence[str]  # sentences of one paragraph
    headline: Table
    sections: Sequence[Section]
    results: Rows = field(default_factory=Rows)
    commands: Sequence[str] = ()
    versions: Mapping[str, str] = field(default_factory=installed_versions)
    stages: Sequence[Any] = ()
    points: Sequence[str] = ()  # a list under the lead


def render_report(report: Report, figures: Path | None = None) -> str:
    """Returns the report as one HTML page.

    If a folder of `figures` is given, every figure is written there, too, as SVG and PNG, named by
    the titles of their sections.
    """
    drawings = [_draw(section, n, figures) for n, section in enumerate(report.sections, 1)]
    return _ENVIRONMENT.get_template("report.html").render(
        report=report,
        sections=list(zip(report.sections, drawings, strict=True)),
        longest=max((stage.seconds for stage in report.stages), default=0) or 1,
        seconds=sum(stage.seconds for stage in report.stages),
        results_table=_raw_results(report.results),
        accent=ACCENT,
    )


def write_report(report: Report, directory: Path, *, figures: bool = True) -> None:
    """Writes `report.html`, its numbers as `results.jsonl`, and its figures into `figures`.

    Raises:
        TiplError: a file cannot be written, or something else has its name.
    """
    check_report(directory)
    folder = directory / "figures" if figures else None
    if folder is not None:
        make_folder(folder)
    write_results(directory / "results.jsonl", report.results)
    page = render_report(report, folder)
    write_bytes_atomically(
        directory / "report.html", page.encode(errors="backslashreplace"), own=PAGE
    )


def _draw(section: Section, number: int, folder: Path | None) -> list[Markup]:
    """The wide and the narrow drawing of a figure. Matplotlib has escaped the text in them."""
    if section.figure is None:
        return []
    wide = section.figure(width=WIDE)
    drawn = figure_svg(wide, prefix=f"f{number}-")
    if folder is not None:
        words = "".join(c if c.isalnum() else " " for c in section.title.lower()).split()
        save_figure(wide, folder, f"{number:02d}-{'-'.join(words)}")
    narrow = figure_svg(section.figure(width=NARROW), prefix=f"n{number}-")
    return [Markup(drawn), Markup(narrow)]


def _raw_results(results: Rows) -> Table:
    columns = ["setting", "metric", "value", "low", "high", "n_trials", "n_episodes", "command"]
    return Table(
        "Every number, with its 95% interval and its command",
        ["method", "experiment", *columns],
        [
            [result.method, result.experiment_label, *(getattr(result, name) for name in columns)]
            for result in results
        ],
    )


def _data_uri(data: bytes) -> str:
    kind = "gif" if data.startswith(b"GIF8") else "png"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


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


def _is_numeric(table: Table, column: int) -> bool:
    shown = int | float | np.number | Result | Judged
    return column > 0 and any(isinstance(row[column], shown) for row in table.rows)


_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("tipl.report", ""),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters |= {
    "data_uri": _data_uri,
    "duration": _duration,
    "raw": _raw_number,
    "value_and_bounds": value_and_bounds,
}
_ENVIRONMENT.tests |= {
    "a_number": lambda cell: isinstance(cell, int | float | np.number),
    "a_result": lambda cell: isinstance(cell, Result),
    "judged": lambda cell: isinstance(cell, Judged),
    "numeric_in": _is_numeric,
    "ours": lambda name: isinstance(name, str) and method_of(name).ours,
}
