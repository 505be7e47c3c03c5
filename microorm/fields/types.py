"""Column types and SQL functions that store the same value on every database.

The docstrings say what a database would otherwise change silently; docs/types.md has a table. As for functions, SQLite
does not round numbers to the scale of their column and its clock has no microseconds; MariaDB's clock is in the time
zone of the session.
"""

from __future__ import annotations

import enum
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Date,
    DateTime,
    Dialect,
    Integer,
    LargeBinary,
    String,
    Text,
    Time,
    Uuid,
    literal_column,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement, current_timestamp, now
from sqlalchemy.types import TypeDecorator, TypeEngine

from microorm.fields.arithmetic import (
    AwareComparator,
    DateComparator,
    IntegerComparator,
    MemberComparator,
    MomentComparator,
)
from microorm.fields.arithmetic import Duration as Duration
from microorm.fields.arithmetic import ExactNumeric as ExactNumeric
from microorm.fields.arithmetic import float_type as float_type
from microorm.fields.columns import compared_as_text
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


class MariaDBMoment(MariaDBType):
    """A date or time of MariaDB, which may be one that Python does not have, such as 0000-00-00 or 30:00:00.

    The driver returns such a date as text, and SQLAlchemy would drop the days of such a time.
    """

    cache_ok = True

    def result_processor(self, dialect: Dialect, coltype: object) -> Any:
        process = super().result_processor(dialect, coltype)

        def read(value: Any) -> Any:
            if value.__class__ is str or (value.__class__ is timedelta and value.days):
                raise ValueError(f"Python has no such date or time: {value}")
            return value if process is None else process(value)

        return read


ASCII_CHAR = MariaDBType("CHAR", 32, options=(("charset", "ascii"), ("collation", "ascii_bin")))
MARIADB_DATETIME = MariaDBMoment("DATETIME", options=(("fsp", 6),))


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
    """One of the *members* of an `Enum`, stored as its value, a string or an integer."""

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


def value_type(values: tuple[Any, ...]) -> TypeEngine[Any]:
    """Return the column type for a fixed set of *values*, strings or integers."""
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
    return compared_as_text(generic.with_variant(mariadb, *MARIADB))


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


def uuid_type() -> TypeEngine[UUID]:
    """Return a type for any `UUID`."""
    return Uuid().with_variant(UuidText(), *MARIADB)


def datetime_type(*, aware: bool) -> TypeEngine[datetime]:
    """Return a `datetime` type with microseconds, in UTC if *aware*, else without a time zone."""
    if aware:
        return UtcDateTime()
    naive = DateTime().with_variant(MARIADB_DATETIME, *MARIADB)
    naive.comparator_factory = MomentComparator
    return naive


def date_type() -> TypeEngine[Any]:
    """Return a `date` type."""
    made = Date().with_variant(MariaDBMoment("DATE"), *MARIADB)
    made.comparator_factory = DateComparator
    return made


def time_type() -> TypeEngine[Any]:
    """Return a `time` type with microseconds, without a time zone."""
    return Time().with_variant(MariaDBMoment("TIME", options=(("fsp", 6),)), *MARIADB)


class UtcNow(FunctionElement[datetime]):
    """The current time, for a `datetime` column with a time zone."""

    inherit_cache = True
    name = "utc_now"
    type = UtcDateTime()


class NaiveUtcNow(UtcNow):
    """The current time in UTC, for a `datetime` column without a time zone."""

    inherit_cache = True


class IsNotTrue(FunctionElement[bool]):
    """Whether a condition is false or NULL; a number counts as true if it is not zero.

    SQLAlchemy's `is_not(true())` compares with the number 1 on SQLite.
    """

    inherit_cache = True
    name = "is_not_true"
    type = Boolean()


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


@compiles(IsNotTrue)
def _is_not_true(element: IsNotTrue, compiler: SQLCompiler, **options: Any) -> str:
    (condition,) = element.clauses
    return f"(({compiler.process(condition, **options)}) IS NOT TRUE)"


def stored(expression: Any, python_type: Any, column_type: TypeEngine[Any]) -> Any:
    """Adapt *expression* for a column so that every database stores the same value."""
    if python_type is datetime and isinstance(expression, (now, current_timestamp)):
        return UtcNow() if isinstance(column_type, UtcDateTime) else NaiveUtcNow()
    if isinstance(column_type, ExactNumeric) and isinstance(expression, ColumnElement):
        rounded = Rounded(expression, literal_column(str(column_type.scale)))
        rounded.type = column_type
        return rounded
    return expression
