"""Query: how to read rows as instances, and how to write those that a condition names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from sqlalchemy import ColumnElement
from sqlalchemy import delete as sql_delete
from sqlalchemy import update as sql_update

from microorm.db.engine import Database
from microorm.mapping.constructor import create_instance
from microorm.persistence.collector import has_receivers, referred_to
from microorm.persistence.delete import counts, delete_found
from microorm.query.filters import assignments, key_values
from microorm.query.results import Results
from microorm.sql.batches import check_batch_size

if TYPE_CHECKING:
    from microorm.sql.upsert import OnConflict

M = TypeVar("M", bound="Any")


class Query(Results[M]):
    """The rows of a model that fulfil conditions, in an order: immutable, lazy, sent by its ends.

    Each method returns a new query; `all`, `get`, `first`, iteration and their like send it. It reads from the
    alias that `using()` says, else where the routing goes at that moment.
    """

    def create(self, /, **values: Any) -> M:
        """Make an instance of *values*, which may set the key, and insert it. Raises what a save raises.

        `TypeError` for a field that is missing or unknown, and for two values of the key; `CrossDatabaseRelation` for
        an instance of another alias.
        """
        schema = self._schema
        if "pk" in values:
            for field, value in key_values(schema, values.pop("pk")):
                if values.setdefault(field.name, value) is not value:
                    raise TypeError(f"create() has two values for {schema.name}.{field.name}")
        instance = create_instance(schema, values)
        database = self._write_database()
        self._refuse_relating(values, database)
        saved: M = instance.save(using=database.alias, force_insert=True)
        return saved

    def get_or_create(
        self, /, defaults: Mapping[str, Any] | None = None, **equalities: Any
    ) -> tuple[M, bool]:
        """The one row with these values, or else a new one that has *defaults*, too; and whether it is new.

        A function in *defaults* is called where a row is made. Of many that ask at once one makes the row and the
        others get it, as long as the values are unique together in the database; no block around is doomed by that.
        Reads where it would write. Raises `TypeError` for a field both asked for and in *defaults*, `FieldError`,
        `Model.MultipleObjectsReturned`, what a save raises, and `IntegrityError` where another row is in the way.
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
        """The one row with these values, in which *defaults* are saved, or else a new one; and whether it is new.

        The new one has *create_defaults*, or *defaults* where none are given; they may have a field that is asked for,
        too: `update_or_create(name="a", defaults={"name": "b"})` renames. A row that is there is locked where the
        database can, and saved with `update_fields`: those of *defaults* and those with `on_update`. The rest is as
        `get_or_create` says.
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
        """Insert all of *objects* or none, in few statements; they get their keys and their state.

        One statement has as many rows as the database takes, and no more than *batch_size*. After each
        `progress(done, total)` is called. *signals*: `pre_bulk_create` and `post_bulk_create` for all, or
        `"each"`: in their place `pre_save` of every object before the first statement, `post_save` after the last.

        *on_conflict*, where a row has the values of *unique_fields* already: with `"ignore"` it stays as it is
        (without *unique_fields*: whatever is unique), and no object tells whether it was inserted: all stay unsaved.
        With `"update"` it takes the values of *update_fields* (else all but the key and *unique_fields*, as far
        as the object has them), and the object the other values of the row, its key above all. *unique_fields* is
        the key, or where that is made for each row, what else is unique. On MariaDB a row that something else
        unique is in the way of is an error, as elsewhere.

        Returns the list. Raises `TypeError` for other models' instances, `ValueError` for one given twice, two of
        the same unique values to update by, and arguments that contradict each other, `FieldError`, `InvalidValue`
        (a note says which object), what *progress* raises, and the database's errors; nothing was written then.
        """
        from microorm.persistence.bulk import BulkOptions, bulk_create  # noqa: PLC0415 not every program needs it
        from microorm.sql.upsert import upsert_of  # noqa: PLC0415 not every program needs it

        upsert = upsert_of(self._schema, on_conflict, unique_fields, update_fields)
        options = BulkOptions(check_batch_size(batch_size), upsert, each=_each(signals))
        if options.each and upsert is not None:
            raise ValueError(
                "signals='each' and on_conflict= contradict each other: nobody knows what was created"
            )
        return bulk_create(self._schema, self._write_database(), objects, options, progress)

    def bulk_update(
        self,
        objects: Iterable[M],
        fields: Iterable[str | ColumnElement[Any]],
        *,
        batch_size: int | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> int:
        """Write *fields* of all of *objects* to their rows, or of none; returns how many rows there were.

        An object whose row is gone is not counted and stays as it was. No signal is sent: no row was saved alone,
        and no query and values say what was done. *batch_size* and *progress* are as in `bulk_create`. Raises
        `UnsavedError` for an object without a key, `ValueError` for two of one row, `TypeError` for other models'
        instances and on a query with conditions, `FieldError`, `InvalidValue` (a note says which object), what
        *progress* raises, and the database's errors; nothing was written then.
        """
        from microorm.persistence.update import bulk_update  # noqa: PLC0415 not every program needs it

        if self._limited or self._conditions():
            raise TypeError(
                "bulk_update() knows its rows by their keys, and this query has conditions or a limit"
            )
        return bulk_update(
            self._schema,
            self._write_database(),
            objects,
            fields,
            batch_size=check_batch_size(batch_size),
            progress=progress,
        )

    def update(self, /, **values: Any) -> int:
        """Set *values*, which may be expressions, in every row of the query; returns how many there were.

        `pre_update` and `post_update` are sent, the signals of single saves are not. Raises `FieldError`,
        `InvalidValue`, `UnsavedError` and `CrossDatabaseRelation` for instances that cannot be related, and `TypeError`
        for two values of one field and where the query is sliced.
        """
        from microorm.persistence.update import update_found  # noqa: PLC0415 not every program needs it

        schema = self._schema
        self._refuse_sliced("update")
        columns = assignments(schema, values)
        if not columns:
            raise TypeError("update() wants at least one value")
        statement = self._targeted(sql_update(schema.table).values(columns))
        database = self._write_database()
        self._refuse_relating(values, database)
        told = {schema.reported[schema.field(name).name]: value for name, value in values.items()}
        return update_found(schema, database, statement, self, told)

    def delete(self) -> tuple[int, dict[str, int]]:
        """Delete every row of the query, and what goes along with it as the foreign keys say; all or nothing.

        One statement does it where nobody listens to the signals and no table refers to the model. Returns the number
        of rows, and by label. Raises `TypeError` where the query is sliced or grouped, `RestrictedError` where rows
        that stay are in the way.
        """
        schema = self._schema
        self._refuse_sliced("delete")
        database, databases = self._write_database(), schema.registry.databases
        if has_receivers(schema) or referred_to(schema):
            rows = self._with(_lock=None, _related=(), _prefetched=(), _using=database.alias)
            return delete_found(schema, database, lambda names: rows._with(_names=names).all(), self)
        statement = self._targeted(sql_delete(schema.table))
        with databases.channel(database, writes=True) as channel:
            total = int(channel.execute(statement).rowcount)
        return counts(schema, total)

    def _refuse_relating(self, values: Mapping[str, Any], database: Database) -> None:
        """Raise `CrossDatabaseRelation` where a row in *database* would refer to an instance of another alias."""
        relations = self._schema.relations
        for name, value in values.items():
            if name in relations and isinstance(value, relations[name].target):
                self._refuse_elsewhere(value, database)

    def _refuse_sliced(self, method: str) -> None:
        self._refuse_grouped(method)
        if self._limited:
            raise TypeError(f"{method}() is for whole queries, and this one is limited or distinct")


def _each(signals: Any) -> bool:
    if signals not in ("batch", "each"):
        raise ValueError(f"signals= is 'batch' or 'each', not {signals!r}")
    return bool(signals == "each")
