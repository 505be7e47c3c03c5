"""Writes: save, delete, bulk and update."""
