"""Conditions: what the arguments of a query say, checked before anything reaches SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement

from microorm.codegen import admit_all
from microorm.errors import FieldError, InvalidValue
from microorm.expressions import refuse_foreign
from microorm.fields import Field
from microorm.schema import Schema
from microorm.values import Refused, encodable

Where = tuple[ColumnElement[bool], ...]
Equal = tuple[tuple[str, Any], ...]


def conditions(
    schema: Schema, method: str, expressions: Sequence[Any], equalities: Mapping[str, Any]
) -> tuple[Where, Equal]:
    """The expressions, and the names with the values that they must have, that *method* was given.

    Raises `TypeError` for what is no expression, `FieldError` for an unknown name and for a column of another
    table, `InvalidValue` for a value that the field cannot have.
    """
    where = [expression(schema, method, each) for each in expressions]
    equal: list[tuple[str, Any]] = []
    for name, value in equalities.items():
        pairs = key_values(schema, value) if name == "pk" else [(schema.field(name), value)]
        for field, wanted in pairs:
            if wanted is None:
                where.append(field.column.is_(None))
            elif isinstance(wanted, ColumnElement):
                where.append(field.column == expression(schema, method, wanted))
            else:
                equal.append((field.name, _comparable(schema, field, wanted)))
    return tuple(where), tuple(equal)


def expression(schema: Schema, method: str, given: Any) -> Any:
    """*given*, which *method* got. `TypeError` where it is no SQL expression; a string never becomes one.

    `FieldError` where it has a column of another table.
    """
    if not isinstance(given, ColumnElement):
        raise TypeError(f"{method}() wants column expressions, not {given!r}")
    refuse_foreign(schema.name, schema.table, given)
    return given


def natural(what: str, count: Any) -> int:
    """*count*, an int from 0. `TypeError` and `ValueError` for anything else."""
    if type(count) is not int:
        raise TypeError(f"{what} wants an int, not {count!r}")
    if count < 0:
        raise ValueError(f"{what} wants no negative number, not {count}")
    return count


def window(offset: int, limit: int | None, part: slice) -> tuple[int, int | None]:
    """Offset and limit of *part* of what *offset* and *limit* leave. `ValueError` for a step and for negatives."""
    if part.step is not None:
        raise ValueError("a query is sliced without a step")
    start = 0 if part.start is None else natural("a slice", part.start)
    left = None if limit is None else max(limit - start, 0)
    if part.stop is not None:
        wanted = max(natural("a slice", part.stop) - start, 0)
        left = wanted if left is None else min(wanted, left)
    return offset + start, left


def asked(where: Where, equal: Equal) -> str:
    """What a query asked for, for the message of one that found too little or too much."""
    shown = [f"{name}={value!r}" for name, value in equal] + [_with_values(each) for each in where]
    return f" with {', '.join(shown)}" if shown else ""


def _with_values(condition: ColumnElement[bool]) -> str:
    compiled = condition.compile()
    return f"{compiled} ({compiled.params!r})" if compiled.params else str(compiled)


def key_values(schema: Schema, value: Any) -> list[tuple[Field[Any], Any]]:
    """The fields of the key, each with its part of *value*, a tuple where the key is composite.

    Raises `InvalidValue`.
    """
    if len(schema.key) == 1:
        return [(schema.key[0], value)]
    if not isinstance(value, tuple) or len(value) != len(schema.key):
        raise InvalidValue(
            schema.name, {"pk": f"wants a tuple of {', '.join(schema.key_names)}, not {value!r}"}
        )
    return list(zip(schema.key, value, strict=True))


def assignments(schema: Schema, values: Mapping[str, Any]) -> dict[Any, Any]:
    """`{column: value}` of *values*, checked as a save checks them.

    Raises `FieldError` for an unknown name, for the key and for a column of another table, `InvalidValue` for
    values that do not fit.
    """
    fields = [schema.field(name) for name in values]
    for field in fields:
        if field.primary_key:
            raise FieldError(
                f"{schema.name}.{field.name} is the primary key, which an update does not change"
            )
    for value in values.values():
        if isinstance(value, ColumnElement):
            refuse_foreign(schema.name, schema.table, value)
    row = admit_all(schema.name, fields, dict(values))
    return {field.column: value for field, value in zip(fields, row, strict=True)}


def _comparable(schema: Schema, field: Field[Any], value: Any) -> Any:
    """*value* as the column compares it; a text that is too long is no error, it just equals nothing."""
    try:
        return field.admit(value)
    except Refused as refused:
        if isinstance(value, (str, bytes)) and isinstance(value, field.python_type) and not _unfit(value):
            return value
        raise InvalidValue(schema.name, {field.name: str(refused)}) from None


def _unfit(value: str | bytes) -> bool:
    if isinstance(value, bytes):
        return False
    return "\0" in value or not encodable(value)
