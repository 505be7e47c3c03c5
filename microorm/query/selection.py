"""The part of a query that says which rows are selected: conditions, order, limit, related rows, locks and alias."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Generic, Never, Self, TypeVar

from sqlalchemy import ColumnElement, Select, and_, bindparam, case, select

from microorm.db.autocommit import READS, AutocommitConnection
from microorm.db.databases import Databases
from microorm.db.engines.engine import Database
from microorm.db.transaction import Transaction
from microorm.errors import CrossDatabaseRelation
from microorm.fields.types import IsNotTrue
from microorm.mapping.annotation import refuse_clash
from microorm.mapping.path import Path, joined
from microorm.mapping.schema import Schema
from microorm.mapping.state import placeholder
from microorm.messages import brief
from microorm.query.aggregates import before_groups, has_window, of_groups, refuse_mixed
from microorm.query.filters import (
    NO_EQUAL,
    NO_PATHS,
    Annotated,
    Conditions,
    Equal,
    columns,
    conditions,
    non_negative,
    own_names,
)
from microorm.query.joins import Branch, branches_of, columns_of
from microorm.query.locks import Lock, lock_of, refuse_unlockable
from microorm.query.prefetch import Fetch, Prefetch, fetches_of
from microorm.sql.cache_key import cacheable, concatenated
from microorm.sql.hydration import Entry, entries_of, fields_of

M = TypeVar("M", bound="Any")


class Selection(Generic[M]):
    """The part of a query that says which rows are selected. It is immutable: each method returns a new query."""

    # Defaults are attributes of the class: a query stores, and copies, only what differs from them.
    _model: type[M]
    _where: tuple[ColumnElement[bool], ...] = ()
    _equal: Equal = NO_EQUAL  # names of fields, and the value that each must have
    _paths: frozenset[Path] = frozenset()  # to be joined for conditions
    _order_paths: frozenset[Path] = frozenset()
    _instances: tuple[Any, ...] = ()  # compared in conditions; they must be of the alias that is read
    _order: tuple[ColumnElement[Any], ...] = ()
    _group: tuple[ColumnElement[Any], ...] = ()
    _having: tuple[ColumnElement[bool], ...] = ()
    _limit: int | None = None
    _offset: int = 0
    _distinct: bool = False
    _lock: Lock | None = None
    _names: tuple[str, ...] | None = None  # the fields to load, if not all
    _annotated: tuple[Annotated, ...] = ()  # expressions that are loaded beside the fields
    _related: tuple[Branch, ...] = ()  # loaded in the same statement
    _read: tuple[Any, ...] = ()  # what is read instead of instances, for routers
    _prefetched: tuple[Fetch, ...] = ()  # loaded afterwards, by one statement each
    _owner: Any = None  # the instance whose related rows these are, for routers
    _using: str | None = None
    _default: Any = None  # which conditions are those of the default filter, see `objects.Begun`
    _shown = "Query"  # the name of the class, in texts

    def __init__(self, model: type[M]) -> None:
        self._model = model

    def __repr__(self) -> str:
        """Return the model and the SQL on one line, with names of parameters instead of values; no SQL is run."""
        try:
            sql = " ".join(str(self).split())
        except Exception as error:  # noqa: BLE001 a debugger must be able to show any query
            sql = f"no SQL: {type(error).__name__}"
        return f"<{self._shown} of {self._model.__name__}: {sql}>"

    def __str__(self) -> str:
        """Return the SQL with names of parameters instead of values. The dialect of a database may differ from it."""
        # The values of an IN are only counted when it runs.
        return re.sub(r"__\[POSTCOMPILE_(\w+)\]", r":\1", str(self.statement))

    def _in_messages(self) -> str:
        return f"<{self._shown} of {self._model.__name__}>"

    def __copy__(self) -> Self:
        return self  # a query never changes

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(
            f"{self._in_messages()} cannot be pickled; pickle its instances (all()) or their keys (scalars())"
        )

    def filter(self, /, *expressions: ColumnElement[bool], **equalities: Any) -> Self:
        """Return a query of the rows for which all *expressions* are true and the fields have the values of *equalities*.

        None means NULL, `pk=` is the key, an instance stands for its key. A condition on a path to many rows
        (`Author.books.title`) is true if one of these rows fulfils it; all such conditions of one call must be fulfilled by
        the same row. No row is found twice. A condition on a window function chooses among the rows that the query and the
        other conditions find. Raises `FieldError` for an unknown name and a column of another table,
        `InvalidValue` for a value that the field cannot have, `UnsavedError` for an instance without a key, `TypeError` for
        anything but an expression.
        """
        if self._annotated and equalities:
            expressions, equalities = self._by_name(expressions, equalities)
        found = conditions(self._model.__schema__, "filter", expressions, equalities)
        if found.windows:
            return self._chosen(found)
        (names, values), (more_names, more_values) = self._equal, found.equal
        equal = (names + more_names, values + more_values)
        if not (found.where or found.instances):
            return self._with(_equal=equal)
        return self._with(
            _where=concatenated(self._where, found.where),
            _equal=equal,
            _paths=self._paths | found.paths,
            _instances=self._instances + found.instances,
        )

    def exclude(self, /, *expressions: ColumnElement[bool], **equalities: Any) -> Self:
        """Return a query of the rows that `filter` with the same arguments would not find, those with NULLs included.

        *expressions*, *equalities* and errors are those of `filter`.
        """
        if self._annotated and equalities:
            expressions, equalities = self._by_name(expressions, equalities)
        found = conditions(self._schema, "exclude", expressions, equalities)
        if found.windows:
            return self._chosen(found, excluded=True)
        refused = [*found.where, *self._equal_expressions(found.equal)]
        if not refused:
            return self
        return self._with(
            _where=concatenated(self._where, cacheable(self._schema, (IsNotTrue(and_(*refused)),))),
            _paths=self._paths | found.paths,
            _instances=self._instances + found.instances,
        )

    def order_by(self, *order: ColumnElement[Any] | str) -> Self:
        """Return a query with this order instead of an earlier one; by columns or names, descending by `.desc()`.

        How NULLs and upper and lower case are ordered is up to the database. Raises `FieldError` for an unknown name and
        for a path to many rows.
        """
        instances = list(self._instances)
        found, paths = columns(self._schema, "order_by", order, instances, self._annotated)
        return self._with(_order=tuple(found), _order_paths=frozenset(paths), _instances=tuple(instances))

    def annotate(self, /, *unnamed: Never, **expressions: ColumnElement[Any]) -> Self:
        """Return a query whose rows also have the values of *expressions*, as attributes of the instances.

        An aggregate over a path to many rows, such as `func.count(Author.books.id)`, is that of the rows of each instance;
        without any of them, a count is 0 and the others are None. A condition on such a path is whether one of the rows
        fulfils it. `order_by`, `group_by`, `values` and `filter` know the names, and `filter` the expressions themselves. The values are
        not saved, and stay as they are until the query runs again. Raises `FieldError` for a name that the model uses
        otherwise and for columns of other tables, `TypeError` for anything but expressions with a name (*unnamed*).
        """
        if unnamed:
            raise TypeError(
                f"annotate() takes expressions by name, annotate(number=…), not {brief(unnamed[0])}"
            )
        schema, instances = self._schema, list(self._instances)
        known = {each.name: each for each in self._annotated}
        for name, given in expressions.items():
            refuse_clash(schema, name)
            if isinstance(given, str):
                raise TypeError(f"annotate() takes column expressions, not {brief(given)}")
            (column,), paths = columns(schema, "annotate", [given], instances, self._annotated)
            known[name] = Annotated(name, given, column.label(name), paths)
        return self._with(_annotated=tuple(known.values()), _instances=tuple(instances))

    def group_by(self, *groups: ColumnElement[Any] | str) -> Self:
        """Return a query with one row for each combination of *groups*, for `values` and `scalars`. Raises `FieldError`."""
        instances = list(self._instances)
        found, paths = columns(self._schema, "group_by", groups, instances, self._annotated)
        return self._with(_group=tuple(found), _paths=self._paths | paths, _instances=tuple(instances))

    def having(self, *expressions: ColumnElement[bool]) -> Self:
        """Return a query of the groups for which all *expressions* are true. Raises `FieldError`."""
        instances = list(self._instances)
        found, paths = columns(self._schema, "having", expressions, instances, self._annotated)
        having = self._having + tuple(found)
        return self._with(_having=having, _paths=self._paths | paths, _instances=tuple(instances))

    def limit(self, count: int) -> Self:
        """Return a query of at most *count* rows. `ValueError` for a negative one."""
        return self._with(_limit=non_negative("limit()", count))

    def offset(self, count: int) -> Self:
        """Return a query that skips the first *count* rows. `ValueError` for a negative one."""
        return self._with(_offset=non_negative("offset()", count))

    def distinct(self) -> Self:
        """Return a query without repeated rows."""
        return self._with(_distinct=True)

    def only(self, *fields: str | ColumnElement[Any]) -> Self:
        """Return a query that loads these fields, by name or column, and the key; the others are loaded when read.

        Each of the others takes a statement of its own then. Replaces an earlier `only` or `defer`. Raises `FieldError` for
        anything but a field of the model.
        """
        return self._loading(own_names(self._schema, "only", fields))

    def defer(self, *fields: str | ColumnElement[Any]) -> Self:
        """Return a query that loads these fields, by name or column, only when they are read; see `only`.

        Adds to an earlier `only` or `defer`. The key is always loaded. Raises `FieldError`.
        """
        deferred = own_names(self._schema, "defer", fields)
        loaded = self._schema.names if self._names is None else self._names
        return self._loading(frozenset(loaded) - deferred)

    def select_related(self, *paths: type[Any] | str) -> Self:
        """Return a query that loads the one row at the end of each of *paths*, and those on the way, in the same statement.

        A path (`Book.author.country`) or its dotted name (`"author.country"`). All that are related to one row get the same
        instance of it. Adds to an earlier `select_related`. Raises `FieldError` for an unknown name and for a path to many
        rows, `TypeError` for anything but a path.
        """
        return self._with(_related=branches_of(self._schema, self._related, paths))._completed()

    def prefetch_related(self, *paths: type[Any] | str | Prefetch) -> Self:
        """Return a query that loads the rows at the end of each of *paths*, and those on the way, by one statement a relation.

        A path (`Author.books.tags`), its dotted name, or a `Prefetch` with a query of its own. They are read after the
        query's rows, or after each chunk of them, and from the same alias unless routed elsewhere. Adds to an earlier
        `prefetch_related`. Raises `FieldError` for an unknown name, `TypeError` for anything but a path, `ValueError` for
        two queries of the same rows.
        """
        return self._with(_prefetched=fetches_of(self._schema, self._prefetched, paths))._completed()

    def for_update(self, *, nowait: bool = False, skip_locked: bool = False, of: Sequence[Any] = ()) -> Self:
        """Return a query that locks its rows until the end of the open block; other transactions wait for them.

        *nowait*: a locked row is a database error; *skip_locked*: it is skipped. *of*: the model, columns, or paths
        (`Book.author`) whose rows are locked, by default the model's; PostgreSQL only. MariaDB locks the rows of all tables
        that it reads. On SQLite a block has locked the whole database already, and none of these options exists. Raises
        `ValueError` for both flags at once, `FieldError`, and when the query runs `TransactionError` outside a block that
        may write, and for an option that the database does not have.
        """
        lock, paths = lock_of(self._schema, nowait=nowait, skip_locked=skip_locked, of=of)
        return self._with(_lock=lock, _paths=self._paths | paths)

    def using(self, alias: str, /) -> Self:
        """Return a query that reads from, and writes to, *alias*. Routers are not consulted."""
        return self._with(_using=alias)

    @property
    def statement(self) -> Select[Any]:
        """The query as SQLAlchemy's `Select` of the columns that it loads: the model's, then those of `select_related`."""
        schema, branches = self._schema, self._related
        if branches or self._names is not None or self._annotated:
            own = [field.column for field in fields_of(schema, self._names)]
            added = [each.column for each in self._annotated]
            paths = frozenset([branch.path for branch in branches])
            return self._select(
                *own,
                *columns_of(branches),
                *added,
                paths=paths.union(*[each.paths for each in self._annotated]),
            )
        if self._order:
            refuse_mixed(self._key_columns, self._order)
        if not schema.selects:  # made once for all queries of the model
            schema.selects.append(select(*[field.column for field in schema.fields]))
        return self._completed_select(schema.selects[0], NO_PATHS)

    @property
    def _entries(self) -> list[Entry]:
        """What the columns of the statement are."""
        schema = self._schema
        found = entries_of(schema, fields_of(schema, self._names))
        for branch in self._related:
            there = branch.path._schema
            found += entries_of(there, there.fields, branch.path)
        return found + [None] * len(self._annotated)

    @property
    def _schema(self) -> Schema:
        schema: Schema = self._model.__schema__
        return schema

    @property
    def _key_columns(self) -> tuple[ColumnElement[Any], ...]:
        return tuple(field.column for field in self._schema.key)

    def _chosen(self, found: Conditions, *, excluded: bool = False) -> Self:
        """Return a query of the rows that fulfil *found*, with conditions on window functions, or of the others if *excluded*.

        SQL computes these functions after it has chosen rows, so it is by key that these conditions choose among the rows of
        the query so far.
        """
        where = [*found.where, *self._equal_expressions(found.equal)]
        rows = self._with(
            _order=(), _order_paths=NO_PATHS, _limit=None, _offset=0, _distinct=False, _lock=None
        )
        rows = rows._with(_paths=self._paths | found.paths, _instances=self._instances + found.instances)
        plain = () if excluded else tuple(each for each in where if not has_window(each))
        rest = and_(*[each for each in where if excluded or has_window(each)])
        rows = rows._with(_where=(*self._where, *plain))
        kept = case((rest, 1), else_=0).label("kept")
        computed = rows._select(*self._key_columns, kept).subquery()
        *key, kept_column = computed.c
        chosen = self._schema.key_in(select(*key).where(kept_column == int(not excluded)))
        default = None if self._default is None else self._default._replace(chosen=True)
        return self._with(_where=(*self._where, chosen), _instances=rows._instances, _default=default)

    def _by_name(self, expressions: tuple[Any, ...], equalities: dict[str, Any]) -> Any:
        """Return *expressions* with conditions for the names of annotations in *equalities*, and the other equalities."""
        named = {each.name: each.column.element for each in self._annotated}
        added = [named[name] == value for name, value in equalities.items() if name in named]
        return (*expressions, *added), {name: v for name, v in equalities.items() if name not in named}

    def _with(self, **changes: Any) -> Self:
        query = object.__new__(type(self))
        query.__dict__ = self.__dict__ | changes
        return query

    def _loading(self, loaded: frozenset[str]) -> Self:
        """Return a query that loads the fields *loaded*, the key, the version, and the fields with which related rows are found."""
        schema = self._schema
        first = {branch.relation for branch in self._related} | {fetch.chain[0] for fetch in self._prefetched}
        found_by = {each.steps[0].near.name for each in first if each.owner is schema.model}
        version = () if schema.version is None else (schema.version.name,)  # a save compares it
        needed = loaded.union(schema.key_names, version, found_by)
        names = tuple(name for name in schema.names if name in needed)
        return self._with(_names=None if names == schema.names else names)

    def _completed(self) -> Self:
        """Return the query so that the fields with which related rows are found are loaded, too."""
        return self if self._names is None else self._loading(frozenset(self._names))

    def _place(self, equal: Equal | None = None) -> tuple[Database, Transaction | None]:
        """Return the database to read from, and its open transaction; with a lock, those to write to.

        *equal*: as in `_hints`.
        """
        schema = self._schema
        databases: Databases = schema.registry.databases
        using = self._using if self._lock is None else self._write_database().alias
        hints = self._hints(equal) if databases.routers and using is None else None
        place = databases.place(schema, using, self._owner, writes=False, hints=hints)
        if self._lock is not None:
            refuse_unlockable(self._lock, *place)
        for each in self._instances:
            self._refuse_elsewhere(each, place[0])
        return place

    def _channel(self) -> Transaction | AutocommitConnection:
        """Return a context manager that reaches the database to read from, for statements of SQLAlchemy."""
        database, transaction = self._place()
        return transaction or AutocommitConnection(database, READS)

    def _hints(self, equal: Equal | None = None) -> dict[str, Any]:
        """Return the hints for routers: this query, and the values that fields must have.

        *equal*: the conditions that are used instead of its own.
        """
        names, row = self._equal if equal is None else equal
        return {"query": self, "values": dict(zip(names, row, strict=True))}

    def _write_database(self, **hints: Any) -> Database:
        """Return the database to write to. *hints*: more hints for routers, besides the query."""
        schema = self._schema
        schema.refuse_write()
        databases: Databases = schema.registry.databases
        told = {**self._hints(), **hints} if databases.routers and self._using is None else None
        database = databases.for_write(schema.model, schema.home, self._using, self._owner, told)
        for each in self._instances:
            self._refuse_elsewhere(each, database)
        return database

    def _refuse_elsewhere(self, instance: Any, database: Database) -> None:
        """Raise `CrossDatabaseRelation` if *instance*, used in a condition, is of another alias and routers forbid it."""
        if instance._row_state.alias in (None, database.row_alias):
            return
        row = placeholder(self._schema.model, database.row_alias)
        if not self._schema.registry.databases.allows_relation(row, instance):
            # The instance that stands for a query has no key.
            used = f"a query of {type(instance).__name__}" if instance.pk is None else brief(instance)
            raise CrossDatabaseRelation(
                f"a query of {self._schema.name} in {database.alias!r} uses {used} of "
                f"{instance._row_state.alias!r}"
            )

    def _equal_expressions(self, equal: Equal) -> list[ColumnElement[bool]]:
        columns = [self._schema.by_name[name].column for name in equal[0]]
        # The parameters are explicit, as true and false would otherwise become part of the SQL.
        return [
            column == bindparam(column.key, value, column.type, unique=True)
            for column, value in zip(columns, equal[1], strict=True)
        ]

    def _conditions(self) -> list[ColumnElement[bool]]:
        return [*self._where, *self._equal_expressions(self._equal)]

    def _select(self, *selected: Any, paths: frozenset[Path] = NO_PATHS) -> Select[Any]:
        """Return a SELECT of *selected* from the rows of the query; *paths* are joined for them."""
        if self._group:
            selected = tuple(of_groups(self._group, selected))
        else:
            refuse_mixed(selected, (*self._order, *self._having))
        statement: Any = select(*selected).select_from(self._schema.table)
        return self._completed_select(statement, paths)

    def _completed_select(self, statement: Select[Any], paths: frozenset[Path]) -> Select[Any]:
        """Return *statement* with the conditions, groups, order, limit and lock of the query."""
        statement = self._found(statement, paths)
        if self._group:
            statement = statement.group_by(*self._group)
        order, having = self._order, self._having
        if self._group:
            order, having = (tuple(of_groups(self._group, each)) for each in (order, having))
            early, having = before_groups(having)
            statement = statement.where(*early)
        if having:
            statement = statement.having(*having)
        if order:
            statement = statement.order_by(*order)
        if self._limit is not None:
            statement = statement.limit(self._limit)
        if self._offset:
            statement = statement.offset(self._offset)
        if (lock := self._lock) is not None:
            # PostgreSQL cannot lock joined rows that may be missing.
            of = lock.of or (self._schema.table,)
            statement = statement.with_for_update(nowait=lock.nowait, skip_locked=lock.skip_locked, of=of)
        return statement.distinct() if self._distinct else statement

    def _found(self, statement: Select[Any], paths: frozenset[Path] = NO_PATHS) -> Select[Any]:
        """Return *statement* with the conditions of the query and the joins that it and *paths* need."""
        if needed := self._paths | self._order_paths | paths:
            statement = statement.select_from(joined(self._schema, needed))
        wanted = self._conditions()
        return statement.where(*wanted) if wanted else statement

    def _targeted(self, statement: Any) -> Any:
        """Return *statement*, an UPDATE or DELETE, with the conditions of the query."""
        wanted = self._conditions()
        if self._paths:
            wanted = [self._schema.key_in(self._found(select(*self._key_columns)).correlate(None))]
        return statement.where(*wanted) if wanted else statement

    @property
    def _limited(self) -> bool:
        return self._limit is not None or bool(self._offset) or self._distinct
