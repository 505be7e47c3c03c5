"""Dialects: SQL in the words of each database, in one revision.

A model's expression is compiled for each; what databases tell of themselves is kept beside each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, DefaultClause, Dialect, TextClause, make_url, text
from sqlalchemy.exc import CompileError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.compiler import SQLCompiler

from microorm.fields.types import MARIADB

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


def source_of(element: TextClause | ByDialect) -> str:
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
