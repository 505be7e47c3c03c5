"""WSGI and ASGI middleware: request signals, and no open transaction after a request.

Each middleware sends `request_started` when a request arrives, `got_request_exception` for an error of the application,
and `request_finished` once, at the end. The sender is the class of the middleware.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, MutableMapping
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, TypeVar, cast
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from microorm.db.aio import twins
from microorm.db.blocks import AtomicBlock, end_scopes
from microorm.db.context import Scope, open_scopes
from microorm.db.databases import Databases, default_databases
from microorm.db.owners import begun_by_tasks
from microorm.signals import got_request_exception, request_finished, request_started

__all__ = ["SignalsMiddleware", "WSGISignals"]

_END = object()
_log = logging.getLogger("microorm.http")
_T = TypeVar("_T")
_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
_ASGIApplication = Callable[[_Message, _Receive, _Send], Awaitable[None]]


class WSGISignals:
    """WSGI middleware that sends the request signals with `environ`: `app.wsgi_app = WSGISignals(app.wsgi_app)` for Flask.

    `request_finished` is sent when the server closes the body, even if it was not read to its end, and when *app* fails.
    Blocks of *databases* that *app* leaves open are then rolled back. Exceptions, including those of receivers, are passed
    on to the server.
    """

    def __init__(self, app: WSGIApplication, *, databases: Databases = default_databases) -> None:
        self.app = app
        self.databases = databases

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        request = _WSGIRequest(type(self), self.databases, environ)
        self.databases.drop_lost_connections()
        try:
            request.start()
            body = request.call(self.app, environ, start_response)
        except BaseException:
            request.finish()
            raise
        return request.watched(body)


class SignalsMiddleware:
    """ASGI middleware that sends the request signals with `scope`: `app.add_middleware(SignalsMiddleware)` for FastAPI.

    `request_finished` is sent when *app* returns, fails or is cancelled, which includes a client that disconnects. Blocks
    of *databases* that *app* leaves open are then rolled back, also those of tasks that it has started and that have ended,
    and the connections of `async with` blocks are returned without stopping the event loop. Scopes of other types than
    `http` are passed on. Exceptions, including those of receivers, are passed on to the server.
    """

    def __init__(self, app: _ASGIApplication, *, databases: Databases = default_databases) -> None:
        self.app = app
        self.databases = databases

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Answer one HTTP request; pass on other scopes."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        sender, request = type(self), _ASGIRequest(self.databases)
        await request.drop_lost_connections()
        try:
            with request.receivers:
                await request_started.asend(sender=sender, scope=scope)
            try:
                with request.application:
                    await self.app(scope, receive, send)
            except Exception as error:
                async with request.after_application():
                    await got_request_exception.asend(sender=sender, exception=error, scope=scope)
                raise
        finally:
            async with request.ending():
                await request_finished.asend(sender=sender, scope=scope)


class _Opened:
    """The scopes of *databases* that were opened in `with` blocks of this object and not closed.

    Tasks that are started there have scopes of their own, of which nothing is seen here. So their transactions are noted.
    """

    def __init__(self, databases: Databases) -> None:
        self._databases = databases
        self._before: set[Scope] = set()
        self._found: set[Scope] = set()
        self._begun: dict[int, Any] = {}
        self._noted_before: dict[int, Any] | None = None

    def __enter__(self) -> None:
        self._before = set(open_scopes(self._databases))
        self._noted_before = begun_by_tasks.get()
        begun_by_tasks.set(self._begun)

    def __exit__(self, *exc: object) -> None:
        begun_by_tasks.set(self._noted_before)
        self._found.update(set(open_scopes(self._databases)) - self._before)

    def left(self) -> list[Scope]:
        """Return the scopes that are still open, except those of tasks that have not ended."""
        blocks = [transaction.blocks[0] for transaction in self._begun.values() if transaction.blocks]
        found = {
            block for block in blocks if block.owner is self._databases and block.transaction.owner.ended
        }
        return [scope for scope in self._found | found if not scope.closed]


def _end(scopes: list[Scope]) -> None:
    """Close *scopes*; blocks are rolled back, and logged."""
    for alias in end_scopes(scopes):
        _log.warning("a request left a block on %r open; it was rolled back", alias)


class _Request:
    """One request, which closes what its application and receivers leave open, but no block of the caller."""

    def __init__(self, databases: Databases) -> None:
        self._databases = databases
        self.application = _Opened(databases)
        self.receivers = _Opened(databases)


class _ASGIRequest(_Request):
    """A request to an ASGI application."""

    @asynccontextmanager
    async def after_application(self) -> AsyncIterator[None]:
        """Close what the application has left open, then run the block, which sends a signal."""
        try:
            await self._end(self.application)
        finally:
            with self.receivers:
                yield

    @asynccontextmanager
    async def ending(self) -> AsyncIterator[None]:
        """Run the block, which sends the last signal, and leave nothing open."""
        try:
            async with self.after_application():
                yield
        finally:
            await self._end(self.receivers)
            await self.drop_lost_connections()

    async def drop_lost_connections(self) -> None:
        """Close the idle connections of each alias that has lost one."""
        if self._databases.lost_in_coroutines():
            await twins.run(self._databases.drop_lost_connections)
        else:
            self._databases.drop_lost_connections()

    async def _end(self, opened: _Opened) -> None:
        scopes = opened.left()
        if any(isinstance(scope, AtomicBlock) and scope.transaction.database.is_async for scope in scopes):
            await twins.run(_end, scopes)
        else:
            _end(scopes)


class _WSGIRequest(_Request):
    """A request to a WSGI application."""

    def __init__(self, sender: type[WSGISignals], databases: Databases, environ: WSGIEnvironment) -> None:
        super().__init__(databases)
        self._sender = sender
        self._environ = environ

    @contextmanager
    def after_application(self) -> Iterator[None]:
        """Close what the application has left open, then run the block, which sends a signal."""
        try:
            _end(self.application.left())
        finally:
            with self.receivers:
                yield

    @contextmanager
    def ending(self) -> Iterator[None]:
        """Run the block, which sends the last signal, and leave nothing open."""
        try:
            with self.after_application():
                yield
        finally:
            _end(self.receivers.left())
            self._databases.drop_lost_connections()

    def start(self) -> None:
        """Send `request_started`."""
        with self.receivers:
            request_started.send(sender=self._sender, environ=self._environ)

    def call(self, part: Callable[..., _T], *args: Any) -> _T:
        """Run a part of the application, and send `got_request_exception` if it fails."""
        try:
            with self.application:
                return part(*args)
        except Exception as error:
            with self.after_application():
                got_request_exception.send(sender=self._sender, exception=error, environ=self._environ)
            raise

    def watched(self, body: Iterable[bytes]) -> Iterable[bytes]:
        """Wrap *body* so that the request ends when the server closes it."""
        watched = _SizedBody(self, body) if hasattr(body, "__len__") else _Body(self, body)
        wrapper = self._environ.get("wsgi.file_wrapper")
        if isinstance(wrapper, type) and isinstance(body, wrapper):
            # The server may send its own file wrapper faster than by reading, so it gets that object back.
            with suppress(AttributeError):
                body.close = watched.close  # type: ignore[attr-defined]
                return body
        return watched

    def finish(self) -> None:
        """Send `request_finished`, and leave nothing open."""
        with self.ending():
            request_finished.send(sender=self._sender, environ=self._environ)


class _Body:
    """The body of a response; the request ends when it is closed."""

    def __init__(self, request: _WSGIRequest, body: Iterable[bytes]) -> None:
        self._request = request
        self._body = body
        self._chunks: Iterator[bytes] | None = None
        self._close: Callable[[], object] | None = getattr(body, "close", None)
        self._closed = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._chunks is None:
            self._chunks = self._request.call(iter, self._body)
        chunk: object = self._request.call(next, self._chunks, _END)
        if chunk is _END:
            raise StopIteration
        return cast("bytes", chunk)

    def close(self) -> None:
        """Close the body of the application, then end the request; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._close is not None:
                self._request.call(self._close)
        finally:
            self._request.finish()


class _SizedBody(_Body):
    """A body with a length; a server sets Content-Length if there is one chunk."""

    def __len__(self) -> int:
        return len(self._body)  # type: ignore[arg-type]
