"""Receivers: news about a book, written after the commit."""

from typing import Any

from examples.fastapi_app.models import Book, News
from microorm import receiver
from microorm.signals import post_save


@receiver(post_save, sender=Book, delivery="on_commit")
async def tell(instance: Book, *, created: bool, **kwargs: Any) -> None:
    """Write a line about a new book.

    An asynchronous receiver is awaited by the endpoint that saves. This one waits for the commit, so there is no news
    about a book that was rolled back.
    """
    if created:
        await News(text=f"new: {instance.title}").asave()
