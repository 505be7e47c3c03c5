"""The application: how it is made, and its endpoints."""

import os
from collections.abc import Iterator
from typing import Any

from flask import Blueprint, Flask, Response, request

import microorm
from examples.flask_app.models import Author, Book, News
from microorm import InvalidValue, ObjectDoesNotExist, atomic
from microorm.http import WSGISignals

books = Blueprint("books", __name__)


def create_app() -> Flask:
    """Configure the database, and make the application. A server calls this once in each of its processes."""
    microorm.configure(os.environ.get("DATABASE_URL", "sqlite:///books.db"))
    microorm.create_all()  # a larger program has migrations
    app = Flask(__name__)
    app.register_blueprint(books)
    # Rolls back what a request leaves open in its thread, and sends the request signals.
    app.wsgi_app = WSGISignals(app.wsgi_app)  # type: ignore[method-assign]
    return app


def as_json(book: Book) -> dict[str, Any]:
    """Return what a client gets of a book."""
    return {"id": book.id, "title": book.title, "copies": book.copies, "author": book.author.name}


@books.app_errorhandler(ObjectDoesNotExist)
def not_found(error: Exception) -> tuple[dict[str, str], int]:
    """Answer with 404 where `get` has found no row. The error has left the endpoint, so its block was rolled back."""
    return {"detail": str(error)}, 404


@books.app_errorhandler(InvalidValue)
def invalid(error: Exception) -> tuple[dict[str, str], int]:
    """Answer with 422 where a field cannot hold what the client has sent: models check values before any SQL."""
    return {"detail": str(error)}, 422


@books.get("/books")
def list_books() -> list[dict[str, Any]]:
    """List books, the newest first, with their authors by the same statement."""
    return [as_json(book) for book in Book.objects.select_related("author").order_by(Book.id.desc())[:20]]


@books.post("/books")
@atomic
def create_book() -> tuple[dict[str, Any], int]:
    """Add a book, and its author if the name is new: both or nothing, since `atomic` is around both."""
    sent = request.get_json()
    author, _ = Author.objects.get_or_create(name=sent.get("author"))
    book = Book(title=sent.get("title"), copies=sent.get("copies", 1), author=author).save()
    return as_json(book), 201


@books.get("/books/<int:key>")
def get_book(key: int) -> dict[str, Any]:
    """Return one book."""
    return as_json(Book.objects.select_related("author").get(id=key))


@books.patch("/books/<int:key>")
@atomic
def deliver(key: int) -> dict[str, Any]:
    """Add copies of a book, or take some away.

    `for_update` lets two requests for the same book wait for each other, so that neither overwrites what the other has
    counted.
    """
    book = Book.objects.for_update().get(id=key)
    book.copies += request.get_json().get("copies", 1)
    book.save(update_fields=["copies"])
    return as_json(book)


@books.get("/books/export")
def export_books() -> Response:
    """Send all books as lines, of which a thousand are in memory at a time.

    If the client goes away, the server closes the generator, and its connection returns to the pool.
    """

    def lines() -> Iterator[str]:
        for book in Book.objects.select_related("author").order_by("id").iterate(chunk=1000):
            yield f"{book.id}\t{book.title}\t{book.author.name}\n"

    return Response(lines(), mimetype="text/tab-separated-values")


@books.get("/news")
def list_news() -> list[str]:
    """List the news, which the receiver has written."""
    return News.objects.order_by("id").scalars(News.text)
