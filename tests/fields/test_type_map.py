"""The type table: which column and which check a Python type gets, and what a type of the user's own is checked for."""

import enum
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, TypedDict, Union
from uuid import UUID

import pytest
from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Integer,
    LargeBinary,
    Numeric,
    PickleType,
    SmallInteger,
    String,
    Text,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.dialects.mysql import INTEGER, TINYINT
from sqlalchemy.schema import CreateTable

from microorm import Field, Registry, field
from microorm.fields.checks import InvalidFieldValue
from microorm.fields.type_map import TYPE_MAP, custom_check, field_type, type_name
from microorm.model import Model


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Size(enum.IntEnum):
    S = 1
    L = 2


class Shape(TypedDict):
    side: int


DIALECTS = {"sqlite": sqlite.dialect(), "postgresql": postgresql.dialect(), "mariadb": mysql.dialect()}
BINARY = "CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin"
# The table of docs/types.md, as the databases are told it.
COLUMNS = [
    (int, {}, "INTEGER", "BIGINT", "BIGINT"),
    (float, {}, "DOUBLE", "DOUBLE PRECISION", "DOUBLE"),
    (bool, {}, "BOOLEAN", "BOOLEAN", "BOOL"),
    (str, {}, "TEXT", "TEXT", f"LONGTEXT {BINARY}"),
    (str, {"max_length": 10}, "VARCHAR(10)", "VARCHAR(10)", f"VARCHAR(10) {BINARY}"),
    (str, {"max_length": 16_250}, "VARCHAR(16250)", "VARCHAR(16250)", f"VARCHAR(16250) {BINARY}"),
    (str, {"max_length": 16_251}, "VARCHAR(16251)", "VARCHAR(16251)", f"LONGTEXT {BINARY}"),
    (bytes, {}, "BLOB", "BYTEA", "LONGBLOB"),
    (bytes, {"max_length": 10}, "BLOB", "BYTEA", "VARBINARY(10)"),
    (bytes, {"max_length": 65_000}, "BLOB", "BYTEA", "VARBINARY(65000)"),
    (bytes, {"max_length": 65_001}, "BLOB", "BYTEA", "LONGBLOB"),
    (Decimal, {"max_digits": 8, "decimal_places": 2}, "NUMERIC(8, 2)", "NUMERIC(8, 2)", "NUMERIC(8, 2)"),
    (datetime, {}, "DATETIME", "TIMESTAMP WITH TIME ZONE", "DATETIME(6)"),
    (datetime, {"timezone": True}, "DATETIME", "TIMESTAMP WITH TIME ZONE", "DATETIME(6)"),
    (datetime, {"timezone": False}, "DATETIME", "TIMESTAMP WITHOUT TIME ZONE", "DATETIME(6)"),
    (date, {}, "DATE", "DATE", "DATE"),
    (time, {}, "TIME", "TIME WITHOUT TIME ZONE", "TIME(6)"),
    (timedelta, {}, "BIGINT", "INTERVAL", "BIGINT"),
    (UUID, {}, "CHAR(32)", "UUID", "CHAR(32) CHARACTER SET ascii COLLATE ascii_bin"),
    (Colour, {}, "VARCHAR(4)", "VARCHAR(4)", f"VARCHAR(4) {BINARY}"),
    (Size, {}, "BIGINT", "BIGINT", "BIGINT"),
    (Literal["a", "bc"], {}, "VARCHAR(2)", "VARCHAR(2)", f"VARCHAR(2) {BINARY}"),
    (Literal[""], {}, "VARCHAR(1)", "VARCHAR(1)", f"VARCHAR(1) {BINARY}"),
    (Literal[1, 2], {}, "BIGINT", "BIGINT", "BIGINT"),
    (Literal[True], {}, "BOOLEAN", "BOOLEAN", "BOOL"),
    (dict[str, int], {}, "JSON", "JSONB", "JSON"),
    (list[Any], {}, "JSON", "JSONB", "JSON"),
    (dict, {}, "JSON", "JSONB", "JSON"),
]


@pytest.mark.parametrize(("annotation", "options", "on_sqlite", "on_postgresql", "on_mariadb"), COLUMNS)
def test_a_python_type_is_this_column(annotation, options, on_sqlite, on_postgresql, on_mariadb) -> None:
    kind = field_type(annotation)
    assert kind is not None
    column = kind.column(annotation, options)
    told = {name: column.compile(dialect=dialect) for name, dialect in DIALECTS.items()}
    told["mariadb"] = column.compile(dialect=mysql.dialect(is_mariadb=True))
    assert told == {"sqlite": on_sqlite, "postgresql": on_postgresql, "mariadb": on_mariadb}


def test_every_row_of_the_table_is_asked_for_above() -> None:
    asked = {field_type(annotation) for annotation, *_ in COLUMNS}
    assert [python_type for python_type, kind in TYPE_MAP.items() if kind not in asked] == []


@pytest.mark.parametrize(
    "annotation", [object, int | str, Shape, complex, set, tuple[int, int], Annotated[int, 1], Any, [1]]
)
def test_a_type_that_is_not_in_the_table_has_no_kind(annotation) -> None:
    assert field_type(annotation) is None


OWN = [
    (int, SmallInteger(), 2**15 - 1, 2**15, "must be int of 16 bits, not int of 17"),
    (int, Integer(), -(2**31), 2**31, "must be int of 32 bits, not int of 33"),
    (int, BigInteger(), 2**63 - 1, 2**63, "must be int of 64 bits, not int of 65"),
    (int, TINYINT(unsigned=True), 255, "x", "must be int, not str 'x'"),
    (int, INTEGER(unsigned=True), 2**32 - 1, True, "must be int, not bool True"),
    (str, String(3), "abc", "abcd", "must be str of at most 3 characters, not str of 4"),
    (str, Text(), "x" * 99, "\0", "must be str, not str with a NUL character"),
    (str, PickleType(), "\0", 5, "must be str, not int 5"),
    (bytes, LargeBinary(3), b"abcd", "abc", "must be bytes, not str 'abc'"),
    (
        Decimal,
        Numeric(4, 1),
        Decimal("999.9"),
        Decimal("9.99"),
        "must be Decimal of 4 digits, 1 after the point, not",
    ),
    (
        Decimal,
        Numeric(4),
        Decimal(9999),
        Decimal("9.9"),
        "must be Decimal of 4 digits, 0 after the point, not",
    ),
    (Decimal, Numeric(), Decimal("9.99"), 1.5, "must be Decimal, not float 1.5"),
    (
        datetime,
        DateTime(timezone=True),
        datetime(2024, 1, 1, tzinfo=UTC),
        date(2024, 1, 1),
        "must be datetime, not date",
    ),
    (bool, Integer(), True, 1, "must be bool, not int 1"),
    (Colour, String(4), Colour.RED, "red", "must be Colour, not str 'red'"),
    (Literal["a"], String(1), "a", "b", "must be one of 'a', not str 'b'"),
    (
        dict[str, int],
        JSON(),
        {"a": 1},
        {1: 1},
        "must be dict that JSON can represent, not one with the key int 1",
    ),
    (dict[str, int], PickleType(), {1: {2}}, [], "must be dict, not list []"),
    (set, PickleType(), {1}, [], "must be set, not list []"),
    (int | str, PickleType(), "x", 1.5, "must be int | str, not float 1.5"),
    (Union[int, str], PickleType(), 5, 1.5, "must be Union[int, str], not float 1.5"),  # noqa: UP007
]


@pytest.mark.parametrize(("annotation", "column", "good", "bad", "message"), OWN)
def test_a_type_of_ones_own_is_checked_for_what_is_known_of_it(
    annotation, column, good, bad, message
) -> None:
    check = custom_check(annotation, column)
    assert check.clean(good) == good
    with pytest.raises(InvalidFieldValue) as refused:
        check.clean(bad)
    assert str(refused.value).startswith(message)


def test_a_type_that_says_nothing_of_its_values_takes_them_all() -> None:
    check = custom_check(Shape, JSON())
    assert check.clean({"side": 1}) == {"side": 1}
    assert check.expected == "a value"


@pytest.mark.parametrize(
    ("annotation", "name"),
    [
        (int, "int"),
        (Colour, "Colour"),
        (dict[str, int], "dict[str, int]"),
        (int | None, "int | None"),
        (Literal["a"], "Literal['a']"),
    ],
)
def test_a_type_is_named_as_it_is_written(annotation, name) -> None:
    assert type_name(annotation) == name


def test_the_whole_table_makes_tables_on_every_database() -> None:
    """The DDL of all rows at once compiles, with the constraints of the listed values."""
    registry = Registry()
    fields = {f"field{place}": field(**options) for place, (_, options, *_) in enumerate(COLUMNS)}
    notes = {f"field{place}": Field[annotation] for place, (annotation, *_) in enumerate(COLUMNS)}
    type(
        "Everything",
        (Model,),
        {**fields, "__annotations__": notes, "__module__": __name__},
        registry=registry,
    )
    for dialect in DIALECTS.values():
        told = str(CreateTable(registry.metadata.tables["everything"]).compile(dialect=dialect))
        assert told.count("CONSTRAINT ck_everything_field") == 5
