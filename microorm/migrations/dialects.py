"""Dialects: SQL and column types that mean the same on every database, and how a revision writes them.

An expression of a model is compiled for each dialect. A type that a database reports (`VARCHAR(40) COLLATE
…`) becomes the type of `microorm.types` that compiles to it. Where no text fits all databases, the text of
each dialect is kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import sqlalchemy as sa
from alembic.autogenerate.api import AutogenContext
from sqlalchemy.exc import CompileError, SQLAlchemyError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeEngine

from microorm.errors import ModelError
from microorm.fields import types
from microorm.fields.documents import json_type
from microorm.fields.types import MARIADB

NAMED: dict[str, Any] = {"paramstyle": "named"}  # other styles double a %


def print_all_literals(dialect: sa.Dialect) -> sa.Dialect:
    """Make *dialect* print bytes and JSON as literals, too, which SQLAlchemy does not; return it."""
    base: Any = dialect.statement_compiler

    class Compiler(base):  # type: ignore[misc]
        def render_literal_value(self, value: Any, type_: Any) -> str:
            stored = type_.dialect_impl(self.dialect)
            if value is not None and isinstance(stored, sa.JSON):
                value, type_ = json.dumps(value), sa.String()
            if isinstance(value, bytes):
                return (
                    f"'\\x{value.hex()}'::bytea" if self.dialect.name == "postgresql" else f"X'{value.hex()}'"
                )
            literal: str = super().render_literal_value(value, type_)
            return literal

    dialect.statement_compiler = Compiler
    return dialect


DIALECTS: Mapping[str, sa.Dialect] = {
    name: print_all_literals(sa.make_url(f"{driver}://").get_dialect()(**NAMED))
    for name, driver in (
        ("sqlite", "sqlite"),
        ("postgresql", "postgresql+psycopg"),
        ("mariadb", "mariadb+pymysql"),
    )
}

# The display width of an integer, and a character set that the collation implies.
_NOISE = re.compile(r"(?<=INT)\(\d+\)|(?<=INTEGER)\(\d+\)| CHARACTER SET utf8mb4(?= COLLATE)")


def dialect_name(name: str) -> str:
    """Return the name of a dialect in `DIALECTS`: MySQL's is MariaDB's."""
    return "mariadb" if name in MARIADB else name


class ByDialect(sa.ColumnElement[Any]):
    """SQL that is written differently for each dialect."""

    inherit_cache = False

    def __init__(self, sql: Mapping[str, str]) -> None:
        self.sql = dict(sql)


@compiles(ByDialect)
def _compile_by_dialect(element: ByDialect, compiler: SQLCompiler, **options: Any) -> str:
    name = compiler.dialect.name
    if (sql := element.sql.get(dialect_name(name))) is None:
        raise CompileError(f"no SQL for the dialect {name!r}; given for: {', '.join(sorted(element.sql))}")
    return compiler.process(literal_text(sql), **options)  # doubles a % if the driver needs that


def by_dialect(**sql: str) -> ByDialect:
    """Return *sql* for each dialect, for a default or a CHECK: `by_dialect(sqlite="…", postgresql="…", mariadb="…")`."""
    return ByDialect(sql)


def literal_text(sql: str) -> sa.TextClause:
    """Return *sql* as a clause in which a colon does not begin a parameter."""
    return sa.text(sql.replace(":", r"\:"))


def sql_for(expression: ClauseElement, dialect: str) -> str:
    """Compile *expression* for *dialect*, with literal values and without the names of tables."""
    if isinstance(expression, ByDialect):
        return expression.sql[dialect]
    options = {"literal_binds": True, "include_table": False}
    return str(expression.compile(dialect=DIALECTS[dialect], compile_kwargs=options))


def compile_sql(expression: ClauseElement) -> sa.TextClause | ByDialect:
    """Compile *expression* for every dialect."""
    if isinstance(expression, ByDialect):
        return expression
    return combine_sql({name: sql_for(expression, name) for name in DIALECTS})


def combine_sql(sql: Mapping[str, str]) -> sa.TextClause | ByDialect:
    """Return one clause for the *sql* of several dialects: plain text if it is the same for all."""
    first, *others = dict.fromkeys(sql.values())
    return ByDialect(sql) if others else literal_text(first)


def combine_defaults(defaults: Mapping[str, Any]) -> sa.DefaultClause | None:
    """Return one default for those that databases report for one column, by dialect; None if one has none."""
    sql = {
        name: str(
            default.arg if isinstance(default.arg, str) else default.arg.compile(dialect=DIALECTS[name])
        )
        for name, default in defaults.items()
        if isinstance(default, sa.DefaultClause)
    }
    return sa.DefaultClause(combine_sql(sql)) if sql and len(sql) == len(defaults) else None


def combine_types(reflected: Mapping[str, TypeEngine[Any]]) -> TypeEngine[Any]:
    """Return one type for those that databases report for one column, by dialect."""
    if (found := _find_type(reflected)) is not None:
        return found[1]
    (_, combined), *others = reflected.items()
    for name, type_ in others:
        combined = combined.with_variant(type_, *(MARIADB if name == "mariadb" else (name,)))
    return combined


def ddl_type(type_: TypeEngine[Any], dialect: str) -> str:
    """Compile *type_* for the DDL of *dialect*, or return why it cannot be compiled."""
    try:
        return _NOISE.sub("", type_.compile(dialect=DIALECTS[dialect]))
    except (SQLAlchemyError, ModelError) as error:
        return f"none: {error}"


def type_source(type_: TypeEngine[Any]) -> str | None:
    """Return the expression with `types` that a revision uses for *type_*, or None if microorm has no such type."""
    if isinstance(type_, types.Choice):
        type_ = types.value_type(type_.values)
    if (found := _find_type(dict.fromkeys(DIALECTS, type_))) is not None:
        return found[0]
    return "sa.BigInteger()" if type(type_) is sa.BigInteger else None


def _find_type(wanted: Mapping[str, TypeEngine[Any]]) -> tuple[str, TypeEngine[Any]] | None:
    """Find the type of microorm that compiles as the *wanted* type of each dialect does."""
    ddl = {name: ddl_type(type_, name) for name, type_ in wanted.items()}
    for source, candidate in _candidates(next(iter(wanted.values()))):
        if all(ddl_type(candidate, name) == sql for name, sql in ddl.items()):
            return source, candidate
    return None


def _candidates(type_: TypeEngine[Any]) -> Iterator[tuple[str, TypeEngine[Any]]]:
    """Yield the types of microorm, in the size of *type_*, with their source."""
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
    yield "types.json_type()", json_type()
    if isinstance(precision, int) and isinstance(scale, int):
        yield f"types.ExactNumeric({precision}, {scale})", types.ExactNumeric(precision, scale)


def render_item(kind: str, item: Any, autogenerate: AutogenContext) -> Any:
    """Render a type, a default or a CHECK for a revision, as alembic's option of this name."""
    if kind == "type":
        return _render_type(item, autogenerate)
    if kind == "server_default" and isinstance(item, sa.DefaultClause) and not isinstance(item.arg, str):
        return render_sql(item.arg, autogenerate)
    if kind == "check" and isinstance(item, sa.CheckConstraint) and isinstance(item.name, str):
        return f"sa.CheckConstraint({render_sql(item.sqltext, autogenerate)}, name=op.f({str(item.name)!r}))"
    return False


def render_sql(expression: Any, autogenerate: AutogenContext) -> str:
    """Render *expression* for a revision, and note the import that it needs."""
    compiled = compile_sql(expression)
    if isinstance(compiled, sa.TextClause):
        return f"sa.text({compiled.text!r})"
    autogenerate.imports.add("from microorm.migrations import by_dialect")
    return f"by_dialect({', '.join(f'{name}={sql!r}' for name, sql in compiled.sql.items())})"


def _render_type(type_: TypeEngine[Any], autogenerate: AutogenContext) -> Any:
    source = type_source(type_)
    module = type(type_).__module__
    if source is not None and source.startswith("types."):
        autogenerate.imports.add("from microorm import types")
    elif source is None and not module.startswith("sqlalchemy."):
        autogenerate.imports.add(f"import {module}")
    return source if source is not None else False
