"""The `Table` of a model: its columns and constraints, and names that no database can have, or has already."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

from sqlalchemy import ForeignKeyConstraint, MetaData, Table, UniqueConstraint
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.schema import SchemaItem, conv

from microorm.errors import ModelError
from microorm.fields.field import Field
from microorm.messages import brief

_NAMES = "microorm_names"  # of indexes and constraints, in the `info` of a MetaData: name → table
TABLE_OPTIONS: Mapping[str, Any] = {
    "sqlite_autoincrement": True,
    "mysql_charset": "utf8mb4",
    "mariadb_charset": "utf8mb4",
}


def make_table(model: Any, name: str, metadata: MetaData, fields: list[Field[Any]]) -> Table:
    """Add the table of *model* to *metadata*. Raises `ModelError` for names and options that no table can have."""
    columns = [each.column for each in fields]
    _refuse_unquotable(model.__name__, "table", name)
    known: dict[str, str] = {}
    for each in fields:
        _refuse_unquotable(each.label, "column", each.column.name)
        # Column names, and some table names, are case-insensitive on SQLite and MariaDB.
        if (other := known.setdefault(each.column.name.lower(), each.name)) is not each.name:
            raise ModelError(
                f"{model.__name__}: {other} and {each.name} have the same column, {each.column.name!r}"
            )
    if name.lower() in (table.lower() for table in metadata.tables):
        raise ModelError(f"{model.__name__}: another model has the table {name!r}")
    constraints = [constraint for each in fields for constraint in each.constraints()]
    items: list[SchemaItem] = []
    options: dict[str, Any] = {}
    for item in model.__options__.table_args:
        if isinstance(item, Mapping):
            options.update(item)
        elif isinstance(item, SchemaItem):
            # A constraint can be in one table only, and an abstract base passes it on to several.
            items.append(deepcopy(item))
        else:
            raise ModelError(
                f"{model.__name__}: table_args= must contain constraints and indexes, not {brief(item)}"
            )
    try:
        table = Table(name, metadata, *columns, *constraints, *items, **options)
    except (SQLAlchemyError, TypeError) as error:
        raise ModelError(f"{model.__name__}: invalid table {name!r}: {error}") from error
    _refuse_taken_names(model, table)
    lazy = {option: value for option, value in TABLE_OPTIONS.items() if option not in options}
    vars(table)["dialect_options"] = LazyDialectOptions(table.dialect_options, lazy)
    return table


def _refuse_taken_names(model: Any, table: Table) -> None:
    """Raise `ModelError` if an index or constraint of *table* has the name of another table's, and note the names.

    A database has one of a name; an abstract model gives the same to several tables. Names that are made from
    those of table and columns are not refused.
    """
    tables, known = table.metadata.tables, table.metadata.info.setdefault(_NAMES, {})
    named = _named(table)
    for key, given in named.items():
        owner = known.get(key)
        taken = (
            None
            if owner is None or owner == table.key or owner not in tables
            else _named(tables[owner]).get(key)
        )
        if taken is not None and (given or taken):
            table.metadata.remove(table)
            raise ModelError(
                f"{model.__name__}: the table {brief(owner)} has {key[1]} named {key[2]!r}, too; leave out the name, "
                "which is then made from the table and its columns, or give each model its own"
            )
    known.update(dict.fromkeys(named, table.key))


def _named(table: Table) -> dict[tuple[str | None, str, str], bool]:
    """Return the names of the indexes and keys of *table* that a database has once, and whether they were given."""
    items: list[tuple[str, Any]] = [("an index or constraint", index) for index in table.indexes]
    for constraint in table.constraints:
        if isinstance(constraint, UniqueConstraint):
            items.append(("an index or constraint", constraint))
        elif isinstance(constraint, ForeignKeyConstraint):
            items.append(("a foreign key", constraint))
    return {
        (table.schema, kind, item.name.lower()): not isinstance(item.name, conv)
        for kind, item in items
        if item.name
    }


def _refuse_unquotable(label: str, what: str, name: str) -> None:
    """Raise `ModelError` if *name* is not a valid quoted identifier on every database."""
    # Parameters are named after columns, and SQLAlchemy ends such a name at white space.
    for each in name:
        control = each < " " or "\x7f" <= each <= "\x9f" or "\ud800" <= each <= "\udfff"
        if control or (each.isspace() and each != " "):
            raise ModelError(
                f"{label}: the name of the {what}, {name!r}, contains the character {brief(each)}"
            )


class LazyDialectOptions(Mapping[str, Any]):
    """The `dialect_options` of a table: *known*, and *lazy* options that are set when their dialect is looked up.

    SQLAlchemy imports a dialect to validate its options, which takes 20 ms; a program needs one dialect or none.
    """

    def __init__(self, known: Mapping[str, Any], lazy: Mapping[str, Any]) -> None:
        self._known = known
        self._lazy = lazy
        self._complete: dict[str, Any] = {}

    def __getitem__(self, dialect: str) -> Any:
        if dialect not in self._complete:
            options = self._complete[dialect] = self._known[dialect]
            for name, value in self._lazy.items():
                if name.startswith(f"{dialect}_"):
                    options[name.removeprefix(f"{dialect}_")] = value
        return self._complete[dialect]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._known, *(name.split("_")[0] for name in self._lazy)]))

    def __len__(self) -> int:
        return sum(1 for _ in self)
