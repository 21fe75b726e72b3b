"""Rivals that are trained on the same paths: WNN, of each parameter, and NiNo, of a graph."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tipl.core.lazy import lazy_names

__all__ = ["WNN", "NiNo", "NiNoConfig", "Nowcaster", "NowcasterConfig"]

if TYPE_CHECKING:
    from tipl.models.nowcasters.net import WNN, NiNo, NiNoConfig, Nowcaster, NowcasterConfig
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "tipl.models.nowcasters.net": "WNN NiNo NiNoConfig Nowcaster NowcasterConfig",
        },
    )
