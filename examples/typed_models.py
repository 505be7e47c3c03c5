"""Typed models: type checkers understand the annotations, and every database stores the values unchanged.

    python examples/typed_models.py

`mypy --strict` and `pyright` need no plugin. They infer `lathe.price: Decimal`, `Book.price: ColumnElement[Decimal]`,
`Book.objects.all(): list[Book]` and `Token(text="x").id: UUID`, and they reject `Book(titel="x")`.

Prints:
    changed: ['cover', 'tags'], cover from SOFT to HARD
    computed by the database: 10.50
    found: The Lathe of Heaven, 1971-10-01, HARD, ['dream', '1971']
    keys: 1, (7, 'C'), a UUID
    refused title: must be str of at most 20 characters, not str of 27
    refused price: must be Decimal of 8 digits, 2 after the point, not Decimal('1.234')
"""

from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import microorm
from microorm import Field, Model, field
from microorm.errors import InvalidValue


class Cover(Enum):
    HARD = "hard"
    SOFT = "soft"


class Timed(Model, abstract=True):
    """An abstract base: its subclasses inherit the fields. Without a primary key they get `id: int` as well."""

    changed: Field[datetime] = field(
        default_factory=lambda: datetime.now(UTC), on_update=lambda: datetime.now(UTC)
    )


class Book(Timed, table="books"):
    title: Field[str] = field(max_length=20)
    price: Field[Decimal] = field(default=Decimal(0), max_digits=8, decimal_places=2)
    printed: Field[date | None] = field(default=None)
    cover: Field[Cover] = field(default=Cover.SOFT)
    tags: Field[list[str]] = field(default_factory=list)


class Seat(Model[Any]):  # a composite key of two fields
    row: Field[int] = field(primary_key=True)
    letter: Field[str] = field(primary_key=True, max_length=1)


class Token(Model[UUID]):  # the key is a UUID, generated in Python
    text: Field[str]


microorm.configure("sqlite://")
microorm.create_all()
lathe = Book(title="The Lathe of Heaven", price=Decimal("9.5"), printed=date(1971, 10, 1), tags=["dream"])
lathe.save()
lathe.cover = Cover.HARD
lathe.tags.append("1971")
old, new = lathe.changes()["cover"]
print(f"changed: {sorted(lathe.changed_fields)}, cover from {old.name} to {new.name}")
lathe.save(update_fields=lathe.changed_fields)

lathe.price = Book.price + 1
print("computed by the database:", lathe.save().price)
for book in Book.objects.filter(Book.price < 20, Book.title.startswith("The")).order_by(Book.title.desc()):
    print(f"found: {book.title}, {book.printed}, {book.cover.name}, {book.tags}")
print(f"keys: {lathe.pk}, {Seat(row=7, letter='C').save().pk}, a {type(Token(text='x').save().id).__name__}")
try:
    Book(title="A title of more than twenty", price=Decimal("1.234")).save()
except InvalidValue as error:
    for name, problem in error.problems.items():
        print(f"refused {name}: {problem}")
microorm.close()
