"""What `mkdocs` does not find in `docs`: pages made of the code, and files that lie beside `docs`.

A hook of mkdocs, named in `mkdocs.yml`. What pages link to outside of `docs` comes along, pages as
pages and other files as they are, so that a link leads to the same text in the repository and on
the site.
"""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "scripts")]

import docs_reference  # noqa: E402
import notebook_pages  # noqa: E402

START = "README.md"
"""The page that the site begins with."""

LINK = re.compile(r"(?<=\]\()(?![a-z]+:|[#/<])(?P<path>[^)#\s]+)(?P<anchor>#[^)\s]*)?(?=\))")


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages that are made, and whatever lies outside of `docs` and is linked to."""
    for name, text in docs_reference.pages().items():
        files.append(File.generated(config, name, content=text))
    for path in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        text = notebook_pages.as_page(path, config.extra["repository"])
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=text))
    waiting = [f"docs/{page.src_uri}" for page in files.documentation_pages() if page.abs_src_path]
    waiting.append(START)
    seen = set(waiting)
    while waiting:
        path = waiting.pop()
        if not path.startswith("docs/"):
            source = str(ROOT / path)
            files.append(File.generated(config, _address(path), abs_src_path=source))
        if path.endswith(".md"):
            text = (ROOT / path).read_text(encoding="utf-8")
            linked = {_target(path, link["path"]) for link in LINK.finditer(text)}
            new = {one for one in linked - seen if not one.startswith("docs/")}
            waiting += sorted(new)
            seen |= new
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Lets links between `docs` and the rest of the repository lead to the pages of the site."""
    if page.is_homepage:  # which stands alone in its tab
        page.meta["hide"] = ["navigation"]
    source = page.file.abs_src_path
    if source is None:  # made of the code
        return markdown
    path = Path(source).relative_to(ROOT).as_posix()
    folder = posixpath.dirname(page.file.src_uri)

    def on_site(link: re.Match[str]) -> str:
        target = posixpath.relpath(_address(_target(path, link["path"])), folder or ".")
        return target + (link["anchor"] or "")

    return LINK.sub(on_site, markdown)


def _address(path: str) -> str:
    """Where a file of the repository lies among the sources of the site."""
    return "index.md" if path == START else path.removeprefix("docs/")


def _target(page: str, link: str) -> str:
    """The file of the repository that a page's link leads to."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link))
