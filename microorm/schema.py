"""Schema: a class body, read once into a frozen description and a `Table`."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import copy, deepcopy
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar, get_args, get_origin

from sqlalchemy import MetaData, Table
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.schema import SchemaItem

from microorm.annotations import Names, PendingName, declared, evaluate
from microorm.codegen import Row, collector
from microorm.errors import FieldError, ModelError, nearest
from microorm.fields import MISSING, Field, type_name
from microorm.state import Layout

new_uuid: Callable[[], uuid.UUID] = getattr(uuid, "uuid7", uuid.uuid4)

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


@dataclass(frozen=True, slots=True)
class Declaration:
    """A field as it stands in a class body, its annotation not yet understood."""

    owner: str
    name: str
    annotation: Any
    field: Field[Any]
    names: Names | None

    def understood(self) -> Any:
        """The type that the annotation gives the field. `PendingName` where a name is not defined yet."""
        if self.names is None:
            return self.annotation
        try:
            annotation = evaluate(self.annotation, self.names)
            arguments = get_args(annotation)
            if get_origin(annotation) is not Field or len(arguments) != 1:
                shown = self.annotation if isinstance(self.annotation, str) else type_name(annotation)
                raise ModelError(f"{self.owner}.{self.name}: the annotation {shown!r} is not Field[...]")
            return evaluate(arguments[0], self.names)
        except (ModelError, PendingName):
            raise
        except Exception as error:
            raise ModelError(
                f"{self.owner}.{self.name}: the annotation {self.annotation!r} is not understood: {error}"
            ) from error


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
    builders: list[Any] = field(default_factory=list)
    _collectors: dict[tuple[str, ...], Callable[[dict[str, Any]], Row]] = field(default_factory=dict)

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
        if found is None and getattr(name, "table", None) is self.table:
            found = next((each for each in self.fields if each.column is name), None)
        if found is None:
            shown = repr(name) if isinstance(name, str) else str(name)
            raise FieldError(f"{self.name} has no field {shown}{nearest(name, self.names)}")
        return found

    def collector(self, names: tuple[str, ...]) -> Callable[[dict[str, Any]], Row]:
        """The function that takes *names* from an instance's values, checked."""
        collect = self._collectors.get(names)
        if collect is None:
            collect = collector(self.name, [self.by_name[name] for name in names])
            self._collectors[names] = collect
        return collect


def read_declarations(cls: type, names: Names, reserved: frozenset[str]) -> dict[str, Declaration]:
    """The fields written in the body of *cls* itself. `ModelError` says what is wrong with one."""
    found: dict[str, Declaration] = {}
    for name, annotation in declared(cls).items():
        if _is_class_variable(annotation):
            continue
        written = cls.__dict__.get(name, MISSING)
        if name.startswith("_") or not name.isidentifier():
            raise ModelError(
                f"{cls.__name__}.{name}: a field's name is an identifier without a leading underscore"
            )
        if name in reserved:
            raise ModelError(f"{cls.__name__}.{name}: {name!r} is taken by Model.{name}")
        if written is not MISSING and not isinstance(written, Field):
            raise ModelError(
                f"{cls.__name__}.{name}: {written!r} is not a field(); a default is field(default=...)"
            )
        field_ = Field() if written is MISSING else copy(written)
        field_.name = name
        declaration = Declaration(cls.__name__, name, annotation, field_, names)
        with suppress(PendingName):  # an error at the first use, if the name is not defined by then
            # What is understood needs its names, and the frames behind them, no longer.
            declaration = Declaration(cls.__name__, name, declaration.understood(), field_, None)
        found[name] = declaration
    for name, value in cls.__dict__.items():
        if isinstance(value, Field) and name not in found:
            raise ModelError(f"{cls.__name__}.{name}: a field() without an annotation Field[...]")
    return found


def _is_class_variable(annotation: Any) -> bool:
    if isinstance(annotation, str):
        return re.match(r"(typing\.|t\.)?ClassVar\b", annotation) is not None
    return annotation is ClassVar or get_origin(annotation) is ClassVar


def make_schema(
    model: Any,
    declarations: Mapping[str, tuple[Field[Any], Any]],
    *,
    label: str,
    table: str,
    home: str | None,
    registry: Any,
    metadata: MetaData,
    table_args: tuple[Any, ...],
) -> Schema:
    """Bind the fields, each with the type of its annotation, to *model* and make its table in *metadata*.

    Raises `ModelError`; *metadata* is then as it was.
    """
    fields = [each.bind(model, name, kind) for name, (each, kind) in declarations.items()]
    if not any(each.primary_key for each in fields):
        if any(each.name == "id" for each in fields):
            raise ModelError(f"{model.__name__}.id: declared, but no field says primary_key=True")
        fields.insert(0, _implicit_key(model))
    key = tuple(each for each in fields if each.primary_key)
    if len(key) == 1 and key[0].python_type is int and not key[0].init and not key[0].server_made:
        key[0].generated = True
        key[0].column.autoincrement = True
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
    )


def _implicit_key(model: Any) -> Field[Any]:
    kind = key_type(model)
    if kind is uuid.UUID:
        return Field(primary_key=True, default_factory=new_uuid, init=False).bind(model, "id", uuid.UUID)
    if kind is not int:
        raise ModelError(
            f"{model.__name__}: Model[{type_name(kind)}] makes no key; declare one by primary_key=True"
        )
    return Field(primary_key=True, init=False).bind(model, "id", int)


def key_type(model: type) -> Any:
    """The type of the implicit key: what the bases say in `Model[...]`, else int."""
    for cls in model.__mro__:
        for parent in cls.__dict__.get("__orig_bases__", ()):
            if hasattr(get_origin(parent), "__options__"):
                (kind,) = get_args(parent)[:1]
                if not isinstance(kind, TypeVar) and kind is not Any:
                    return kind
    return int


def _make_table(
    model: Any, name: str, metadata: MetaData, fields: list[Field[Any]], table_args: tuple[Any, ...]
) -> Table:
    columns = [each.column for each in fields]
    if len({column.name for column in columns}) < len(columns):
        raise ModelError(f"{model.__name__}: two fields have one column")
    if name in metadata.tables:
        raise ModelError(f"{model.__name__}: the table {name!r} is another model's already")
    checks = [constraint for each in fields for constraint in each.constraints()]
    items: list[SchemaItem] = []
    options: dict[str, Any] = {
        "sqlite_autoincrement": True,
        "mysql_charset": "utf8mb4",
        "mariadb_charset": "utf8mb4",
    }
    for item in table_args:
        if isinstance(item, Mapping):
            options.update(item)
        elif isinstance(item, SchemaItem):
            # A constraint belongs to one table; an abstract base hands the same one to several.
            items.append(deepcopy(item))
        else:
            raise ModelError(f"{model.__name__}: table_args= takes constraints and indexes, not {item!r}")
    try:
        return Table(name, metadata, *columns, *checks, *items, **options)
    except (SQLAlchemyError, TypeError) as error:
        if name in metadata.tables:
            metadata.remove(metadata.tables[name])
        raise ModelError(f"{model.__name__}: the table {name!r} cannot be made: {error}") from error
