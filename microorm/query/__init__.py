"""Reads: what a `Query` selects and how its results are loaded."""
