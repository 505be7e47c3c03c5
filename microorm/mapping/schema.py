"""Schema: a class body, read once into a frozen description and a `Table`.

Options: what a table asks of each dialect, told when a dialect is there to be asked.

Sources: what was generated for a model, as text to read.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, TypeVar, get_args, get_origin
from unicodedata import category

from sqlalchemy import MetaData, Table
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.schema import SchemaItem

from microorm.errors import FieldError, ModelError, nearest
from microorm.fields.field import Field
from microorm.fields.type_map import type_name
from microorm.mapping.codegen import Gather, Row, collector, gatherer
from microorm.mapping.foreign_key import Relation
from microorm.mapping.path import Path
from microorm.mapping.state import Layout

new_uuid: Callable[[], uuid.UUID] = getattr(uuid, "uuid7", uuid.uuid4)

MOST_COLLECTORS = 256
TABLE_OPTIONS: Mapping[str, Any] = {
    "sqlite_autoincrement": True,
    "mysql_charset": "utf8mb4",
    "mariadb_charset": "utf8mb4",
}


@dataclass(frozen=True, slots=True, eq=False)
class Schema:
    """What microorm knows of one model: the frozen description it works from."""

    model: Any
    label: str
    table: Table
    fields: tuple[Field[Any], ...]
    home: str | None
    registry: Any
    names: tuple[str, ...]
    key: tuple[Field[Any], ...]
    server_made: tuple[str, ...]
    updating: tuple[Field[Any], ...]
    layout: Layout
    mutable: bool
    by_name: Mapping[str, Field[Any]]
    plain_names: tuple[str, ...]
    key_names: tuple[str, ...]
    written_names: tuple[str, ...]
    key_has_default: bool
    relations: Mapping[str, Relation]
    foreign_keys: tuple[Any, ...]
    reported: Mapping[str, str]  # the name of each field → the name it is declared by
    paths: dict[str, Any] = field(default_factory=dict)
    sides: dict[str, Any] = field(default_factory=dict)  # what relations of it have found, by their names
    builders: dict[Any, Any] = field(default_factory=dict)
    selects: list[Any] = field(default_factory=list)
    collectors: dict[tuple[str, ...], Callable[[dict[str, Any]], Row]] = field(default_factory=dict)
    gatherers: dict[tuple[str, ...], Gather] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Schema {self.label}: {', '.join(self.names)}>"

    @property
    def generated(self) -> Field[Any] | None:
        """The key that the database makes, if it does."""
        return self.key[0] if self.key[0].generated else None

    @property
    def name(self) -> str:
        """The model's name."""
        name: str = self.model.__name__
        return name

    def field(self, name: Any) -> Field[Any]:
        """The field called *name*, or the one whose column *name* is.

        Raises `FieldError` with the nearest match.
        """
        found = self.by_name.get(name) if isinstance(name, str) else None
        if found is None and isinstance(name, str) and name in self.relations:
            found = getattr(self.relations[name], "field", None)
        if found is None and not isinstance(name, Path) and getattr(name, "table", None) is self.table:
            found = next((each for each in self.fields if each.column is name), None)
        if found is None:
            shown = repr(name) if isinstance(name, str) else str(name)
            raise FieldError(f"{self.name} has no field {shown}{nearest(name, self.reported.values())}")
        return found

    def explain(self) -> str:
        """What was generated for the model so far, to be read: the sources of functions, and the SQL by alias."""
        return explain(self)

    def reported_names(self, names: Iterable[str]) -> frozenset[str]:
        """The *names* of fields as they are declared: `author`, not `author_id` (CONTRACT H5)."""
        return frozenset(self.reported[name] for name in names)

    def collector(self, names: tuple[str, ...]) -> Callable[[dict[str, Any]], Row]:
        """The function that takes *names* from an instance's values, checked."""
        collect = self.collectors.get(names)
        if collect is None:
            if len(self.collectors) >= MOST_COLLECTORS:  # orders of names are the caller's
                self.collectors.clear()
            collect = collector(self.name, [self.by_name[name] for name in names])
            self.collectors[names] = collect
        return collect

    def gatherer(self) -> Gather:
        """The function that takes many new instances and gives their rows; the key is left to who makes it."""
        key = None if self.generated is None else self.generated.name
        names = self.written_names if key is None else self.plain_names
        gather = self.gatherers.get(names)
        if gather is None:
            gather = self.gatherers[names] = gatherer([self.by_name[name] for name in names], key)
        return gather


def make_schema(
    model: Any,
    bound: Sequence[Any],
    *,
    label: str,
    table: str,
    home: str | None,
    registry: Any,
    metadata: MetaData,
    table_args: tuple[Any, ...],
) -> Schema:
    """Describe *model* by the fields and relations *bound* to it, and make its table in *metadata*.

    Raises `ModelError`; *metadata* is then as it was.
    """
    relations = {each.name: each for each in bound if isinstance(each, Relation)}
    fields = _columned(bound)
    key = _key_of(model, fields)
    return Schema(
        model=model,
        label=label,
        table=_make_table(model, table, metadata, fields, table_args),
        fields=tuple(fields),
        home=home,
        registry=registry,
        names=tuple(each.name for each in fields),
        key=key,
        server_made=tuple(each.name for each in fields if each.server_made and not each.generated),
        updating=tuple(each for each in fields if each.on_update is not None),
        layout=Layout(tuple(each.name for each in fields)),
        mutable=any(each.mutable for each in fields),
        by_name={each.name: each for each in fields},
        plain_names=tuple(each.name for each in fields if not each.primary_key),
        key_names=tuple(each.name for each in key),
        written_names=tuple(each.name for each in (*(f for f in fields if not f.primary_key), *key)),
        key_has_default=any(each.has_default or each.server_default is not None for each in key),
        relations=relations,
        foreign_keys=tuple(each for each in relations.values() if each.is_foreign_key),
        reported={each.name: each.name if each.relation is None else each.relation.name for each in fields},
    )


def _key_of(model: Any, fields: list[Field[Any]]) -> tuple[Field[Any], ...]:
    """The key among *fields*, of which an implicit one becomes the first."""
    if not any(each.primary_key for each in fields):
        if any(each.name == "id" for each in fields):
            raise ModelError(f"{model.__name__}.id: declared, but no field says primary_key=True")
        fields.insert(0, implicit_key(model).bind(model, "id", key_type(model)))
    key = tuple(each for each in fields if each.primary_key)
    made_here = any(each.init or each.server_made or each.has_default for each in key)
    if len(key) == 1 and key[0].python_type is int and not made_here:
        key[0].generated = True
        key[0].column.autoincrement = True
    return key


def _columned(bound: Sequence[Any]) -> list[Field[Any]]:
    """The fields among *bound*, and those of foreign keys, which a body may declare for the checkers, too."""
    keys = {each.field.name: each for each in bound if isinstance(each, Relation) and each.is_foreign_key}
    fields: list[Field[Any]] = []
    for each in bound:
        if not isinstance(each, Relation):
            if (key := keys.get(each.name)) is None:
                fields.append(each)
            elif (each.python_type, each.nullable) != (key.field.python_type, key.field.nullable):
                raise ModelError(f"{each.label}: not of the type of the key that {key.label} refers to")
            continue
        if each.name == "id" or each.name in keys:
            raise ModelError(f"{each.label}: {each.name!r} is the name of a key, and not of a relation")
        if each.is_foreign_key:
            fields.append(each.field)
    return fields


def implicit_key(model: Any) -> Field[Any]:
    """The key of *model*, which declares none. `ModelError` where its type makes no key."""
    kind = key_type(model)
    if kind is uuid.UUID:
        key: Field[Any] = Field(primary_key=True, default_factory=new_uuid, init=False)
    elif kind is int:
        key = Field(primary_key=True, init=False)
    else:
        raise ModelError(
            f"{model.__name__}: Model[{type_name(kind)}] makes no key; declare one by primary_key=True"
        )
    key.name = "id"
    return key


def key_type(model: type) -> Any:
    """The type of the implicit key: what the model or its bases say in `Model[...]`, else int."""
    kind = _key_parameter(model)
    return int if kind is None or isinstance(kind, TypeVar) or kind is Any else kind


def _key_parameter(cls: type) -> Any:
    """What stands for `K` of `Model[K]` in *cls*: a type, one of the type variables of *cls*, or None."""
    for written in vars(cls).get("__orig_bases__", cls.__bases__):
        parent, arguments = get_origin(written) or written, get_args(written)
        if not hasattr(parent, "__options__"):
            continue
        if not any(hasattr(above, "__options__") for above in parent.__bases__):
            return arguments[0] if arguments else None
        if (kind := _key_parameter(parent)) is not None:
            return dict(zip(parent.__parameters__, arguments, strict=False)).get(kind, kind)
    return None


def _make_table(
    model: Any, name: str, metadata: MetaData, fields: list[Field[Any]], table_args: tuple[Any, ...]
) -> Table:
    columns = [each.column for each in fields]
    _refuse_unquotable(model.__name__, "table", name)
    known: dict[str, str] = {}
    for each in fields:
        _refuse_unquotable(each.label, "column", each.column.name)
        # To SQLite and MariaDB a column is the same in small and in capital letters, and a table may be.
        if (other := known.setdefault(each.column.name.lower(), each.name)) is not each.name:
            raise ModelError(
                f"{model.__name__}: {other} and {each.name} have one column, {each.column.name!r}"
            )
    if name.lower() in (table.lower() for table in metadata.tables):
        raise ModelError(f"{model.__name__}: the table {name!r} is another model's already")
    checks = [constraint for each in fields for constraint in each.constraints()]
    items: list[SchemaItem] = []
    options: dict[str, Any] = {}
    for item in table_args:
        if isinstance(item, Mapping):
            options.update(item)
        elif isinstance(item, SchemaItem):
            # A constraint belongs to one table; an abstract base hands the same one to several.
            items.append(deepcopy(item))
        else:
            raise ModelError(f"{model.__name__}: table_args= takes constraints and indexes, not {item!r}")
    try:
        table = Table(name, metadata, *columns, *checks, *items, **options)
    except (SQLAlchemyError, TypeError) as error:
        raise ModelError(f"{model.__name__}: the table {name!r} cannot be made: {error}") from error
    late = {option: value for option, value in TABLE_OPTIONS.items() if option not in options}
    vars(table)["dialect_options"] = LateOptions(table.dialect_options, late)
    return table


def _refuse_unquotable(label: str, what: str, name: str) -> None:
    """Raise `ModelError` where quotes do not make *name* an identifier that every database understands."""
    # Parameters are named after columns, and white space ends such a name for SQLAlchemy.
    for each in name:
        if category(each) in ("Cc", "Cs") or (each.isspace() and each != " "):
            raise ModelError(f"{label}: the name of the {what}, {name!r}, has the character {each!r}")


class LateOptions(dict[str, Any]):
    """The `dialect_options` of a table, with those *late* ones that are told a dialect when it is asked for.

    SQLAlchemy loads a dialect to check an option of its, and a program that declares models needs one of them, or none.
    """

    def __init__(self, known: Mapping[str, Any], late: Mapping[str, Any]) -> None:
        super().__init__()
        self._known = known
        self._late = late

    def __missing__(self, dialect: str) -> Any:
        options = self[dialect] = self._known[dialect]
        for name, value in self._late.items():
            if name.startswith(f"{dialect}_"):
                options[name.removeprefix(f"{dialect}_")] = value
        return options

    def __iter__(self) -> Iterator[str]:
        """All dialects of which something is said."""
        for dialect in (*self._known, *(name.split("_")[0] for name in self._late)):
            self[dialect]
        return super().__iter__()

    def items(self) -> Any:
        """The options of all dialects of which something is said."""
        return [(dialect, self[dialect]) for dialect in self]

    def values(self) -> Any:
        """The same without the names of the dialects."""
        return [self[dialect] for dialect in self]


def explain(schema: Any) -> str:
    """The functions that were generated for the model of *schema*, and by alias the SQL that was prepared, so far."""
    databases = schema.registry.databases
    parts = list(_functions(schema))
    for alias in databases.aliases:
        database = databases.database(alias)
        plans = database.plans.get(schema)
        if plans is not None:
            parts += [(f"{alias!r} ({database.dialect}): {title}", text) for title, text in _prepared(plans)]
    return "\n\n".join(f"# {title}\n{text}" for title, text in parts if text)


def _functions(schema: Any) -> Iterator[tuple[str, str]]:
    yield f"{schema.label}: the constructor", _source(schema.model.__init__)
    for names, collect in schema.collectors.items():
        yield f"the row to write of {', '.join(names) or 'nothing'}", _source(collect)
    for names, gather in schema.gatherers.items():
        yield f"the rows to write of {', '.join(names)}, of many new instances", _source(gather)
    for wanted, (_, build) in schema.builders.items():
        yield f"instances of rows of {_fields(wanted)} that SQLAlchemy has decoded", _source(build)


def _prepared(plans: Any) -> Iterator[tuple[str, str]]:
    yield "instances of the driver's rows", _source(plans.loader.build)
    for key, plan in plans.made.items():
        if (sql := getattr(plan, "sql", None)) is None:
            yield f"instances of the driver's rows of {_fields(plan.wanted)}", _source(plan.build)
        else:
            verb, *said = (key,) if isinstance(key, str) else key
            names = said[0] if said and verb != "read" else ()
            title = f"{verb} {', '.join(names)}".strip()
            yield title, "\n".join(filter(None, (sql, plan.bind and _source(plan.bind))))


def _fields(wanted: tuple[str, ...] | None) -> str:
    return "all fields" if wanted is None else ", ".join(wanted)


def _source(function: Any) -> str:
    return str(getattr(function, "__source__", ""))
