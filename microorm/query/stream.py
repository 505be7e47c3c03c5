"""Streams: the instances of a query, of which one chunk is in memory at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Self, TypeVar

from microorm.db.aio import twins
from microorm.errors import TransactionError

if TYPE_CHECKING:
    from microorm.db.aio.loops import EventLoop

M = TypeVar("M")


class Stream(Iterator[M]):
    """An iterator over instances, for `for` and `async for`, which is used once.

    It holds a connection or a cursor until it is read to the end, closed, or dropped. `with` and `async with` close it when
    their block is left.
    """

    def __init__(self, chunks: Generator[list[M], None, None]) -> None:
        self._chunks = chunks
        self._instances: Iterator[M] = chain.from_iterable(chunks)
        self._loop: EventLoop | None = None  # that of the `async for` which has begun to read

    def __next__(self) -> M:
        if self._loop is not None:
            raise TransactionError(
                "the stream is read by `async for`, whose connection belongs to its event loop"
            )
        return next(self._instances)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    async def __aiter__(self) -> AsyncIterator[M]:
        loop = twins.event_loop(next)
        if self._loop not in (None, loop):
            raise TransactionError(
                "the stream is read on another event loop, to which its connection belongs"
            )
        self._loop = loop
        loop.begin_stream()
        try:
            while (chunk := await twins.run(next, self._chunks, None)) is not None:
                for instance in chunk:
                    yield instance
        finally:
            await loop.end_stream(self.aclose())

    def close(self) -> None:
        """Give up the connection or cursor; rows that are left cannot be read any more."""
        self._instances, self._loop = iter(()), None
        self._chunks.close()

    aclose = twins.twin(close)
