"""What a notebook shows of an object: a small table."""

from __future__ import annotations

import html
from collections.abc import Mapping

from tipl.errors import printable


def card(title: str, facts: Mapping[str, object]) -> str:
    """HTML of a title, and of facts by their names; whatever they hold, nothing of it is markup."""
    rows = "".join(
        f'<tr><th style="text-align: left">{_text(name)}</th>'
        f'<td style="text-align: left">{_text(value)}</td></tr>'
        for name, value in facts.items()
    )
    return f"<table><caption>{_text(title)}</caption><tbody>{rows}</tbody></table>"


def _text(value: object) -> str:
    return html.escape(printable(str(value)))
