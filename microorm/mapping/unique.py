"""Unique fields: which fields of a model identify a row, and its natural key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Column, Index, UniqueConstraint

from microorm.errors import FieldError, ModelError
from microorm.messages import brief

if TYPE_CHECKING:
    from microorm.mapping.schema import Schema


def unique_sets(schema: Schema) -> list[tuple[str, ...]]:
    """Return the names of each set of fields that are unique together, the key first."""
    names = {each.column: each.name for each in schema.fields}
    found = [schema.key_names]
    constraints = sorted(
        (
            each
            for each in (*schema.table.constraints, *schema.table.indexes)
            if isinstance(each, UniqueConstraint) or (isinstance(each, Index) and _whole(each))
        ),
        key=lambda each: [str(column) for column in each.columns],
    )
    for each in constraints:
        together = tuple(names[column] for column in each.columns if column in names)
        if frozenset(together) not in map(frozenset, found):
            found.append(together)
    return found


def _whole(index: Index) -> bool:
    """Return whether *index* makes columns unique in all rows: it is neither partial nor of expressions."""
    partial = any(
        value is not None for name, value in index.dialect_kwargs.items() if name.endswith("_where")
    )
    return bool(index.unique) and not partial and all(isinstance(e, Column) for e in index.expressions)


def natural_key_of(schema: Schema) -> tuple[str, ...]:
    """Return the names of the fields of `natural_key=`; none without that. Raises `ModelError` if they are not unique."""
    given = schema.model.__options__.natural_key
    if given is None:
        return ()
    try:
        names = tuple([schema.field(name).name for name in given])
    except FieldError as error:
        raise ModelError(f"{schema.name}: natural_key= {error}") from None
    known = unique_sets(schema)
    if not any(names) or frozenset(names) not in map(frozenset, known[1:]):
        listed = ", ".join(f"({', '.join(schema.reported[name] for name in names)})" for names in known[1:])
        raise ModelError(
            f"{schema.name}: natural_key={brief(given)} must name fields that are unique together; "
            f"unique besides the key: {listed or 'none, so add unique=True or a UniqueConstraint'}"
        )
    return names
