"""Code generation: the inner loops of reading and writing, written out for one model's fields.

Source is made of positions and of names that were checked to be identifiers; values enter through the
namespace, never as text. `function.__source__` keeps the text, for whoever wants to read it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

from sqlalchemy.sql import ClauseElement

from microorm.errors import InvalidValue
from microorm.fields.checks import Refused
from microorm.fields.field import Field

Row = tuple[Any, ...]
Gather = Callable[[Sequence[Any], Any], "list[Row] | None"]


class ExpressionRow(tuple[Any, ...]):
    """A row in which some values are SQL expressions, which no prepared statement can take."""

    __slots__ = ()


def compiled(name: str, source: str, namespace: dict[str, Any]) -> Any:
    """The function *name* that *source* defines."""
    exec(compile(source, f"<microorm {name}>", "exec"), namespace)
    function = namespace[name]
    function.__source__ = source
    return function


def collector(label: str, fields: Sequence[Field[Any]]) -> Callable[[dict[str, Any]], Row]:
    """A function that takes an instance's values and gives the row to write, checked.

    It raises `InvalidValue`, naming every bad field. A row with SQL expressions is an `ExpressionRow`.
    """

    def careful(values: dict[str, Any]) -> Row:
        return admit_all(label, fields, values)

    if not fields:
        return lambda values: ()
    namespace: dict[str, Any] = {"careful": careful}
    reads, conditions = _checks(fields, namespace)
    source = "\n".join(
        [
            "def collect(values):",
            "    try:",
            *[f"        {read}" for read in reads],
            "    except KeyError:",
            "        return careful(values)",
            f"    if {' and '.join(conditions)}:",
            f"        return ({_places(fields)})",
            "    return careful(values)",
        ]
    )
    collect: Callable[[dict[str, Any]], Row] = compiled("collect", source, namespace)
    return collect


def gatherer(fields: Sequence[Field[Any]], key: str | None) -> Gather:
    """A function that takes new instances and gives their rows, checked, as a collector of *fields* would.

    None where one is out of the ordinary: a value is not taken as it stands, the origin is another than the one
    given, there is a loaded row, or a *key*, which the database is to make.
    """
    namespace: dict[str, Any] = {}
    reads, conditions = _checks(fields, namespace)
    if key is not None:
        conditions.insert(0, f"values[{key!r}] is None")
    source = "\n".join(
        [
            "def gather(instances, origin):",
            "    rows = []",
            "    append = rows.append",
            "    try:",
            "        for instance in instances:",
            "            if instance._origin is not origin or instance._row is not None:",
            "                return None",
            "            values = instance.__dict__",
            *[f"            {read}" for read in reads],
            f"            if not ({' and '.join(conditions)}):",
            "                return None",
            f"            append(({_places(fields)}))",
            "    except KeyError:",
            "        return None",
            "    return rows",
        ]
    )
    gather: Gather = compiled("gather", source, namespace)
    return gather


def _checks(fields: Sequence[Field[Any]], namespace: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Lines that read *fields* out of `values`, and the conditions of what is taken as it stands."""
    reads, conditions = [], []
    for place, field in enumerate(fields):
        reads.append(f"v{place} = values[{field.name!r}]")
        names = {name: f"{name}_{place}" for name in field.check.names}
        namespace.update({names[name]: thing for name, thing in field.check.names.items()})
        condition = field.check.condition.format(v=f"v{place}", **names)
        if field.nullable or field.generated:
            condition = f"v{place} is None or ({condition})"
        conditions.append(f"({condition})")
    return reads, conditions


def _places(fields: Sequence[Field[Any]]) -> str:
    return "".join(f"v{place}, " for place in range(len(fields)))


def admit_all(label: str, fields: Sequence[Field[Any]], values: dict[str, Any]) -> Row:
    """The row of *fields* from *values*, field by field. `InvalidValue` names every bad one."""
    row: list[Any] = []
    problems: dict[str, str] = {}
    expressions = False
    for field in fields:
        value = values.get(field.name)
        if isinstance(value, ClauseElement):
            value, expressions = field.stored(value), True
        elif value is not None or not field.generated:
            try:
                value = field.admit(value)
            except Refused as refused:
                problems[field.name] = str(refused)
        row.append(value)
    if problems:
        raise InvalidValue(label, problems)
    return ExpressionRow(row) if expressions else tuple(row)


def binder(
    order: Sequence[tuple[int, str, Callable[[Any], Any] | None]], *, positional: bool, width: int
) -> Callable[[Row], Any] | None:
    """A function from a row to the parameters of a statement; None where the row is that already.

    *order*: for each parameter its place in the row, its name, and its processor.
    """
    if positional and [(place, process) for place, _, process in order] == [(i, None) for i in range(width)]:
        return None
    namespace: dict[str, Any] = {}
    parts = []
    for index, (place, name, process) in enumerate(order):
        part = f"row[{place}]"
        if process is not None:
            namespace[f"p{index}"] = process
            part = f"p{index}({part})"
        parts.append(f"{part}, " if positional else f"{name!r}: {part}, ")
    body = "".join(parts)
    source = f"def bind(row):\n    return {'(' + body + ')' if positional else '{' + body + '}'}"
    bind: Callable[[Row], Any] = compiled("bind", source, namespace)
    return bind


def builder(
    cls: type, fields: Sequence[Field[Any]], decoders: Sequence[Callable[[Any], Any] | None], *, raw: bool
) -> Callable[[Sequence[Row], Any], list[Any]]:
    """A function from rows and an origin to instances of *cls*; each keeps its row as what was loaded.

    *raw*: the rows are the driver's, to be decoded; a value that can change in place and is not decoded anew
    is copied into the kept row. Else they are SQLAlchemy's, decoded already.
    """
    namespace: dict[str, Any] = {"cls": cls, "new": object.__new__, "deepcopy": deepcopy}
    # SQLAlchemy's row is an object with baggage; what is kept is a plain tuple.
    values, keeps, copies = [], [], not raw
    for place, (field, decode) in enumerate(zip(fields, decoders, strict=True)):
        keep = value = f"v{place}"
        if raw and decode is not None:
            namespace[f"d{place}"] = decode
            value = f"d{place}({value})"
        elif field.mutable:
            keep, copies = f"deepcopy({value})", True
        values.append((field.name, value))
        keeps.append(keep)
    setter: Any = cls.__setattr__
    if setter is object.__setattr__:  # which CPython keeps without a dictionary
        given = [f"        instance.{name} = {value}" for name, value in values]
    else:
        given = [
            f"        instance.__dict__ = {{{', '.join(f'{name!r}: {value}' for name, value in values)}}}"
        ]
    places = "".join(f"v{place}, " for place in range(len(fields)))
    source = "\n".join(
        [
            "def build(rows, origin):",
            "    instances = []",
            "    append = instances.append",
            "    for row in rows:",
            f"        {places}= row",
            "        instance = new(cls)",
            *given,
            f"        instance._row = {'(' + ', '.join(keeps) + ',)' if copies else 'row'}",
            "        instance._origin = origin",
            "        append(instance)",
            "    return instances",
        ]
    )
    build: Callable[[Sequence[Row], Any], list[Any]] = compiled("build", source, namespace)
    return build
