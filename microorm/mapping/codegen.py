"""Generates the inner loops of reading and writing for the fields of one model.

The source contains indexes, and names that were checked to be identifiers. Values are passed in the namespace, never as
text. `function.__source__` is the source of a generated function.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import lru_cache
from types import CodeType
from typing import Any

from sqlalchemy.sql import ClauseElement

from microorm.errors import InvalidValue
from microorm.fields.checks import InvalidFieldValue
from microorm.fields.field import Field
from microorm.fields.operands import check

Row = tuple[Any, ...]
_STORED_INLINE = sys.version_info < (3, 13)
"""Whether CPython stores attributes without a dictionary in an instance that has slots as well."""
Gather = Callable[[Sequence[Any], Any], "list[Row] | None"]


class ExpressionRow(tuple[Any, ...]):
    """A row with SQL expressions among its values, which a compiled statement cannot take."""

    __slots__ = ()


def compiled(name: str, source: str, namespace: dict[str, Any]) -> Any:
    """Execute *source* and return the function *name* that it defines."""
    exec(_code(name, source), namespace)
    function = namespace[name]
    function.__source__ = source
    return function


@lru_cache(maxsize=512)
def _code(name: str, source: str) -> CodeType:
    """Compile *source* once for all models whose fields look the same."""
    return compile(source, f"<microorm {name}>", "exec")


def collector(
    label: str, fields: Sequence[Field[Any]], *, validate: bool = False
) -> Callable[[dict[str, Any]], Row]:
    """Generate a function from the values of an instance to a checked row; see `clean_all`."""

    def clean(values: dict[str, Any]) -> Row:
        return clean_all(label, fields, values, validate=validate)

    def validated(row: Row) -> Row:
        return validate_row(label, fields, row)

    if not fields:
        return lambda values: ()
    namespace: dict[str, Any] = {"clean": clean, "validated": validated}
    reads, conditions = _checks(fields, namespace)
    row = f"({_variables(fields)})"
    if validate and any(field.validators for field in fields):
        row = f"validated({row})"
    source = "\n".join(
        [
            "def collect(values):",
            "    try:",
            *[f"        {read}" for read in reads],
            "    except KeyError:",
            "        return clean(values)",
            f"    if {' and '.join(conditions)}:",
            f"        return {row}",
            "    return clean(values)",
        ]
    )
    collect: Callable[[dict[str, Any]], Row] = compiled("collect", source, namespace)
    return collect


def gatherer(fields: Sequence[Field[Any]], key: str | None) -> Gather:
    """Generate a function from new instances to checked rows.

    It returns None, so that instances are collected one by one, if a value needs cleaning, an instance has another state
    than the one passed, a loaded row, or a value of *key*, which the database generates.
    """
    namespace: dict[str, Any] = {}
    reads, conditions = _checks(fields, namespace)
    if key is not None:
        conditions.insert(0, f"values[{key!r}] is None")
    source = "\n".join(
        [
            "def gather(instances, state):",
            "    rows = []",
            "    append = rows.append",
            "    try:",
            "        for instance in instances:",
            "            if instance._row_state is not state or instance._row is not None:",
            "                return None",
            "            values = instance.__dict__",
            *[f"            {read}" for read in reads],
            f"            if not ({' and '.join(conditions)}):",
            "                return None",
            f"            append(({_variables(fields)}))",
            "    except KeyError:",
            "        return None",
            "    return rows",
        ]
    )
    gather: Gather = compiled("gather", source, namespace)
    return gather


def _checks(fields: Sequence[Field[Any]], namespace: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return the lines that read *fields* from `values`, and the conditions of values that need no cleaning."""
    reads, conditions = [], []
    for index, field in enumerate(fields):
        reads.append(f"v{index} = values[{field.name!r}]")
        names = {name: f"{name}_{index}" for name in field.check.names}
        namespace.update({names[name]: thing for name, thing in field.check.names.items()})
        condition = field.check.condition.format(v=f"v{index}", **names)
        if field.nullable or field.generated:
            condition = f"v{index} is None or ({condition})"
        conditions.append(f"({condition})")
    return reads, conditions


def _variables(fields: Sequence[Field[Any]]) -> str:
    return "".join(f"v{index}, " for index in range(len(fields)))


def clean_all(
    label: str, fields: Sequence[Field[Any]], values: dict[str, Any], *, validate: bool = False
) -> Row:
    """Check *values* field by field and return the row; *validate*: they are written, so validators are called, too.

    `InvalidValue` names every invalid field.
    """
    row: list[Any] = []
    invalid: dict[str, InvalidValue] = {}
    expressions = False
    for field in fields:
        value = values.get(field.name)
        if isinstance(value, ClauseElement):
            expressions = True
            try:
                check(value, field)
                value = field.stored(value)
            except InvalidValue as error:
                if error.model != label:
                    raise
                invalid[field.name] = error
        elif value is not None or not field.generated:
            try:
                value = field.clean(value)
                if validate:
                    field.validated(value)
            except InvalidFieldValue as error:
                invalid[field.name] = field.invalid(error)
        row.append(value)
    _refuse(label, invalid)
    return ExpressionRow(row) if expressions else tuple(row)


def validate_row(label: str, fields: Sequence[Field[Any]], row: Row) -> Row:
    """Call the validators of *fields* with the values of *row*, which are checked, and return it.

    `InvalidValue` names every invalid field.
    """
    invalid: dict[str, InvalidValue] = {}
    for field, value in zip(fields, row, strict=True):
        if field.validators:
            try:
                field.validated(value)
            except InvalidFieldValue as error:
                invalid[field.name] = field.invalid(error)
    _refuse(label, invalid)
    return row


def _refuse(label: str, invalid: dict[str, InvalidValue]) -> None:
    """Raise one `InvalidValue` for all of *invalid*, if there are any."""
    if invalid:
        problems = {name: text for each in invalid.values() for name, text in each.problems.items()}
        errors = {name: text for each in invalid.values() for name, text in each.errors.items()}
        raise InvalidValue(label, problems, errors)


def binder(
    order: Sequence[tuple[int, str, Callable[[Any], Any] | None]], *, positional: bool, width: int
) -> Callable[[Row], Any] | None:
    """Generate a function from a row to the parameters of a statement; None if they are the row itself.

    *order*: for each parameter, its index in the row, its name and its bind processor.
    """
    if positional and [(index, process) for index, _, process in order] == [(i, None) for i in range(width)]:
        return None
    namespace: dict[str, Any] = {}
    parts = []
    for position, (index, name, process) in enumerate(order):
        part = f"row[{index}]"
        if process is not None:
            namespace[f"p{position}"] = process
            part = f"p{position}({part})"
        parts.append(f"{part}, " if positional else f"{name!r}: {part}, ")
    body = "".join(parts)
    source = f"def bind(row):\n    return {'(' + body + ')' if positional else '{' + body + '}'}"
    bind: Callable[[Row], Any] = compiled("bind", source, namespace)
    return bind


def builder(
    cls: type,
    fields: Sequence[Field[Any]],
    decoders: Sequence[Callable[[Any], Any] | None],
    *,
    raw: bool,
    explained: Callable[[Exception, Row], Exception] | None = None,
) -> Callable[[Sequence[Row], Any], list[Any]]:
    """Generate a function from rows and a row state to instances of *cls*, which keep their rows as loaded values.

    *raw*: the rows are the driver's and are decoded here; the values of mutable fields are copied into the kept row,
    unless they are decoded from it. Otherwise the rows are SQLAlchemy's, with decoded values. *explained*: called with an
    error and the row that caused it, and returns the error to raise.
    """
    namespace: dict[str, Any] = {
        "cls": cls,
        "new": object.__new__,
        "deepcopy": deepcopy,
        "explained": explained,
    }
    loop = _build_loop(cls, fields, decoders, namespace, raw=raw)
    if explained is not None:
        loop = ["try:", *[f"    {line}" for line in loop]]
        loop += ["except Exception as error:", "    raise explained(error, row) from error"]
    source = "\n".join(
        [
            "def build(rows, state):",
            "    instances = []",
            "    append = instances.append",
            *[f"    {line}" for line in loop],
            "    return instances",
        ]
    )
    build: Callable[[Sequence[Row], Any], list[Any]] = compiled("build", source, namespace)
    return build


def _build_loop(
    cls: type,
    fields: Sequence[Field[Any]],
    decoders: Sequence[Callable[[Any], Any] | None],
    namespace: dict[str, Any],
    *,
    raw: bool,
) -> list[str]:
    """Return the lines that make an instance of each row, and add what they use to *namespace*."""
    # A row of SQLAlchemy refers to its result, so a plain tuple is kept instead.
    values, keeps, copies = [], [], not raw
    for index, (field, decode) in enumerate(zip(fields, decoders, strict=True)):
        keep = value = f"v{index}"
        if raw and decode is not None:
            namespace[f"d{index}"] = decode
            value = f"d{index}({value})"
        elif field.mutable:
            keep, copies = f"deepcopy({value})", True
        values.append((field.name, value))
        keeps.append(keep)
    setter: Any = cls.__setattr__
    if setter is object.__setattr__ and _STORED_INLINE:  # stored inline by CPython, without a dictionary
        given = [f"instance.{name} = {value}" for name, value in values]
    else:
        given = [f"instance.__dict__ = {{{', '.join(f'{name!r}: {value}' for name, value in values)}}}"]
    return [
        "for row in rows:",
        f"    {_variables(fields)}= row",
        "    instance = new(cls)",
        *[f"    {line}" for line in given],
        f"    instance._row = {'(' + ', '.join(keeps) + ',)' if copies else 'row'}",
        "    instance._row_state, instance._related = state, None",
        "    append(instance)",
    ]
