"""Transactions: all or nothing, nested blocks, and functions that wait for the commit.

    python examples/transactions.py

Prints:
    after a rollback: 0 rows, key None, unsaved True
    the inner block was rolled back, the outer one committed: ['outer', 'after']
    before the commit
    first
    second
    a failed statement dooms its block: TransactionError, because of IntegrityError
    durable: TransactionError
    readonly: TransactionError
"""

from contextlib import suppress

from sqlalchemy.exc import IntegrityError

import microorm
from microorm import Field, Model, atomic, field, on_commit
from microorm.errors import TransactionError


class Entry(Model):
    text: Field[str] = field(max_length=20, unique=True)


@atomic
def save_two(left: str, right: str) -> None:
    Entry(text=left).save()
    Entry(text=right).save()


microorm.configure("sqlite://")
microorm.create_all()

entry = Entry(text="lost")
with suppress(LookupError), atomic():
    entry.save()
    raise LookupError
print(f"after a rollback: {Entry.objects.count()} rows, key {entry.id}, unsaved {entry._state.adding}")

with atomic():
    Entry(text="outer").save()
    with suppress(IntegrityError), atomic():
        save_two("inner", "inner")  # the text is unique, so the second save fails
    Entry(text="after").save()
print("the inner block was rolled back, the outer one committed:", [entry.text for entry in Entry.objects])

with atomic():
    on_commit(lambda: print("first"))
    on_commit(lambda: print("second"))
    print("before the commit")

try:
    with atomic(), suppress(IntegrityError):
        Entry(text="outer").save()
except TransactionError as error:
    print("a failed statement dooms its block: TransactionError, because of", type(error.__cause__).__name__)

with atomic():
    try:
        with atomic(durable=True):
            pass
    except TransactionError:
        print("durable: TransactionError")
try:
    with atomic(readonly=True):
        Entry(text="no").save()
except TransactionError:
    print("readonly: TransactionError")
microorm.close()
