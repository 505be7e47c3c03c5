"""Pools: what a test asks of the connections that are out."""

from typing import Any


def unreturned(databases: Any, alias: str = "default") -> int:
    """The connections of *alias* that somebody holds, idle ones apart."""
    databases.database(alias).idle_connections.clear()
    count: int = databases.engine(alias).pool.checkedout()
    return count
