"""Models that refer to each other: to one row, to many, and in both directions."""

from __future__ import annotations

from decimal import Decimal

from microorm import Field, ForeignKey, ManyToMany, Model, Related, field, foreign_key, many_to_many, related


class Country(Model):
    name: Field[str] = field(max_length=40, unique=True)


class Author(Model):
    name: Field[str] = field(max_length=40, unique=True)
    country: ForeignKey[Country | None] = foreign_key(default=None, on_delete="set_null")
    books: Related[Book] = related("author")


class Tag(Model):
    name: Field[str] = field(max_length=20, unique=True)
    books: Related[Book] = related("tags")


class Book(Model):
    title: Field[str] = field(max_length=80)
    price: Field[Decimal] = field(max_digits=8, decimal_places=2)
    author: ForeignKey[Author] = foreign_key(on_delete="cascade")
    tags: ManyToMany[Tag] = many_to_many()
    lines: Related[Line] = related("book")


class Order(Model):
    customer: Field[str] = field(max_length=40)
    lines: Related[Line] = related("order")


class Line(Model):
    order: ForeignKey[Order] = foreign_key(on_delete="cascade")
    book: ForeignKey[Book] = foreign_key(on_delete="restrict")
    price: Field[Decimal] = field(max_digits=8, decimal_places=2)
    number: Field[int] = field(default=1)
