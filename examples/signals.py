"""Signals: functions that run when a row is saved or deleted, and a signal of your own.

    python examples/signals.py

Prints:
    pre_save 'Dune'
    post_save 'Dune': created True, update_fields None
    committed 'Dune'
    pre_save 'Dune'
    post_save 'Dune': created False, update_fields frozenset({'pages'})
    committed 'Dune'
    muted: no receiver ran
    pre_save 'Solaris'
    post_save 'Solaris': created True, update_fields None
    rolled back: 'Solaris' was never committed
    post_delete 'Dune', key still 1
    responses to my own signal: ['packed 2']
"""

from contextlib import suppress
from typing import Any

import microorm
from microorm import Field, Model, Signal, atomic, field, muted, receiver
from microorm.signals import post_delete, post_save, pre_save


class Book(Model):
    title: Field[str]
    pages: Field[int] = field(default=0)


@receiver(pre_save, sender=Book)
def tidy(instance: Book, **kwargs: Any) -> None:
    """Change a value. `pre_save` receivers run before the values are checked and written."""
    instance.title = instance.title.strip()
    print(f"pre_save {instance.title!r}")


@receiver(post_save, sender=Book)
def show(instance: Book, *, created: bool, update_fields: frozenset[str] | None, **kwargs: Any) -> None:
    """Show the save. This runs inside the transaction: an error here would undo the save."""
    print(f"post_save {instance.title!r}: created {created}, update_fields {update_fields}")


@receiver(post_save, sender=Book, delivery="on_commit")
def announce(instance: Book, **kwargs: Any) -> None:
    """Run after the commit, and never after a rollback. Send mails and queue jobs here."""
    print(f"committed {instance.title!r}")


@receiver(post_delete, sender=Book)
def show_deletion(instance: Book, **kwargs: Any) -> None:
    print(f"post_delete {instance.title!r}, key still {instance.id}")


sold = Signal()


@sold.connect
def pack(copies: int, **kwargs: Any) -> str:
    return f"packed {copies}"


microorm.configure("sqlite://")
microorm.create_all()
dune = Book(title=" Dune ").save()
dune.pages = 412
dune.save(update_fields=["pages"])
with muted(pre_save, sender=Book), muted(post_save, sender=Book):
    dune.save()
    print("muted: no receiver ran")
with suppress(LookupError), atomic():
    Book(title="Solaris").save()
    raise LookupError
print("rolled back: 'Solaris' was never committed")
dune.delete()
print("responses to my own signal:", [response for _, response in sold.send(sender=Book, copies=2)])
microorm.close()
