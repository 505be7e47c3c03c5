"""Pools: what a test asks of the connections that are out."""

from typing import Any

from microorm.db.aio import twins


def unreturned(databases: Any, alias: str = "default") -> int:
    """The connections of *alias* that somebody holds, idle ones apart."""
    databases.database(alias).idle_connections.clear()
    count: int = databases.engine(alias).pool.checkedout()
    return count


async def aunreturned(databases: Any, alias: str = "default") -> int:
    """The same of the running event loop."""
    database = databases.awaited(databases.database(alias))
    await twins.run(database.idle_connections.clear)
    count: int = databases.async_engine(alias).pool.checkedout()
    return count
