"""Creating: the row that is there, or else a new one, whoever else asks for it at the same time (CONTRACT H16, H19)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy.exc import IntegrityError

from microorm.errors import FieldError
from microorm.mapping.schema import Schema
from microorm.sql.batches import MOST_PARAMETERS


def get_or_create(query: Any, defaults: Mapping[str, Any] | None, asked: dict[str, Any]) -> tuple[Any, bool]:
    """The one row of *query* that has the values *asked*, or a new one that has them and *defaults*."""
    given = _checked(query._schema, "defaults", defaults, asked)
    query = _pinned(query)
    wanted = query.filter(**asked)
    if (found := wanted.one_or_none()) is not None:
        return found, False
    try:
        return _create(query, asked, given), True
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
    """The one row of *query* that has the values *asked*, with *defaults* saved in it, or a new one.

    The new one has the values *asked* and *create_defaults*, or *defaults* where there are none.
    """
    schema: Schema = query._schema
    given = _checked(schema, "defaults", defaults, asked)
    for name in given:
        if name == "pk" or schema.field(name).primary_key:
            raise FieldError(f"{schema.name}.{name} is the primary key, which an update does not change")
    new = given if create_defaults is None else _checked(schema, "create_defaults", create_defaults, asked)
    query = _pinned(query)
    wanted = query.filter(**asked)
    # MariaDB locks the gap where a row is not: two that look so before they insert wait for each other.
    there = _locks_rows_only(query) or wanted.one_or_none() is not None
    refused: IntegrityError | None = None
    while True:
        if there and (found := _update(wanted, given)) is not None:
            return found, False
        if refused is not None:
            raise refused
        try:
            return _create(query, asked, new), True
        except IntegrityError as error:
            refused, there = error, True


def _checked(
    schema: Schema, argument: str, given: Mapping[str, Any] | None, asked: Mapping[str, Any]
) -> dict[str, Any]:
    """*given* as a dictionary. Raises `TypeError` for what is none and for what is *asked*, too; `FieldError`."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise TypeError(f"{argument}= wants a dictionary of values, not {given!r}")
    taken = {schema.field(name).name for name in asked if name != "pk"}
    taken |= set(schema.key_names) if "pk" in asked else set()
    for name in given:
        names = schema.key_names if name == "pk" else (schema.field(name).name,)
        if both := taken.intersection(names):
            raise TypeError(
                f"{schema.name}.{schema.reported[min(both)]} is asked for, and {argument}= has it, too"
            )
    return dict(given)


def _pinned(query: Any) -> Any:
    """*query* where rows are written, for reading, too (CONTRACT N10)."""
    return query.using(query._write_database().alias)


def _values(given: Mapping[str, Any]) -> dict[str, Any]:
    """*given*, with what functions return in their place."""
    return {name: value() if callable(value) else value for name, value in given.items()}


def _create(query: Any, asked: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    """Insert in a block of its own, so that a refusal dooms none around it."""
    with query._schema.registry.databases.atomic(query._using):
        return query.create(**asked, **_values(given))


def _latest(wanted: Any) -> Any:
    """The row that was in the way of an insert, or None.

    A transaction on MariaDB reads what was there when it began, unless it locks.
    """
    database = wanted._write_database()
    transaction = wanted._schema.registry.databases.transaction(database)
    if _locks_rows_only(wanted) or transaction is None:
        return wanted.one_or_none()
    with transaction:
        rows = transaction.execute(wanted.statement.limit(2).with_for_update(read=True)).fetchall()
    return wanted._one_of(wanted._made(rows, database))


def _update(wanted: Any, given: Mapping[str, Any]) -> Any:
    """Lock the row and save *given* in it; None where there is no row."""
    schema: Schema = wanted._schema
    with schema.registry.databases.atomic(wanted._using):
        instance = wanted.for_update().one_or_none()
        if instance is None:
            return None
        for name, value in _values(given).items():
            setattr(instance, name, value)
        names = {schema.field(name).name for name in given} | {each.name for each in schema.updating}
        instance.save(using=wanted._using, update_fields=names)
    return instance


def _locks_rows_only(query: Any) -> bool:
    return query._write_database().dialect in MOST_PARAMETERS
