"""Fields of a model: `Field` and `field()`.

A `Field` is declared in a class body and bound to each model that has it. A bound field has a column and a check.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from inspect import iscoroutinefunction
from types import EllipsisType, NoneType, UnionType
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar, Union, get_args, get_origin, overload
from weakref import ref

from sqlalchemy import (
    CheckConstraint,
    Column,
    ColumnElement,
    Computed,
    FetchedValue,
    Identity,
    Index,
    UniqueConstraint,
    literal,
    type_coerce,
)
from sqlalchemy.exc import ArgumentError
from sqlalchemy.schema import SchemaItem, conv
from sqlalchemy.sql import ClauseElement
from sqlalchemy.types import TypeEngine

from microorm.errors import InvalidValue, ModelError, UnsavedError, nearest
from microorm.fields import types
from microorm.fields.checks import Check, InvalidFieldValue, RefusedValue, encodable, shown
from microorm.fields.columns import FieldColumn, compared_as_text
from microorm.fields.type_map import FieldType, InvalidOption, custom_check, field_type, type_name
from microorm.messages import brief

T = TypeVar("T")


class _Missing:
    def __repr__(self) -> str:
        return "<missing>"


MISSING: Final = _Missing()
"""The absence of a value, where None is a value."""

FIELD = "microorm.field"
"""The key of a bound field in the `info` of its column."""

_FLAGS = ("primary_key", "timezone", "init")
_NAMED = ("unique", "index")  # True, or a name
_POSITIVE = ("max_length", "max_digits")
_CALLABLES = ("default_factory", "on_update")
_OTHERS = ("default", "server_default", "decimal_places", "type_", "column", "comment", "validate")
_OPTIONS = (*_FLAGS, *_NAMED, *_POSITIVE, *_CALLABLES, *_OTHERS)
_TYPE_SPECIFIC = ("decimal_places", "max_digits", "max_length", "timezone")


class Field(Generic[T]):
    """A column of a model: SQLAlchemy's column on the class, its value on an instance.

    This is a non-data descriptor: the values of an instance are in its `__dict__`. `__get__` is called for a value that
    is not there: a deferred field is loaded, and a value that the database has yet to generate is None.

    *options* are those of `field`.
    """

    name: str
    label: str
    owner: Any
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
        self.version: int | None = options.get("version")  # the first of a row, if this counts its updates
        self.validators: tuple[Callable[[Any], None], ...] = ()
        self.computed: bool = type(self.server_default) in (Computed, FetchedValue)
        self.generated = False
        self.implicit = False  # the key of a model that declares none
        self.relation: Any = None  # the foreign key whose column this is

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
                state = getattr(instance, "_row_state", None)
                return None if state is None or not state.partial else instance._load_deferred(self.name)
            try:
                return self.column
            except AttributeError:
                return owner.__schema__.field(self.name).column

    def __repr__(self) -> str:
        return f"<Field {getattr(self, 'label', 'unbound')}>"

    @property
    def has_default(self) -> bool:
        """Whether the field has a default value or factory."""
        return self.default is not MISSING or self.default_factory is not None

    def new_default(self) -> Any:
        """Return the default value of a new instance; MISSING if there is none."""
        return self.default if self.default_factory is None else self.default_factory()

    @property
    def server_made(self) -> bool:
        """Whether the database generates the value if an INSERT omits it."""
        return self.generated or self.server_default is not None

    @property
    def init(self) -> bool:
        """Whether the constructor has an argument for this field."""
        if (asked := self.options.get("init")) is not None:
            return bool(asked)
        return self.has_default or (self.server_default is None and self.on_update is None)

    @property
    def required(self) -> bool:
        """Whether the constructor needs the argument."""
        return self.init and not (self.has_default or self.implicit)

    def bind(self, owner: type, name: str, annotation: Any) -> Field[T]:
        """Return a copy that is *name* of *owner*, and has a column for its *annotation*.

        Raises `ModelError` if the declaration is invalid.
        """
        bound = copy(self)
        bound.name = name
        bound.owner = owner
        bound.label = f"{owner.__name__}.{name}"
        bound.python_type, bound.nullable = split_optional(annotation)
        try:
            bound._make_column_and_check()
        except (InvalidOption, ArgumentError) as error:
            raise ModelError(f"{bound.label}: {error}") from None
        except InvalidFieldValue as error:
            raise ModelError(f"{bound.label}: the default {error}") from None
        return bound

    def clean(self, value: Any) -> Any:
        """Validate *value* and return the value to write. Raises `InvalidFieldValue`."""
        if value is None:
            if self.nullable:
                return None
            raise InvalidFieldValue(self.check.expected, "None")
        return self.check.clean(value)

    def validated(self, value: Any) -> Any:
        """Return *value*, which is checked, once no validator refuses it; None is not shown to them.

        Raises `InvalidFieldValue` (`RefusedValue`), what a validator raises other than `ValueError`, and `TypeError` for what it returns.
        """
        for validator in () if value is None else self.validators:
            try:
                returned: object = validator(value)
            except ValueError as error:
                raise RefusedValue(str(error) or "is invalid", value) from error
            if returned is not None:
                raise TypeError(
                    f"a validator of {self.label} returned {brief(returned)}; it must return None, or raise ValueError"
                )
        return value

    def comparable(self, value: Any) -> Any:
        """Validate *value* as an operand of a comparison, and return it as it is compared with the column.

        An instance stands for its key. A text that is too long is no error; it equals no value. Raises `InvalidValue`, and
        `UnsavedError` for an instance without a key.
        """
        value = self.key_of(value)
        try:
            return self.clean(value)
        except InvalidFieldValue as refused:
            storable = isinstance(value, bytes) or (
                isinstance(value, str) and "\0" not in value and encodable(value)
            )
            if storable and isinstance(self.python_type, type) and isinstance(value, self.python_type):
                return value
            raise self.invalid(str(refused)) from None

    def key_of(self, value: Any) -> Any:
        """Return the key of *value* if it is an instance and the column is a key or a foreign key, else *value* itself.

        Raises `UnsavedError` for an instance without a key.
        """
        if not hasattr(type(value), "__schema__"):
            return value
        if self.relation is not None:
            return self.relation.key_of(value)
        if not self.primary_key or not isinstance(value, self.owner) or isinstance(value.pk, tuple):
            return value
        if value.pk is None:
            raise UnsavedError(f"{self.label}: {brief(value)} has no key; save it first")
        return value.pk

    def invalid(self, problem: str | InvalidFieldValue) -> InvalidValue:
        """Return an `InvalidValue` of this field; *problem* says what is wrong with its value."""
        short = problem if isinstance(problem, str) else problem.problem
        return InvalidValue(self.owner.__name__, {self.name: str(problem)}, {self.name: short})

    def default_in_rows(self) -> tuple[bool, Any]:
        """Return whether existing rows can be given the default, and the value to store in them."""
        default = self.default
        if self.default_factory in (list, dict):
            default = self.default_factory()
        if default is None or default is MISSING or isinstance(default, ClauseElement):
            return False, None
        value = self.clean(default)
        return True, value.value if isinstance(value, enum.Enum) else value

    def stored(self, expression: ClauseElement) -> Any:
        """Adapt an SQL expression so that every database stores the same value."""
        return types.stored(expression, self.python_type, self.column.type)

    def constraints(self) -> list[SchemaItem]:
        """Return the unique constraint or index that has a name of its own, and the CHECK of an enum or a Literal."""
        unique, index = self.options.get("unique"), self.options.get("index")
        items: list[SchemaItem] = list(self._checks())
        if isinstance(index, str):
            items.append(Index(conv(index), self.column, unique=bool(unique)))
        elif isinstance(unique, str):
            items.append(UniqueConstraint(self.column, name=conv(unique)))
        return items

    def _checks(self) -> list[CheckConstraint]:
        kind = field_type(self.python_type)
        if kind is None or self.options.get("type_") is not None:
            return []
        allowed = [value for value in kind.allowed(self.python_type) if not isinstance(value, bool)]
        if not allowed:
            return []
        # The constraint compares stored values, which the type of the column would convert.
        plain = types.value_type(tuple(allowed))
        listed = type_coerce(self.column, plain).in_([literal(value, plain) for value in allowed])
        return [CheckConstraint(listed, name=self.column.name)]

    def _make_column_and_check(self) -> None:
        kind, custom = field_type(self.python_type), self.options.get("type_")
        check_options(self.options)
        self._check_combinations(kind)
        self.validators = validators_of(self.options.get("validate"))
        if custom is not None:
            column_type = compared_as_text(_type_instance(custom))
            self.check = custom_check(self.python_type, column_type)
        elif kind is not None:
            kind.allowed(self.python_type)
            column_type = kind.column(self.python_type, self.options)
            self.check = kind.check(self.python_type, self.options)
        else:
            raise InvalidOption(
                f"no column type for {type_name(self.python_type)}; pass a SQLAlchemy type as field(type_=...)"
            )
        self.mutable = kind is None or kind.mutable
        unique, index = self.options.get("unique"), self.options.get("index")
        self.column = FieldColumn(
            self.options.get("column") or self.name,
            column_type,
            primary_key=self.primary_key,
            nullable=self.nullable,
            unique=True if unique is True and not isinstance(index, str) else None,
            index=True if index is True else None,
            comment=self.options.get("comment"),
            server_default=self._stored_default(column_type),
            autoincrement=False,
            info={FIELD: ref(self)},  # weak, since a MetaData may keep columns of models that are gone
        )
        if self.default is not MISSING and not isinstance(self.default, ClauseElement):
            self.clean(self.default)

    def _stored_default(self, column_type: TypeEngine[Any]) -> Any:
        given = self.server_default
        if isinstance(given, Computed):  # one belongs to a single column, and an abstract model has none
            return Computed(given.sqltext, given.persisted)
        return types.stored(given, self.python_type, column_type)

    def _check_combinations(self, kind: FieldType | None) -> None:
        given = {option for option, value in self.options.items() if value is not None and value is not False}
        custom = "type_" in given
        for option in _TYPE_SPECIFIC:
            if self.options.get(option) is None:
                continue
            if custom:
                raise InvalidOption(f"{option}= cannot be combined with type_=")
            if kind is None or option not in kind.options:
                raise InvalidOption(f"{option}= does not apply to {type_name(self.python_type)}")
        if self.python_type in (str, bytes) and not custom and "max_length" not in given:
            for option in ("primary_key", "unique", "index"):
                if option in given:
                    raise InvalidOption(f"a {self.python_type.__name__} with {option}=True needs max_length=")
        if self.version is not None and (self.python_type is not int or self.nullable):
            raise InvalidOption("a version_field() must be annotated Field[int]")
        if self.primary_key and self.nullable:
            raise InvalidOption("a primary key cannot be None")
        if self.computed and given & {"primary_key", "default", "default_factory", "on_update", "init"}:
            raise InvalidOption(
                "a column that the database computes cannot have primary_key=, default=, on_update= and init="
            )
        if self.primary_key and self.on_update is not None:
            raise InvalidOption("a primary key cannot change, so it cannot have on_update=")


if TYPE_CHECKING:
    from typing import TypeAlias, TypedDict, Unpack

    _Validators: TypeAlias = Callable[[T], None] | Sequence[Callable[[T], None]]

    class _Options(TypedDict, total=False):
        unique: bool | str
        index: bool | str
        max_length: int | None
        max_digits: int | None
        decimal_places: int | None
        type_: TypeEngine[Any] | type[TypeEngine[Any]] | None
        column: str | None
        comment: str | None
        timezone: bool | None

    class _AllOptions(_Options, total=False):
        primary_key: bool
        on_update: Callable[[], Any] | None
        server_default: Any
        init: bool


# Type checkers take the first match, so the overloads without a constructor argument come first.
@overload
def field(
    *,
    on_update: Callable[[], T],
    init: Literal[False] = False,
    server_default: Any = ...,
    validate: _Validators[T] = ...,
    **options: Unpack[_Options],
) -> Any: ...
@overload
def field(
    *,
    server_default: Any,
    init: Literal[False] = False,
    primary_key: bool = ...,
    validate: _Validators[Any] = ...,
    **options: Unpack[_Options],
) -> Any: ...
@overload
def field(
    *, default: EllipsisType, validate: _Validators[Any] = ..., **options: Unpack[_AllOptions]
) -> Any: ...
@overload
def field(*, default: T, validate: _Validators[T], **options: Unpack[_AllOptions]) -> Field[T]: ...
@overload
def field(
    *, default: T | None, validate: _Validators[T], **options: Unpack[_AllOptions]
) -> Field[T | None]: ...
@overload
def field(
    *, default_factory: Callable[[], T], validate: _Validators[T], **options: Unpack[_AllOptions]
) -> Field[T]: ...
@overload
def field(
    *, default_factory: Callable[[], T | None], validate: _Validators[T], **options: Unpack[_AllOptions]
) -> Field[T | None]: ...
@overload
def field(
    *, validate: _Validators[T], primary_key: bool = ..., init: bool = ..., **options: Unpack[_Options]
) -> Field[T]: ...
@overload
def field(*, validate: _Validators[T], init: bool = ..., **options: Unpack[_Options]) -> Field[T | None]: ...
@overload
def field(*, default: T, **options: Unpack[_AllOptions]) -> Field[T]: ...
@overload
def field(*, default_factory: Callable[[], T], **options: Unpack[_AllOptions]) -> Field[T]: ...
@overload
def field(*, primary_key: bool = ..., init: bool = ..., **options: Unpack[_Options]) -> Any: ...
def field(**options: Any) -> Any:
    """Declare a field of a model.

    *primary_key*: the column is the key, or part of a composite one. *default*, *default_factory*: the value if the
    constructor is called without the field. *on_update*: called to set the value at each save that writes the field and
    is not raw; neither `update_fields` without the field nor `Query.update` call it. *server_default*: SQL or a string
    by which the database generates the value, which is read back; with `Computed` or `FetchedValue` the database computes
    it at each write, and microorm only reads it. *validate*: a function, or a list of them, that is called with each value
    to write but None, once it has passed the checks of its type; it raises `ValueError` for one to refuse, and returns
    None. *unique*, *index*: of this column alone; a string is the name of the constraint or index. *comment*: what the
    database keeps with the column. *max_length*: in characters, or bytes for `bytes`. *max_digits*, *decimal_places*: for
    `Decimal`. *type_*: a SQLAlchemy type to use instead of the default one. *column*: the name of the column, if not the name of the field.
    *timezone=False*: a naive `datetime`. *init=False*: no argument of the constructor. *default=...*: no default; only type
    checkers take the argument for one that may be left out.

    Raises `TypeError` for an unknown option. Invalid options are a `ModelError` when the class is defined.
    """
    for option in options:
        if option not in _OPTIONS:
            hint = nearest(option, _OPTIONS)
            if nearest(option, ("null", "nullable")):
                hint = "; annotate a field that may be None as Field[int | None]"
            raise TypeError(f"field() has no option {option!r}{hint}")
    if options.get("default") is ...:
        del options["default"]
    return Field(**options)


def check_options(options: Mapping[str, Any]) -> None:
    """Raise `InvalidOption` if an option has the wrong type, or if the defaults contradict each other."""
    given = {option: value for option, value in options.items() if value is not None}
    for option in _FLAGS:
        if type(given.get(option, False)) is not bool:
            raise InvalidOption(f"{option}= must be a bool, not {shown(given[option])}")
    for option in _NAMED:
        if type(value := given.get(option, False)) is not bool and not (isinstance(value, str) and value):
            raise InvalidOption(f"{option}= must be a bool, or its name, not {shown(value)}")
    if isinstance(given.get("unique"), str) and given.get("index"):
        raise InvalidOption(
            "unique= cannot be a name beside index=, which makes one unique index; write unique=True, index=name"
        )
    for option in _POSITIVE:
        number = given.get(option, 1)
        if type(number) is not int or number < 1:
            raise InvalidOption(f"{option}= must be a positive int, not {shown(number)}")
    for option in _CALLABLES:
        if not callable(given.get(option, len)):
            raise InvalidOption(f"{option}= must be a callable, not {shown(given[option])}")
    if not isinstance(given.get("comment", ""), str):
        raise InvalidOption(f"comment= must be a str, not {shown(given['comment'])}")
    column = given.get("column", "name")
    if not isinstance(column, str) or not column:
        raise InvalidOption(f"column= must be a name, not {shown(column)}")
    if isinstance(options.get("server_default"), Identity):
        raise InvalidOption("server_default= must be SQL or a string, not Identity")
    if "default" in options and "default_factory" in given:
        raise InvalidOption("default= cannot be combined with default_factory=")
    if isinstance(options.get("default"), (dict, list, set, bytearray)):
        raise InvalidOption("a mutable default would be shared by all instances; use default_factory=")


def validators_of(given: Any) -> tuple[Callable[[Any], None], ...]:
    """Return the functions of the option `validate=`: one, or a sequence of them. Raises `InvalidOption`."""
    found = () if given is None else tuple(given) if isinstance(given, (list, tuple)) else (given,)
    for each in found:
        if not callable(each):
            raise InvalidOption(f"validate= must be a function or a list of them, not {shown(each)}")
        if iscoroutinefunction(each) or iscoroutinefunction(type(each).__call__):
            raise InvalidOption(f"validate= must be a function that is not async, not {shown(each)}")
    return found


def split_optional(annotation: Any) -> tuple[Any, bool]:
    """Return the type without None, and whether None was part of it."""
    arguments = get_args(annotation)
    if get_origin(annotation) in (Union, UnionType):
        kept = tuple(argument for argument in arguments if argument is not NoneType)
        return Union[kept], len(kept) < len(arguments)  # noqa: UP007
    if get_origin(annotation) is Literal and None in arguments:
        kept = tuple(choice for choice in arguments if choice is not None)
        return (Literal[kept] if kept else NoneType), True
    return annotation, False


def _type_instance(custom: Any) -> TypeEngine[Any]:
    """Return the SQLAlchemy type passed as `type_=`, which may be a class."""
    try:
        made = custom() if isinstance(custom, type) else custom
    except TypeError as error:
        raise InvalidOption(f"type_= cannot be called without arguments: {error}") from None
    if not isinstance(made, TypeEngine):
        raise InvalidOption(f"type_= must be a SQLAlchemy type, not {shown(custom)}")
    return made
