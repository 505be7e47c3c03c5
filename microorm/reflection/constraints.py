"""Constraints: foreign keys, indexes and CHECKs as the source of `table_args=` and of options."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from microorm.reflection.names import quoted
from microorm.reflection.tables import Index, Key, Table

_ACTIONS = {"CASCADE": "cascade", "SET NULL": "set_null", "SET DEFAULT": "do_nothing"}
_PARAMETER = re.compile(r"(?<![:\w\\]):(?=\w)")
_CONDITIONS = ("sqlite_where", "postgresql_where")


def escaped(sql: str) -> str:
    """Return *sql* for `sa.text`, in which a colon would begin a parameter."""
    return _PARAMETER.sub(r"\:", sql)


def on_delete(key: Key, *, nullable: bool) -> str:
    """Return what microorm does to a row when the row that it refers to is deleted: the same as the database."""
    action = _ACTIONS.get(str(key.options.get("ondelete", "")).upper(), "restrict")
    return "do_nothing" if action == "set_null" and not nullable else action


def constraint_options(key: Key) -> str:
    """Return the options of the constraint in the database as the source of a dict; nothing if it has none."""
    return (
        f"{{{', '.join(f'{quoted(name)}: {quoted(value)}' for name, value in key.options.items())}}}"
        if key.options
        else ""
    )


def table_arguments(
    table: Table,
    indexes: Collection[Index],
    keys: Collection[Key],
    known: Collection[str],
    shared: Collection[str],
) -> list[str]:
    """Return the items of `table_args=`: what no option of a field says.

    *known* are the tables that have a model. Index names in *shared* are used by several tables.
    """
    arguments = [_index(each, shared) for each in indexes]
    arguments += [_key(each) for each in keys if each.schema is None and each.table in known]
    prefix = f"ck_{table.name}_"
    for name, condition in sorted(table.checks.items()):
        short = name.removeprefix(prefix)
        shown = quoted(short) if name == f"{prefix}{short}" and short else f"conv({quoted(name)})"
        arguments.append(f"sa.CheckConstraint({quoted(escaped(condition))}, name={shown})")
    if table.comment:
        arguments.append(f'{{"comment": {quoted(table.comment)}}}')
    return arguments


def _index(index: Index, shared: Collection[str]) -> str:
    name = None if index.name is None else quoted(index.name)
    if name is not None and str(index.name).lower() in shared:
        name = f"conv({name})"
    options = {option: _option(option, value) for option, value in index.options.items()}
    if index.constraint:
        options |= {} if name is None else {"name": name}
        columns = [quoted(each) for each in index.columns]
        return f"sa.UniqueConstraint({', '.join([*columns, *_pairs(options)])})"
    expressions = index.expressions or tuple(str(each) for each in index.columns)
    columns = [
        f"sa.text({quoted(escaped(expression))})" if column is None else index.sorted_column(column)
        for column, expression in zip(index.columns, expressions, strict=True)
    ]
    options = {**({"unique": "True"} if index.unique else {}), **options}
    return f"sa.Index({', '.join([str(name), *columns, *_pairs(options)])})"


def _option(name: str, value: Any) -> str:
    if name in _CONDITIONS:
        return f"sa.text({quoted(escaped(str(value)))})"
    return quoted(value)


def _pairs(options: dict[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in options.items()]


def _key(key: Key) -> str:
    near = f"[{', '.join(map(quoted, key.columns))}]"
    far = f"[{', '.join(quoted(f'{key.table}.{each}') for each in key.referred)}]"
    options = {name: quoted(value) for name, value in key.options.items()}
    if key.name is not None:
        options["name"] = quoted(key.name)
    return f"sa.ForeignKeyConstraint({', '.join([near, far, *_pairs(options)])})"
