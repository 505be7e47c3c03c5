"""The FastAPI example with one page more, which tells of its pools."""

from typing import Any

import microorm
from examples.fastapi_app.main import app

__all__ = ["app"]


@app.get("/pools")
async def pools() -> dict[str, dict[str, Any]]:
    """Return what the pool of each alias counts: connections that are open, in use, and above its size."""
    found = {}
    for alias in microorm.default_databases.aliases:
        pool: Any = microorm.default_databases.async_engine(alias).pool
        found[alias] = {
            "size": pool.size(),
            "open": pool.checkedin() + pool.checkedout(),
            "in use": pool.checkedout(),
            "overflow": max(0, pool.overflow()),
        }
    return found
