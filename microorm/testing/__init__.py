"""Helpers for tests: count the statements that a block sends, and refuse lazy loading in it."""

from microorm.testing.statements import Statements, count_statements, no_lazy_loads

__all__ = ["Statements", "count_statements", "no_lazy_loads"]
