"""The colours of reports: of methods, of lines that are none, and of text."""

from __future__ import annotations

INK = "#1b2431"
PALETTE = {
    "accent": "#e4581c", "blue": "#4a94ee", "green": "#2b7355",
    "purple": "#7f54a3", "gold": "#a68f5a", "grey": "#88919a",
}  # fmt: skip
"""Each has a contrast of 3 or more to a white and to a dark page, and any two stay apart (by 20 or
more in CIELAB) to eyes without red, green or blue cones. Entries of models may give their names."""
ACCENT, BLUE, GREEN, PURPLE, GOLD, GREY = PALETTE.values()

SERIES = (ACCENT, BLUE, GREEN, PURPLE, GOLD)
"""For lines that are no method."""
