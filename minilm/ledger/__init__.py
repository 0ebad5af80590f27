"""The symbolic table: every tensor of a model declared once, and everything else derived from it."""
