"""A primary and its replicas, for the tests: rows are copied when a test says so."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy import URL, make_url

from microorm import (
    Databases,
    Field,
    ForeignKey,
    ManyToMany,
    Model,
    Registry,
    Related,
    field,
    foreign_key,
    many_to_many,
    related,
)
from microorm.routers import PrimaryReplica


class Cluster:
    """The alias `default`, copied to *replicas*, and models of a library; `urls` are those of the aliases."""

    def __init__(
        self,
        urls: dict[str, Any],
        replicas: Any = None,
        *,
        max_connections: int | None = None,
        **options: Any,
    ) -> None:
        self.router = PrimaryReplica(
            "default", replicas or [each for each in urls if each != "default"], **options
        )
        self.databases = Databases(urls, routers=[self.router], max_connections=max_connections)
        self.registry = Registry(self.databases)

        class Author(Model, registry=self.registry):
            name: Field[str]
            books: Related["Book"] = related("author")

        class Tag(Model, registry=self.registry):
            name: Field[str]

        class Book(Model, registry=self.registry):
            title: Field[str]
            pages: Field[int] = field(default=0)
            author: ForeignKey[Author | None] = foreign_key(default=None)
            tags: ManyToMany[Tag] = many_to_many()

        self.Author: Any = Author
        self.Tag: Any = Tag
        self.Book: Any = Book

    def create_all(self, *replicas: str) -> "Cluster":
        """Create the tables on the primary and on *replicas*."""
        self.registry.create_all()
        for alias in replicas:
            with self.databases.connection(alias) as connection:
                self.registry.metadata.create_all(connection)
                connection.commit()
        self.forget()
        return self

    def copy(self, *replicas: str) -> None:
        """Replace the rows of *replicas* by those of the primary."""
        tables = self.registry.metadata.sorted_tables
        with self.databases.connection("default") as connection:
            rows = {
                table: [dict(row._mapping) for row in connection.execute(table.select())] for table in tables
            }
        for alias in replicas:
            with self.databases.atomic(alias), self.databases.connection(alias) as connection:
                for table in reversed(tables):
                    connection.execute(table.delete())
                for table in tables:
                    if rows[table]:
                        connection.execute(table.insert(), rows[table])

    def forget(self) -> None:
        """Forget what this task has written, as if another had."""
        self.router._session.set(None)

    def alias_of_read(self, read: Any) -> str:
        """Return where *read* was routed."""
        before = self.router.stats().reads
        read()
        after = self.router.stats().reads
        (alias,) = [each for each in after if after[each] != before.get(each, 0)]
        return alias


class Proxy:
    """Stands before a server. *mode*: "open" passes on; "silent" accepts and never answers; "closed" hangs up at once.

    What was connected before is silent, too.
    """

    def __init__(self, host: str, port: int, mode: str = "open") -> None:
        self.mode = mode
        self.attempts = 0
        self._server = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = int(self._listener.getsockname()[1])
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Hang up all connections."""
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._sockets.clear()

    def close(self) -> None:
        """Hang up, and listen no more."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.attempts += 1
            if self.mode == "closed":
                client.close()
                continue
            self._sockets.append(client)
            if self.mode == "open":
                server = socket.create_connection(self._server)
                self._sockets.append(server)
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if self.mode != "silent":
                    target.sendall(data)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@contextmanager
def behind_proxy(url: str) -> Iterator[tuple[Proxy, URL]]:
    """Yield a proxy for the server of *url*, and the URL that leads through it."""
    direct = make_url(url)
    proxy = Proxy(
        direct.host or "127.0.0.1", direct.port or (5432 if "postgres" in direct.drivername else 3306)
    )
    try:
        yield proxy, direct.set(port=proxy.port)
    finally:
        proxy.close()
