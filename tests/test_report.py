"""Figures and the page: drawn, escaped, self-contained, and the same bytes each time."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from tipl.errors import TiplError
from tipl.report import charts, palette
from tipl.report.charts import Line, Lines, StepsToReach, curve, line_chart
from tipl.report.methods import Method, line_styles, method_of, method_with_key, register_method
from tipl.report.page import (
    Report,
    Section,
    render_report,
    sections_of,
    write_report,
)
from tipl.report.results import Result, Rows
from tipl.report.style import NARROW, WIDE, figure_svg, save_figure
from tipl.report.tables import Pivot, Table

RNG = np.random.default_rng(0)
STEPS = np.arange(6) * 2048
RETURNS = RNG.uniform(0, 1000, (5, 6))
RETURNS[:, 0] = np.nan  # nobody has finished an episode
RETURNS[2, 3] = np.nan
HOSTILE = """<script>alert("1")</script> & 'x' $\\frac$ [red] 0.00025 #1b2431"""


SHOWN_METHODS = ("PathTransformer", "standing still", HOSTILE)


class Timed(NamedTuple):
    """What a report shows of a stage."""

    name: str
    seconds: float
    note: str


def horizon_rows(metric: str, methods: Sequence[str] = SHOWN_METHODS) -> Rows:
    """Values of methods at two of three horizons from three histories."""
    return Rows(
        Result("t", "forecast", method, metric, value, 0.8 * value, 1.2 * value, 5, 3,
               start=start, horizon=horizon)
        for start in (0.1, 0.25, 0.5)
        for m, method in enumerate(methods, 1)
        for horizon, value in ((1, 1.0 * m), (2, 2.0 * m), (5, math.nan))
    )  # fmt: skip


def reach_rows() -> Rows:
    """Steps to two shares: the second method reaches the first alone, the third none."""
    steps = {"PPO": (100.0, 200.0), HOSTILE: (50.0, math.nan), "never": (math.nan, math.nan)}
    return Rows(
        Result("t", "ledger", name, "steps", value, value, math.nan, 5, 3, share=share)
        for name, values in steps.items()
        for share, value in zip((0.5, 1.0), values, strict=True)
    )


LINES = [
    Line(STEPS, RETURNS.T, {"color": "#4a94ee", "lw": 0.7}),
    Line(STEPS, RETURNS[1], {"color": "#e4581c"}, "the mean", (RETURNS[1] - 1, RETURNS[1] + 1)),
    Line(None, 0.5, {"color": "#88919a"}, "standing still"),
]
LOSS: dict[str, Any] = {"x_label": "optimiser steps", "y_label": "mean squared error"}

CHARTS: dict[str, Callable[..., Figure]] = {
    "learning_curves": partial(charts.learning_curves, STEPS, RETURNS),
    "line_chart": partial(line_chart, {f"part {n}": LINES for n in (1, 2, 3)}, **LOSS),
    "log_chart": partial(line_chart, {"": LINES[1:]}, y_axis="log", **LOSS),
    "return_strips": partial(
        charts.return_strips,
        {"untrained": RETURNS[:, 1], "PPO": RETURNS[:, 3], HOSTILE: RETURNS[:, 0]},
    ),
    "ratio_strips": partial(
        charts.ratio_strips,
        {"layer 1": {"PPO path": RETURNS[:, 1], "random walk": RETURNS[:, 2]}},
        x_label="detour ratio",
    ),
}
CHARTS_OF_ROWS: dict[str, Callable[..., Figure]] = {
    "returns": partial(Lines("episodic_return"), horizon_rows("episodic_return")),
    "errors": partial(
        Lines("weight_error", y_axis="log", reference=1.0), horizon_rows("weight_error")
    ),
    "steps_to_reach": partial(StepsToReach("steps"), reach_rows()),
}
RESULT = Result(
    "InvertedPendulum-v4", "forecast", "PathTransformer", "episodic_return",
    946.25, 930.0, 960.0, 32, 10, "tipl evaluate runs/demo", horizon=5,
)  # fmt: skip


SHOWN = [*CHARTS, *CHARTS_OF_ROWS]


def example_report(text: str = "A report") -> Report:
    hostile = Result(
        text, text, text, "episodic_return", 1.0, n_trials=1, n_episodes=1, command=text, part=text
    )
    headline = Pivot("episodic_return", columns=("horizon", "part"), caption=text)
    return Report(
        title=text,
        lead=[text, "And another sentence."],
        headline=headline(Rows([RESULT, hostile])),
        sections=[
            *(
                Section(f"{text} {name}", text, partial(draw, note=text), DETAILS)
                for name, draw in CHARTS.items()
            ),
            *(
                Section(f"{text} {name}", text, draw, DETAILS)
                for name, draw in CHARTS_OF_ROWS.items()
            ),
        ],
        results=Rows([RESULT, hostile]),
        commands=[text, "tipl collect InvertedPendulum-v4"],
        versions={text: text, "numpy": "2.2.0"},
        stages=[Timed(text, 71.5, text), Timed("train", 0.0, "")],
    )


DETAILS = Table("Returns", ["step", "return"], [[0, None], [1, np.float32(0.5)], [2048, np.nan]])


class Page(HTMLParser):
    """Collects a page's elements and text, and checks that every element is closed in turn."""

    VOID = frozenset({"meta", "br", "link", "img", "input", "hr"})

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def source() -> str:
    return render_report(example_report())


@pytest.fixture(scope="module")
def page(source: str) -> Page:
    return Page(source)


def text_of(figure: Figure) -> str:
    svg = ElementTree.fromstring(figure_svg(figure))
    return "\n".join("".join(element.itertext()) for element in svg.iter())


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("name", [*CHARTS, *CHARTS_OF_ROWS])
def test_every_figure_says_what_it_shows(name: str, width: float) -> None:
    if name in CHARTS:
        figure = CHARTS[name](note="5 held-out trials, 3 episodes each", width=width)
    else:
        figure = CHARTS_OF_ROWS[name](width=width)
    assert "5 held-out trials, 3 episodes each" in text_of(figure).replace("\n", " ")
    assert all(axes.get_xlabel() for axes in figure.axes[-1:])
    assert figure.get_supylabel() or "strips" in name or name == "steps_to_reach"
    assert figure.get_figwidth() == width


def test_trials_in_which_no_episode_has_ended_have_empty_learning_curves() -> None:
    figure = charts.learning_curves(STEPS, np.full((2, 6), np.nan), note="2 trials")
    assert "2 trials" in text_of(figure)


@pytest.mark.parametrize("name", ["learning_curves", "returns"])
def test_same_figure_gives_the_same_bytes(name: str, tmp_path: Path) -> None:
    for directory in ("a", "b"):
        (tmp_path / directory).mkdir()
        figure = CHARTS[name](note="note") if name in CHARTS else CHARTS_OF_ROWS[name]()
        figure_svg(figure)  # drawing once more changes nothing
        paths = save_figure(figure, tmp_path / directory, name)
        assert [path.name for path in paths] == [f"{name}.svg", f"{name}.png"]
    for suffix in (".svg", ".png"):
        first, second = ((tmp_path / d / name).with_suffix(suffix) for d in ("a", "b"))
        assert first.read_bytes() == second.read_bytes()


def test_saved_drawing_stands_alone_and_follows_light_and_dark(tmp_path: Path) -> None:
    svg, png = save_figure(CHARTS["log_chart"](note="note"), tmp_path, "loss")
    assert "prefers-color-scheme" in svg.read_text()
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", svg.read_text())
    pixels = matplotlib.image.imread(png)
    assert (pixels[0, 0] == 1).all()  # white, opaque


def test_saving_into_a_missing_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TiplError, match="create the folder"):
        save_figure(CHARTS["log_chart"](note="note"), tmp_path / "none", "loss")


def test_ink_is_the_colour_of_the_page_but_in_text() -> None:
    svg = figure_svg(CHARTS["log_chart"](note=HOSTILE))
    assert "currentColor" in svg
    assert palette.INK not in "".join(re.findall("<[^>]*>", svg))
    assert "0.00025 #1b2431" in svg  # a label's numbers are neither rounded nor recoloured


def test_global_settings_neither_change_nor_matter() -> None:
    before = figure_svg(CHARTS["log_chart"](note="note"))
    with matplotlib.rc_context({"font.size": 20, "axes.labelsize": 30, "text.color": "blue"}):
        settings = dict(matplotlib.rcParams)
        assert figure_svg(CHARTS["log_chart"](note="note")) == before
        assert dict(matplotlib.rcParams) == settings


# --- methods ----------------------------------------------------------------------------------


def test_a_method_has_one_colour() -> None:
    assert method_of("PathTransformer (path basis)").colour == method_of("NeuronTransformer").colour
    assert method_of("PathTransformer").colour == palette.ACCENT
    assert method_of("RELEX, gated") == method_with_key("relex")
    assert method_of("RELEX, gated").colour == method_of("RELEX").colour
    unheard = method_of("an unheard-of rival")
    assert unheard == method_of("an unheard-of rival")
    assert unheard.colour != palette.ACCENT


def test_a_method_of_ones_own_is_drawn_as_its_entry_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tipl.report.methods._METHODS", {})
    register_method(Method("my rival", "#a03070", "Mine.", dashes=":"))
    assert method_of("my rival, tested").sentence == "Mine."
    rows = horizon_rows("episodic_return", ["my rival"])
    (line, *_) = Lines("episodic_return")(rows).axes[0].lines
    assert (line.get_color(), line.get_linestyle()) == ("#a03070", ":")


def test_methods_of_one_colour_differ_in_dashes() -> None:
    rivals = ["last-difference line", "least-squares line"]
    register_method(Method("last-difference line", palette.GREEN))
    register_method(Method("least-squares line", palette.GREEN))
    axes = Lines("episodic_return")(horizon_rows("episodic_return", rivals)).axes[0]
    assert len({line.get_linestyle() for line in axes.lines}) == 2
    assert [style["linestyle"] for style in line_styles(rivals).values()] == ["-", "--"]


def test_tables_show_methods_for_which_figures_have_no_room() -> None:
    register_method(Method("of tables alone", "#a03070", drawn=False))
    rows = horizon_rows("episodic_return", ["PathTransformer", "of tables alone"])
    assert "of tables alone" not in text_of(Lines("episodic_return")(rows))
    assert [row[0] for row in Pivot("episodic_return")(rows).rows][1] == "of tables alone"


# --- charts -----------------------------------------------------------------------------------


def test_lines_have_a_panel_a_history_and_a_mark_a_horizon() -> None:
    rows = horizon_rows("episodic_return", ["PathTransformer"])
    figure = Lines("episodic_return", where={"start": lambda start: start > 0.2})(rows)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "history 25% of the path",
        "history 50% of the path",
    ]
    (line,) = figure.axes[0].lines
    assert line.get_xdata().tolist() == [1, 2, 5]
    np.testing.assert_array_equal(line.get_ydata(), [1, 2, np.nan])
    assert line.get_marker() == "o"


def test_a_line_holds_until_the_next_place_where_it_is_stepped() -> None:
    intervals = np.array([[1.0, 0.0, 2.0], [3.0, 2.0, 4.0]])
    for stepped, style in ((True, "steps-post"), (False, "default")):
        drawn = curve(np.array([0, 10]), intervals, {"color": "#000001"}, "one", stepped=stepped)
        (line,) = line_chart({"": [drawn]}, note="", **LOSS).axes[0].lines
        assert (line.get_drawstyle(), line.get_color()) == (style, "#000001")
        assert line.get_ydata().tolist() == [1, 3]
    assert drawn.band is not None
    assert [bound.tolist() for bound in drawn.band] == [[0, 2], [2, 4]]


def test_who_reaches_no_share_is_not_drawn() -> None:
    figure = StepsToReach("steps")(reach_rows())
    labels = [text.get_text() for text in figure.axes[0].texts]
    assert labels[0] == "PPO: 100% reached"
    assert labels[1].replace("\n", " ").endswith("50% reached")
    assert len(labels) == 2
    dots = [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert dots == [100, 200, 50]


# --- colours ----------------------------------------------------------------------------------

# Machado et al. (2009): linear RGB as seen with no working red, green or blue cones
BLINDNESS = {
    "none": np.eye(3),
    "red": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "green": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "blue": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}
TO_XYZ = np.array([[0.4339, 0.3762, 0.1899], [0.2126, 0.7152, 0.0722], [0.0177, 0.1095, 0.8729]])


def _linear(colour: str) -> np.ndarray:
    srgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def _lab(linear: np.ndarray) -> np.ndarray:
    x, y, z = np.cbrt(np.clip(TO_XYZ @ linear, 0.01, 1))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("blindness", BLINDNESS)
def test_colours_are_told_apart_and_seen_on_light_and_dark_pages(blindness: str) -> None:
    colours = [*palette.SERIES, palette.GREY]
    seen = [_lab(np.array(BLINDNESS[blindness]) @ _linear(colour)) for colour in colours]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) >= 20
    for colour, page in itertools.product(colours, ["#fdfdfc", "#14181e"]):
        dark, light = sorted((_linear(c) @ TO_XYZ[1]) + 0.05 for c in (colour, page))
        assert light / dark >= 3


def test_returns_that_are_not_finite_are_left_out_and_counted() -> None:
    figure = charts.return_strips(
        {"PPO": np.array([1.0, np.nan, 3.0, 8.0]), "untrained": np.array([np.nan])}, note="note"
    )
    labels = [text.get_text() for text in figure.axes[0].texts]
    assert labels == ["PPO: median 3.00, 3 policies", "untrained: no finite return"]


def test_ratios_that_are_not_finite_are_left_out() -> None:
    closed = {"closed": {"PPO path": np.array([np.inf, np.nan])}, "open": {"PPO path": np.ones(2)}}
    labels = [t.get_text() for t in charts.ratio_strips(closed, x_label="", note="").axes[0].texts]
    assert labels == ["closed: median –", "open: median 1.00"]


# --- sections and pages -----------------------------------------------------------------------


def test_a_report_is_a_list_of_sections_of_its_results() -> None:
    rows = horizon_rows("episodic_return", ["PathTransformer"])
    table = Pivot("episodic_return", where={"start": 0.5})
    entries = [
        Section("one", "see", chart=Lines("episodic_return"), details=table, table=table),
        lambda subject: Section(f"two of {subject}", "see"),
        lambda subject: (Section(f"{n} of {subject}", "see") for n in ("three", "four")),
    ]
    found = sections_of(entries, "a run", rows)
    assert [s.title for s in found] == ["one", "two of a run", "three of a run", "four of a run"]
    nothing = [Section("none", "see", chart=Lines("weight_error"))]
    assert sections_of([*nothing, entries[1]], "a run", rows) == [Section("two of a run", "see")]
    assert found[0].figure is not None
    assert len(found[0].figure(width=WIDE).axes) == 3
    for shown in (found[0].table, found[0].details):
        assert isinstance(shown, Table)
        assert [row[0] for row in shown.rows] == ["PathTransformer"]
        assert len(shown.columns) == 4


def test_every_figure_is_on_the_page_twice(page: Page) -> None:
    assert len(page.all("svg")) == 2 * len(SHOWN)
    assert len(page.all("figcaption")) == len(SHOWN)


def test_page_is_whole_and_in_order(page: Page) -> None:
    assert len(page.all("main")) == len(page.all("h1")) == 1
    headings = [tag for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert headings == ["h1"] + ["h2"] * (len(headings) - 1)
    assert len(page.all("table")) == len(page.all("caption"))
    drawings = [a for a in page.all("div") if a.get("role") == "img"]
    assert all(attributes["aria-label"] for attributes in drawings)
    assert len(drawings) == len(SHOWN)


def test_ids_are_unique_and_references_resolve(source: str, page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    references = re.findall(r'(?:url\(|href=")#([^)"]+)', source)
    assert references
    assert set(references) <= set(ids)


def test_page_needs_nothing_else(source: str, page: Page) -> None:
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "img", "iframe", "object", "base"}
    for _, attributes in page.elements:
        for name, value in attributes.items():
            if name.startswith("xmlns"):
                continue  # the name of a vocabulary, not an address that is visited
            assert "//" not in (value or "")
    assert "@import" not in source
    assert not re.search(r"url\((?!#)", source)


def test_numbers_stand_beside_their_interval_and_command(source: str) -> None:
    assert ">946 <small>[930, 960]</small></td>" in source
    assert 'title="tipl evaluate runs/demo"' in source
    assert '<td class="number">946.25</td>' in source  # as it is, among all numbers
    assert '<th scope="col" class="number">return</th>' in source  # though it begins empty
    assert '<th scope="row">2,048</th>' in source
    assert "1 min 12 s" in source


def test_hostile_text_stays_text(page: Page) -> None:
    hostile = Page(render_report(example_report(HOSTILE)))
    assert not hostile.all("script")
    assert {key for _, attributes in hostile.elements for key in attributes} == {
        key for _, attributes in page.elements for key in attributes
    }
    assert hostile.text.count(HOSTILE) > 5


def test_a_table_with_a_short_row_is_refused() -> None:
    with pytest.raises(TiplError, match="row of 1 cells was given for the table 'Returns'"):
        Table("Returns", ["a", "b"], [[1]])


def test_written_report_is_the_rendered_one(tmp_path: Path) -> None:
    report = example_report()
    report = dataclasses.replace(report, sections=report.sections[:2])
    write_report(report, tmp_path, figures=False)
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == render_report(report)
    assert not (tmp_path / "figures").exists()
