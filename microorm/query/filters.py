"""Checks of the arguments of `filter()` and other methods of a query, before anything becomes SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Boolean, ColumnClause, ColumnElement, Label, and_, select

from microorm.errors import FieldError, InvalidValue
from microorm.fields.field import Field
from microorm.fields.operands import check
from microorm.mapping.codegen import Row, clean_all
from microorm.mapping.path import Path, column_at, exists_along, follow, paths_in, refuse_foreign, root
from microorm.mapping.schema import Schema
from microorm.messages import brief
from microorm.query.aggregates import has_window, per_row
from microorm.sql.cache_key import CacheableExpressions, cacheable
from microorm.sql.long_lists import has_long_list, with_long_lists

Where = tuple[ColumnElement[bool], ...]
Equal = tuple[tuple[str, ...], Row]

NO_EQUAL: Equal = ((), ())
NO_PATHS: frozenset[Path] = frozenset()


class Annotated(NamedTuple):
    """An expression that a query annotates its rows with."""

    name: str
    given: Any  # the expression as it was given
    column: Label[Any]
    paths: frozenset[Path]  # to be joined for it


class Conditions(NamedTuple):
    """What one call of `filter` or `exclude` asks for."""

    where: Where
    equal: Equal  # names of fields, and the value that each must have
    paths: frozenset[Path]  # to be joined for *where*
    instances: tuple[Any, ...]  # that relations were compared with
    windows: bool = False  # whether *where* contains window functions


def conditions(
    schema: Schema, method: str, expressions: tuple[Any, ...], equalities: dict[str, Any]
) -> Conditions:
    """Check the arguments of *method*: SQL expressions, and values by the names of fields and relations.

    All conditions on paths to many rows are tested on the same combination of these rows, by one EXISTS. Raises what
    `Selection.filter` raises.
    """
    where = cacheable(schema, expressions)
    equal = plain_equalities(schema, equalities) if equalities else NO_EQUAL
    instances: list[Any]
    if isinstance(where, CacheableExpressions) and not (where.paths and _many(where.paths)):
        if equal is not None:
            return Conditions(where, equal, where.paths, where.instances)
        given = [(each, where.paths) for each in where]
        instances = list(where.instances)
    else:
        instances = []
        given = [_bound_lists(schema, method, each, instances) for each in expressions]
    if equal is None:
        equal = _equalities(schema, method, equalities, given, instances)
    windows = any(has_window(each) for each, _ in given)
    if windows and (path := next((p for e, paths in given if has_window(e) for p in paths if p._many), None)):
        raise FieldError(
            f"{method}(): a window function is of rows of {schema.name}, and {path!r} leads to many"
        )
    where, paths = _joined_or_exists(schema, given)
    return Conditions(cacheable(schema, where), equal, paths, tuple(instances), windows)


def plain_equalities(schema: Schema, equalities: dict[str, Any]) -> Equal | None:
    """Return names and checked values of *equalities*; None unless all are fields, or `pk` alone, with plain values."""
    names = tuple(equalities)
    collect = schema.collectors.get(names)
    if collect is None:
        if names == ("pk",):
            names, key = schema.key_names, equalities["pk"]
            if len(names) == 1:
                equalities = {names[0]: key}
            elif isinstance(key, tuple) and len(key) == len(names):
                equalities = dict(zip(names, key, strict=True))
        if not schema.by_name.keys() >= equalities.keys():
            return None
        collect = schema.collectors.get(names) or schema.collector(names)
    try:
        row = collect(equalities)
    except InvalidValue:
        return None
    if row.__class__ is not tuple:
        return None
    for value in row:  # `None in row` would compare values of any type
        if value is None:
            return None
    return names, row


def _equalities(
    schema: Schema,
    method: str,
    equalities: Mapping[str, Any],
    given: list[tuple[Any, frozenset[Path]]],
    instances: list[Any],
) -> Equal:
    """Return names and values of fields; add other conditions to *given*, and instances to *instances*."""
    equal: list[tuple[str, Any]] = []
    for name, value in equalities.items():
        relation = schema.relations.get(name)
        if relation is not None and value is not None and not isinstance(value, ColumnElement):
            key = relation.key_of(value)
            if isinstance(value, relation.target):
                instances.append(value)
                key = value.pk if relation.steps[-1].reverse else key
            value = key
        if relation is not None and not relation.is_foreign_key:
            compared = _leads_to(follow(root(schema), relation), relation, value)
            given.append((compared, expression(schema, method, compared, instances=instances)))
            continue
        for field, wanted in key_values(schema, value) if name == "pk" else [(schema.field(name), value)]:
            if hasattr(type(wanted), "__schema__"):
                instances.append(wanted)
            if wanted is None:
                given.append((field.column.is_(None), NO_PATHS))
            elif isinstance(wanted, ColumnElement):
                given.append(
                    (field.column == wanted, expression(schema, method, wanted, instances=instances))
                )
            else:
                equal.append((field.name, field.comparable(wanted)))
    return tuple(name for name, _ in equal), tuple(value for _, value in equal)


def _leads_to(end: Path, relation: Any, value: Any) -> ColumnElement[bool]:
    """Return the condition that the row at the *end* of *relation* has the key *value*; None: that there is no row."""
    there = end._schema
    fields = there.key if relation.steps[-1].reverse else (relation.key_field,)
    if value is None:
        return column_at(end, fields[0]).is_(None)
    parts = key_values(there, value) if len(fields) > 1 else [(fields[0], value)]
    return and_(
        *[
            column_at(end, field) == (part if isinstance(part, ColumnElement) else field.comparable(part))
            for field, part in parts
        ]
    )


def _joined_or_exists(
    schema: Schema, given: Sequence[tuple[Any, frozenset[Path]]]
) -> tuple[Where, frozenset[Path]]:
    """Return the conditions *given* and the paths to be joined; those on paths to many rows become one EXISTS."""
    if not any(paths for _, paths in given):
        return tuple([condition for condition, _ in given]), NO_PATHS
    where = [condition for condition, paths in given if not _many(paths)]
    joined: frozenset[Path] = frozenset().union(*(paths for _, paths in given if not _many(paths)))
    if together := [each for each in given if _many(each[1])]:
        paths = frozenset().union(*(paths for _, paths in together))
        where.append(exists_along(schema, and_(*[condition for condition, _ in together]), paths))
    return tuple(where), joined


def _many(paths: frozenset[Path]) -> bool:
    return any(path._many for path in paths)


def _bound_lists(
    schema: Schema,
    method: str,
    given: Any,
    instances: list[Any] | None = None,
    known: Mapping[Any, Any] | None = None,
) -> tuple[Any, frozenset[Path]]:
    """Return *given* with each long list of values as one parameter, and the paths that it uses, as `expression` does.

    Aggregates along paths to many rows become sub-selects.
    """
    lists: list[Any] = []
    paths = expression(schema, method, given, lists, instances)
    if any(map(has_long_list, lists)):
        given = with_long_lists(given)
    if _many(paths):
        given = per_row(schema, method, given, known)
        paths = paths_in(schema, given)
    return given, paths


def expression(
    schema: Schema,
    method: str,
    given: Any,
    lists: list[Any] | None = None,
    instances: list[Any] | None = None,
) -> frozenset[Path]:
    """Return the paths that *given* to *method* uses; add its lists of values to *lists*, its instances to *instances*.

    Raises `TypeError` and `FieldError`.
    """
    if not isinstance(given, ColumnElement):
        raise TypeError(
            f"{method}() takes column expressions, not {brief(given)}{_instead_of(schema, method, given)}"
        )
    paths = paths_in(schema, given, lists)
    used = check(given)
    if instances is not None:
        instances += used
    return paths


def _instead_of(schema: Schema, method: str, given: Any) -> str:
    """Return what to write instead of *given*, which is no condition, as the end of a message."""
    if method not in ("filter", "exclude", "get"):
        return ""
    if isinstance(given, Path):
        names = given._label.partition(".")[2]
        return f"; compare a column, or write {names}=…" if "." not in names else "; compare a column of it"
    if isinstance(given, str):
        return f"; compare it, {schema.name}.{given} == …" if given in schema.by_name else ""
    key = given.pk if isinstance(given, schema.model) else given
    like_a_key = len(schema.key) == 1 and type(key) is schema.key[0].python_type
    if key is not None and (isinstance(given, schema.model) or like_a_key):
        return f"; the row with this key is found by pk={brief(key)}"
    return ""


def columns(
    schema: Schema,
    method: str,
    given: Sequence[Any],
    instances: list[Any] | None = None,
    annotated: Sequence[Annotated] = (),
) -> tuple[list[Any], frozenset[Path]]:
    """Return the columns for *given* expressions or names of fields, and the paths to be joined for them.

    The names of *annotated* expressions are known, too. The instances that the expressions use are added to *instances*. A
    condition on a path to many rows is whether one of these rows fulfils it. Raises as `expression` does, and `FieldError`
    for any other column of a path to many rows, whose join would repeat rows.
    """
    found: list[Any] = []
    needed: frozenset[Path] = frozenset()
    named = {each.name: each for each in annotated}
    known = {each.given: each.column for each in annotated}
    for each in given:
        paths: frozenset[Path] = frozenset()
        if not isinstance(each, str):
            column, paths = _bound_lists(schema, method, each, instances, known)
        elif each in named:
            column, paths = named[each].column, named[each].paths
        else:
            column = schema.field(each).column
        if many := [path for path in paths if path._many]:
            if not _is_condition(column) or method in _PER_GROUP:
                raise FieldError(
                    f"{method}(): {many[0]!r} leads to many rows of {many[0]._schema.name}; aggregate them, as in "
                    "func.count(…)"
                )
            column, paths = exists_along(schema, column, paths), NO_PATHS
        found.append(column)
        needed |= paths
    return found, needed


_PER_GROUP = ("aggregate", "having")


def _is_condition(expression: Any) -> bool:
    """Return whether *expression* is a condition, and not a column of truth values."""
    return isinstance(expression.type, Boolean) and not isinstance(expression, (ColumnClause, Label))


def own_names(schema: Schema, method: str, given: Sequence[Any]) -> frozenset[str]:
    """Return the names of the fields for *given* names and columns of the model itself.

    Raises `FieldError` for anything else, a column of a related row included.
    """
    for each in given:
        if isinstance(each, Path):
            raise FieldError(
                f"{method}() takes fields of {schema.name}; {brief(each)} is a path to other rows"
            )
        path = schema.registry.paths.get(getattr(each, "table", None))
        if path is not None:
            raise FieldError(
                f"{method}() takes fields of {schema.name}; {each.key!r} is a column of {path!r}"
            )
    return frozenset(schema.field(each).name for each in given)


def non_negative(what: str, count: Any) -> int:
    """Return *count*. `TypeError` for anything but an int, `ValueError` for a negative one."""
    if type(count) is not int:
        raise TypeError(f"{what} takes an int, not {brief(count)}")
    if count < 0:
        raise ValueError(f"{what} cannot be negative, not {count}")
    return count


def window(offset: int, limit: int | None, part: slice) -> tuple[int, int | None]:
    """Return offset and limit of a slice of a query that has *offset* and *limit*. Raises `ValueError`."""
    if part.step is not None:
        raise ValueError("a slice of a query cannot have a step")
    start = 0 if part.start is None else non_negative("a slice", part.start)
    left = None if limit is None else max(limit - start, 0)
    if part.stop is not None:
        wanted = max(non_negative("a slice", part.stop) - start, 0)
        left = wanted if left is None else min(wanted, left)
    return offset + start, left


def described(schema: Schema, where: Where, equal: Equal) -> str:
    """Return the conditions as text on one line, for the message of an error."""
    shown = [f"{name}={brief(value)}" for name, value in zip(*equal, strict=True)] + [
        _with_values(schema, each) for each in where
    ]
    return f" with {', '.join(shown)}" if shown else ""


def _with_values(schema: Schema, condition: ColumnElement[bool]) -> str:
    # In a SELECT of the table, so that a sub-select refers to its row.
    compiled = select(schema.table).where(condition).compile()
    text = " ".join(str(compiled).partition("WHERE ")[2].split())
    return f"{text} ({brief(compiled.params)})" if compiled.params else text


def key_values(schema: Schema, value: Any) -> list[tuple[Field[Any], Any]]:
    """Return the fields of the key, each with its value. Raises `InvalidValue` for a wrong composite key."""
    if len(schema.key) == 1:
        return [(schema.key[0], value)]
    if not isinstance(value, tuple) or len(value) != len(schema.key):
        raise InvalidValue(
            schema.name, {"pk": f"must be a tuple of {', '.join(schema.key_names)}, not {brief(value)}"}
        )
    return list(zip(schema.key, value, strict=True))


def assignments(schema: Schema, values: Mapping[str, Any]) -> dict[Any, Any]:
    """Return `{column: value}` for *values*, checked as by a save; an instance stands for its key.

    Raises `FieldError` for an unknown name, for the key and for a column of another table, `InvalidValue` for
    values that do not fit, `UnsavedError` for an instance without a key, `TypeError` for two values of one field.
    """
    row: dict[str, Any] = {}
    for name, value in values.items():
        field = schema.field(name)
        if field.name in row:
            raise TypeError(f"update() got two values for {schema.name}.{schema.reported[field.name]}")
        if field.primary_key:
            raise FieldError(
                f"{schema.name}.{field.name} is the primary key, which an update does not change"
            )
        if field.computed:
            raise FieldError(f"{schema.name}.{field.name} is computed by the database")
        if field.version is not None:
            raise FieldError(f"{schema.name}.{field.name} is the version, which each update increments")
        if isinstance(value, ColumnElement):
            if _many(paths_in(schema, value)):
                value = per_row(schema, "update", value)
            refuse_foreign(schema, value)
        elif name in schema.relations and value is not None:
            value = schema.relations[name].key_of(value)
        row[field.name] = value
    fields = [schema.by_name[name] for name in row]
    checked = clean_all(schema.name, fields, row, validate=True)
    return {field.column: value for field, value in zip(fields, checked, strict=True)}
