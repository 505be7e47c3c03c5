"""A declaration becomes a field of one model: its column, its check, its defaults, or a ModelError that says what is wrong."""

import enum
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Literal, Optional, Union

import pytest
from sqlalchemy import ARRAY, JSON, ColumnElement, Computed, Identity, Integer, Numeric, String, func, text

from microorm import Field, ModelError, field
from microorm.fields.checks import InvalidFieldValue
from microorm.fields.field import MISSING, split_optional


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Mixed(enum.Enum):
    A = "a"
    B = 2


class Half(enum.Enum):
    A = 0.5


class Empty(enum.Enum):
    pass


class Huge(enum.Enum):
    A = 2**63


class Dirty(enum.Enum):
    A = "a\0"


class Might(enum.Flag):
    READ = 1
    WRITE = 2


class Book:
    """Stands for a model: a field asks only for its name."""


def bound(annotation: Any, **options: Any) -> Field[Any]:
    return field(**options).bind(Book, "title", annotation)


WRONG: list[tuple[Any, dict[str, Any], str]] = [
    (object, {}, "no column type for object; pass a SQLAlchemy type as field(type_=...)"),
    (int | str, {}, "no column type for Union[int, str]; pass a SQLAlchemy type as field(type_=...)"),
    (set[int], {}, "no column type for set[int]; pass a SQLAlchemy type as field(type_=...)"),
    (None, {}, "no column type for None; pass a SQLAlchemy type as field(type_=...)"),
    (Decimal, {}, "a Decimal needs max_digits= and decimal_places="),
    (Decimal, {"max_digits": 5}, "a Decimal needs max_digits= and decimal_places="),
    (Decimal, {"decimal_places": 5}, "a Decimal needs max_digits= and decimal_places="),
    (
        Decimal,
        {"max_digits": 2, "decimal_places": 3},
        "decimal_places= must be an int from 0 to max_digits, not int 3",
    ),
    (
        Decimal,
        {"max_digits": 2, "decimal_places": -1},
        "decimal_places= must be an int from 0 to max_digits, not int -1",
    ),
    (
        Decimal,
        {"max_digits": 2, "decimal_places": True},
        "decimal_places= must be an int from 0 to max_digits, not bool True",
    ),
    (Decimal, {"max_digits": 0, "decimal_places": 0}, "max_digits= must be a positive int, not int 0"),
    (str, {"max_length": 0}, "max_length= must be a positive int, not int 0"),
    (str, {"max_length": "5"}, "max_length= must be a positive int, not str '5'"),
    (str, {"max_length": True}, "max_length= must be a positive int, not bool True"),
    (str, {"primary_key": True}, "a str with primary_key=True needs max_length="),
    (str, {"unique": True}, "a str with unique=True needs max_length="),
    (bytes, {"index": True}, "a bytes with index=True needs max_length="),
    (int, {"max_length": 5}, "max_length= does not apply to int"),
    (str, {"max_digits": 5}, "max_digits= does not apply to str"),
    (int, {"decimal_places": 5}, "decimal_places= does not apply to int"),
    (date, {"timezone": False}, "timezone= does not apply to date"),
    (object, {"max_length": 5}, "max_length= does not apply to object"),
    (str, {"type_": String(5), "max_length": 5}, "max_length= cannot be combined with type_="),
    (datetime, {"type_": String(5), "timezone": True}, "timezone= cannot be combined with type_="),
    (int | None, {"primary_key": True}, "a primary key cannot be None"),
    (
        int,
        {"primary_key": True, "on_update": int},
        "a primary key cannot change, so it cannot have on_update=",
    ),
    (int, {"default": 1, "default_factory": int}, "default= cannot be combined with default_factory="),
    (int, {"default": None, "default_factory": int}, "default= cannot be combined with default_factory="),
    (int, {"default_factory": 5}, "default_factory= must be a callable, not int 5"),
    (int, {"on_update": "now"}, "on_update= must be a callable, not str 'now'"),
    (int, {"unique": 1}, "unique= must be a bool, or its name, not int 1"),
    (int, {"primary_key": "yes"}, "primary_key= must be a bool, not str 'yes'"),
    (int, {"init": 0}, "init= must be a bool, not int 0"),
    (int, {"column": ""}, "column= must be a name, not str ''"),
    (int, {"column": 5}, "column= must be a name, not int 5"),
    (int, {"type_": 5}, "type_= must be a SQLAlchemy type, not int 5"),
    (int, {"type_": int}, "type_= must be a SQLAlchemy type, not type <class 'int'>"),
    (list, {"type_": ARRAY}, "type_= cannot be called without arguments: "),
    (int, {"default": "5"}, "the default must be int, not str '5'"),
    (int, {"default": None}, "the default must be int, not None"),
    (
        str,
        {"default": "abc", "max_length": 2},
        "the default must be str of at most 2 characters, not str of 3",
    ),
    (Colour, {"default": "red"}, "the default must be Colour, not str 'red'"),
    (int, {"default": int}, "the default must be int, not type <class 'int'>"),
    (list, {"default": []}, "a mutable default would be shared by all instances; use default_factory="),
    (dict, {"default": {}}, "a mutable default would be shared by all instances; use default_factory="),
    (
        datetime,
        {"default": datetime(2024, 1, 1)},  # noqa: DTZ001
        "the default must be datetime with a time zone, not a naive one",
    ),
    (int, {"server_default": 5}, "Argument 'arg' is expected to be one of type"),
    (
        int,
        {"server_default": Computed("1"), "default": 1},
        "a column that the database computes cannot have primary_key=, default=, on_update= and init=",
    ),
    (int, {"server_default": Identity()}, "server_default= must be SQL or a string, not Identity"),
    (Mixed, {}, "the values of Mixed are not all str or all int"),
    (Half, {}, "the values of Half are not all str or all int"),
    (Empty, {}, "the values of Empty are not all str or all int"),
    (Huge, {}, "a value of Huge must be int of 64 bits, not int of 65"),
    (Dirty, {}, "a value of Dirty must be str, not str with a NUL character"),
    (Might, {}, "Might is a Flag, whose members can be combined to values that are not listed"),
    (Literal["a", 1], {}, "the values of Literal['a', 1] are not all str or all int"),
    (Literal[1, True], {}, "the values of Literal[1, True] are not all str or all int"),
    (Literal[b"a"], {}, "the values of Literal[b'a'] are not all str or all int"),
    (Literal["\ud800"], {}, "a value of Literal['\\ud800'] must be str, not str with a lone surrogate"),
]


@pytest.mark.parametrize(
    ("annotation", "options", "message"), WRONG, ids=[message[:50] for *_, message in WRONG]
)
def test_a_wrong_declaration_is_told_with_the_field_s_name(annotation, options, message) -> None:
    with pytest.raises(ModelError) as error:
        bound(annotation, **options)
    assert str(error.value).startswith(f"Book.title: {message}")
    assert str(error.value) == f"Book.title: {message}" or message.endswith((" ", "type"))


@pytest.mark.parametrize(
    ("annotation", "kind", "nullable"),
    [
        (int, int, False),
        (int | None, int, True),
        (Optional[int], int, True),  # noqa: UP045
        (Union[None, int], int, True),  # noqa: UP007
        (dict[str, int] | None, dict[str, int], True),
        (Literal["a", None], Literal["a"], True),
        (Literal["a"] | None, Literal["a"], True),
        (int | str | None, int | str, True),
        (int | str, int | str, False),
        (Literal[None], type(None), True),
        (None, None, False),
    ],
)
def test_a_field_may_be_none_exactly_when_its_type_says_so(annotation, kind, nullable) -> None:
    assert split_optional(annotation) == (kind, nullable)


def test_a_column_has_what_the_options_say() -> None:
    column = bound(
        str | None, column="a b%c", max_length=5, unique=True, index=True, server_default="x"
    ).column
    assert (column.name, column.nullable, column.unique, column.index) == ("a b%c", True, True, True)
    assert column.server_default.arg == "x"
    key = bound(int, primary_key=True).column
    assert (key.name, key.primary_key, key.nullable, key.autoincrement) == ("title", True, False, False)
    assert (key.unique, key.index) == (None, None)


def test_an_option_that_is_none_is_not_given() -> None:
    options = dict.fromkeys(
        ["max_length", "max_digits", "timezone", "type_", "column", "unique", "init", "on_update"]
    )
    made = bound(int, **options)
    assert (made.column.name, made.column.unique, made.init) == ("title", None, True)


def test_a_type_of_ones_own_is_the_column_s() -> None:
    mine = Numeric(5, 1)
    assert bound(Decimal, type_=mine).column.type is mine
    assert isinstance(bound(int, type_=Integer).column.type, Integer)
    assert bound(int | str | None, type_=JSON).nullable
    assert bound(str, type_=String(5), primary_key=True).primary_key


INIT: list[tuple[dict[str, Any], bool, bool, bool]] = [
    ({}, True, False, False),
    ({"default": 1}, True, True, False),
    ({"default_factory": int}, True, True, False),
    ({"server_default": text("1")}, False, False, True),
    ({"on_update": int}, False, False, False),
    ({"on_update": int, "default": 1}, True, True, False),
    ({"server_default": text("1"), "default": 1}, True, True, True),
    ({"init": False}, False, False, False),
    ({"init": True, "server_default": text("1")}, True, False, True),
    ({"init": False, "default": 1}, False, True, False),
]


@pytest.mark.parametrize(("options", "init", "has_default", "server_made"), INIT)
def test_who_gives_a_value(options, init, has_default, server_made) -> None:
    """The constructor, a default, the database: as the options say."""
    made = bound(int, **options)
    assert (made.init, made.has_default, made.server_made) == (init, has_default, server_made)


def test_a_value_is_admitted_by_type_and_none_where_it_may_be() -> None:
    assert bound(int | None).clean(None) is None
    assert bound(int).clean(5) == 5
    with pytest.raises(InvalidFieldValue, match="^must be int, not None$"):
        bound(int).clean(None)


def test_what_can_change_in_place_is_known() -> None:
    mutable = [
        bound(list),
        bound(dict[str, int] | None),
        bound(set, type_=JSON),
        bound(int | str, type_=JSON),
    ]
    fixed = [
        bound(int),
        bound(str | None),
        bound(Colour),
        bound(Literal["a"]),
        bound(bytes),
        bound(int, type_=Integer),
    ]
    assert [each.mutable for each in mutable] == [True] * 4
    assert [each.mutable for each in fixed] == [False] * 6


def test_a_default_may_be_an_expression() -> None:
    made = bound(datetime, default=func.now())
    assert isinstance(made.default, ColumnElement)
    assert bound(int, default=1).default == 1
    assert bound(int).default is MISSING
    assert repr(MISSING) == "<missing>"


def test_one_declaration_serves_many_models() -> None:
    """Binding leaves the declaration as it was."""
    declared = field(default=1)
    one, two = declared.bind(Book, "one", int), declared.bind(Book, "two", int | None)
    assert (repr(declared), repr(one), repr(two)) == (
        "<Field unbound>",
        "<Field Book.one>",
        "<Field Book.two>",
    )
    assert one.column is not two.column
    assert not hasattr(declared, "column")


@pytest.mark.parametrize(
    ("annotation", "options", "allowed"),
    [
        (Colour, {}, "title IN ('red', 'blue')"),
        (Literal[1, 2], {}, "title IN (1, 2)"),
        (Literal["it's"] | None, {}, "title IN ('it''s')"),
        (Literal[True, False], {}, None),
        (Colour, {"type_": String(5)}, None),
        (int, {}, None),
    ],
)
def test_listed_values_are_a_check_of_the_column(annotation, options, allowed) -> None:
    told = [
        str(each.sqltext.compile(compile_kwargs={"literal_binds": True}))
        for each in bound(annotation, **options).constraints()
    ]
    assert told == ([] if allowed is None else [allowed])


def test_a_moment_of_sql_s_clock_is_in_utc() -> None:
    """`datetime` is UTC on every database, made by it or not."""
    aware, naive = (
        bound(datetime, server_default=func.now()),
        bound(datetime, server_default=func.now(), timezone=False),
    )
    assert str(aware.column.server_default.arg) == "CURRENT_TIMESTAMP"
    assert aware.column.server_default.arg is not naive.column.server_default.arg
    assert bound(datetime, server_default=text("now()")).column.server_default.arg.text == "now()"
    moment = datetime(2024, 1, 1, tzinfo=UTC)
    assert bound(datetime, default=moment).default == moment
