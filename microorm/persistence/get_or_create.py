"""Get or create: return the row with the given values, or insert one, while other processes do the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy.exc import IntegrityError

from microorm.errors import AfterCommitError, FieldError
from microorm.mapping.schema import Schema
from microorm.messages import brief
from microorm.sql.batches import MAX_PARAMETERS


def get_or_create(query: Any, defaults: Mapping[str, Any] | None, asked: dict[str, Any]) -> tuple[Any, bool]:
    """Return the one row of *query* with the values *asked*, or insert one with these values and *defaults*.

    Raises `TypeError` for a field that is both in *asked* and in *defaults*: the next call would not find such a row.
    """
    schema: Schema = query._schema
    given = _mapping(schema, "defaults", defaults)
    for name in sorted(_names(schema, asked) & _names(schema, given)):
        raise TypeError(f"{schema.name}.{schema.reported[name]} is asked for, and defaults= has it, too")
    _refuse_computed(schema, asked, given)
    wanted = _wanted(query, asked)
    if (found := wanted.one_or_none()) is not None:
        return found, False
    try:
        return _create(query, wanted._using, asked, given), True
    except AfterCommitError:
        raise  # of the class of a function's error, which may be an IntegrityError, too
    except IntegrityError:
        if (found := _latest(wanted)) is None:
            raise
        return found, False


def update_or_create(
    query: Any,
    defaults: Mapping[str, Any] | None,
    create_defaults: Mapping[str, Any] | None,
    asked: dict[str, Any],
) -> tuple[Any, bool]:
    """Save *defaults* in the one row of *query* with the values *asked*, or insert a row.

    A new row has the values *asked* and *create_defaults*, or *defaults* where no *create_defaults* are given. A field
    may be in both: a row is found by the value in *asked*, and has the default afterwards.
    """
    schema: Schema = query._schema
    given = _mapping(schema, "defaults", defaults)
    new = given if create_defaults is None else _mapping(schema, "create_defaults", create_defaults)
    replaced = _names(schema, new)
    for name in given:
        if name == "pk" or schema.field(name).primary_key:
            raise FieldError(f"{schema.name}.{name} is the primary key, which an update does not change")
    _refuse_computed(schema, asked, given, new)
    wanted = _wanted(query, asked)
    asked = _without(schema, asked, replaced)
    # MariaDB locks the gap of a missing row: two transactions that lock it and then insert would wait for each other.
    there = _locks_rows_only(wanted) or wanted.one_or_none() is not None
    if there and (found := _update(query, wanted, given)) is not None:
        return found, False
    try:
        return _create(query, wanted._using, asked, new), True
    except AfterCommitError:
        raise  # of the class of a function's error, which may be an IntegrityError, too
    except IntegrityError:
        if (found := _update(query, wanted, given)) is None:
            raise
        return found, False


def _mapping(schema: Schema, argument: str, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Copy *given*, the value of *argument*.

    Raises `TypeError` unless it is a mapping or None, `UnsavedError` for an instance without a key.
    """
    if given is not None and not isinstance(given, Mapping):
        raise TypeError(f"{argument}= must be a dictionary of values, not {brief(given)}")
    values = dict(given or {})
    for foreign_key in schema.foreign_keys:
        foreign_key.key_of(values.get(foreign_key.name))
    return values


def _names(schema: Schema, values: Mapping[str, Any]) -> set[str]:
    """Return the names of the fields that *values* sets. Raises `FieldError` for an unknown name."""
    names = {schema.field(name).name for name in values if name != "pk"}
    return names.union(schema.key_names) if "pk" in values else names


def _refuse_computed(schema: Schema, asked: Mapping[str, Any], *given: Mapping[str, Any]) -> None:
    """Raise `FieldError` for what a new row would not have: a field that the database computes, and a version in *asked*."""
    for each in (asked, *given):
        schema.refuse_computed(_names(schema, each))
    if schema.version is not None and schema.version.name in _names(schema, asked):
        raise FieldError(
            f"{schema.name}.{schema.version.name} is the version, and a new row begins with its own; "
            "update_or_create() compares one in defaults="
        )


def _without(schema: Schema, asked: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    """Return *asked* without the values of the fields *names*, which a new row takes from elsewhere."""
    values = dict(asked)
    if "pk" in values and not names.isdisjoint(schema.key_names):
        key = values.pop("pk")
        values |= zip(schema.key_names, key if len(schema.key) > 1 else (key,), strict=True)
    return {
        name: value for name, value in values.items() if name == "pk" or schema.field(name).name not in names
    }


def _wanted(query: Any, asked: Mapping[str, Any]) -> Any:
    """Return the rows of *query* with the values *asked*, read from the database that they are written to."""
    wanted = query.filter(**asked)
    return wanted.using(wanted._write_database().alias)


def _values(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return *given* with each function replaced by what it returns."""
    return {name: value() if callable(value) else value for name, value in given.items()}


def _create(query: Any, alias: str, asked: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    """Insert a row in a block of its own on *alias*, so that an `IntegrityError` does not doom the surrounding block.

    Routers are asked about the row as for any other: it may have values that belong elsewhere. An error of a function that
    runs after the commit is an `AfterCommitError`.
    """
    with query._schema.registry.databases.atomic(alias):
        return query.create(**asked, **_values(given))


def _latest(wanted: Any) -> Any:
    """Return the row that made an insert fail, or None.

    A transaction on MariaDB reads the state of when it began, unless it locks the rows.
    """
    database = wanted._write_database()
    transaction = wanted._schema.registry.databases.transaction(database)
    if _locks_rows_only(wanted) or transaction is None:
        return wanted.one_or_none()
    with transaction:
        rows = transaction.fetch(wanted.statement.limit(2).with_for_update(read=True))
    return wanted._one_or_none(wanted._made(rows, database))


def _update(query: Any, wanted: Any, given: Mapping[str, Any]) -> Any:
    """Lock the row *wanted*, save *given* in it, where *query* writes it, and return the instance; None if there is no such row."""
    schema: Schema = wanted._schema
    with schema.registry.databases.atomic(wanted._using):
        instance = wanted.for_update().one_or_none()
        if instance is None:
            return None
        for name, value in _values(given).items():
            setattr(instance, name, value)
        names = {schema.field(name).name for name in given} | {each.name for each in schema.updating}
        instance.save(using=query._using, update_fields=names)
    return instance


def _locks_rows_only(query: Any) -> bool:
    return query._write_database().dialect in MAX_PARAMETERS
