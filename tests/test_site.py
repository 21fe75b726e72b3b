"""The site of the documentation: whole, without a warning, and of no other host's making."""

from __future__ import annotations

import html
import importlib
import os
import pkgutil
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import tipl
from tipl.cli import COMMANDS
from tipl.core.schemas import file_kinds

ROOT = Path(__file__).parents[1]

REPOSITORY = "https://github.com/someone/tipl"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built once, and strictly: a warning, such as of a link to nothing, ends it."""
    place = tmp_path_factory.mktemp("site")
    words = ["-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(place)]
    settings = {"TIPL_REPOSITORY": REPOSITORY, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return place


class _Page(HTMLParser):
    """What a page has a browser load, its anchors, and its text."""

    ASKING = ("src", "srcset", "poster", "data", "action", "background")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name == "id" and value:
                self.anchors.add(value)
            elif value and (name in self.ASKING or (name == "href" and tag in ("link", "base"))):
                self.loads.append(value)


ELSEWHERE = re.compile(r"^\s*(?:[a-z]+:)?//|^[a-z]+:(?!image/)", re.IGNORECASE)
IN_STYLE = re.compile(r"""(?:url\(|@import)\s*["']?\s*((?:https?:)?//[^"')\s]+)""")


def _loaded_from_elsewhere(page: str) -> list[str]:
    return [one for one in _Page(page).loads if ELSEWHERE.match(one)] + IN_STYLE.findall(page)


def test_no_page_asks_another_host(site: Path) -> None:
    found = {
        path.relative_to(site).as_posix(): loads
        for kind in ("*.html", "*.css")
        for path in site.rglob(kind)
        if (loads := _loaded_from_elsewhere(path.read_text(encoding="utf-8")))
    }
    assert found == {}
    # what the theme's script would fetch from elsewhere, if a page had it
    texts = [path.read_text(encoding="utf-8") for path in site.rglob("*.html")]
    assert not [
        text for text in texts if 'class="mermaid"' in text or "data-md-component=source" in text
    ]


@pytest.mark.parametrize(
    "page",
    [
        '<script src="https://cdn.example/a.js"></script>',
        "<img src=//cdn.example/a.png>",
        '<link rel="preconnect" href="https://cdn.example/">',
        "<style>@import 'https://cdn.example/a.css'</style>",
        '<p style="background: url(https://cdn.example/a.png)">',
    ],
)
def test_a_page_that_asks_another_host_is_found(page: str) -> None:
    assert _loaded_from_elsewhere(page)
    assert not _loaded_from_elsewhere(page.replace("https:", "").replace("//cdn.example/", ""))


def test_every_public_name_has_an_entry(site: Path) -> None:
    pages = (site / "reference").glob("tipl*.html")
    anchors = set().union(*(_Page(page.read_text(encoding="utf-8")).anchors for page in pages))
    packages = [one.name for one in pkgutil.walk_packages(tipl.__path__, "tipl.") if one.ispkg]
    missing = []
    for package in ["tipl", *packages]:
        module = importlib.import_module(package)
        for name in getattr(module, "__all__", []):
            exported = name in tipl.__all__ and getattr(tipl, name) is getattr(module, name)
            entry = f"tipl.{name}" if exported else f"{package}.{name}"
            if entry not in anchors and package != "tipl.cli" and name != "__version__":
                missing.append(entry)
    assert missing == []


def test_the_reference_has_every_command_and_kind_of_file(site: Path) -> None:
    commands, files = (
        html.unescape((site / "reference" / f"{page}.html").read_text(encoding="utf-8"))
        for page in ("commands", "files")
    )
    assert [name for name in COMMANDS if f"usage: tipl {name} " not in commands] == []
    assert [
        kind.expected for kind in file_kinds() if f"<code>{kind.name}</code>" not in files
    ] == []
    for option in ("--episodes INT", "--json", "--trust-module NAME", "--observer-worlds INT"):
        assert commands.count(f"\n{option}") + commands.count(f">{option}") >= 1


def test_notebooks_have_a_page_that_opens_them_in_colab(site: Path) -> None:
    notebooks = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
    assert notebooks
    for path in notebooks:
        page = (site / "notebooks" / f"{path.stem}.html").read_text(encoding="utf-8")
        opened = f"github/someone/tipl/blob/main/docs/notebooks/{path.name}"
        assert f'href="https://colab.research.google.com/{opened}"' in page
        assert f'href="{path.name}"' in page
        assert (site / "notebooks" / path.name).read_bytes() == path.read_bytes()
