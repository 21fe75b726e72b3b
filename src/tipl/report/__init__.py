"""Results, figures and self-contained pages."""
