"""Databases that are closed while tasks have blocks open: the blocks end, and their connections are closed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from microorm import Field, UnknownAlias, field


@pytest.fixture
def Part(Base: Any) -> Any:
    class Part(Base):  # type: ignore[misc]
        name: Field[str] = field(max_length=20)

    return Part


class Held:
    """A task with an open block, which ends by *step* after `go`."""

    def __init__(
        self, databases: Any, Part: Any, step: Callable[[], Awaitable[object]] | None = None
    ) -> None:
        self.databases, self.Part, self.step = databases, Part, step
        self.ready, self.go = asyncio.Event(), asyncio.Event()

    async def begin(self) -> None:
        """Open the block."""
        await self.Part.__schema__.registry.acreate_all()
        here = self.databases.database("default").asynchronous._here()
        self.records = here.idle_connections.records
        self.task = asyncio.create_task(self._hold())
        await self.ready.wait()

    async def _hold(self) -> None:
        async with self.databases.atomic():
            await self.Part(name="a").asave()
            self.ready.set()
            await self.go.wait()
            if self.step is not None:
                await self.step()

    async def ended(self) -> BaseException | None:
        """Let the task end; return its error. All connections are closed then."""
        self.go.set()
        await asyncio.wait([self.task])
        assert [each for each in self.records if each.dbapi_connection is not None] == []
        return self.task.exception()


def test_a_block_that_is_open_while_its_databases_are_closed_is_committed(databases: Any, Part: Any) -> None:
    async def main() -> None:
        held = Held(databases, Part)
        await held.begin()
        await databases.aclose()
        assert await held.ended() is None

    asyncio.run(main())


@pytest.mark.parametrize("close", ["aclose", "close"])
def test_what_a_block_does_after_its_databases_are_closed_says_so(
    databases: Any, Part: Any, close: str
) -> None:
    async def main() -> None:
        held = Held(databases, Part, lambda: Part(name="b").asave())
        await held.begin()
        if close == "aclose":
            await databases.aclose()
        else:
            databases.close()
        error = await held.ended()
        assert isinstance(error, UnknownAlias)
        assert "since the databases were closed" in str(error)

    asyncio.run(main())


def test_a_block_whose_connection_was_dropped_as_its_databases_were_closed_fails(
    databases: Any, Part: Any
) -> None:
    """`close()` cannot wait for it, so it drops the connection; the block gives it up nevertheless."""

    async def main() -> None:
        held = Held(databases, Part)
        await held.begin()
        databases.close()
        assert "cannot be committed: the database was closed" in str(await held.ended())

    asyncio.run(main())
