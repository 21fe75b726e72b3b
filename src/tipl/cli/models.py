"""`tipl models`."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from tipl.core.terminal import console
from tipl.forecast.hub import ShippedModel, describe_shipped


def models() -> list[ShippedModel]:
    """List the models that ship with tipl; commands take them by their names."""
    found = describe_shipped()
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("name", "kind", "tasks"):
        table.add_column(name)
    for one in found:
        table.add_row(*map(Text, (one.name, one.kind, ", ".join(one.tasks))))
    console().print(table)
    return found
