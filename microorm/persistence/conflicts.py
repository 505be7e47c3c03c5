"""Which of many objects an `IntegrityError` is about, as far as the message of the database tells."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import Enum
from typing import Any

from sqlalchemy import PrimaryKeyConstraint, UniqueConstraint
from sqlalchemy.exc import IntegrityError

from microorm.mapping.schema import Schema

# `Key (title, year)=(a, 2020) already exists.`, in any language.
_POSTGRESQL = re.compile(r" \((?P<columns>[^()]+)\)=\((?P<values>.*)\) ")
# `Duplicate entry 'a-2020' for key 'uq_book_title'`; MySQL puts the table before the name.
_MARIADB = re.compile(r"Duplicate entry '(?P<values>.*)' for key '(?:\w+\.)?(?P<key>.+?)'", re.DOTALL)
# `UNIQUE constraint failed: book.title, book.year`
_SQLITE = re.compile(r"^UNIQUE constraint failed: (?P<columns>.+)$")


def note_object(error: IntegrityError, schema: Schema, method: str, objects: Sequence[Any]) -> None:
    """Add to *error* a note that says which of *objects*, which *method* got, the database means.

    PostgreSQL and MariaDB tell the values. SQLite tells only the columns, so that two of *objects* with the same values
    are named, and no object that conflicts with a row.
    """
    columns, separator, told = _told(schema, str(error.orig))
    names = [field.name for field in schema.fields if field.column.name in columns]
    if not names or len(names) != len(columns):
        return
    names.sort(key=lambda name: columns.index(schema.by_name[name].column.name))
    indexes: dict[str, list[int]] = {}
    for index, instance in enumerate(objects):
        values = [vars(instance).get(name) for name in names]
        if not any(value is None for value in values):
            indexes.setdefault(separator.join(map(_text, values)), []).append(index)
    found = indexes.get(told, []) if told is not None else _first_double(indexes)
    if not found:
        return
    shown = ", ".join(schema.reported[name] for name in names)
    if len(found) == 1:
        error.add_note(f"in object {found[0]} of {method}(), by its {shown}")
    else:
        error.add_note(f"in object {found[1]} of {method}(), which has the same {shown} as object {found[0]}")


def _told(schema: Schema, message: str) -> tuple[list[str], str, str | None]:
    """Return the columns in *message*, what separates their values, and the values as one text, if it has them."""
    if (found := _POSTGRESQL.search(message)) is not None:
        return [name.strip('" ') for name in found["columns"].split(",")], ", ", found["values"]
    if (found := _MARIADB.search(message)) is not None:
        return _columns_of(schema, found["key"]), "-", found["values"]
    if (found := _SQLITE.search(message)) is not None:
        return [name.rpartition(".")[2] for name in found["columns"].split(", ")], "\0", None
    return [], "", None


def _columns_of(schema: Schema, key: str) -> list[str]:
    """Return the columns of the unique constraint or index that MariaDB calls *key*."""
    for constraint in schema.table.constraints:
        if isinstance(constraint, (UniqueConstraint, PrimaryKeyConstraint)):
            name = "PRIMARY" if isinstance(constraint, PrimaryKeyConstraint) else constraint.name
            if name == key:
                return [column.name for column in constraint.columns]
    return next(
        ([column.name for column in index.columns] for index in schema.table.indexes if index.name == key), []
    )


def _text(value: Any) -> str:
    """Return *value* as the message of a database shows it, where that is known."""
    return str(value.value if isinstance(value, Enum) else value)


def _first_double(indexes: dict[str, list[int]]) -> list[int]:
    return next((found for found in indexes.values() if len(found) > 1), [])
