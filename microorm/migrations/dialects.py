"""Dialects: SQL in the words of each database, in one revision.

A model's expression is compiled for each; what databases tell of themselves is kept beside each other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from alembic.autogenerate.api import AutogenContext
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ColumnElement,
    DefaultClause,
    Dialect,
    TextClause,
    make_url,
    text,
)
from sqlalchemy.exc import CompileError, SQLAlchemyError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeEngine

from microorm import types
from microorm.errors import ModelError
from microorm.types import MARIADB

_PLAIN: dict[str, Any] = {"paramstyle": "named"}  # else a % would be doubled

DIALECTS: Mapping[str, Dialect] = {
    name: make_url(f"{driver}://").get_dialect()(**_PLAIN)
    for name, driver in (
        ("sqlite", "sqlite"),
        ("postgresql", "postgresql+psycopg"),
        ("mariadb", "mariadb+pymysql"),
    )
}


class ByDialect(ColumnElement[Any]):
    """SQL that each dialect has its own words for."""

    inherit_cache = False

    def __init__(self, words: Mapping[str, str]) -> None:
        self.words = dict(words)


@compiles(ByDialect)
def _compiled(element: ByDialect, compiler: SQLCompiler, **options: Any) -> str:
    name = compiler.dialect.name
    words = element.words.get("mariadb" if name in MARIADB else name)
    if words is None:
        raise CompileError(f"the SQL is given for {', '.join(sorted(element.words))}, and not for {name}")
    return compiler.process(as_text(words), **options)  # which doubles a % where the driver wants that


def by_dialect(**words: str) -> ByDialect:
    """SQL as each database has it: `by_dialect(sqlite="…", postgresql="…", mariadb="…")`, for a default or a CHECK."""
    return ByDialect(words)


def in_words(expression: ClauseElement) -> TextClause | ByDialect:
    """*expression*, which may name columns of a model's table, as text that stands for itself."""
    if isinstance(expression, ByDialect):
        return expression
    options = {"literal_binds": True, "include_table": False}
    return together(
        {
            name: str(expression.compile(dialect=dialect, compile_kwargs=options))
            for name, dialect in DIALECTS.items()
        }
    )


def together(words: Mapping[str, str]) -> TextClause | ByDialect:
    """What databases say of one thing: one text where all say the same."""
    first, *others = dict.fromkeys(words.values())
    return ByDialect(words) if others else as_text(first)


def as_text(sql: str) -> TextClause:
    """*sql* as it is: a colon in it begins no parameter."""
    return text(sql.replace(":", r"\:"))


def plain(element: TextClause) -> str:
    """The SQL that `as_text` was given."""
    return element.text.replace(r"\:", ":")


def sql_source(element: TextClause | ByDialect) -> str:
    """How a revision writes *element*."""
    if isinstance(element, ByDialect):
        return f"by_dialect({', '.join(f'{name}={sql!r}' for name, sql in element.words.items())})"
    return f"sa.text({element.text!r})"


def default_of(told: Mapping[str, Any]) -> DefaultClause | None:
    """One default for what databases of several dialects tell of one column's; None where one has none."""
    words = {
        name: str(
            default.arg if isinstance(default.arg, str) else default.arg.compile(dialect=DIALECTS[name])
        )
        for name, default in told.items()
        if isinstance(default, DefaultClause)
    }
    return DefaultClause(together(words)) if words and len(words) == len(told) else None


# How wide a number is shown, and a character set that says what the collation says.
_NOISE = re.compile(r"(?<=INT)\(\d+\)|(?<=INTEGER)\(\d+\)| CHARACTER SET utf8mb4(?= COLLATE)")


def type_source(type_: TypeEngine[Any]) -> str | None:
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
        return render_sql(item.arg, autogenerate)
    if kind == "check" and isinstance(item, CheckConstraint) and isinstance(item.name, str):
        return f"sa.CheckConstraint({render_sql(item.sqltext, autogenerate)}, name=op.f({str(item.name)!r}))"
    return False


def _type(item: TypeEngine[Any], autogenerate: AutogenContext) -> Any:
    source = type_source(item)
    if source is not None:
        if source.startswith("types."):
            autogenerate.imports.add("from microorm import types")
        return source
    module = type(item).__module__
    if not module.startswith("sqlalchemy."):
        autogenerate.imports.add(f"import {module}")
    return False


def render_sql(expression: Any, autogenerate: AutogenContext) -> str:
    """How a revision writes *expression*, with the import that it needs."""
    words = in_words(expression)
    if isinstance(words, ByDialect):
        autogenerate.imports.add("from microorm.migrations import by_dialect")
    return sql_source(words)
