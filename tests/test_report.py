"""Figures and the page: drawn, escaped, self-contained, and the same bytes each time."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from tipl.errors import TiplError
from tipl.report import plots
from tipl.report import style as figure_style
from tipl.report.page import Report, Section, Stage, render_report, write_report
from tipl.report.results import Result, Rows
from tipl.report.tables import Pivot, Table

RNG = np.random.default_rng(0)
STEPS = np.arange(6) * 2048
RETURNS = RNG.uniform(0, 1000, (5, 6))
RETURNS[:, 0] = np.nan  # nobody has finished an episode
RETURNS[2, 3] = np.nan
COORDINATES = RNG.normal(size=(5, 6, 7))
FORECASTS = [(0, COORDINATES[0, 1:4] + 0.1), (3, COORDINATES[0, 4:6] - 0.1)]
HORIZONS = np.array([1, 2, 5])
BAND = np.array([[1.0, 0.8, 1.2], [2.0, 1.5, 2.5], [np.nan, np.nan, np.nan]])  # [H, 3]
HOSTILE = """<script>alert("1")</script> & 'x' $\\frac$ [red] 0.00025 #1b2431"""
METHODS = {"PathTransformer": BAND, "standing still": BAND / 2, HOSTILE: BAND * 2}
PANELS = {f"history: {part}% of the path": METHODS for part in (10, 25, 50)}
LOSS = np.array([1.0, 0.5, 0.2])

DRAWINGS: dict[str, Callable[..., Figure]] = {
    "learning_curves": partial(plots.learning_curves, STEPS, RETURNS),
    "svd_spectrum": partial(
        plots.svd_spectrum, {"joint": np.array([0.85, 0.95, 0.995]), "path": np.array([0.5, 0.7])}
    ),
    "svd_coordinates": partial(plots.svd_coordinates, STEPS, COORDINATES),
    "true_against_forecast_coordinates": partial(
        plots.true_against_forecast_coordinates, STEPS, COORDINATES[0], FORECASTS
    ),
    "return_against_horizon": partial(plots.return_against_horizon, HORIZONS, PANELS),
    "forecast_error_against_horizon": partial(
        plots.forecast_error_against_horizon, HORIZONS, PANELS
    ),
    "optimize_distribution": partial(
        plots.optimize_distribution,
        {"untrained": RETURNS[:, 1], "PPO": RETURNS[:, 3], HOSTILE: RETURNS[:, 0]},
    ),
    "training_curve": partial(
        plots.training_curve, np.arange(3), LOSS, np.array([1.0, np.nan, 0.4]), 0.9
    ),
}
RESULT = Result(
    "InvertedPendulum-v4", "forecast", "PathTransformer", "episodic_return",
    946.25, 930.0, 960.0, 32, 10, "tipl evaluate runs/demo", horizon=5,
)  # fmt: skip


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
            Section(f"{text} {name}", text, partial(draw, note=text), DETAILS)
            for name, draw in DRAWINGS.items()
        ],
        results=[RESULT, hostile],
        commands=[text, "tipl collect InvertedPendulum-v4"],
        versions={text: text, "numpy": "2.2.0"},
        stages=[Stage(text, 71.5, text), Stage("train", 0.0)],
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


@pytest.mark.parametrize("width", [plots.WIDE, plots.NARROW])
@pytest.mark.parametrize("name", DRAWINGS)
def test_every_figure_says_what_it_shows(name: str, width: float) -> None:
    figure = DRAWINGS[name](note="5 trials, 3 episodes each", width=width)
    svg = ElementTree.fromstring(plots.figure_svg(figure))
    text = "\n".join("".join(element.itertext()) for element in svg.iter())
    assert "5 trials, 3 episodes each" in text
    assert all(axes.get_xlabel() for axes in figure.axes[-1:])
    assert figure.get_supylabel() or name == "optimize_distribution"
    assert figure.get_figwidth() == width


@pytest.mark.parametrize("name", ["learning_curves", "return_against_horizon"])
def test_same_figure_gives_the_same_bytes(name: str, tmp_path: Path) -> None:
    for directory in ("a", "b"):
        (tmp_path / directory).mkdir()
        figure = DRAWINGS[name](note="note")
        plots.figure_svg(figure)  # drawing once more changes nothing
        paths = plots.save_figure(figure, tmp_path / directory, name)
        assert [path.name for path in paths] == [f"{name}.svg", f"{name}.png"]
    for suffix in (".svg", ".png"):
        first, second = ((tmp_path / d / name).with_suffix(suffix) for d in ("a", "b"))
        assert first.read_bytes() == second.read_bytes()


def test_saved_drawing_stands_alone_and_follows_light_and_dark(tmp_path: Path) -> None:
    svg, png = plots.save_figure(DRAWINGS["training_curve"](note="note"), tmp_path, "loss")
    assert "prefers-color-scheme" in svg.read_text()
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", svg.read_text())
    pixels = matplotlib.image.imread(png)
    assert (pixels[0, 0] == 1).all()  # white, opaque


def test_saving_into_a_missing_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TiplError, match="create the folder"):
        plots.save_figure(DRAWINGS["training_curve"](note="note"), tmp_path / "none", "loss")


def test_ink_is_the_colour_of_the_page_but_in_text() -> None:
    svg = plots.figure_svg(plots.return_against_horizon(HORIZONS, PANELS, note=HOSTILE))
    assert "currentColor" in svg
    assert figure_style.INK not in "".join(re.findall("<[^>]*>", svg))
    assert "0.00025 #1b2431" in svg  # a label's numbers are neither rounded nor recoloured


def test_global_settings_neither_change_nor_matter() -> None:
    before = plots.figure_svg(DRAWINGS["training_curve"](note="note"))
    with matplotlib.rc_context({"font.size": 20, "axes.labelsize": 30, "text.color": "blue"}):
        settings = dict(matplotlib.rcParams)
        assert plots.figure_svg(DRAWINGS["training_curve"](note="note")) == before
        assert dict(matplotlib.rcParams) == settings


def test_a_method_has_one_colour() -> None:
    colour = figure_style.method_colour
    assert colour("PathTransformer, per-path basis") == colour("NeuronTransformer")
    assert colour("PathTransformer") == figure_style.ACCENT
    assert colour("standing still") != colour("straight line")
    assert colour("an unheard-of rival") == colour("an unheard-of rival") != figure_style.ACCENT


def test_methods_of_one_colour_differ_in_dashes() -> None:
    rivals = {"last-difference line": BAND, "least-squares line": BAND}
    (axes,) = plots.return_against_horizon(HORIZONS, {"": rivals}, note="note").axes
    assert len({line.get_linestyle() for line in axes.lines}) == 2


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
    colours = [*figure_style.SERIES, figure_style.GREY]
    seen = [_lab(np.array(BLINDNESS[blindness]) @ _linear(colour)) for colour in colours]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) >= 20
    for colour, page in itertools.product(colours, ["#fdfdfc", "#14181e"]):
        dark, light = sorted((_linear(c) @ TO_XYZ[1]) + 0.05 for c in (colour, page))
        assert light / dark >= 3


def test_returns_that_are_not_finite_are_left_out_and_counted() -> None:
    figure = plots.optimize_distribution(
        {"PPO": np.array([1.0, np.nan, 3.0, 8.0]), "untrained": np.array([np.nan])}, note="note"
    )
    labels = [text.get_text() for text in figure.axes[0].texts]
    assert labels == ["PPO: median 3.00, 3 policies", "untrained: no finite return"]


def test_a_forecast_past_the_end_of_the_path_is_refused() -> None:
    with pytest.raises(TiplError, match="expected it to end within the path"):
        plots.true_against_forecast_coordinates(
            STEPS, COORDINATES[0], [(4, COORDINATES[0, :2])], note="note"
        )


def test_every_figure_is_on_the_page_twice(page: Page) -> None:
    assert len(page.all("svg")) == 2 * len(DRAWINGS)
    assert len(page.all("figcaption")) == len(DRAWINGS)


def test_page_is_whole_and_in_order(page: Page) -> None:
    assert len(page.all("main")) == len(page.all("h1")) == 1
    headings = [tag for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert headings == ["h1"] + ["h2"] * (len(headings) - 1)
    assert len(page.all("table")) == len(page.all("caption"))
    drawings = [a for a in page.all("div") if a.get("role") == "img"]
    assert all(attributes["aria-label"] for attributes in drawings)
    assert len(drawings) == len(DRAWINGS)


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


def test_hostile_text_stays_text() -> None:
    page = Page(render_report(example_report(HOSTILE)))
    assert not page.all("script")
    assert {key for _, attributes in page.elements for key in attributes} == {
        key
        for _, attributes in Page(render_report(example_report())).elements
        for key in attributes
    }
    assert page.text.count(HOSTILE) > 5


def test_a_table_with_a_short_row_is_refused() -> None:
    with pytest.raises(TiplError, match="row of 1 cells was given for the table 'Returns'"):
        Table("Returns", ["a", "b"], [[1]])


def test_written_report_is_the_rendered_one(tmp_path: Path, source: str) -> None:
    write_report(example_report(), tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == source
