"""`Query`: reading, and writing the rows that fulfil conditions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from sqlalchemy import ColumnElement
from sqlalchemy import delete as sql_delete
from sqlalchemy import update as sql_update
from sqlalchemy.sql import ClauseElement

from microorm.db.aio.twins import twin
from microorm.db.engines.engine import Database
from microorm.instrumentation import DELETE
from microorm.mapping.constructor import create_instance
from microorm.messages import brief
from microorm.persistence.collector import has_receivers, referred_to
from microorm.persistence.delete import counts, delete_found
from microorm.persistence.steps import as_step
from microorm.persistence.versions import increments
from microorm.query.filters import assignments, key_values
from microorm.query.objects import Begun
from microorm.sql.batches import check_batch_size, check_instances
from microorm.sql.statements import assigned

if TYPE_CHECKING:
    from microorm.sql.upsert import OnConflict

M = TypeVar("M", bound="Any")


class Query(Begun[M]):
    """The rows of a model that fulfil conditions. A query is immutable and lazy.

    Methods such as `filter` return a new query; `all`, `get`, `first`, iteration and the like run it. It reads from the alias
    given by `using()`, by default from where the read is routed at that moment.

    Derive from it for methods of your own, which `as_objects()` gives to a model.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "_shown" not in vars(cls):
            cls._shown = cls.__name__

    def create(self, /, **values: Any) -> M:
        """Make an instance of *values*, which may include the key, and insert it.

        Raises what a save raises, `TypeError` for a missing or unknown field and for two values of the key,
        `CrossDatabaseRelation` for an instance of another alias.
        """
        schema = self._schema
        if "pk" in values:
            for field, value in key_values(schema, values.pop("pk")):
                if values.setdefault(field.name, value) is not value:
                    raise TypeError(f"create() got two values for {schema.name}.{field.name}")
        instance: M = create_instance(schema, values)
        database = self._write_database(instances=[instance])
        self._refuse_relating(values, database)
        instance.save(using=database.alias, force_insert=True)
        return instance

    def get_or_create(
        self, /, defaults: Mapping[str, Any] | None = None, **equalities: Any
    ) -> tuple[M, bool]:
        """Return the one row with these *equalities*, or a new one that also has *defaults*; and whether it is new.

        Functions in *defaults* are called when a row is made. Of several programs at once, one makes the row and the others
        get it, if the values are unique together in the database; no block around is doomed by that. Reads from where it
        would write. Raises `TypeError` for a field that is also in *defaults*, `FieldError`,
        `Model.MultipleObjectsReturned`, what a save raises, and `IntegrityError` for a conflict with another row.
        """
        from microorm.persistence.get_or_create import get_or_create  # noqa: PLC0415 not every program needs it

        self._refuse_sliced("get_or_create")
        return get_or_create(self, defaults, equalities)

    def update_or_create(
        self,
        /,
        defaults: Mapping[str, Any] | None = None,
        create_defaults: Mapping[str, Any] | None = None,
        **equalities: Any,
    ) -> tuple[M, bool]:
        """Return the one row with these *equalities*, updated with *defaults*, or a new one; and whether it is new.

        A new row has *create_defaults*, by default *defaults*; both may have a field of the lookup, too:
        `update_or_create(name="a", defaults={"name": "b"})` renames. An existing row is locked, if the database can do
        that, and saved with `update_fields`: those of *defaults* and those with `on_update`. For the rest see
        `get_or_create`.
        """
        from microorm.persistence.get_or_create import update_or_create  # noqa: PLC0415 not every program needs it

        self._refuse_sliced("update_or_create")
        return update_or_create(self, defaults, create_defaults, equalities)

    def bulk_create(
        self,
        objects: Iterable[M],
        *,
        batch_size: int | None = None,
        on_conflict: OnConflict | None = None,
        unique_fields: Iterable[str | ColumnElement[Any]] | None = None,
        update_fields: Iterable[str | ColumnElement[Any]] | None = None,
        progress: Callable[[int, int], object] | None = None,
        signals: Literal["batch", "each"] = "batch",
    ) -> list[M]:
        """Insert all of *objects* or none, in few statements, and set their keys and state; return them as a list.

        A statement has as many rows as the database allows, at most *batch_size*. After each, `progress(done, total)` is
        called. *signals*: `"batch"` sends `pre_bulk_create` and `post_bulk_create` once; `"each"` sends `pre_save` for each
        object before the first statement, and `post_save` after the last.

        *on_conflict* says what happens if a row has the same *unique_fields*. `"ignore"`: that row is left as it is (without
        *unique_fields*: for any unique values), and since it is not known which objects were inserted, all stay unsaved.
        `"update"`: *update_fields* of that row are set (by default all that the object has, except the key and
        *unique_fields*), and the object gets the other values of the row, such as its key. *unique_fields* is by default
        the key, or if that is generated for each row, the other unique fields. A conflict with other unique fields is an
        error on all databases.

        Raises `TypeError` for other models' instances, `ValueError` for an instance given twice, two objects with the same
        unique values for `"update"`, and arguments that cannot be combined, `FieldError`, `InvalidValue` (a note names the
        object), what *progress* raises, and the database's errors. Nothing is written then.
        """
        from microorm.persistence.bulk import BulkOptions, bulk_create  # noqa: PLC0415 not every program needs it
        from microorm.sql.upsert import upsert_of  # noqa: PLC0415 not every program needs it

        upsert = upsert_of(self._schema, on_conflict, unique_fields, update_fields)
        if signals not in ("batch", "each"):
            raise ValueError(f"signals= must be 'batch' or 'each', not {brief(signals)}")
        options = BulkOptions(check_batch_size(batch_size), upsert, each=signals == "each")
        if options.each and upsert is not None:
            raise ValueError("signals='each' cannot be combined with on_conflict=")
        database, objects = self._database_for("bulk_create", objects)
        return bulk_create(self._schema, database, objects, options, progress)

    def bulk_update(
        self,
        objects: Iterable[M],
        fields: Iterable[str | ColumnElement[Any]],
        *,
        batch_size: int | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> int:
        """Write *fields* of all of *objects* to their rows, or of none; return the number of rows.

        An object whose row is gone is not counted and stays as it was; with a version it is a `Model.StaleUpdate`, as is one
        whose row has another version. No signal is sent. *batch_size* and *progress* are as
        in `bulk_create`. Raises `UnsavedError` for an object without a key, `ValueError` for two objects of one row
        and for one whose save would go to another alias (`using()` names the alias to write to), `TypeError` for other models' instances and on a query with conditions, `FieldError`, `InvalidValue` (a note names
        the object), what *progress* raises, and the database's errors. Nothing is written then.
        """
        from microorm.persistence.update import bulk_update  # noqa: PLC0415 not every program needs it

        if self._limited or self._has_conditions:
            raise TypeError(
                "bulk_update() finds rows by their keys; the query cannot have conditions or a limit"
            )
        database, objects = self._database_for("bulk_update", objects)
        return bulk_update(
            self._schema,
            database,
            objects,
            fields,
            using=self._using,
            batch_size=check_batch_size(batch_size),
            progress=progress,
        )

    def update(self, /, **values: Any) -> int:
        """Set *values*, which may be expressions, in all rows of the query; return the number of rows.

        Example: `Book.objects.filter(Book.price < 5).update(price=Book.price + 1)`.

        Sends `pre_update` and `post_update`, but not the signals of saves. Raises `FieldError`, `InvalidValue`,
        `UnsavedError` and `CrossDatabaseRelation` for instances that cannot be related, and `TypeError` for two values of
        one field and for a sliced query.
        """
        from microorm.persistence.update import update_found  # noqa: PLC0415 not every program needs it

        schema = self._schema
        self._refuse_sliced("update")
        columns = assignments(schema, values)
        if not columns:
            raise TypeError("update() needs at least one value")
        statement = self._targeted(sql_update(schema.table).values(assigned(columns | increments(schema))))
        fields = {schema.field(name): value for name, value in values.items()}
        database = self._write_database(changes={field.name: value for field, value in fields.items()})
        self._refuse_relating(values, database)
        told = {schema.reported[field.name]: value for field, value in fields.items()}
        expressions = [field.name for field in fields if isinstance(columns[field.column], ClauseElement)]
        return update_found(schema, database, statement, self, told, tuple(expressions))

    @as_step(DELETE)
    def delete(self) -> tuple[int, dict[str, int]]:
        """Delete all rows of the query, and what `on_delete` of foreign keys says, all or nothing.

        Takes one statement if the signals have no receivers and no table refers to the model. Returns the number of rows,
        and the numbers by label. Raises `TypeError` for a sliced or grouped query, `RestrictedError` where rows that are
        not deleted refer to these.
        """
        schema = self._schema
        self._refuse_sliced("delete")
        database, databases = self._write_database(), schema.registry.databases
        if has_receivers(schema) or referred_to(schema):
            rows = self._with(_lock=None, _related=(), _prefetched=(), _annotated=(), _using=database.alias)
            return delete_found(schema, database, lambda names: rows._with(_names=names).all(), self)
        statement = self._targeted(sql_delete(schema.table))
        with databases.channel(database, writes=True) as channel:
            total = int(channel.execute(statement).rowcount)
        return counts(schema, total)

    acreate = twin(create)
    aget_or_create = twin(get_or_create)
    aupdate_or_create = twin(update_or_create)
    abulk_create = twin(bulk_create)
    abulk_update = twin(bulk_update)
    aupdate = twin(update)
    adelete = twin(delete)

    def _database_for(self, method: str, objects: Iterable[M]) -> tuple[Database, Iterable[M]]:
        """Return the database that *method* writes *objects* to, and the objects: a list, if routers were shown them."""
        if not self._schema.registry.databases.routers:
            return self._write_database(), objects
        instances = check_instances(self._schema, method, objects)
        return self._write_database(instances=instances), instances

    def _refuse_relating(self, values: Mapping[str, Any], database: Database) -> None:
        """Raise `CrossDatabaseRelation` if a row in *database* would refer to an instance of another alias."""
        relations = self._schema.relations
        for name, value in values.items():
            if name in relations and isinstance(value, relations[name].target):
                self._refuse_elsewhere(value, database)

    def _refuse_sliced(self, method: str) -> None:
        self._refuse_grouped(method)
        if self._limited:
            raise TypeError(f"{method}() cannot be used on a query that is limited or distinct")
