"""The `Schema` of a model: its fields, its key, its relations, and what is generated for it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar, get_args, get_origin

from sqlalchemy import (
    ColumnElement,
    MetaData,
    Select,
    tuple_,
)

from microorm.errors import FieldError, ModelError
from microorm.fields.field import Field
from microorm.fields.type_map import plain_type, type_name
from microorm.mapping.codegen import Gather, Row, collector, gatherer
from microorm.mapping.foreign_key import Relation
from microorm.mapping.hints import instead_of
from microorm.mapping.path import Path
from microorm.mapping.state import RowLayout
from microorm.mapping.table import make_table
from microorm.mapping.unique import natural_key_of

new_uuid: Callable[[], uuid.UUID] = getattr(uuid, "uuid7", uuid.uuid4)

MAX_COLLECTORS = 256


class Schema:
    """The description of one model, made once from its class body; only the caches at the end change later."""

    def __init__(
        self, model: Any, bound: Sequence[Any], *, label: str, table: str, registry: Any, metadata: MetaData
    ) -> None:
        """Describe *model*, add its table to *metadata*; `ModelError` leaves *metadata* unchanged."""
        fields = _fields_of(bound)
        self.key = _key_of(model, fields)
        self.generated = self.key[0] if self.key[0].generated else None  # the key, if the database makes it
        self.model = model
        self.label = label
        self.home: str | None = model.__options__.database
        self.managed: bool = model.__options__.managed is not False
        self.read_only: bool = model.__options__.read_only is True
        self.registry = registry
        self._describe(fields)
        self.relations = {each.name: each for each in bound if isinstance(each, Relation)}
        self.foreign_keys: tuple[Any, ...] = tuple(r for r in self.relations.values() if r.is_foreign_key)
        self.layout = RowLayout(self.names)
        self.table = make_table(model, table, metadata, fields)
        try:
            self.natural_key = natural_key_of(self)
        except ModelError:
            metadata.remove(self.table)
            raise
        self.paths: dict[str, Any] = {}
        self.sides: dict[str, Any] = {}  # by relation
        self.builders: dict[Any, Any] = {}
        self.selects: list[Any] = []
        self.plans: dict[Any, Any] = {}  # the compiled statements, by database
        self.collectors: dict[tuple[str, ...], Callable[[dict[str, Any]], Row]] = {}
        self.writers: dict[tuple[str, ...], Callable[[dict[str, Any]], Row]] = {}
        self.codecs: dict[str, Any] = {}  # of serialization, by field
        self.gatherers: dict[tuple[str, ...], Gather] = {}

    def _describe(self, fields: Sequence[Field[Any]]) -> None:
        """Note what the *fields* are."""
        self.fields = tuple(fields)
        self.names = tuple(each.name for each in fields)
        self.by_name = {each.name: each for each in fields}
        self.key_names = tuple(each.name for each in self.key)
        self.computed = tuple(each.name for each in fields if each.computed)
        self.plain_names = tuple(e.name for e in fields if not (e.primary_key or e.computed))
        self.written_names = (*self.plain_names, *self.key_names)
        self.key_has_default = any(each.has_default or each.server_default is not None for each in self.key)
        self.server_made = tuple(each.name for each in fields if each.server_made and not each.generated)
        self.updating = tuple(each for each in fields if each.on_update is not None)
        self.version = _version_of(self.model, fields)
        # Whether each save of a new row writes the same columns.
        self.same_columns = not (self.updating or self.server_made)
        self.mutable = any(each.mutable for each in fields)
        self.validated = any(each.validators for each in fields)
        # the name of each field → the name by which it was declared
        self.reported = {f.name: f.name if f.relation is None else f.relation.name for f in fields}

    def __setattr__(self, name: str, value: Any) -> None:
        if "gatherers" in vars(self):  # the last one that is set
            raise AttributeError(f"{self!r} is read-only")
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        return f"<Schema {self.label}: {', '.join(self.names)}>"

    @property
    def name(self) -> str:
        """The model's name."""
        name: str = self.model.__name__
        return name

    def field(self, name: Any) -> Field[Any]:
        """Return the field with this name or column. Raises `FieldError`, which names the nearest match."""
        found = self.by_name.get(name) if isinstance(name, str) else None
        if found is None and isinstance(name, str) and name in self.relations:
            found = getattr(self.relations[name], "field", None)
        if found is None and not isinstance(name, Path) and getattr(name, "table", None) is self.table:
            found = next((each for each in self.fields if each.column is name), None)
        if found is None:
            shown, hint = (repr(name), instead_of(self, name)) if isinstance(name, str) else (str(name), "")
            raise FieldError(f"{self.name} has no field {shown}{hint}")
        return found

    def refuse_write(self) -> None:
        """Raise `ModelError` if the model is read-only."""
        if self.read_only:
            raise ModelError(
                f"{self.name} is read-only, such as the model of a view; write to the tables that it reads, or declare it "
                "without read_only=True"
            )

    def key_in(self, keys: Any) -> ColumnElement[bool]:
        """Return the condition that a row has one of *keys*: values, rows of values, or a SELECT of them."""
        columns = [each.column for each in self.key]
        if isinstance(keys, Select):
            return (columns[0] if len(columns) == 1 else tuple_(*columns)).in_(keys)
        if len(columns) > 1:
            return tuple_(*columns).in_(list(keys))
        return columns[0].in_([key[0] if key.__class__ is tuple else key for key in keys])

    def refuse_computed(self, names: Iterable[str]) -> None:
        """Raise `FieldError` if a field among *names*, which are to be written, is computed by the database."""
        for name in names if self.computed else ():
            if name in self.computed:
                raise FieldError(f"{self.name}.{name} is computed by the database")

    def explain(self) -> str:
        """Return the source of the functions generated so far, and the compiled SQL of each alias."""
        databases = self.registry.databases
        parts = list(_functions(self))
        for alias in databases.aliases:
            database = databases.database(alias)
            if (plans := self.plans.get(database)) is not None:
                where = f"{alias!r} ({database.dialect})"
                parts += [(f"{where}: {title}", text) for title, text in _statements(plans)]
        return "\n\n".join(f"# {title}\n{text}" for title, text in parts if text)

    def reported_names(self, names: Iterable[str]) -> frozenset[str]:
        """Return the names by which fields were declared: `author` for `author_id`."""
        return frozenset(self.reported[name] for name in names)

    def collector(self, names: tuple[str, ...]) -> Callable[[dict[str, Any]], Row]:
        """Return the generated function from the values of an instance to a checked row of *names*."""
        if (collect := self.collectors.get(names)) is None:
            if len(self.collectors) >= MAX_COLLECTORS:  # the order of the names depends on the caller
                self.collectors.clear()
            collect = collector(self.name, [self.by_name[name] for name in names])
            self.collectors[names] = collect
        return collect

    def writer(self, names: tuple[str, ...]) -> Callable[[dict[str, Any]], Row]:
        """Return what `collector` returns, for values that are written: their validators are called, too."""
        fields = [self.by_name[name] for name in names]
        if not any(field.validators for field in fields):
            return self.collector(names)
        if (write := self.writers.get(names)) is None:
            if len(self.writers) >= MAX_COLLECTORS:
                self.writers.clear()
            write = self.writers[names] = collector(self.name, fields, validate=True)
        return write

    def gatherer(self) -> Gather:
        """Return the generated function from new instances to rows, without a key that the database generates."""
        key = None if self.generated is None else self.generated.name
        names = self.written_names if key is None else self.plain_names
        if (gather := self.gatherers.get(names)) is None:
            gather = self.gatherers[names] = gatherer([self.by_name[name] for name in names], key)
        return gather


def _key_of(model: Any, fields: list[Field[Any]]) -> tuple[Field[Any], ...]:
    """Return the primary key; without one, add an implicit key as the first of *fields*."""
    if not any(each.primary_key for each in fields):
        if any(each.name == "id" for each in fields):
            raise ModelError(
                f"{model.__name__}.id: without primary_key=True, but no other field is the primary key"
            )
        fields.insert(0, implicit_key(model).bind(model, "id", key_type(model)))
    key = tuple(each for each in fields if each.primary_key)
    made_here = any(each.init or each.server_made or each.has_default for each in key)
    if len(key) == 1 and key[0].python_type is int and (key[0].implicit or not made_here):
        key[0].generated = True
        key[0].column.autoincrement = True
    return key


def _version_of(model: Any, fields: Sequence[Field[Any]]) -> Field[Any] | None:
    """Return the field that counts the updates of a row, if there is one. Raises `ModelError` for two."""
    found = [each for each in fields if each.version is not None]
    if len(found) > 1:
        raise ModelError(
            f"{model.__name__}: {found[0].name} and {found[1].name} are both versions; a row has one"
        )
    return found[0] if found else None


def _fields_of(bound: Sequence[Any]) -> list[Field[Any]]:
    """Return the fields of a model, including those of foreign keys, which may also be declared themselves."""
    keys = {each.field.name: each for each in bound if isinstance(each, Relation) and each.is_foreign_key}
    fields: list[Field[Any]] = []
    for each in bound:
        if not isinstance(each, Relation):
            if (key := keys.get(each.name)) is None:
                fields.append(each)
            elif (each.python_type, each.nullable) != (key.field.python_type, key.field.nullable):
                raise ModelError(f"{each.label}: its type differs from the key that {key.label} refers to")
            continue
        if each.name == "id" or each.name in keys:
            raise ModelError(
                f"{each.label}: {each.name!r} is the name of a key, so a relation cannot have it"
            )
        if each.is_foreign_key:
            fields.append(each.field)
    return fields


def implicit_key(model: Any) -> Field[Any]:
    """Return the field `id` of *model*, which declares no key. `ModelError` if `Model[K]` is not int or UUID."""
    kind = key_type(model)
    if kind is uuid.UUID:
        key: Field[Any] = Field(primary_key=True, default_factory=new_uuid)
    elif kind is int:
        key = Field(primary_key=True)
    else:
        raise ModelError(
            f"{model.__name__}: Model[{type_name(kind)}] has no implicit key; declare a field with primary_key=True"
        )
    key.name, key.implicit = "id", True
    return key


def key_type(model: type) -> Any:
    """Return the type of the implicit key, `K` of `Model[K]` in the model or its bases; int by default."""
    kind = plain_type(_key_parameter(model))
    return int if kind is None or isinstance(kind, TypeVar) or kind is Any else kind


def _key_parameter(cls: type) -> Any:
    """Return the argument for `K` of `Model[K]` in *cls*: a type, a type variable of *cls*, or None."""
    for written in vars(cls).get("__orig_bases__", cls.__bases__):
        parent, arguments = get_origin(written) or written, get_args(written)
        if not hasattr(parent, "__options__"):
            continue
        if not any(hasattr(above, "__options__") for above in parent.__bases__):
            return arguments[0] if arguments else None
        if (kind := _key_parameter(parent)) is not None:
            return dict(zip(parent.__parameters__, arguments, strict=False)).get(kind, kind)
    return None


def _functions(schema: Any) -> Iterator[tuple[str, str]]:
    yield f"{schema.label}: the constructor", _source(schema.model.__init__)
    for names, collect in (*schema.collectors.items(), *schema.writers.items()):
        yield f"the row to write of {', '.join(names) or 'nothing'}", _source(collect)
    for names, gather in schema.gatherers.items():
        yield f"the rows to write of {', '.join(names)}, of many new instances", _source(gather)
    for wanted, (_, build) in schema.builders.items():
        yield f"instances of rows of {_fields(wanted)} that SQLAlchemy has decoded", _source(build)


def _statements(plans: Any) -> Iterator[tuple[str, str]]:
    yield "instances of the driver's rows", _source(plans.hydrator.build)
    for key, plan in plans.statements.items():
        if (sql := getattr(plan, "sql", None)) is None:
            yield f"instances of the driver's rows of {_fields(plan.wanted)}", _source(plan.build)
        else:
            verb, *rest = (key,) if isinstance(key, str) else key
            title = f"{verb} {', '.join(rest[0])}".strip() if rest else verb
            yield title, "\n".join(filter(None, (sql, plan.bind and _source(plan.bind))))


def _fields(wanted: tuple[str, ...] | None) -> str:
    return "all fields" if wanted is None else ", ".join(wanted)


def _source(function: Any) -> str:
    return str(getattr(function, "__source__", ""))
