"""A proxy on loopback whose connection to a server can be cut at a chosen statement.

The cut depends on what was sent, never on time: either the statement does not reach the server, or the server has
answered it and the answer does not reach the client.
"""

import re
import select
import socket
import threading
from typing import Self

from sqlalchemy import URL, make_url

PORTS = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306}


class Proxy:
    """Forward a port of its own to the server of *url*; its `url` goes through it."""

    def __init__(self, url: str) -> None:
        behind = make_url(url)
        kind = behind.get_backend_name()
        self._server = (behind.host or "127.0.0.1", behind.port or PORTS[kind])
        self._listening = socket.create_server(("127.0.0.1", 0))
        # Statements cannot be recognized in encrypted data.
        plain = {"sslmode": "disable", "gssencmode": "disable"} if kind == "postgresql" else {}
        through: URL = behind.set(host="127.0.0.1", port=self._listening.getsockname()[1])
        self.url = through.update_query_dict(plain)
        self.cuts = 0
        self._at: bytes | None = None
        self._answered = False
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        # This also wakes the accepting thread.
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for thread in self._threads:
            thread.join()

    def cut(self, at: bytes, *, answered: bool) -> None:
        """Cut the next connection that sends *at*: after the server has *answered* it, or before it reaches the server."""
        self._answered = answered
        self._at = at

    def _start(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            self._start(self._forward, client)

    def _forward(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._server) as server:
            while True:
                for side in select.select([client, server], [], [])[0]:
                    try:
                        data = side.recv(65536)
                    except ConnectionError:
                        return
                    if not data or (side is client and self._cuts(data, server)):
                        return
                    (server if side is client else client).sendall(data)

    def _cuts(self, data: bytes, server: socket.socket) -> bool:
        if self._at is None or not re.search(rb"(?<![A-Z])%b(?![A-Z])" % self._at, data):
            return False
        self._at = None
        self.cuts += 1
        if self._answered:
            server.sendall(data)
            server.recv(65536)
        return True
