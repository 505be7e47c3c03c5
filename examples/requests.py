"""Requests: the signals of a web application, and a clean-up after each request.

The middleware `WSGISignals` sends the signals. It also rolls back a transaction that a request has left open.

    python examples/requests.py

Prints:
    request_started /books
    request_finished /books
    the client got 200 b'Dune'
    request_started /forgetful
    logged: a request left a block on 'default' open; it was rolled back
    got_request_exception LookupError('no such book')
    request_finished /forgetful
    the client got 500 b'A server error occurred.  Please contact the administrator.'
    books: ['Dune']
"""

import io
import logging
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

import microorm
from microorm import Field, Model, atomic, receiver
from microorm.http import WSGISignals
from microorm.signals import got_request_exception, request_finished, request_started


class Book(Model):
    title: Field[str]


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
    """Answer requests. Any WSGI application works here; with Flask, wrap `app.wsgi_app`."""
    if environ["PATH_INFO"] == "/forgetful":
        atomic().__enter__()  # a mistake: this block is never left
        Book(title="Solaris").save()
        raise LookupError("no such book")
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield from (book.title.encode() for book in Book.objects)


@receiver([request_started, request_finished], sender=WSGISignals)
def show_request(signal: object, environ: WSGIEnvironment, **kwargs: Any) -> None:
    print("request_started" if signal is request_started else "request_finished", environ["PATH_INFO"])


@receiver(got_request_exception, sender=WSGISignals)
def show_error(exception: Exception, **kwargs: Any) -> None:
    print("got_request_exception", repr(exception))


class Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Keep the server's log out of the output."""

    def get_stderr(self) -> io.StringIO:
        return io.StringIO()


logging.basicConfig(stream=sys.stdout, format="logged: %(message)s")
microorm.configure("sqlite://")
microorm.create_all()
Book(title="Dune").save()
with make_server("127.0.0.1", 0, WSGISignals(app), handler_class=Quiet) as server:
    for path in ("/books", "/forgetful"):
        thread = Thread(target=server.handle_request)
        thread.start()
        client = HTTPConnection("127.0.0.1", server.server_port)
        client.request("GET", path)
        response = client.getresponse()
        thread.join()
        print("the client got", response.status, response.read())
print("books:", [book.title for book in Book.objects])
microorm.close()
