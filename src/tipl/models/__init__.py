"""Models that read policy learning paths."""
