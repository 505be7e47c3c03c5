"""A real server over loopback for the tests of ASGI applications, and a client."""

import contextlib
import http.client
import socket
import threading
from collections.abc import Iterator
from typing import Any

import uvicorn

WAIT = 20  # seconds, for what comes at once unless it never comes


@contextlib.contextmanager
def asgi_server(app: Any, **options: Any) -> Iterator[tuple[int, uvicorn.Server]]:
    """Serve in a thread until the block ends; gives the port."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, loop="asyncio", http="h11", ws="none", log_config=None, **options)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield listening.getsockname()[1], server
    finally:
        server.should_exit = True
        thread.join(WAIT)
        assert not thread.is_alive()


def ask(port: int, method: str = "GET", path: str = "/") -> tuple[int, dict[str, str], bytes]:
    """Make one request: status, headers, body."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT)) as connection:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
