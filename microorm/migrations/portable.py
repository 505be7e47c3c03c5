"""Portable: the column types of a revision, written so that they mean the same on every database.

What a database tells of a column is its own word for it (`VARCHAR(40) COLLATE …`). Where microorm has a name for what
all of them say, that is written; else the words of each dialect.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from alembic.autogenerate.api import AutogenContext
from sqlalchemy import BigInteger, CheckConstraint, DefaultClause
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.types import TypeEngine

from microorm.errors import ModelError
from microorm.fields import types
from microorm.migrations import dialects
from microorm.migrations.dialects import DIALECTS, ByDialect

# How wide a number is shown, and a character set that says what the collation says.
_NOISE = re.compile(r"(?<=INT)\(\d+\)|(?<=INTEGER)\(\d+\)| CHARACTER SET utf8mb4(?= COLLATE)")


def source_of(type_: TypeEngine[Any]) -> str | None:
    """How a revision writes *type_*: an expression with `types`, or None where microorm has no name for it."""
    if isinstance(type_, types.Choice):
        type_ = types.value_type(type_.values)
    wanted = {name: in_sql(type_, name) for name in DIALECTS}
    for source, candidate in _candidates(type_):
        if all(in_sql(candidate, name) == sql for name, sql in wanted.items()):
            return source
    return "sa.BigInteger()" if type(type_) is BigInteger else None


def portable(reflected: Mapping[str, TypeEngine[Any]]) -> TypeEngine[Any]:
    """One type for what databases of several dialects tell of one column."""
    first = next(iter(reflected.values()))
    for _, candidate in _candidates(first):
        if all(in_sql(candidate, name) == in_sql(type_, name) for name, type_ in reflected.items()):
            return candidate
    combined = first
    for name, type_ in list(reflected.items())[1:]:
        combined = combined.with_variant(type_, *(types.MARIADB if name == "mariadb" else (name,)))
    return combined


def in_sql(type_: TypeEngine[Any], dialect: str) -> str:
    """*type_* as the DDL of *dialect* has it; says so where it cannot be had there."""
    try:
        return _NOISE.sub("", type_.compile(dialect=DIALECTS[dialect]))
    except (SQLAlchemyError, ModelError) as error:
        return f"none: {error}"


def _candidates(type_: TypeEngine[Any]) -> Iterator[tuple[str, TypeEngine[Any]]]:
    """The types that microorm makes, of the size that *type_* has."""
    length = getattr(type_, "length", None)
    precision, scale = getattr(type_, "precision", None), getattr(type_, "scale", None)
    yield "types.integer_type()", types.integer_type()
    yield f"types.text_type({length or ''})", types.text_type(length)
    yield f"types.bytes_type({length or ''})", types.bytes_type(length)
    yield "types.UtcDateTime()", types.UtcDateTime()
    yield "types.datetime_type(aware=False)", types.datetime_type(aware=False)
    yield "types.time_type()", types.time_type()
    yield "types.Duration()", types.Duration()
    yield "types.uuid_type()", types.uuid_type()
    yield "types.json_type()", types.json_type()
    if isinstance(precision, int) and isinstance(scale, int):
        yield f"types.ExactNumeric({precision}, {scale})", types.ExactNumeric(precision, scale)


def render_item(kind: str, item: Any, autogenerate: AutogenContext) -> Any:
    """What alembic asks before it writes an item: types by microorm's names, SQL in the words of each dialect."""
    if kind == "type":
        return _type(item, autogenerate)
    if kind == "server_default" and isinstance(item, DefaultClause) and not isinstance(item.arg, str):
        return sql_source(item.arg, autogenerate)
    if kind == "check" and isinstance(item, CheckConstraint) and isinstance(item.name, str):
        return f"sa.CheckConstraint({sql_source(item.sqltext, autogenerate)}, name=op.f({str(item.name)!r}))"
    return False


def _type(item: TypeEngine[Any], autogenerate: AutogenContext) -> Any:
    source = source_of(item)
    if source is not None:
        if source.startswith("types."):
            autogenerate.imports.add("from microorm import types")
        return source
    module = type(item).__module__
    if not module.startswith("sqlalchemy."):
        autogenerate.imports.add(f"import {module}")
    return False


def sql_source(expression: Any, autogenerate: AutogenContext) -> str:
    """How a revision writes *expression*, with the import that it needs."""
    words = dialects.in_words(expression)
    if isinstance(words, ByDialect):
        autogenerate.imports.add("from microorm.migrations import by_dialect")
    return dialects.source_of(words)
