"""Model: the base class of all models. It delegates: saves, deletes and queries are in rooms of their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, dataclass_transform, overload

from sqlalchemy import ColumnElement, Table
from sqlalchemy.sql import ClauseElement
from typing_extensions import TypeVar

from microorm.db.aio.twins import twin
from microorm.db.context import EXPLICIT, Scope
from microorm.errors import (
    FieldError,
    MultipleObjectsReturned,
    NotUpdated,
    ObjectDoesNotExist,
    StaleUpdate,
    nearest,
)
from microorm.fields.field import field
from microorm.fields.version import version_field
from microorm.mapping.annotation import annotation
from microorm.mapping.declarations import Declaration
from microorm.mapping.definition import LazySchema, LazyTable, Options, define
from microorm.mapping.foreign_key import foreign_key
from microorm.mapping.pickling import picklable, unpickle
from microorm.mapping.schema import Schema
from microorm.mapping.state import RowState, State, changes, described
from microorm.persistence.delete import delete
from microorm.persistence.refresh import load_deferred, load_replaced, refresh, refuse_lazy_changes
from microorm.persistence.save import save
from microorm.query.joins import load_related
from microorm.query.objects import Objects
from microorm.query.prefetch import prefetch
from microorm.query.query import Query
from microorm.registry import Registry
from microorm.relations.many_to_many import many_to_many
from microorm.relations.reverse import related
from microorm.serialization import from_dict, to_dict

K = TypeVar("K", default=int)
M = TypeVar("M", bound="Model[Any]")


class PrimaryKey:
    """The implicit key `id`, for type checkers; in a model that has this key, a field takes its place."""

    if TYPE_CHECKING:

        @overload
        def __get__(self, instance: None, owner: type[Model[K]]) -> ColumnElement[K]: ...
        @overload
        def __get__(self, instance: Model[K], owner: Any) -> K: ...
        def __get__(self, instance: Any, owner: Any) -> Any: ...
        def __set__(self, instance: Model[K], value: K) -> None: ...

    else:

        def __get__(self, instance, owner):
            pending = owner.__dict__.get("__schema__") is None and not owner.__options__.abstract
            if pending and "id" in owner.__schema__.by_name:
                return owner.__schema__.by_name["id"].column
            raise AttributeError(f"{owner.__name__} has no field 'id'")


@dataclass_transform(
    kw_only_default=True,
    field_specifiers=(field, version_field, foreign_key, related, many_to_many, annotation),
)
class Model(Generic[K]):
    """The base class of models: an instance is one row of a table. Annotate its fields with `Field[...]`.

    Without a field that has `primary_key=True` the key is `id`: a big integer that the database makes, or a UUID that
    microorm makes for `Model[UUID]`.

    The constructor takes the values of the fields by their names, as in `Book(title="Dune")`. It raises `TypeError` for
    an unknown name (*kwargs*), a missing or a positional one (*args*), and for an abstract model.
    """

    __slots__ = ("__dict__", "__weakref__", "_related", "_row", "_row_state")

    _row_state: RowState
    _row: tuple[Any, ...] | None
    _related: dict[str, Any] | None  # see `mapping.state.keep_related`

    if TYPE_CHECKING:
        __schema__: ClassVar[Schema]
        __table__: ClassVar[Table]
        DoesNotExist: ClassVar[type[ObjectDoesNotExist]]
        MultipleObjectsReturned: ClassVar[type[MultipleObjectsReturned]]
        NotUpdated: ClassVar[type[NotUpdated]]
        StaleUpdate: ClassVar[type[StaleUpdate]]
    else:
        __schema__ = LazySchema()
        __table__ = LazyTable()
        DoesNotExist = ObjectDoesNotExist
        MultipleObjectsReturned = MultipleObjectsReturned
        NotUpdated = NotUpdated
        StaleUpdate = StaleUpdate

    __options__: ClassVar[Options] = Options([], {"abstract": True}, "Model")
    __declarations__: ClassVar[dict[str, Declaration]] = {}

    id = PrimaryKey()
    objects = Objects(Query)
    _all_rows = Objects(Query)  # without a default filter

    if TYPE_CHECKING:

        def __init_subclass__(
            cls,
            *,
            table: str | None = None,
            database: str | None = None,
            abstract: bool = False,
            app: str | None = None,
            table_args: tuple[Any, ...] | None = None,
            natural_key: tuple[str, ...] | None = None,
            registry: Registry | None = None,
            managed: bool | None = None,
            read_only: bool | None = None,
        ) -> None: ...

    else:

        def __init_subclass__(cls, **given):
            super().__init_subclass__()
            define(cls, Model, {name: value for name, value in given.items() if value is not None})

        def __init__(self, /, *args, **kwargs):
            if type(self).__options__.abstract:
                raise TypeError(f"{type(self).__name__} is abstract and has no instances")
            _ = type(self).__schema__  # resolves the names that its annotations were waiting for
            type(self).__construct__(self, *args, **kwargs)

    @property
    def pk(self) -> Any:
        """The value of the primary key, a tuple if it is composite; None if the instance has no key yet."""
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
        """The names of the fields that differ from what was loaded or saved; all fields of a new instance."""
        return frozenset(self.changes())

    def changes(self) -> dict[str, tuple[Any, Any]]:
        """Return `{name: (old, new)}` of the changed fields, with keys for relations; in `post_save`, what was saved.

        Loads the old values of deferred fields that were assigned.
        """
        schema = self.__schema__
        if self._row_state.partial:
            refuse_lazy_changes(self)
            load_replaced(self)
        found = changes(self, schema.names, schema.foreign_keys)
        return {schema.reported[name]: pair for name, pair in found.items()}

    def save(
        self,
        *,
        using: str | None = None,
        update_fields: Iterable[str | ColumnElement[Any]] | None = None,
        raw: bool = False,
        force_insert: bool = False,
        force_update: bool = False,
    ) -> Self:
        """Write the row, all or nothing, and send `pre_save` and `post_save`. Returns the instance.

        `book = Book(title="Dune").save()` inserts, and `book.save(update_fields=["title"])` writes one field.

        *using*: the alias to write to; by default the routing decides. *update_fields*: write only these fields, named
        or as columns; an empty list writes nothing. *raw*: write the values as they are, without `on_update` and
        without a look at related instances. *force_insert*, *force_update*: send only this statement. Without them,
        a new instance without a key is inserted; for any other an UPDATE is sent and, if no row has the key, an INSERT.
        A save to the row that an instance with deferred fields came from does not write these fields, and its
        `update_fields` are the others. A save to any other row loads them first.

        Raises `TypeError` and `ValueError` for wrong arguments, `FieldError` for an unknown field, `UnsavedError` for
        an update without a key and for a related instance without one, `InvalidValue` for values that do not fit,
        `CrossDatabaseRelation`, `Model.NotUpdated` if a forced UPDATE finds no row, `Model.StaleUpdate` if another save has
        changed or deleted a row with a version since it was read, `Model.DoesNotExist` if the row of
        deferred fields is gone, `TransactionError` in a block that is doomed, read-only or of another task, and the
        errors of the database. After an error nothing is written, and the instance is as it was. An open block is
        doomed if a receiver or SQL had run.
        """
        save(self, using, update_fields, raw, force_insert, force_update)
        return self

    def delete(self, *, using: str | None = None) -> tuple[int, dict[str, int]]:
        """Delete the row, all or nothing, and send `pre_delete` and `post_delete`.

        *using*: the alias to delete from; by default the routing decides. Returns the number of deleted rows, in total
        and by label. A key that the database made is None afterwards. Raises `UnsavedError` for an instance without a
        key, `Model.StaleUpdate` if the row has another version than was read, `RestrictedError`, `TransactionError`, and the
        errors of the database.
        """
        return delete(self, using=using)

    def refresh_from_db(
        self, *, using: str | None = None, fields: Iterable[str | ColumnElement[Any]] | None = None
    ) -> None:
        """Load the values of *fields* from the row again, as in `book.refresh_from_db(fields=["price"])`; by default all.

        Deferred fields stay so unless they are named.

        *using*: the alias to read from; by default the one that the instance came from. Raises `UnsavedError` for an
        instance without a key, `FieldError`, and `Model.DoesNotExist` if the row is gone. The instance is then as it was.
        """
        refresh(self, using, fields)

    def to_dict(self, fields: Iterable[str | ColumnElement[Any]] | None = None) -> dict[str, Any]:
        """Return the values of *fields* as JSON can hold them; by default of all that are loaded, the key too.

        A date is ISO 8601, a `Decimal` its digits as text, a `timedelta` microseconds, `bytes` base64, a member of an `Enum`
        its value, a foreign key the key under its own name, such as `author_id`. *fields*: names or columns; a deferred one
        is loaded. Raises `FieldError` for an unknown field, and `InvalidValue` for a value that does not fit its field.
        """
        return to_dict(self, fields)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, allow: Iterable[str | ColumnElement[Any]]) -> Self:
        """Return a new instance, which is not saved, of *data* as `to_dict` returns it.

        *allow*: the fields that *data* may set, as names or columns; there is no default, and the key is one of them only
        where it is named. Fields that *data* does not have get their defaults.

        Raises `FieldError` for any other field in *data*, whether or not the model has it, and `InvalidValue` for values that
        do not fit and for missing ones, all at once.
        """
        made: Self = from_dict(cls.__schema__, data, allow)
        return made

    def _load(self, name: str | ColumnElement[Any], /) -> Any:
        """Load the attribute *name*, a relation or a deferred field, if it is not loaded, and return it.

        *name* may be a column. This works inside `no_lazy_loads()`, too. Raises `FieldError` for another name, and what the database raises.
        """
        schema = self.__schema__
        if not isinstance(name, str):
            name = schema.field(name).name
        if name not in schema.relations and name not in schema.by_name:
            raise FieldError(f"{schema.name} has no field or relation {name!r}{nearest(name, schema.names)}")
        scope = Scope(EXPLICIT, None, "")
        scope.open()
        try:
            value = getattr(self, name)
        finally:
            scope.close()
        if isinstance(value, Query):
            prefetch([self], name)
        return value

    if TYPE_CHECKING:  # a twin cannot return `Self`

        async def asave(
            self,
            *,
            using: str | None = None,
            update_fields: Iterable[str | ColumnElement[Any]] | None = None,
            raw: bool = False,
            force_insert: bool = False,
            force_update: bool = False,
        ) -> Self: ...

    else:
        asave = twin(save)

    achanges = twin(changes)
    adelete = twin(delete)
    ato_dict = twin(to_dict)
    arefresh_from_db = twin(refresh_from_db)
    aload = twin(_load)

    def _follow(self, relation: Any, key: Any) -> Any:
        return load_related(self, relation, key)

    def _load_deferred(self, name: str) -> Any:
        return load_deferred(self, name)

    def __repr__(self) -> str:
        return described(self)

    def _in_messages(self) -> str:
        return described(self, self.__schema__.key_names)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if type(self) is not type(other) or not isinstance(other, Model):
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
        twin._row, twin._row_state = self._row, self._row_state.of_copy()
        twin._related = None if self._related is None else dict(self._related)
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        twin = self.__copy__()
        memo[id(self)] = twin
        # An expression never changes, and a copy of its columns would be of another table.
        values = {n: v for n, v in self.__dict__.items() if not isinstance(v, ClauseElement)}
        twin.__dict__.update(deepcopy(values, memo))
        twin._related = deepcopy(self._related, memo)
        return twin

    def __getstate__(self) -> dict[str, Any]:
        return picklable(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        unpickle(self, state)
