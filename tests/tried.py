"""How much the tests of hostile input try: SECURITY.md says it, and no more than is so.

    TIPL_WRITE_TABLES=1 python -m pytest \\
        tests/test_file_kinds.py tests/test_fuzz.py tests/test_crashes.py

writes its table anew.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "SECURITY.md"


def tried(what: str, count: int) -> None:
    """Checks that as many were tried as SECURITY.md says of a row of its table, or more.

    Args:
        what: how the row begins.
        count: how many were tried just now.
    """
    row = re.compile(rf"(?<=\n\| {re.escape(what)} \| )[\d,]+")
    page = PAGE.read_text(encoding="utf-8")
    if os.environ.get("TIPL_WRITE_TABLES"):
        page, rows = row.subn(f"{count:,}", page)
        assert rows == 1, what
        PAGE.write_text(page, encoding="utf-8")
    said = row.search(page)
    assert said is not None, what
    assert count >= int(said[0].replace(",", ""))
