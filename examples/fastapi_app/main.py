"""The application: how it starts and ends, and its endpoints."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse

import microorm
from examples.fastapi_app import signals  # connects the receivers
from examples.fastapi_app.models import Author, Book, News
from examples.fastapi_app.routers import ReadFromReplica
from examples.fastapi_app.schemas import BookOut, Delivery, NewBook
from microorm import ObjectDoesNotExist, atomic
from microorm.http import SignalsMiddleware

__all__ = ["app", "signals"]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Configure the databases when the server starts, and close their connections when it ends.

    Each process of a server does this for itself, on its own event loop.
    """
    url = os.environ.get("DATABASE_URL", "sqlite:///books.db")
    replica = os.environ.get("REPLICA_URL", url)
    pool = {
        "pool_size": 10,
        "max_overflow": 0,
    }  # at most ten connections for each alias; requests wait for one
    microorm.configure(
        {"default": {"url": url, **pool}, "replica": {"url": replica, **pool}}, routers=[ReadFromReplica()]
    )
    await microorm.default_registry.acreate_all()  # a larger program has migrations
    yield
    await microorm.default_databases.aclose()


app = FastAPI(lifespan=lifespan)
app.add_middleware(SignalsMiddleware)  # rolls back what a request leaves open, and sends the request signals


@app.exception_handler(ObjectDoesNotExist)
async def not_found(request: Request, error: Exception) -> JSONResponse:
    """Answer with 404 where `aget` has found no row. The error has left the endpoint, so its block was rolled back."""
    return JSONResponse({"detail": str(error)}, status_code=404)


@app.get("/books", response_model=list[BookOut])
async def list_books(offset: int = 0, limit: int = 20) -> list[Book]:
    """List books, the newest first.

    `select_related` loads the authors by the same statement. Without it `book.author`, which `BookOut` reads, would have
    to ask the database, and an attribute cannot be awaited: it raises `LazyLoadError`.
    """
    newest = Book.objects.select_related("author").order_by(Book.id.desc())
    return await newest[offset : offset + min(limit, 100)].aall()


@app.post("/books", response_model=BookOut, status_code=201)
@atomic
async def create_book(new: NewBook) -> Book:
    """Add a book, and its author if the name is new: both or nothing, since `atomic` is around both."""
    author, _ = await Author.objects.aget_or_create(name=new.author)
    return await Book(title=new.title, copies=new.copies, author=author).asave()


@app.get("/books/export")
async def export_books() -> StreamingResponse:
    """Send all books as lines of JSON, of which a hundred are in memory at a time.

    If the client goes away, the stream is closed, and its connection returns to the pool.
    """

    async def lines() -> AsyncIterator[str]:
        async for book in Book.objects.select_related("author").order_by("id").iterate(chunk=100):
            yield BookOut.model_validate(book).model_dump_json() + "\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson")


@app.get("/books/{key}", response_model=BookOut)
async def get_book(key: int) -> Book:
    """Return one book."""
    return await Book.objects.select_related("author").aget(id=key)


@app.patch("/books/{key}", response_model=BookOut)
async def deliver(key: int, delivery: Delivery) -> Book:
    """Add copies of a book, or take some away.

    The block begins where the database is needed, and ends before the answer is made. `for_update` lets two requests for
    the same book wait for each other, so that neither overwrites what the other has counted.
    """
    async with atomic():
        book = await Book.objects.for_update().aget(id=key)
        book.copies = max(0, book.copies + delivery.copies)
        await book.asave(update_fields=["copies"])
        await book.aload("author")
    return book


@app.get("/news")
async def list_news() -> list[str]:
    """List the news, which `signals.tell` has written."""
    return await News.objects.order_by("id").ascalars(News.text)
