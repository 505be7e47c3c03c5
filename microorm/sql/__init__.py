"""Compiled statements, and rows made into instances."""
