"""Fields: what a model's attribute holds, and the column that holds it.

A `Field` is declared in a class body (by `field()`, with an annotation) and bound to each model that has it: then it
knows its column, its check and its defaults.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from copy import copy
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar, Union, get_args, get_origin, overload

from sqlalchemy import CheckConstraint, Column, ColumnElement, Computed, Identity, literal, type_coerce
from sqlalchemy.exc import ArgumentError
from sqlalchemy.sql import ClauseElement
from sqlalchemy.types import TypeEngine

from microorm.errors import ModelError
from microorm.fields import types
from microorm.fields.checks import Check, Refused, shown
from microorm.fields.type_map import KINDS, Kind, Unfit, custom_check, kind_of, type_name

T = TypeVar("T")


class Missing(enum.Enum):
    """The absence of a value, where None is one."""

    MISSING = enum.auto()

    def __repr__(self) -> str:
        return "<missing>"


MISSING: Final = Missing.MISSING

_FLAGS = ("primary_key", "unique", "index", "timezone", "init")
_NUMBERS = ("max_length", "max_digits")
_CALLABLES = ("default_factory", "on_update")
_OF_A_KIND = {option for kind in KINDS.values() for option in kind.options}


class Field(Generic[T]):
    """One column of a model: on the class a SQLAlchemy column, on an instance its value.

    At run time this is a non-data descriptor, so reading an instance's value is a plain dictionary hit;
    where the instance has no value yet (a key or a value that the database will make), it reads None, and
    where the row was loaded without it, it is loaded now.
    """

    name: str
    label: str
    python_type: Any
    nullable: bool
    mutable: bool
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
        self.relation: Any = None  # the foreign key that this is the column of

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
                origin = getattr(instance, "_origin", None)
                return None if origin is None or not origin.partial else instance._load_deferred(self.name)
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

    def bind(self, owner: type, name: str, annotation: Any) -> Field[T]:
        """A copy that belongs to *owner*, with its column. `ModelError` where the declaration is wrong."""
        bound = copy(self)
        bound.name = name
        bound.label = f"{owner.__name__}.{name}"
        bound.python_type, bound.nullable = split_optional(annotation)
        try:
            bound._make()
        except (Unfit, ArgumentError) as error:
            raise ModelError(f"{bound.label}: {error}") from None
        except Refused as refused:
            raise ModelError(f"{bound.label}: the default {refused}") from None
        return bound

    def admit(self, value: Any) -> Any:
        """The value to write for *value*. `Refused` where the field does not take it."""
        if value is None:
            if self.nullable:
                return None
            raise Refused(f"wants {self.check.expected}, not None")
        return self.check.admit(value)

    def default_in_rows(self) -> tuple[bool, Any]:
        """Whether rows that are there can be given the default, which is then the same in all, and as what it is stored."""
        default = self.default
        if self.default_factory in (list, dict):
            default = self.default_factory()
        if default is None or default is MISSING or isinstance(default, ClauseElement):
            return False, None
        admitted = self.admit(default)
        return True, admitted.value if isinstance(admitted, enum.Enum) else admitted

    def stored(self, expression: ClauseElement) -> Any:
        """What to write for an SQL expression, so that it comes to the same on every database."""
        return types.stored(expression, self.python_type, self.column.type)

    def constraints(self) -> list[CheckConstraint]:
        """The CHECK that keeps a column of listed values to these."""
        kind = kind_of(self.python_type)
        if kind is None or self.options.get("type_") is not None:
            return []
        allowed = [value for value in kind.allowed(self.python_type) if not isinstance(value, bool)]
        if not allowed:
            return []
        # It compares what is stored, so the values are not bound through the column's own type.
        plain = types.value_type(tuple(allowed))
        listed = type_coerce(self.column, plain).in_([literal(value, plain) for value in allowed])
        return [CheckConstraint(listed, name=self.column.name)]

    def _make(self) -> None:
        kind, custom = kind_of(self.python_type), self.options.get("type_")
        refuse_misuse(self.options)
        self._refuse_contradictions(kind)
        if custom is not None:
            column_type = _instance(custom)
            self.check = custom_check(self.python_type, column_type)
        elif kind is not None:
            kind.allowed(self.python_type)
            column_type = kind.column(self.python_type, self.options)
            self.check = kind.check(self.python_type, self.options)
        else:
            raise Unfit(
                f"no column type for {type_name(self.python_type)}; name a SQLAlchemy type by field(type_=...)"
            )
        self.mutable = kind is None or kind.mutable
        self.column = self._make_column(column_type)
        if self.default is not MISSING and not isinstance(self.default, ClauseElement):
            self.admit(self.default)

    def _refuse_contradictions(self, kind: Kind | None) -> None:
        given = {option for option, value in self.options.items() if value is not None and value is not False}
        custom = "type_" in given
        for option in sorted(_OF_A_KIND & self.options.keys()):
            if self.options[option] is None:
                continue
            if custom:
                raise Unfit(f"{option}= and type_= contradict each other")
            if kind is None or option not in kind.options:
                raise Unfit(f"{option}= does not apply to {type_name(self.python_type)}")
        if self.python_type in (str, bytes) and not custom and "max_length" not in given:
            for option in ("primary_key", "unique", "index"):
                if option in given:
                    raise Unfit(f"a {self.python_type.__name__} with {option}=True wants max_length=")
        if self.primary_key and self.nullable:
            raise Unfit("a primary key cannot be None")
        if self.primary_key and self.on_update is not None:
            raise Unfit("a primary key does not change, and on_update= changes it")

    def _make_column(self, column_type: TypeEngine[Any]) -> Column[Any]:
        options, default = self.options, self.server_default
        return Column(
            options.get("column") or self.name,
            column_type,
            primary_key=self.primary_key,
            nullable=self.nullable,
            unique=options.get("unique") or None,
            index=options.get("index") or None,
            server_default=types.stored(default, self.python_type, column_type),
            autoincrement=False,
        )


def refuse_misuse(options: Mapping[str, Any]) -> None:
    """Raise `Unfit` where an option is of the wrong type, or where the defaults contradict each other."""
    given = {option: value for option, value in options.items() if value is not None}
    for option in _FLAGS:
        if type(given.get(option, False)) is not bool:
            raise Unfit(f"{option}= wants a bool, not {shown(given[option])}")
    for option in _NUMBERS:
        number = given.get(option, 1)
        if type(number) is not int or number < 1:
            raise Unfit(f"{option}= wants a positive int, not {shown(number)}")
    for option in _CALLABLES:
        if not callable(given.get(option, len)):
            raise Unfit(f"{option}= wants a callable, not {shown(given[option])}")
    column = given.get("column", "name")
    if not isinstance(column, str) or not column:
        raise Unfit(f"column= wants a name, not {shown(column)}")
    if isinstance(options.get("server_default"), (Computed, Identity)):
        raise Unfit(f"server_default= wants SQL or a string, not {type(options['server_default']).__name__}")
    if "default" in options and "default_factory" in given:
        raise Unfit("default= and default_factory= contradict each other")
    if isinstance(options.get("default"), (dict, list, set, bytearray)):
        raise Unfit("a mutable default is shared by all instances; default_factory= is not")


def split_optional(annotation: Any) -> tuple[Any, bool]:
    """The type without None, and whether None was in it."""
    arguments = get_args(annotation)
    if get_origin(annotation) in (Union, UnionType):
        kept = tuple(argument for argument in arguments if argument is not NoneType)
        return Union[kept], len(kept) < len(arguments)  # noqa: UP007
    if get_origin(annotation) is Literal and None in arguments:
        kept = tuple(choice for choice in arguments if choice is not None)
        return (Literal[kept] if kept else NoneType), True
    return annotation, False


def _instance(custom: Any) -> TypeEngine[Any]:
    """The type that `type_=` names, by an instance or a class of SQLAlchemy's."""
    try:
        made = custom() if isinstance(custom, type) else custom
    except TypeError as error:
        raise Unfit(f"type_= cannot be made without arguments: {error}") from None
    if not isinstance(made, TypeEngine):
        raise Unfit(f"type_= wants a type of SQLAlchemy's, not {shown(custom)}")
    return made
