"""Fields: what a model's attribute holds, and the column that holds it.

`field()` declares, `Field` is the declaration bound to one model: its column, its check, its defaults.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from copy import copy
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar, Union, get_args, get_origin, overload
from uuid import UUID

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    Date,
    Double,
    Uuid,
    literal,
    type_coerce,
)
from sqlalchemy.exc import ArgumentError
from sqlalchemy.types import TypeEngine

from microorm import types, values
from microorm.errors import ModelError
from microorm.values import Check, Refused, shown

T = TypeVar("T")


class Missing(enum.Enum):
    """The absence of a value, where None is one."""

    MISSING = enum.auto()

    def __repr__(self) -> str:
        return "<missing>"


MISSING: Final = Missing.MISSING

_SIMPLE: dict[type, tuple[Callable[[], TypeEngine[Any]], Check]] = {
    int: (types.integer_type, values.INT),
    float: (Double, values.FLOAT),
    bool: (Boolean, values.BOOL),
    date: (Date, values.DATE),
    time: (types.time_type, values.TIME),
    timedelta: (types.Duration, values.TIMEDELTA),
    UUID: (Uuid, values.UUID_),
}
_SIZED = (str, bytes)
_OPTIONS_OF = {
    "max_length": _SIZED,
    "max_digits": (Decimal,),
    "decimal_places": (Decimal,),
    "timezone": (datetime,),
}


class Field(Generic[T]):
    """One column of a model: on the class a SQLAlchemy column, on an instance its value.

    At run time this is a non-data descriptor, so reading an instance's value is a plain dictionary hit;
    where the instance has no value yet (a key or a value that the database will make), it reads None.
    """

    name: str
    label: str
    python_type: Any
    nullable: bool
    check: Check
    column: Column[Any]

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.primary_key: bool = options.get("primary_key") or False
        self.default: Any = options.get("default", MISSING)
        self.default_factory: Callable[[], Any] | None = options.get("default_factory")
        self.on_update: Callable[[], Any] | None = options.get("on_update")
        self.server_default: Any = options.get("server_default")
        self.generated = False

    if TYPE_CHECKING:

        @overload
        def __get__(self, instance: None, owner: Any) -> ColumnElement[T]: ...
        @overload
        def __get__(self, instance: object, owner: Any) -> T: ...
        def __get__(self, instance: Any, owner: Any) -> Any: ...
        def __set__(self, instance: object, value: T | ColumnElement[T]) -> None: ...

    else:

        def __get__(self, instance: Any, owner: Any) -> Any:
            if instance is not None:
                return None
            try:
                return self.column
            except AttributeError:
                return owner.__schema__.field(self.name).column

    def __repr__(self) -> str:
        return f"<Field {getattr(self, 'label', 'unbound')}>"

    @property
    def has_default(self) -> bool:
        """Whether a constructor without this field finds a value for it."""
        return self.default is not MISSING or self.default_factory is not None

    @property
    def server_made(self) -> bool:
        """Whether the database makes the value of an INSERT that leaves it out."""
        return self.generated or self.server_default is not None

    @property
    def init(self) -> bool:
        """Whether the constructor takes this field."""
        if (asked := self.options.get("init")) is not None:
            return bool(asked)
        return self.has_default or (self.server_default is None and self.on_update is None)

    @property
    def mutable(self) -> bool:
        """Whether a value may change in place, so that what was loaded needs a copy."""
        kinds = (int, float, bool, str, bytes, Decimal, datetime, date, time, timedelta, UUID)
        if self.python_type in kinds or get_origin(self.python_type) is Literal:
            return False
        return not (isinstance(self.python_type, type) and issubclass(self.python_type, enum.Enum))

    def bind(self, owner: type, name: str, annotation: Any) -> Field[T]:
        """A copy that belongs to *owner*, with its column. `ModelError` where the declaration is wrong."""
        bound = copy(self)
        bound.name = name
        bound.label = f"{owner.__name__}.{name}"
        bound.python_type, bound.nullable = split_optional(annotation)
        bound._refuse_contradictions()
        bound.check = bound._make_check()
        bound.column = bound._make_column()
        bound._check_default()
        return bound

    def admit(self, value: Any) -> Any:
        """The value to write for *value*. `Refused` where the field does not take it."""
        if value is None:
            if self.nullable:
                return None
            raise Refused(f"wants {self.check.expected}, not None")
        return self.check.admit(value)

    def constraints(self) -> list[CheckConstraint]:
        """The CHECK that keeps an enumerated column to its values."""
        kind = self.python_type
        if self.options.get("type_") is not None:
            return []
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            allowed = [member.value for member in kind]
        elif get_origin(kind) is Literal:
            allowed = [choice for choice in get_args(kind) if not isinstance(choice, bool)]
        else:
            return []
        if not allowed:
            return []
        return [CheckConstraint(_is_one_of(self.column, allowed), name=self.column.name)]

    def _refuse_contradictions(self) -> None:
        options, kind = self.options, self.python_type
        custom = options.get("type_") is not None
        for option, kinds in _OPTIONS_OF.items():
            if options.get(option) is not None and (custom or kind not in kinds):
                raise ModelError(f"{self.label}: {option}= does not apply to {type_name(kind)}")
        for option in ("max_length", "max_digits"):
            if (number := options.get(option)) is not None and (type(number) is not int or number < 1):
                raise ModelError(f"{self.label}: {option}= wants a positive int, not {shown(number)}")
        sized = options.get("max_length") is not None or custom
        if kind in _SIZED and not sized:
            for option in ("primary_key", "unique", "index"):
                if options.get(option):
                    raise ModelError(f"{self.label}: a {kind.__name__} with {option}=True wants max_length=")
        if self.primary_key and self.nullable:
            raise ModelError(f"{self.label}: a primary key cannot be None")

    def _make_check(self) -> Check:
        kind, options = self.python_type, self.options
        if options.get("type_") is not None:
            return (
                values.instance_check(get_origin(kind) or kind) if kind not in _SIMPLE else _SIMPLE[kind][1]
            )
        if kind in _SIMPLE:
            return _SIMPLE[kind][1]
        if kind is str:
            return values.text_check(options.get("max_length"))
        if kind is bytes:
            return values.bytes_check(options.get("max_length"))
        if kind is datetime:
            return values.NAIVE if options.get("timezone") is False else values.AWARE
        if kind is Decimal:
            return values.decimal_check(*self._digits())
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            self._refuse_mixed([member.value for member in kind])
            return values.enum_check(kind)
        if get_origin(kind) is Literal:
            self._refuse_mixed(list(get_args(kind)))
            return values.literal_check(get_args(kind))
        if (container := get_origin(kind) or kind) in (dict, list):
            return values.json_check(container)
        raise ModelError(
            f"{self.label}: no column type for {type_name(kind)}; name a SQLAlchemy type by field(type_=...)"
        )

    def _column_type(self) -> TypeEngine[Any]:
        kind, options = self.python_type, self.options
        if (custom := options.get("type_")) is not None:
            return custom() if isinstance(custom, type) else custom
        if kind in _SIMPLE:
            return _SIMPLE[kind][0]()
        if kind is str:
            return types.text_type(options.get("max_length"))
        if kind is bytes:
            return types.bytes_type(options.get("max_length"))
        if kind is datetime:
            return types.naive_datetime_type() if options.get("timezone") is False else types.UtcDateTime()
        if kind is Decimal:
            return types.ExactNumeric(*self._digits())
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            return types.Choice(kind)
        if get_origin(kind) is Literal:
            choices = get_args(kind)
            return Boolean() if isinstance(choices[0], bool) else types.value_type(choices)
        return types.json_type()

    def _make_column(self) -> Column[Any]:
        options = self.options
        try:
            return Column(
                options.get("column") or self.name,
                self._column_type(),
                primary_key=self.primary_key,
                nullable=self.nullable,
                unique=options.get("unique") or None,
                index=options.get("index") or None,
                server_default=self.server_default,
                autoincrement=False,
            )
        except ArgumentError as error:
            raise ModelError(f"{self.label}: {error}") from None

    def _digits(self) -> tuple[int, int]:
        digits, places = self.options.get("max_digits"), self.options.get("decimal_places")
        if digits is None or places is None:
            raise ModelError(f"{self.label}: a Decimal wants max_digits= and decimal_places=")
        if type(places) is not int or not 0 <= places <= digits:
            raise ModelError(
                f"{self.label}: decimal_places= wants an int from 0 to max_digits, not {shown(places)}"
            )
        return digits, places

    def _refuse_mixed(self, allowed: list[Any]) -> None:
        named = type_name(self.python_type)
        kinds = {
            str if isinstance(value, str) else bool if isinstance(value, bool) else int for value in allowed
        }
        if len(kinds) != 1 or not all(isinstance(value, (str, int)) for value in allowed):
            raise ModelError(f"{self.label}: the values of {named} are not all str or all int")
        check = values.text_check(None) if kinds == {str} else values.INT
        for value in allowed:
            try:
                check.admit(value if kinds != {bool} else int(value))
            except Refused as refused:
                raise ModelError(f"{self.label}: a value of {named} {refused}") from None

    def _check_default(self) -> None:
        if self.default is MISSING:
            return
        if isinstance(self.default, (dict, list, set)):
            raise ModelError(
                f"{self.label}: a mutable default is shared by all instances; default_factory= is not"
            )
        if isinstance(self.default, ColumnElement):
            return
        try:
            self.admit(self.default)
        except Refused as refused:
            raise ModelError(f"{self.label}: the default {refused}") from None


def _is_one_of(column: Column[Any], allowed: list[Any]) -> ColumnElement[bool]:
    # The CHECK compares what is stored, so the values are not bound through the column's own type.
    kind = types.value_type(tuple(allowed))
    return type_coerce(column, kind).in_([literal(value, kind) for value in allowed])


def split_optional(annotation: Any) -> tuple[Any, bool]:
    """The type without None, and whether None was in it."""
    if get_origin(annotation) in (Union, UnionType):
        arguments = get_args(annotation)
        kept = tuple(a for a in arguments if a is not NoneType)
        if len(kept) == 1:
            return kept[0], len(kept) < len(arguments)
    if get_origin(annotation) is Literal and None in get_args(annotation):
        return Literal[tuple(a for a in get_args(annotation) if a is not None)], True
    return annotation, False


def type_name(kind: Any) -> str:
    """A type as an annotation would write it."""
    return (
        kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind).replace("typing.", "")
    )


_T = TypeVar("_T")


@overload
def field(
    *,
    default: _T,
    primary_key: bool = ...,
    on_update: Callable[[], _T] | None = ...,
    unique: bool = ...,
    index: bool = ...,
    max_length: int | None = ...,
    max_digits: int | None = ...,
    decimal_places: int | None = ...,
    type_: TypeEngine[Any] | type[TypeEngine[Any]] | None = ...,
    column: str | None = ...,
    timezone: bool | None = ...,
    init: bool = ...,
) -> Field[_T]: ...
@overload
def field(
    *,
    default_factory: Callable[[], _T],
    primary_key: bool = ...,
    on_update: Callable[[], _T] | None = ...,
    unique: bool = ...,
    index: bool = ...,
    max_length: int | None = ...,
    max_digits: int | None = ...,
    decimal_places: int | None = ...,
    type_: TypeEngine[Any] | type[TypeEngine[Any]] | None = ...,
    column: str | None = ...,
    timezone: bool | None = ...,
    init: bool = ...,
) -> Field[_T]: ...
@overload
def field(
    *,
    on_update: Callable[[], _T],
    init: Literal[False] = False,
    unique: bool = ...,
    index: bool = ...,
    max_length: int | None = ...,
    max_digits: int | None = ...,
    decimal_places: int | None = ...,
    type_: TypeEngine[Any] | type[TypeEngine[Any]] | None = ...,
    column: str | None = ...,
    timezone: bool | None = ...,
    server_default: Any = ...,
) -> Any: ...
@overload
def field(
    *,
    server_default: Any,
    init: Literal[False] = False,
    primary_key: bool = ...,
    unique: bool = ...,
    index: bool = ...,
    max_length: int | None = ...,
    max_digits: int | None = ...,
    decimal_places: int | None = ...,
    type_: TypeEngine[Any] | type[TypeEngine[Any]] | None = ...,
    column: str | None = ...,
    timezone: bool | None = ...,
) -> Any: ...
@overload
def field(
    *,
    primary_key: bool = ...,
    unique: bool = ...,
    index: bool = ...,
    max_length: int | None = ...,
    max_digits: int | None = ...,
    decimal_places: int | None = ...,
    type_: TypeEngine[Any] | type[TypeEngine[Any]] | None = ...,
    column: str | None = ...,
    timezone: bool | None = ...,
    init: bool = ...,
) -> Any: ...
def field(**options: Any) -> Any:
    """Declare a field of a model.

    *primary_key*: the column is (part of) the key. *default*, *default_factory*: what a constructor without
    the field gives it. *on_update*: called at each save that is not raw, to fill the value. *server_default*:
    SQL (or a string) by which the database makes the value where none was given; it is read back. *unique*,
    *index*: of this column alone. *max_length* in characters (bytes for `bytes`), *max_digits* and
    *decimal_places* for `Decimal`. *type_*: a SQLAlchemy type instead of the table's. *column*: the column's
    name, else the field's. *timezone=False*: a naive `datetime`. *init=False*: not in the constructor.

    Raises `TypeError` for an unknown option, `ModelError` for options that contradict each other.
    """
    if unknown := options.keys() - _KNOWN_OPTIONS:
        raise TypeError(f"field() has no option {sorted(unknown)[0]!r}")
    if options.get("default_factory") is not None and "default" in options:
        raise ModelError("field(): default= and default_factory= contradict each other")
    for callable_option in ("default_factory", "on_update"):
        if (function := options.get(callable_option)) is not None and not callable(function):
            raise ModelError(f"field(): {callable_option}= wants a callable, not {shown(function)}")
    return Field(**options)


_KNOWN_OPTIONS = frozenset(
    ["primary_key", "default", "default_factory", "on_update", "server_default", "unique", "index", "max_length", "max_digits", "decimal_places", "type_", "column", "timezone", "init"]
)
