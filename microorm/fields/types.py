"""Types: the column types that keep one Python value the same on every database.

Each class says what a database would otherwise change silently (DESIGN 3, the table in docs/types.md).

Expressions: what a field makes of one, so that every database stores the same.

SQLite rounds no number to its column's places and has no clock that writes microseconds; MariaDB's clock tells
the time of the session's zone.
"""

from __future__ import annotations

import enum
import json
import operator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import reduce
from typing import Any
from uuid import UUID

from sqlalchemy import (
    JSON,
    BigInteger,
    ColumnElement,
    DateTime,
    Dialect,
    Double,
    Integer,
    Interval,
    LargeBinary,
    Numeric,
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

from microorm.errors import FieldError, ModelError
from microorm.fields.checks import encodable

MICROSECOND = timedelta(microseconds=1)
MARIADB = ("mysql", "mariadb")
COLLATION = "utf8mb4_nopad_bin"
SQLITE_DIGITS = 15
MOST_BYTES_OF_A_ROW = 65_000  # on MariaDB, without its long columns
MOST_BYTES_OF_A_CHARACTER = 4


class OnMariaDB(TypeDecorator[Any]):
    """A type of MariaDB's own, *named* in its dialect, which is loaded where the type is asked for, or never."""

    impl = String
    cache_ok = True

    def __init__(
        self, named: str, arguments: tuple[int, ...] = (), options: tuple[tuple[str, Any], ...] = ()
    ) -> None:
        super().__init__()
        self.named = named
        self.arguments = arguments
        self.options = options

    def __repr__(self) -> str:
        return f"OnMariaDB({self.named!r}, {self.arguments!r}, {self.options!r})"

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        from sqlalchemy.dialects import mysql  # noqa: PLC0415 loaded with the engine, or never

        return dialect.type_descriptor(getattr(mysql, self.named)(*self.arguments, **dict(self.options)))


ASCII_CHAR = OnMariaDB("CHAR", (32,), (("charset", "ascii"), ("collation", "ascii_bin")))
MOMENT = OnMariaDB("DATETIME", options=(("fsp", 6),))


class UtcDateTime(TypeDecorator[datetime]):
    """An aware `datetime`, stored in UTC; SQLite and MariaDB would drop the offset without converting."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            from sqlalchemy.dialects import postgresql  # noqa: PLC0415 loaded with the engine, or never

            return dialect.type_descriptor(postgresql.TIMESTAMP(timezone=True))
        if dialect.name in MARIADB:
            return MOMENT.load_dialect_impl(dialect)
        return dialect.type_descriptor(DateTime())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            # astimezone() would take it for local time, on this machine's clock.
            raise ValueError(f"a datetime with a time zone is wanted, not {value!r}")
        value = value.astimezone(UTC)
        return value if dialect.name == "postgresql" else value.replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            return value.replace(tzinfo=UTC)
        return value.astimezone(UTC)


class ExactNumeric(TypeDecorator[Decimal]):
    """A `Decimal` of fixed digits; SQLite stores it as a number, exact to 15 digits and refused above."""

    impl = Numeric
    cache_ok = True

    def __init__(self, precision: int, scale: int) -> None:
        super().__init__(precision, scale)
        self.precision = precision
        self.scale = scale

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name != "sqlite":
            return dialect.type_descriptor(Numeric(self.precision, self.scale))
        if self.precision > SQLITE_DIGITS:
            raise ModelError(
                f"a Decimal of max_digits={self.precision} is not exact on SQLite, "
                f"which keeps {SQLITE_DIGITS} digits"
            )
        return dialect.type_descriptor(Numeric(self.precision, self.scale, asdecimal=False))

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return float(value) if value is not None and dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        if value is None or isinstance(value, Decimal):
            return value
        return Decimal(f"{value:.{self.scale}f}")


class Duration(TypeDecorator[timedelta]):
    """A `timedelta`: PostgreSQL's interval, else a whole number of microseconds."""

    impl = BigInteger
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(Interval())
        return dialect.type_descriptor(BigInteger())

    def process_bind_param(self, value: timedelta | None, dialect: Dialect) -> Any:
        if value is None or dialect.name == "postgresql":
            return value
        return value // MICROSECOND

    def process_result_value(self, value: Any, dialect: Dialect) -> timedelta | None:
        if value is None or isinstance(value, timedelta):
            return value
        return timedelta(microseconds=int(value))

    def coerce_compared_value(self, op: Any, value: Any) -> TypeEngine[Any]:
        # A duration is added to durations, and multiplied by numbers.
        return BigInteger() if isinstance(value, int) else Double() if isinstance(value, float) else self


class UuidText(TypeDecorator[UUID]):
    """A `UUID` as 32 characters, for MariaDB, whose own type refuses all that are of no registered version."""

    impl = String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return ASCII_CHAR.load_dialect_impl(dialect)

    def process_bind_param(self, value: UUID | None, dialect: Dialect) -> str | None:
        return None if value is None else value.hex

    def process_result_value(self, value: str | None, dialect: Dialect) -> UUID | None:
        return None if value is None else UUID(value)


class Choice(TypeDecorator[Any]):
    """A member of an `Enum`, stored as its value: a string or an integer."""

    impl = String
    cache_ok = True

    def __init__(self, members: type[enum.Enum]) -> None:
        self.members = members
        self.values = tuple(member.value for member in members)
        super().__init__()

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(value_type(self.values))

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return value.value if isinstance(value, enum.Enum) else value

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return None if value is None else self.members(value)


class DocumentKey(TypeDecorator[str]):
    """A key of a JSON object, as the path to it is written: SQLAlchemy's paths take it for what needs no escape."""

    impl = JSON.JSONStrIndexType
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        if value is None or dialect.name == "postgresql":
            return value
        if '"' in value and dialect.name == "sqlite":
            raise ValueError(f"SQLite has no way to a JSON key with a double quote, such as {value!r}")
        if value.startswith("-") and dialect.name in MARIADB:
            raise ValueError(f"MariaDB has no way to a JSON key that begins with a minus, such as {value!r}")
        # A key is found by the text it is stored as.
        return json.dumps(value)[1:-1]


class Document(JSON[Any]):
    """JSON whose values are reached by keys, none of which becomes a path or SQL, whatever is in it."""

    class Comparator(JSON.Comparator[Any]):
        """`column["key"]`, `column[3]`, and `column["key", 3]` for one in the other."""

        def __getitem__(self, index: Any) -> Any:
            if isinstance(index, (tuple, list)):
                return reduce(operator.getitem, index, self.expr)
            if isinstance(index, str):
                if "\0" in index or not encodable(index):
                    raise FieldError(f"no key in JSON is {index!r}")
                index = bindparam(None, index, type_=DocumentKey(), unique=True)
            elif type(index) is not int:
                raise TypeError(f"JSON is reached by str and int, not {index!r}")
            return super().__getitem__(index)  # type: ignore[no-untyped-call]

    comparator_factory = Comparator


def value_type(values: tuple[Any, ...]) -> TypeEngine[Any]:
    """The column type for a fixed set of strings or of integers."""
    if all(isinstance(value, str) for value in values):
        return text_type(max(1, *map(len, values)))
    return BigInteger()


def text_type(max_length: int | None = None) -> TypeEngine[str]:
    """A string that compares binary; an unbounded or a very long one is MariaDB's LONGTEXT."""
    options = (("charset", "utf8mb4"), ("collation", COLLATION))
    similar = Text() if max_length is None else String(max_length)
    if max_length is None or max_length * MOST_BYTES_OF_A_CHARACTER > MOST_BYTES_OF_A_ROW:
        own = OnMariaDB("LONGTEXT", (), options)
    else:
        own = OnMariaDB("VARCHAR", (max_length,), options)
    return similar.with_variant(own, *MARIADB)


def bytes_type(max_length: int | None = None) -> TypeEngine[bytes]:
    """Bytes; unbounded or very many are MariaDB's LONGBLOB."""
    long = max_length is None or max_length > MOST_BYTES_OF_A_ROW
    own = OnMariaDB("LONGBLOB") if max_length is None or long else OnMariaDB("VARBINARY", (max_length,))
    return LargeBinary(max_length).with_variant(own, *MARIADB)


def integer_type() -> TypeEngine[int]:
    """Eight bytes; SQLite's INTEGER, so that a key of this type is the rowid."""
    return BigInteger().with_variant(Integer(), "sqlite")


def uuid_type() -> TypeEngine[UUID]:
    """A `UUID` of any bits."""
    return Uuid().with_variant(UuidText(), *MARIADB)


def json_type() -> TypeEngine[Any]:
    """JSON, on PostgreSQL JSONB; None is NULL, not the JSON value null."""
    from sqlalchemy.dialects import postgresql  # noqa: PLC0415 a third of all that is imported, for this one type

    return Document(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")


def datetime_type(*, aware: bool) -> TypeEngine[datetime]:
    """A `datetime` to the microsecond, in UTC or without a zone."""
    return UtcDateTime() if aware else DateTime().with_variant(MOMENT, *MARIADB)


def time_type() -> TypeEngine[Any]:
    """A `time` without a zone, to the microsecond."""
    return Time().with_variant(OnMariaDB("TIME", options=(("fsp", 6),)), *MARIADB)


class UtcNow(FunctionElement[datetime]):
    """The present moment as a `datetime` column keeps it: with a zone."""

    inherit_cache = True
    name = "utc_now"
    type = UtcDateTime()


class NaiveUtcNow(UtcNow):
    """The present moment in UTC, without a zone."""

    inherit_cache = True


class Rounded(FunctionElement[Any]):
    """A number with no more places than its column has, which SQLite alone does not see to."""

    inherit_cache = True
    name = "rounded"


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


@compiles(Rounded)
def _as_it_is(element: Rounded, compiler: SQLCompiler, **options: Any) -> str:
    number, _ = element.clauses
    return compiler.process(number, **options)


@compiles(Rounded, "sqlite")
def _rounded(element: Rounded, compiler: SQLCompiler, **options: Any) -> str:
    number, places = element.clauses
    return f"round({compiler.process(number, **options)}, {compiler.process(places, **options)})"


def stored(expression: Any, python_type: Any, column_type: TypeEngine[Any]) -> Any:
    """What to write for *expression* into a column, on every database alike."""
    if python_type is datetime and isinstance(expression, (now, current_timestamp)):
        return UtcNow() if isinstance(column_type, UtcDateTime) else NaiveUtcNow()
    if isinstance(column_type, ExactNumeric) and isinstance(expression, ColumnElement):
        rounded = Rounded(expression, literal_column(str(column_type.scale)))
        rounded.type = column_type
        return rounded
    return expression
