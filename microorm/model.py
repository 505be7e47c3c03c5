"""Model: the door. What is here delegates; how a save or a query happens stands elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterable
from copy import deepcopy
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, dataclass_transform, overload

from sqlalchemy import ColumnElement, Table
from typing_extensions import TypeVar

from microorm.annotations import Names, PendingName, enclosing_frames
from microorm.constructor import make_init
from microorm.deleting import delete
from microorm.errors import (
    ModelError,
    MultipleObjectsReturned,
    NotUpdated,
    ObjectDoesNotExist,
    UnsavedError,
    nearest,
)
from microorm.fields import MISSING, field
from microorm.query import Query
from microorm.registry import Registry, default_registry
from microorm.saving import save
from microorm.schema import Declaration, Schema, make_schema, read_declarations
from microorm.signals import class_prepared
from microorm.state import NEW, Layout, Origin, State, changes, loaded_value

K = TypeVar("K", default=int)
M = TypeVar("M", bound="Model[Any]")


class Objects:
    """`Model.objects`: all rows of the model."""

    def __get__(self, instance: None, owner: type[M]) -> Query[M]:
        if instance is not None:
            raise AttributeError("objects belongs to the model, not to an instance")
        if owner.__options__.abstract:
            raise AttributeError(f"{owner.__name__} is abstract and has no rows")
        return Query(owner)


class PrimaryKey:
    """The implicit key `id`, for type checkers; a model that has one gets a field in its place."""

    if TYPE_CHECKING:

        @overload
        def __get__(self, instance: None, owner: type[Model[K]]) -> ColumnElement[K]: ...
        @overload
        def __get__(self, instance: Model[K], owner: Any) -> K: ...
        def __get__(self, instance: Any, owner: Any) -> Any: ...
        def __set__(self, instance: Model[K], value: K) -> None: ...

    else:

        def __get__(self, instance, owner):
            if owner.__dict__.get("__schema__") is None and not owner.__options__.abstract:
                return owner.__schema__.field("id").column
            raise AttributeError(f"{owner.__name__} has no field 'id'")


class LazySchema:
    """`Model.__schema__` of a model whose annotations name what was not defined yet: read at the first use."""

    def __get__(self, instance: Any, owner: Any) -> Schema:
        if owner.__options__.abstract:
            raise AttributeError(f"{owner.__name__} is abstract and has no schema")
        try:
            return _prepare(owner)
        except PendingName as pending:
            raise ModelError(f"{owner.__name__}: {pending}") from None


class LazyTable:
    """`Model.__table__`, by way of the schema."""

    def __get__(self, instance: Any, owner: Any) -> Table:
        table: Table = owner.__schema__.table
        return table


class Options:
    """The class keywords of a model, those of its abstract bases included."""

    __slots__ = ("abstract", "app", "database", "registry", "table", "table_args")

    abstract: bool
    app: str | None
    database: str | None
    registry: Registry | None
    table: str | None
    table_args: tuple[Any, ...] | None

    def __init__(self, parents: list[Options], given: dict[str, Any], name: str) -> None:
        if unknown := sorted(given.keys() - set(self.__slots__)):
            raise ModelError(
                f"{name}: no class keyword {unknown[0]!r}; known: {', '.join(sorted(self.__slots__))}"
                f"{nearest(unknown[0], self.__slots__)}"
            )
        self.abstract = given.get("abstract", False)
        self.table = given.get("table")
        for option in ("app", "database", "registry", "table_args"):
            inherited = next((v for parent in parents if (v := getattr(parent, option)) is not None), None)
            setattr(self, option, given[option] if option in given else inherited)
        self._check(name)

    def _check(self, name: str) -> None:
        for option in ("table", "app", "database"):
            value = getattr(self, option)
            if value is not None and (not isinstance(value, str) or not value):
                raise ModelError(f"{name}: {option}= wants a name, not {value!r}")
        if not isinstance(self.abstract, bool):
            raise ModelError(f"{name}: abstract= wants a bool, not {self.abstract!r}")
        if self.registry is not None and not isinstance(self.registry, Registry):
            raise ModelError(f"{name}: registry= wants a Registry, not {self.registry!r}")
        if self.table_args is not None and not isinstance(self.table_args, tuple):
            raise ModelError(f"{name}: table_args= wants a tuple, not {self.table_args!r}")
        if self.abstract and self.table is not None:
            raise ModelError(f"{name}: an abstract model has no table=")


@dataclass_transform(kw_only_default=True, field_specifiers=(field,))
class Model(Generic[K]):
    """One row of a table; derive from it, and annotate fields with `Field[...]`.

    Without a field that says `primary_key=True` the key is `id`: a big integer that the database makes, or
    for `Model[UUID]` a UUID made here.
    """

    __slots__ = ("__dict__", "__weakref__", "_origin", "_row")

    _origin: Origin
    _row: tuple[Any, ...] | None

    if TYPE_CHECKING:
        __schema__: ClassVar[Schema]
        __table__: ClassVar[Table]
        DoesNotExist: ClassVar[type[ObjectDoesNotExist]]
        MultipleObjectsReturned: ClassVar[type[MultipleObjectsReturned]]
        NotUpdated: ClassVar[type[NotUpdated]]
    else:
        __schema__ = LazySchema()
        __table__ = LazyTable()
        DoesNotExist = ObjectDoesNotExist
        MultipleObjectsReturned = MultipleObjectsReturned
        NotUpdated = NotUpdated

    __options__: ClassVar[Options] = Options([], {"abstract": True}, "Model")
    __declarations__: ClassVar[dict[str, Declaration]] = {}

    id = PrimaryKey()
    objects = Objects()

    def __init_subclass__(
        cls,
        *,
        table: str | None = None,
        database: str | None = None,
        abstract: bool = False,
        app: str | None = None,
        table_args: tuple[Any, ...] | None = None,
        registry: Registry | None = None,
        **unknown: Any,
    ) -> None:
        super().__init_subclass__()
        given = {
            name: value
            for name, value in (
                ("table", table),
                ("database", database),
                ("app", app),
                ("table_args", table_args),
                ("registry", registry),
            )
            if value is not None
        }
        _define(cls, {**given, "abstract": abstract, **unknown})

    if not TYPE_CHECKING:

        def __init__(self, /, *args, **kwargs):
            if type(self).__options__.abstract:
                raise TypeError(f"{type(self).__name__} is abstract and has no instances")
            _ = type(self).__schema__  # where names were pending, now they are read
            type(self).__construct__(self, *args, **kwargs)

    @property
    def pk(self) -> Any:
        """The value of the primary key, of a composite one the tuple; None while there is none."""
        schema, values = self.__schema__, self.__dict__
        if len(schema.key_names) == 1:
            return values.get(schema.key_names[0])
        key = tuple(values.get(name) for name in schema.key_names)
        return None if None in key else key

    @property
    def _state(self) -> State:
        return State(self)

    @property
    def changed_fields(self) -> frozenset[str]:
        """The names of the fields whose values differ from what was loaded or saved; all of a new instance."""
        return frozenset(changes(self, self.__schema__.names))

    def changes(self) -> dict[str, tuple[Any, Any]]:
        """`{name: (old, new)}` of the changed fields; while `post_save` runs, of what the save changed."""
        return changes(self, self.__schema__.names)

    def save(
        self,
        *,
        using: str | None = None,
        update_fields: Iterable[str | ColumnElement[Any]] | None = None,
        raw: bool = False,
        force_insert: bool = False,
        force_update: bool = False,
    ) -> Self:
        """Write the row, all or nothing, telling `pre_save` and `post_save`; returns the instance.

        *using*: the alias, else as routed. *update_fields*: write only these, by name or column; empty means
        do nothing. *raw*: exactly as it is, without `on_update`. *force_insert*, *force_update*: one statement
        of this kind only. Adding with no key is an INSERT; otherwise an UPDATE and, where no row has the key,
        an INSERT (CONTRACT I).

        Raises `TypeError` and `ValueError` for wrong arguments, `FieldError` for an unknown field,
        `UnsavedError` where an update lacks a key, `InvalidValue` for values that do not fit,
        `Model.NotUpdated` where an update that was asked for found no row, `TransactionError` in a doomed,
        foreign or read-only block, and what the database raises. After an error nothing is written and the
        instance is as it was; an open block is doomed if a receiver or SQL had run.
        """
        save(
            self,
            using=using,
            update_fields=update_fields,
            raw=raw,
            force_insert=force_insert,
            force_update=force_update,
        )
        return self

    def delete(self, using: str | None = None) -> tuple[int, dict[str, int]]:
        """Delete the row, all or nothing, telling `pre_delete` and `post_delete`.

        Returns the number of rows deleted, and by label. A key that the database made is None afterwards.
        Raises `UnsavedError` where there is no key, and what `save` raises of the block and the database.
        """
        return delete(self, using=using)

    def refresh_from_db(
        self, using: str | None = None, fields: Iterable[str | ColumnElement[Any]] | None = None
    ) -> None:
        """Take all values, or those of *fields*, from the row; from the alias it was loaded from unless told.

        Raises `UnsavedError` where there is no key, `FieldError`, and `Model.DoesNotExist` where the row is
        gone; the instance is then as it was (CONTRACT I20).
        """
        schema = self.__schema__
        if self.pk is None:
            raise UnsavedError(f"{schema.name} has no key, and a refresh needs one")
        names = schema.names
        if fields is not None:
            if isinstance(fields, (str, bytes)):
                raise TypeError(f"fields wants a list of names or columns, not the string {fields!r}")
            names = tuple(schema.field(name).name for name in fields)
        alias = using or self._origin.alias
        query = Query(type(self)) if alias is None else Query(type(self)).using(alias)
        fresh = query.get(pk=self.pk)
        row = [loaded_value(fresh if name in names else self, name) for name in schema.names]
        known = [(name, value) for name, value in zip(schema.names, row, strict=True) if value is not MISSING]
        self._row = tuple(value for _, value in known)
        self._origin = Origin(fresh._origin.alias, Layout(tuple(name for name, _ in known)))
        for name in names:
            self.__dict__[name] = fresh.__dict__[name]

    def __repr__(self) -> str:
        schema = self.__schema__
        key = ", ".join(f"{name}={self.__dict__.get(name)!r}" for name in schema.key_names)
        return f"{schema.name}({key})"

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if type(self) is not type(other):
            return NotImplemented
        key = self.pk
        return key is not None and bool(key == other.pk)

    def __hash__(self) -> int:
        key = self.pk
        if key is None:
            raise TypeError(f"{type(self).__name__} has no key yet and is unhashable")
        return hash((type(self), key))

    def __copy__(self) -> Self:
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin._row, twin._origin = self._row, self._origin
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        twin = self.__copy__()
        memo[id(self)] = twin
        twin.__dict__.update({name: deepcopy(value, memo) for name, value in self.__dict__.items()})
        return twin

    def __getstate__(self) -> dict[str, Any]:
        names = self.__schema__.names if self._row is not None else ()
        loaded = {name: value for name in names if (value := loaded_value(self, name)) is not MISSING}
        return {
            "values": self.__dict__,
            "alias": self._origin.alias,
            "adding": self._origin.adding,
            "loaded": loaded if self._row is not None else None,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        loaded = state["loaded"]
        self.__dict__ = dict(state["values"])
        self._row = None if loaded is None else tuple(loaded.values())
        layout = None if loaded is None else Layout(tuple(loaded))
        fresh = state["adding"] and layout is None and state["alias"] is None
        self._origin = NEW if fresh else Origin(state["alias"], layout, adding=state["adding"])


def _define(cls: Any, given: dict[str, Any]) -> None:
    """Read the class statement of *cls*. `ModelError` says what is wrong with it."""
    parents = [parent for parent in cls.__mro__[1:] if "__options__" in vars(parent)]
    for parent in parents:
        if not parent.__options__.abstract:
            raise ModelError(
                f"{cls.__name__} derives from {parent.__name__}, which has a table; only abstract "
                "models are derived from"
            )
    cls.__options__ = options = Options([parent.__options__ for parent in parents], given, cls.__name__)
    models = {model.__name__: model for model in (options.registry or default_registry).models.values()}
    names = Names(cls, enclosing_frames(cls, 3), models)
    cls.__declarations__ = read_declarations(cls, names, _TAKEN)
    if options.abstract:
        return
    try:
        _prepare(cls)
    except PendingName:
        for name, declaration in cls.__declarations__.items():
            setattr(cls, name, declaration.field)


def _prepare(cls: Any) -> Schema:
    """Make the schema of *cls* and all that hangs on it, and register the model.

    Raises `ModelError`, and `PendingName` where a name in an annotation is not defined yet.
    """
    options = cls.__options__
    registry = options.registry or default_registry
    declarations: dict[str, Declaration] = {}
    for parent in reversed(cls.__mro__):
        declarations.update(vars(parent).get("__declarations__", {}))
    understood = {name: declaration.understood() for name, declaration in declarations.items()}
    label = registry.label(cls, options.app)
    registry.check_free(cls, label)
    schema = make_schema(
        cls,
        {name: (declaration.field, understood[name]) for name, declaration in declarations.items()},
        label=label,
        table=options.table or snake_case(cls.__name__),
        home=options.database,
        registry=registry,
        metadata=registry.metadata,
        table_args=options.table_args or (),
    )
    _install(cls, schema)
    registry.add(cls, label)
    class_prepared.send(cls)
    return schema


def _install(cls: Any, schema: Schema) -> None:
    for each in schema.fields:
        setattr(cls, each.name, each)
    for kind in (ObjectDoesNotExist, MultipleObjectsReturned, NotUpdated):
        name = "DoesNotExist" if kind is ObjectDoesNotExist else kind.__name__
        own = {"__module__": cls.__module__, "__qualname__": f"{cls.__qualname__}.{name}"}
        setattr(cls, name, type(name, (kind,), own))
    cls.__schema__ = schema
    cls.__table__ = schema.table
    cls.__declarations__ = {}
    cls.__construct__ = make_init(schema)
    if not any("__init__" in vars(parent) for parent in cls.__mro__[: cls.__mro__.index(Model)]):
        cls.__init__ = cls.__construct__


def snake_case(name: str) -> str:
    """`HTTPLogEntry` as `http_log_entry`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


_TAKEN = frozenset(name for name in dir(Model) if not name.startswith("__")) - {"id"}
