"""Helpers for tests: roll back, run what waits for a commit, record signals, count statements, refuse lazy loading.

The fixtures of the pytest plugin are made of them.
"""

from microorm.testing.commits import Commits
from microorm.testing.databases import isolated_registry
from microorm.testing.signals import Sent, SentSignals, assert_signals, record_signals
from microorm.testing.statements import Statements, count_statements, no_lazy_loads
from microorm.testing.transaction import AliasNotAllowed, allowed_aliases, arolled_back, rolled_back

__all__ = [
    "AliasNotAllowed",
    "Commits",
    "Sent",
    "SentSignals",
    "Statements",
    "allowed_aliases",
    "arolled_back",
    "assert_signals",
    "count_statements",
    "isolated_registry",
    "no_lazy_loads",
    "record_signals",
    "rolled_back",
]
