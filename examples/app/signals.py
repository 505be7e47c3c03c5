"""Receivers: a loan takes a copy from the shelf, and brings it back when it ends.

The senders are labels: this module could be imported before the models are defined.
"""

from typing import Any

from examples.app.models import Book, Loan, Reminder
from microorm import receiver
from microorm.signals import post_delete, post_save


@receiver(post_save, sender="app.Loan")
def take_a_copy(instance: Loan, *, created: bool, **kwargs: Any) -> None:
    """In the transaction of the loan: where no copy is left, there is no loan either."""
    if created:
        book = Book.objects.get(id=instance.book_id)
        if book.copies == 0:
            raise LookupError(f"no copy of {book.title!r} is left for {instance.reader}")
        book.copies -= 1
        book.save(update_fields=["copies"])


@receiver(post_delete, sender="app.Loan")
def bring_it_back(instance: Loan, **kwargs: Any) -> None:
    """In the transaction of the delete."""
    book = Book.objects.get(id=instance.book_id)
    book.copies += 1
    book.save(update_fields=["copies"])


@receiver(post_save, sender="app.Book", delivery="on_commit")
def remind(instance: Book, **kwargs: Any) -> None:
    """After the commit, and never for a loan that was undone."""
    if instance.copies == 0:
        Reminder(text=f"order {instance.title!r}").save()
