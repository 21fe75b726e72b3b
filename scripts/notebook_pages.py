"""Notebooks as Markdown: on the site, and to the test that executes their cells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

COLAB = "https://colab.research.google.com/github/"


def as_markdown(path: Path) -> str:
    """The cells of a notebook in order, each with what it printed when the notebook was made."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = "\n\n".join(map(_cell, cells)) + "\n"
    return text.replace("-->\n\n```", "-->\n```")  # what scales a block down is directly above it


def _cell(cell: dict[str, Any]) -> str:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return source
    printed = "".join(line for one in cell["outputs"] for line in one["text"])
    block = f"```python\n{source}\n```"
    return f"{block}\n\n```text\n{printed.rstrip()}\n```" if printed else block


def as_page(path: Path, repository: str) -> str:
    """A notebook's page on the site, with links to the notebook itself and to Colab.

    Args:
        path: of the notebook, in `docs/notebooks`.
        repository: address of the repository, of which Colab opens those on GitHub.
    """
    title, _, rest = as_markdown(path).partition("\n")
    links = [f"[Download the notebook]({path.name}){{ .md-button }}"]
    owner = repository.removesuffix("/").removeprefix("https://github.com/")
    if owner and owner != repository:
        address = f"{COLAB}{owner}/blob/main/docs/notebooks/{path.name}"
        links.insert(0, f"[Open in Colab]({address}){{ .md-button .md-button--primary }}")
    return f"{title}\n\n{' '.join(links)}\n{rest}"
