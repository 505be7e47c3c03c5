"""Models: which classes, fields, relations and constraints the source has, decided for all tables together."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from microorm.mapping.definition import snake_case
from microorm.reflection.columns import Described, describe, forced_type, same_ddl, type_source
from microorm.reflection.constraints import constraint_options, escaped, on_delete, table_arguments
from microorm.reflection.names import class_name, field_name, free, member_name, plural, quoted
from microorm.reflection.tables import Column, Index, Key, Table
from microorm.registry import NAMING

VIEW_NOTE = "a view has no key: give primary_key=True to what is unique in it"
KEYLESS_NOTE = "the table has no primary key: give primary_key=True to what is unique"
MADE_NOTE = "the database makes this value: it is read, and never written"


@dataclass(slots=True)
class Entry:
    """A line of a class body: an annotated name, and the *call* with *options* that is assigned to it."""

    name: str
    annotation: str
    call: str = "field"
    positional: str = ""
    options: dict[str, str] = field(default_factory=dict)
    note: str | None = None


@dataclass(slots=True)
class EnumPlan:
    """An enum: *members* are names and values."""

    name: str
    members: list[tuple[str, str]]


@dataclass(slots=True)
class ModelPlan:
    """A class: *keywords* and *arguments* (of `table_args`) are source, *notes* are comments."""

    name: str
    table: Table
    keywords: dict[str, str] = field(default_factory=dict)
    arguments: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    related: list[Entry] = field(default_factory=list)
    keyless: bool = False  # a view, or a table without a primary key
    fields: dict[str, str] = field(default_factory=dict)  # column → the name of its field
    relations: dict[str, str] = field(default_factory=dict)  # column → the name of its relation
    keys: dict[str, Key] = field(default_factory=dict)  # column → the foreign key that is a relation

    @property
    def id_type(self) -> str | None:
        """The annotated type of the field `id`, which type checkers compare with that of `Model[...]`; None without one."""
        annotations = [each.annotation for each in self.entries if each.name == "id"]
        return annotations[0].removeprefix("Field[").removesuffix("]") if annotations else None

    def taken(self) -> set[str]:
        """Return the names that are used in the class body."""
        return {*self.fields.values(), *self.relations.values(), *(each.name for each in self.related)}


class Plan:
    """The models of *tables*, which are on a database of *dialect*; unless *managed*, none is migrated."""

    def __init__(self, tables: list[Table], dialect: str, *, managed: bool = True) -> None:
        self.dialect = dialect
        self.managed = managed
        self.enums: dict[str, EnumPlan] = {}
        self.skipped: list[str] = []
        self.models: dict[str, ModelPlan] = {}
        self._described: dict[tuple[str, str], Described] = {}
        for table in tables:
            self._add(table)
        named = Counter(str(index.name).lower() for table in tables for index in table.indexes if index.name)
        self.shared = frozenset(name for name, times in named.items() if times > 1)
        for model in self.models.values():
            self._note_unknown_tables(model)
            self._name_relations(model)
        for model in self.models.values():
            self._write(model)
        joins = [model for model in self.models.values() if self._is_join(model)]
        for model in joins:
            self._add_many_to_many(model)
        for model in self.models.values():
            if model not in joins:
                self._add_other_sides(model)

    def _add(self, table: Table) -> None:
        if table.name.lower() in (name.lower() for name in self.models) or not _quotable(table.name):
            self.skipped.append(
                f"{quoted(table.name)} is left out: no model can have a table of this name beside the others"
            )
            return
        if not table.columns:
            self.skipped.append(f"{quoted(table.name)} is left out: it has no columns")
            return
        names = {model.name for model in self.models.values()} | {enum.name for enum in self.enums.values()}
        model = ModelPlan(class_name(table.name, names), table)
        self.models[table.name] = model
        for column in _left_out(table):
            model.notes.append(
                f"the column {quoted(column.name)} is left out: no field can have a column of this name"
            )
            table.columns.remove(column)
        if not table.columns:
            self.skipped.append(f"{quoted(table.name)} is left out: no field can have one of its columns")
            del self.models[table.name]
            return
        _choose_key(model)
        for column in table.columns:
            self._described[table.name, column.name] = self._describe(model, column)

    def _describe(self, model: ModelPlan, column: Column) -> Described:
        table = model.table
        migrated = self.managed and not table.is_view and "managed" not in model.keywords
        if isinstance(column.type, sa.Enum):
            return self._describe_enum(table, column, column.type, migrated=migrated)
        described = describe(column.type, self.dialect, is_json=column.is_json)
        if isinstance(column.type, sa.ARRAY) and isinstance(column.type.item_type, sa.Enum) and not migrated:
            described.own_type = f"{str(described.own_type)[:-2]}, create_type=False))"
        if column.name in table.key or any(each.columns == (column.name,) for each in table.indexes):
            described = forced_type(described, column.type, self.dialect)
        return described

    def _describe_enum(self, table: Table, column: Column, kind: sa.Enum, *, migrated: bool) -> Described:
        native = self.dialect == "postgresql" and kind.name
        key = str(kind.name) if native else f"{table.name}_{column.name}"
        if key not in self.enums:
            names = {each.name for each in self.enums.values()} | {each.name for each in self.models.values()}
            made = EnumPlan(class_name(key, names), [])
            for value in kind.enums:
                made.members.append((member_name(value, dict(made.members)), value))
            self.enums[key] = made
        options = (
            f"name={quoted(kind.name)}, values_callable=enum_values"
            if native
            else "values_callable=enum_values"
        )
        for option in ("charset", "collation") if isinstance(kind, mysql.ENUM) else ():
            if (value := getattr(kind, option)) is not None:
                options += f", {option}={quoted(value)}"
        if native and not migrated:  # `create_all` and `drop_all` would make and drop the type
            options += ", create_type=False"
        prefix = "postgresql.ENUM" if native else "mysql.ENUM"
        return Described(self.enums[key].name, own_type=f"{prefix}({self.enums[key].name}, {options})")

    def _note_unknown_tables(self, model: ModelPlan) -> None:
        """Leave the table of *model* alone if it has a foreign key that the model cannot, so that no revision drops it."""
        for key in model.table.keys:
            if key.schema is not None or key.table not in self.models:
                there = key.table if key.schema is None else f"{key.schema}.{key.table}"
                shown = f"{', '.join(key.columns)} to {there}"
                model.notes.append(f"the foreign key from {shown} is left out: no model has that table")
                model.keywords["managed"] = "False"

    def _name_relations(self, model: ModelPlan) -> None:
        """Name the fields and foreign keys of *model*."""
        table, taken = model.table, set[str]()
        for column in table.columns:
            model.fields[column.name] = name = field_name(column.name, taken)
            taken.add(name)
        for key in table.keys:
            if not self._is_relation(model, key):
                continue
            (column_name,) = key.columns
            plain = model.fields[column_name]
            others = taken - {plain}
            name = (
                plain.removesuffix("_id") if plain.endswith("_id") and plain != "_id" else plain.rstrip("_")
            )
            for candidate in (name, f"{name}_ref", f"{name}_row"):
                candidate = free(candidate, ())
                if candidate != "id" and not {candidate, f"{candidate}_id"} & others:
                    model.relations[column_name], model.keys[column_name] = candidate, key
                    model.fields[column_name] = f"{candidate}_id"
                    taken = others | {candidate, f"{candidate}_id"}
                    break

    def _is_relation(self, model: ModelPlan, key: Key) -> bool:
        """Return whether a foreign key can be a relation: of one column, to one that identifies a row, of the same type."""
        if (
            not (len(key.columns) == len(key.referred) == 1)
            or key.schema is not None
            or key.table not in self.models
        ):
            return False
        other = self.models[key.table].table
        near, far = key.columns[0], key.referred[0]
        if near in model.relations or near not in {each.name for each in model.table.columns}:
            return False
        refers_on = any(each.columns == (far,) for each in other.keys) and other.key != (far,)
        if other.is_view or refers_on or not other.is_unique(far):
            return False
        near_type, far_type = self._described[model.table.name, near], self._described[other.name, far]
        computed = model.table.column(near).computed is not None
        return near_type.annotation == far_type.annotation and not computed

    def _write(self, model: ModelPlan) -> None:
        table = model.table
        if snake_case(model.name) != table.name:
            model.keywords["table"] = quoted(table.name)
        if table.is_view or not self.managed or model.keywords.get("managed"):
            model.keywords["managed"] = "False"
        if table.is_view:
            model.keywords["read_only"] = "True"
        by_column: dict[str, Index] = {}
        for index in table.indexes:
            (first, *_) = index.columns
            if index.plain and first is not None and (first not in by_column or index.unique):
                by_column[first] = index
        for column in table.columns:
            if (key := model.keys.get(column.name)) is not None:
                self._write_relation(model, column, key, by_column.get(column.name))
            else:
                self._write_field(model, column, by_column.get(column.name))
        model.notes += [f"CHECK ({' '.join(condition.split())})" for condition in table.unnamed_checks]
        self._write_others(model, [*by_column.values()])

    def _write_others(self, model: ModelPlan, used: list[Index]) -> None:
        """Write what no field says: the indexes that are not *used*, foreign keys that are no relations, and CHECKs."""
        table = model.table
        others = [index for index in table.indexes if not any(index is each for each in used)]
        relations = [*model.keys.values()]
        plain_keys = [key for key in table.keys if not any(key is each for each in relations)]
        known = {key.table for key in plain_keys if key.schema is None and key.table in self.models}
        model.arguments = table_arguments(table, others, plain_keys, known, self.shared)
        for key in plain_keys:
            if key.table in known:
                shown = f"{', '.join(key.columns)} to {key.table}"
                model.notes.append(f"the foreign key from {shown} is a constraint, and cannot be a relation")

    def _write_field(self, model: ModelPlan, column: Column, index: Index | None) -> None:
        table, described = model.table, self._described[model.table.name, column.name]
        name = model.fields[column.name]
        options: dict[str, str] = {}
        if column.name in table.key:
            options["primary_key"] = "True"
            if column.generated:
                options["init"] = "False"
        options |= described.options
        if described.own_type is not None:
            options["type_"] = described.own_type
        if column.name != name:
            options["column"] = quoted(column.name)
        nullable = column.nullable and column.name not in table.key
        options |= _default(column, nullable=nullable)
        options |= _index_options(table, column, index)
        options |= _comment(column)
        implicit = (
            name == "id" and options == {"primary_key": "True", "init": "False"} and len(table.key) == 1
        )
        if implicit and described.annotation == "int":
            return
        annotation = f"{described.annotation} | None" if nullable else described.annotation
        model.entries.append(
            Entry(name, f"Field[{annotation}]", options=options, note=self._note(model, column))
        )

    def _note(self, model: ModelPlan, column: Column) -> str | None:
        note = self._described[model.table.name, column.name].note
        if model.keyless and column.name in model.table.key:
            return VIEW_NOTE if model.table.is_view else KEYLESS_NOTE
        if column.identity and not column.generated and note is None:
            return MADE_NOTE
        return note

    def _write_relation(self, model: ModelPlan, column: Column, key: Key, index: Index | None) -> None:
        """Write the relation, and the key beside it, of the same column."""
        other, name = self.models[key.table], model.relations[column.name]
        nullable = column.nullable and column.name not in model.table.key
        options = {} if _server_made(column) else {"default": "None" if nullable else "..."}
        action = on_delete(key, nullable=nullable)
        if action != "restrict":
            options["on_delete"] = quoted(action)
        if column.name != f"{name}_id":
            options["column"] = quoted(column.name)
        if other.table.key != key.referred:
            options["to_field"] = quoted(other.fields[key.referred[0]])
        if constraint := constraint_options(key):
            options["constraint"] = constraint
        options |= _index_options(model.table, column, index, of_relation=True)
        annotation = f"{other.name} | None" if nullable else other.name
        model.entries.append(Entry(name, f"ForeignKey[{annotation}]", "foreign_key", options=options))
        self._write_key_beside(model, column, key, nullable=nullable)

    def _write_key_beside(self, model: ModelPlan, column: Column, key: Key, *, nullable: bool) -> None:
        described = self._described[model.table.name, column.name]
        far_column = self.models[key.table].table.column(key.referred[0])
        options = {"primary_key": "True"} if column.name in model.table.key else {}
        if not same_ddl(column.type, far_column.type, self.dialect):
            options |= _own_type(described, column, self.dialect)
        elif options and described.annotation in ("str", "bytes"):  # such a key has to say how long it is
            length = {name: value for name, value in described.options.items() if name == "max_length"}
            options |= length or _own_type(described, column, self.dialect)
        if _server_made(column):
            options |= _default(column, nullable=nullable)
        else:
            options["default"] = "None" if nullable else "..."
        kind = f"{described.annotation} | None" if nullable else described.annotation
        options |= _comment(column)
        name = model.fields[column.name]
        model.entries.append(Entry(name, f"Field[{kind}]", options=options, note=self._note(model, column)))

    def _is_join(self, model: ModelPlan) -> bool:
        """Return whether the rows of a table are nothing but pairs of keys."""
        table = model.table
        pair = set(model.relations)
        others = {each.name for each in table.columns} - pair
        keyed = set(table.key) == pair or (len(table.key) == 1 and table.column(table.key[0]).generated)
        return len(pair) == 2 and keyed and others <= set(table.key) and not table.is_view

    def _add_many_to_many(self, model: ModelPlan) -> None:
        keys = model.keys
        near, far = (column.name for column in model.table.columns if column.name in model.relations)
        left, right = self.models[keys[near].table], self.models[keys[far].table]
        fits = all(self.models[key.table].table.key == key.referred for key in keys.values())
        if not fits:
            self._add_other_sides(model)
            return
        name = free(plural(snake_case(right.name)), left.taken())
        options = {"through": f'"{model.name}"'}
        if left is right:
            options["through_fields"] = f'("{model.relations[near]}", "{model.relations[far]}")'
        left.related.append(Entry(name, f"ManyToMany[{right.name}]", "many_to_many", options=options))
        other = free(f"{plural(snake_case(left.name))}" + ("_of" if left is right else ""), right.taken())
        right.related.append(Entry(other, f"Related[{left.name}]", "related", f'"{name}"'))

    def _add_other_sides(self, model: ModelPlan) -> None:
        """Declare the other side of each foreign key of *model*."""
        times = Counter(key.table for key in model.keys.values())
        for column, key in model.keys.items():
            relation, other = model.relations[column], self.models[key.table]
            one = model.table.is_unique(column)
            name = snake_case(model.name) if one else plural(snake_case(model.name))
            if times[key.table] > 1:
                name = f"{name}_by_{relation}"
            kind = f"RelatedOne[{model.name} | None]" if one else f"Related[{model.name}]"
            other.related.append(Entry(free(name, other.taken()), kind, "related", f'"{relation}"'))


def _own_type(described: Described, column: Column, dialect: str) -> dict[str, str]:
    """Return the `type_=` of a column whose type differs from that of the key that it refers to."""
    source = described.own_type or type_source(column.type, dialect)
    return {} if source is None else {"type_": source}


def _choose_key(model: ModelPlan) -> None:
    """Choose a column as the key of a view, or of a table without one; such a table is not migrated."""
    table = model.table
    names = [column.name for column in table.columns]
    if table.key and set(table.key) <= set(names) and not model.notes:
        return
    if not table.is_view:
        model.keywords["managed"] = "False"
    if table.key and set(table.key) <= set(names):
        return
    model.keyless = True
    unique = [each.columns[0] for each in table.indexes if each.unique and each.plain]
    foreign = {name for key in table.keys for name in key.columns}  # the same in many rows
    own = [name for name in names if name not in foreign]
    ending = [name for name in own if name.lower().endswith("id")]
    plain = [name for name in own if not table.column(name).nullable]
    identity = [name for name in names if name.lower() == "id"]
    found = [name for name in (*identity, *unique, *ending, *plain, *own) if name is not None]
    table.key = tuple(found[:1] or names)


def _left_out(table: Table) -> list[Column]:
    known: set[str] = set()
    found = []
    for column in table.columns:
        if not _quotable(column.name) or column.name.lower() in known:
            found.append(column)
        known.add(column.name.lower())
    return found


def _quotable(name: str) -> bool:
    return all(each == " " or (each.isprintable() and not each.isspace()) for each in name)


def _server_made(column: Column) -> bool:
    return not column.generated and (column.default is not None or column.identity)


def _default(column: Column, *, nullable: bool) -> dict[str, str]:
    """Return the options for what the database makes, else for a column that may be NULL."""
    if column.computed is not None:
        expression, persisted = column.computed
        if isinstance(
            column.type, sa.types.NullType
        ):  # the expression of a column without a type is not compared
            return {"server_default": "sa.FetchedValue()"}
        return {
            "server_default": f"sa.Computed({quoted(escaped(expression))}, persisted={quoted(persisted)})"
        }
    if column.identity and not column.generated:
        return {"server_default": "sa.FetchedValue()"}
    if column.default is not None and not column.generated:
        return {"server_default": f"sa.text({quoted(escaped(column.default))})"}
    return {"default": "None"} if nullable else {}


def _comment(column: Column) -> dict[str, str]:
    return {"comment": quoted(column.comment)} if column.comment else {}


def _index_options(
    table: Table, column: Column, index: Index | None, *, of_relation: bool = False
) -> dict[str, str]:
    """Return `unique=` and `index=` for the *index* of one column: True if it has the name that microorm gives."""
    if index is None:
        return {"index": "False"} if of_relation else {}
    kind = "uq" if index.constraint else "ix"
    made = NAMING[kind] % {"table_name": table.name, "column_0_N_name": column.name}
    named = "True" if index.name in (None, made) else quoted(index.name)
    if index.constraint:
        return {"unique": named}
    options = {"unique": "True"} if index.unique else {}
    if of_relation and named == "True" and not index.unique:
        return options
    return options | {"index": named}
