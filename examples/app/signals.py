"""Receivers: a new loan takes a copy from the shelf, and deleting the loan puts it back.

The senders are labels such as "app.Loan". A label also works before its model is defined.
"""

from typing import Any

from examples.app.models import Book, Loan, Reminder
from microorm import receiver
from microorm.signals import post_delete, post_save


@receiver(post_save, sender="app.Loan")
def take_a_copy(instance: Loan, *, created: bool, **kwargs: Any) -> None:
    """Take a copy. This runs in the transaction of the save, so if no copy is left, the loan is not stored either."""
    if created:
        book = Book.objects.get(id=instance.book_id)
        if book.copies == 0:
            raise LookupError(f"no copy of {book.title!r} is left for {instance.reader}")
        book.copies -= 1
        book.save(update_fields=["copies"])


@receiver(post_delete, sender="app.Loan")
def bring_it_back(instance: Loan, **kwargs: Any) -> None:
    """Put the copy back, in the transaction of the delete."""
    book = Book.objects.get(id=instance.book_id)
    book.copies += 1
    book.save(update_fields=["copies"])


@receiver(post_save, sender="app.Book", delivery="on_commit")
def remind(instance: Book, **kwargs: Any) -> None:
    """Write a reminder after the commit, and never for a loan that was rolled back."""
    if instance.copies == 0:
        Reminder(text=f"order {instance.title!r}").save()
