"""Shards: the rows of some models are spread over databases, by a key of the row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from hashlib import blake2b
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import Table, select
from sqlalchemy.sql import operators, visitors
from sqlalchemy.sql.elements import BinaryExpression, BindParameter, BooleanClauseList, ClauseElement

from microorm.db.context import BLOCK, open_scopes
from microorm.db.engines.engine import Database
from microorm.db.routing import Router
from microorm.errors import ConfigurationError, MicroormError, TransactionError, nearest
from microorm.mapping.schema import Schema
from microorm.mapping.state import loaded_value
from microorm.messages import brief

if TYPE_CHECKING:
    from microorm.db.databases import Databases

_MISSING = object()
_OF_ITS_OWN_TABLE = {"_model", "_equal", "_using", "_owner", "_limit", "_names"}
"""What a query has that reads no other table."""


class ShardError(MicroormError):
    """A query or a row does not name its shard, or names two."""


_at: ContextVar[tuple[Any, ...] | None] = ContextVar("microorm_shard", default=None)
"""The `at()` blocks of this task, innermost first: the router, its alias, and the blocks around."""


class _At:
    """`with shards.at(key)`."""

    __slots__ = ("_alias", "_before", "_router")

    def __init__(self, router: Shards, alias: str) -> None:
        self._router, self._alias = router, alias
        self._before: list[tuple[Any, ...] | None] = []

    def __enter__(self) -> str:
        before = _at.get()
        self._before.append(before)
        _at.set((self._router, self._alias, before))
        return self._alias

    def __exit__(self, *exc: object) -> None:
        _at.set(self._before.pop())


class Shards(Router):
    """Keep each row of some models on the shard of its key.

    *keys*: by model or label, the field whose value is the key, or a foreign key to a row on the same shard. *aliases*: those of
    the shards. *pick*: a function of the key that returns an alias, or a mapping from keys to aliases; by default a hash that is
    the same in each process and version, and that moves one key in *n* if an alias is added as the *n*-th. *everywhere*: models
    whose tables are on all shards, for joins. Raises `ConfigurationError` for aliases that are not a list of different ones.
    """

    def __init__(
        self,
        keys: Mapping[Any, str],
        aliases: Sequence[str],
        *,
        pick: Callable[[Any], str] | Mapping[Any, str] | None = None,
        everywhere: Iterable[Any] = (),
    ) -> None:
        if isinstance(aliases, (str, bytes)) or not aliases or len(set(aliases)) < len(aliases):
            raise ConfigurationError(f"Shards needs a list of different aliases, not {brief(aliases)}")
        self.aliases = tuple(aliases)
        self._names = {_label(model): name for model, name in keys.items()}
        self._everywhere = frozenset(map(_label, everywhere))
        self._pick = pick
        self._databases: Databases | None = None

    def __repr__(self) -> str:
        return f"<Shards {', '.join(map(repr, self.aliases))}: {', '.join(self._names)}>"

    def configured(self, databases: Databases, aliases: Mapping[str, Database]) -> None:
        """Take note of *databases*. Raises `ConfigurationError` for an alias that is missing."""
        for alias in self.aliases:
            if alias not in aliases:
                raise ConfigurationError(
                    f"{self!r}: no database named {alias!r}; configured: "
                    f"{', '.join(map(repr, sorted(aliases)))}{nearest(alias, aliases)}"
                )
        self._databases = databases

    def alias(self, key: Any) -> str:
        """Return the alias of the shard of *key*. Raises `ShardError` for a key without a shard."""
        pick = self._pick
        if isinstance(pick, Mapping):
            found = pick.get(key)
        elif pick is not None:
            found = pick(key)
        else:
            found = max(self.aliases, key=lambda alias: _weight(alias, key))
        if found not in self.aliases:
            raise ShardError(
                f"the key {brief(key)} has no shard; shards: {', '.join(map(repr, self.aliases))}"
            )
        return found

    def at(self, key: Any) -> _At:
        """Return a context manager: in its block, what names no shard goes to that of *key*. It gives the alias."""
        return _At(self, self.alias(key))

    def each(self) -> Iterator[str]:
        """Yield the aliases of the shards, for a query of all of them: `Order.objects.using(alias)`."""
        return iter(self.aliases)

    def db_for_read(self, model: type[Any], **hints: Any) -> str | None:
        """Return the shard that the query names. Raises `ShardError` if it names none, and for a join over shards."""
        self._refuse_joins(model, hints.get("query"))
        if not self._has(model):
            return None
        return self._of_query(model, hints) or self._here() or self._refuse(model, "a query")

    def db_for_write(self, model: type[Any], **hints: Any) -> str | None:
        """Return the shard of the row, or that the query names.

        Raises `ShardError` if there is none, if a row would leave its shard, and `TransactionError` while a block is open on
        another shard.
        """
        changes, rows, instance = hints.get("changes") or {}, hints.get("instances"), hints.get("instance")
        reading = hints.get("reading")
        if rows is None and instance is not None and "query" not in hints and type(instance) is model:
            rows = [instance]
        written = () if reading else (changes, *map(vars, rows or ()))
        self._refuse_joins(model, hints.get("query"), written)
        if not self._has(model):
            return None
        if reading:
            return self._of_query(model, hints) or self._here() or self._refuse(model, "a query")
        self._refuse_moving(model, changes)
        if rows is not None:
            alias = self._of_rows(model, rows, hints) if rows else self._here() or self.aliases[0]
        else:
            named = self._of_query(model, hints)
            alias = named or self._here() or self._refuse(model, "a write")
        self._refuse_two(alias)
        return alias

    def allow_relation(self, left: Any, right: Any, **hints: Any) -> bool | None:
        """Return False for instances of two databases of which one is a shard."""
        aliases = {left._row_state.alias, right._row_state.alias} - {None}
        return False if len(aliases) == 2 and not aliases.isdisjoint(self.aliases) else None

    def allow_migrate(
        self, alias: str, label: str, model: type[Any] | None = None, **hints: Any
    ) -> bool | None:
        """Return whether *alias* is a shard, for a model that is spread over them."""
        return alias in self.aliases if label in self._names else None

    def _has(self, model: Any) -> bool:
        return model.__schema__.label in self._names

    def _here(self) -> str | None:
        block = _at.get()
        while block is not None and block[0] is not self:
            block = block[2]
        return None if block is None else block[1]

    def _field(self, schema: Schema) -> str | None:
        """Return the name of the field that has the key; None if the key is that of a parent. Raises `ConfigurationError`."""
        name = self._names[schema.label]
        if name in schema.by_name:
            return name
        relation: Any = schema.relations.get(name)
        if relation is None or not relation.is_foreign_key:
            raise ConfigurationError(
                f"{self!r}: {schema.name} has no field or foreign key {name!r}{nearest(name, schema.by_name)}"
            )
        parent = relation.target.__schema__
        if parent.label not in self._names:
            raise ConfigurationError(
                f"{self!r}: {relation.label} leads to {parent.name}, which is not among the keys"
            )
        same = self._field(parent) == relation.to.name
        return str(relation.field.name) if same else None

    def _of_query(self, model: Any, hints: Mapping[str, Any]) -> str | None:
        """Return the shard that an equality names, or the rows that the query is about; None if nothing does."""
        schema, query = model.__schema__, hints.get("query")
        name = self._field(schema)
        if name is not None:
            value = (hints.get("values") or {}).get(name, _MISSING)
            if value is _MISSING and query is not None:
                value = _equal_value(query._where, schema.by_name[name].column)
            if value is not _MISSING and value is not None:
                return self.alias(value)
        related = [hints.get("instance")]
        if query is not None and name is None:
            target = schema.relations[self._names[schema.label]].target
            related += [each for each in query._instances if type(each) is target]
        for each in related:
            if each is not None and each._row_state.alias in self.aliases:
                return str(each._row_state.alias)
        return None

    def _of_rows(self, model: Any, rows: Sequence[Any], hints: Mapping[str, Any]) -> str:
        """Return the shard of all *rows*. Raises `ShardError` if they have several."""
        owner = hints.get("instance") if "query" in hints else None
        found: dict[str, Any] = {}
        for row in rows:
            found.setdefault(self._of_row(model, row, owner), row)
        if len(found) > 1:
            shown = " and ".join(f"{brief(row)} to {alias!r}" for alias, row in found.items())
            raise ShardError(
                f"rows of {model.__name__} that are written together belong to several shards: {shown}; write those of each "
                "shard by a call of its own"
            )
        (alias,) = found
        here = self._here()
        if here is not None and here != alias:
            raise ShardError(f"{brief(rows[0])} belongs to {alias!r}, and the at() block is on {brief(here)}")
        return alias

    def _of_row(self, model: Any, row: Any, owner: Any) -> str:
        schema: Schema = model.__schema__
        own, name = row._row_state.alias, self._field(schema)
        saved = not row._row_state.adding and own in self.aliases
        if name is None:
            relation: Any = schema.relations[self._names[schema.label]]
            parent = relation.assigned(row)
            alias = (
                None
                if parent is None
                else parent._row_state.alias or self._of_row(type(parent), parent, None)
            )
            alias = alias or (own if saved else None)
            if alias is None and owner is not None and owner._row_state.alias in self.aliases:
                alias = str(owner._row_state.alias)
        elif saved and name not in row.__dict__:  # it was loaded without its key
            alias = own
        else:
            value = row.__dict__.get(name)
            if saved and value != loaded_value(row, name):
                raise ShardError(
                    f"{schema.name}.{name} of {brief(row)} says on which shard it is, and cannot be changed to "
                    f"{brief(value)}: delete the row and create another"
                )
            alias = None if value is None else self.alias(value)
        if saved and alias != own:
            raise ShardError(
                f"{brief(row)} of {brief(own)} cannot be written to {alias!r}: a row stays on its shard"
            )
        return alias or self._here() or self._refuse(model, brief(row))

    def _refuse(self, model: Any, what: str) -> str:
        schema = model.__schema__
        name = self._names[schema.label]
        given = self._field(schema)
        named = (
            f"filter({name}=…) or the field" if given is not None else f"the instance of {schema.name}.{name}"
        )
        raise ShardError(
            f"{what} of {schema.name} does not say on which shard: name it by {named}, by using=, or by `with shards.at(key)`; "
            "shards.each() yields all of them"
        )

    def _refuse_moving(self, model: Any, changes: Mapping[str, Any]) -> None:
        schema = model.__schema__
        relation = schema.relations.get(self._names[schema.label])
        names = (self._field(schema), None if relation is None else relation.field.name)
        if changed := [name for name in names if name in changes]:
            raise ShardError(
                f"{schema.name}.{changed[0]} says on which shard a row is, and an update cannot change it"
            )

    def _refuse_two(self, alias: str) -> None:
        databases = self._databases
        for scope in () if databases is None else open_scopes(databases):
            written = scope.kind is BLOCK and not (scope.of_test or scope.readonly)
            if written and scope.alias in self.aliases and scope.alias != alias:
                raise TransactionError(
                    f"a write to the shard {alias!r} cannot be part of the block on the shard {scope.alias!r}; end that first"
                )

    def _refuse_joins(self, model: Any, query: Any, written: Iterable[Mapping[str, Any]] = ()) -> None:
        """Raise `ShardError` for a query, or for expressions among the values *written*, that join rows of different places."""
        changed = [each for values in written for each in values.values() if isinstance(each, ClauseElement)]
        if not changed and (query is None or query.__dict__.keys() <= _OF_ITS_OWN_TABLE):
            return
        here = model.__schema__.label
        for label in _labels_in(model.__schema__, query, changed):
            spread = {here, label}.intersection(self._names)
            if spread and not {here, label} <= {*self._names, *self._everywhere}:
                raise ShardError(
                    f"a query of {here} joins {label}, and only {' and '.join(sorted(spread))} is spread over shards: read "
                    "them one after the other, or name the other in everywhere="
                )


def _label(model: Any) -> str:
    return model if isinstance(model, str) else str(model.__schema__.label)


def _weight(alias: str, key: Any) -> bytes:
    """Return a number for the pair: the shard of a key is the alias with the greatest."""
    if isinstance(key, bool) or not isinstance(key, (int, str, UUID, bytes)):
        raise ShardError(
            f"a key of a shard must be an int, a str, a UUID or bytes, not {brief(key)}; or give pick="
        )
    text = key if isinstance(key, bytes) else str(int(key) if isinstance(key, int) else key).encode()
    return blake2b(text, digest_size=8, key=blake2b(alias.encode(), digest_size=32).digest()).digest()


def _equal_value(conditions: Iterable[Any], column: Any) -> Any:
    """Return the value that one of *conditions*, all of which must be true, says *column* equals."""
    for each in conditions:
        if isinstance(each, BooleanClauseList) and each.operator is operators.and_:
            found = _equal_value(each.clauses, column)
            if found is not _MISSING:
                return found
        compared = (
            isinstance(each, BinaryExpression) and each.operator is operators.eq and each.left is column
        )
        if compared and isinstance(each.right, BindParameter) and each.right.callable is None:
            return each.right.value
    return _MISSING


def _labels_in(schema: Schema, query: Any, changed: Sequence[Any]) -> set[str]:
    """Return the labels of the models besides *schema* whose tables are read by *query*, if any, and the expressions *changed*."""
    # Only to look at: a statement knows the tables of its expressions, and of those inside its sub-selects.
    statement = select(*changed)
    if query is not None:
        related = frozenset([branch.path for branch in query._related])
        paths = related.union(*[each.paths for each in query._annotated])
        annotated = [each.column for each in query._annotated]
        read = (*query._read, *annotated, *query._order, *query._group, *query._having)
        statement = query._found(statement.add_columns(*read), paths)
    tables = {each for each in visitors.iterate(statement) if isinstance(each, Table)}
    found = {label for label, model in schema.registry.models.items() if model.__table__ in tables}
    return found - {schema.label}
