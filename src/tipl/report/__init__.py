"""Results, figures and self-contained pages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tipl.core.lazy import lazy_names

__all__: list[str] = []

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(__name__)
