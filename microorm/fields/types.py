"""Column types and SQL functions that store the same value on every database.

The docstrings say what a database would otherwise change silently; docs/types.md has a table. As for functions, SQLite
does not round numbers to the scale of their column and its clock has no microseconds; MariaDB's clock is in the time
zone of the session.
"""

from __future__ import annotations

import enum
import json
import operator
from datetime import UTC, datetime
from functools import reduce
from typing import Any
from uuid import UUID

from sqlalchemy import (
    JSON,
    BigInteger,
    ColumnElement,
    Date,
    DateTime,
    Dialect,
    Double,
    Integer,
    LargeBinary,
    String,
    Text,
    Time,
    Uuid,
    bindparam,
    literal_column,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement, current_timestamp, now
from sqlalchemy.types import TypeDecorator, TypeEngine

from microorm.errors import FieldError
from microorm.fields.arithmetic import (
    AwareComparator,
    DateComparator,
    FloatComparator,
    IntegerComparator,
    MemberComparator,
    MomentComparator,
)
from microorm.fields.arithmetic import Duration as Duration
from microorm.fields.arithmetic import ExactNumeric as ExactNumeric
from microorm.fields.checks import encodable
from microorm.fields.computed import MARIADB as MARIADB
from microorm.fields.computed import Rounded
from microorm.messages import brief

COLLATION = "utf8mb4_nopad_bin"
MAX_ROW_BYTES = 65_000  # of MariaDB, without LONGTEXT and LONGBLOB columns
MAX_CHARACTER_BYTES = 4


class MariaDBType(TypeDecorator[Any]):
    """The type called *name* of SQLAlchemy's MySQL dialect, which is imported when the type is first used."""

    impl = String
    cache_ok = True

    def __init__(self, name: str, *arguments: int, options: tuple[tuple[str, Any], ...] = ()) -> None:
        super().__init__()
        self.name = name
        self.arguments = arguments
        self.options = options

    def __repr__(self) -> str:
        return f"MariaDBType({', '.join(map(repr, (self.name, *self.arguments)))}, options={self.options!r})"

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        from sqlalchemy.dialects import mysql  # noqa: PLC0415 importing it takes 20 ms

        return dialect.type_descriptor(getattr(mysql, self.name)(*self.arguments, **dict(self.options)))


ASCII_CHAR = MariaDBType("CHAR", 32, options=(("charset", "ascii"), ("collation", "ascii_bin")))
MARIADB_DATETIME = MariaDBType("DATETIME", options=(("fsp", 6),))


class UtcDateTime(TypeDecorator[datetime]):
    """An aware `datetime`, stored in UTC; SQLite and MariaDB would drop its offset without converting it."""

    impl = DateTime
    cache_ok = True
    comparator_factory = AwareComparator  # pyright: ignore[reportAssignmentType] a memoized property there

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            from sqlalchemy.dialects import postgresql  # noqa: PLC0415 importing it takes 50 ms

            return dialect.type_descriptor(postgresql.TIMESTAMP(timezone=True))
        if dialect.name in MARIADB:
            return MARIADB_DATETIME.load_dialect_impl(dialect)
        return dialect.type_descriptor(DateTime())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            # astimezone() would take it as local time.
            raise ValueError(f"must be a datetime with a time zone, not {brief(value)}")
        value = value.astimezone(UTC)
        return value if dialect.name == "postgresql" else value.replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            return value.replace(tzinfo=UTC)
        return value.astimezone(UTC)


class UuidText(TypeDecorator[UUID]):
    """A `UUID` as 32 characters, for MariaDB, whose UUID type accepts registered versions only."""

    impl = String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return ASCII_CHAR.load_dialect_impl(dialect)

    def process_bind_param(self, value: UUID | None, dialect: Dialect) -> str | None:
        return None if value is None else value.hex

    def process_result_value(self, value: str | None, dialect: Dialect) -> UUID | None:
        return None if value is None else UUID(value)


class Choice(TypeDecorator[Any]):
    """A member of an `Enum`, stored as its value, a string or an integer."""

    impl = String
    cache_ok = True
    comparator_factory = MemberComparator  # pyright: ignore[reportAssignmentType] a memoized property there

    def __init__(self, members: type[enum.Enum]) -> None:
        self.members = members
        self.values = tuple(member.value for member in members)
        self.value_type = value_type(self.values)
        super().__init__()

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(self.value_type)

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return value.value if isinstance(value, enum.Enum) else value

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return None if value is None else self.members(value)


class DocumentKey(TypeDecorator[str]):
    """A key of a JSON object, escaped for a path expression, which SQLAlchemy does not do."""

    impl = JSON.JSONStrIndexType
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        if value is None or dialect.name == "postgresql":
            return value
        if '"' in value and dialect.name == "sqlite":
            raise ValueError(f"SQLite cannot address a JSON key with a double quote, such as {brief(value)}")
        if value.startswith("-") and dialect.name in MARIADB:
            raise ValueError(
                f"MariaDB cannot address a JSON key that begins with a minus, such as {brief(value)}"
            )
        # The stored text of the key is compared.
        return json.dumps(value)[1:-1]


class Document(JSON[Any]):
    """JSON with access by keys that are never parsed as a path or as SQL."""

    class Comparator(JSON.Comparator[Any]):
        """`column["key"]`, `column[3]` and, nested, `column["key", 3]`."""

        def __getitem__(self, index: Any) -> Any:
            if isinstance(index, (tuple, list)):
                return reduce(operator.getitem, index, self.expr)
            if isinstance(index, str):
                if "\0" in index or not encodable(index):
                    raise FieldError(f"not a possible key in JSON: {brief(index)}")
                index = bindparam(None, index, type_=DocumentKey(), unique=True)
            elif type(index) is not int:
                raise TypeError(f"a key or index in JSON must be str or int, not {brief(index)}")
            return super().__getitem__(index)  # type: ignore[no-untyped-call]

    comparator_factory = Comparator  # pyright: ignore[reportAssignmentType] a memoized property there


def value_type(values: tuple[Any, ...]) -> TypeEngine[Any]:
    """Return the column type for a fixed set of strings or integers."""
    if all(isinstance(value, str) for value in values):
        return text_type(max(1, *map(len, values)))
    made = BigInteger()
    made.comparator_factory = IntegerComparator
    return made


def text_type(max_length: int | None = None) -> TypeEngine[str]:
    """Return a string type with binary comparison; without *max_length*, or if it is large, LONGTEXT on MariaDB."""
    options = (("charset", "utf8mb4"), ("collation", COLLATION))
    generic = Text() if max_length is None else String(max_length)
    if max_length is None or max_length * MAX_CHARACTER_BYTES > MAX_ROW_BYTES:
        mariadb = MariaDBType("LONGTEXT", options=options)
    else:
        mariadb = MariaDBType("VARCHAR", max_length, options=options)
    return generic.with_variant(mariadb, *MARIADB)


def bytes_type(max_length: int | None = None) -> TypeEngine[bytes]:
    """Return a binary type; without *max_length*, or if it is large, LONGBLOB on MariaDB."""
    if max_length is None or max_length > MAX_ROW_BYTES:
        mariadb = MariaDBType("LONGBLOB")
    else:
        mariadb = MariaDBType("VARBINARY", max_length)
    return LargeBinary(max_length).with_variant(mariadb, *MARIADB)


def integer_type() -> TypeEngine[int]:
    """Return BIGINT; on SQLite INTEGER, so that a primary key of this type is the rowid."""
    made = BigInteger().with_variant(Integer(), "sqlite")
    made.comparator_factory = IntegerComparator
    return made


def float_type() -> TypeEngine[float]:
    """Return DOUBLE."""
    made: TypeEngine[float] = Double()
    made.comparator_factory = FloatComparator
    return made


def uuid_type() -> TypeEngine[UUID]:
    """Return a type for any `UUID`."""
    return Uuid().with_variant(UuidText(), *MARIADB)


def json_type() -> TypeEngine[Any]:
    """Return JSON, on PostgreSQL JSONB; None is NULL rather than the JSON value null."""
    from sqlalchemy.dialects import postgresql  # noqa: PLC0415 importing it takes 50 ms

    return Document(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


def datetime_type(*, aware: bool) -> TypeEngine[datetime]:
    """Return a `datetime` type with microseconds, in UTC or without a time zone."""
    if aware:
        return UtcDateTime()
    naive = DateTime().with_variant(MARIADB_DATETIME, *MARIADB)
    naive.comparator_factory = MomentComparator
    return naive


def date_type() -> TypeEngine[Any]:
    """Return a `date` type."""
    made = Date()
    made.comparator_factory = DateComparator
    return made


def time_type() -> TypeEngine[Any]:
    """Return a `time` type with microseconds, without a time zone."""
    return Time().with_variant(MariaDBType("TIME", options=(("fsp", 6),)), *MARIADB)


class UtcNow(FunctionElement[datetime]):
    """The current time, for a `datetime` column with a time zone."""

    inherit_cache = True
    name = "utc_now"
    type = UtcDateTime()


class NaiveUtcNow(UtcNow):
    """The current time in UTC, for a `datetime` column without a time zone."""

    inherit_cache = True


@compiles(UtcNow)
def _now(element: UtcNow, compiler: SQLCompiler, **options: Any) -> str:
    return "CURRENT_TIMESTAMP"


@compiles(NaiveUtcNow, "postgresql")
def _naive_now(element: NaiveUtcNow, compiler: SQLCompiler, **options: Any) -> str:
    return "(CURRENT_TIMESTAMP AT TIME ZONE 'UTC')"


@compiles(UtcNow, "sqlite")
@compiles(NaiveUtcNow, "sqlite")
def _now_on_sqlite(element: UtcNow, compiler: SQLCompiler, **options: Any) -> str:
    return "(strftime('%Y-%m-%d %H:%M:%f', 'now') || '000')"


@compiles(UtcNow, *MARIADB)
@compiles(NaiveUtcNow, *MARIADB)
def _now_on_mariadb(element: UtcNow, compiler: SQLCompiler, **options: Any) -> str:
    return "utc_timestamp(6)"


def stored(expression: Any, python_type: Any, column_type: TypeEngine[Any]) -> Any:
    """Adapt *expression* for a column so that every database stores the same value."""
    if python_type is datetime and isinstance(expression, (now, current_timestamp)):
        return UtcNow() if isinstance(column_type, UtcDateTime) else NaiveUtcNow()
    if isinstance(column_type, ExactNumeric) and isinstance(expression, ColumnElement):
        rounded = Rounded(expression, literal_column(str(column_type.scale)))
        rounded.type = column_type
        return rounded
    return expression
