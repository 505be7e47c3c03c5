"""Through rows: add, remove and set the rows of a many-to-many relation, and send `m2m_changed`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.sql import ClauseElement

from microorm.db.atomic import UnitOfWork, unit_of_work
from microorm.db.context import ReceiverScope
from microorm.db.databases import Databases
from microorm.db.engines.engine import Database
from microorm.errors import CrossDatabaseRelation, ModelError, UnsavedError
from microorm.fields.checks import shown
from microorm.mapping.constructor import create_instance
from microorm.mapping.schema import Schema
from microorm.mapping.state import placeholder
from microorm.mapping.unique import unique_sets
from microorm.messages import brief
from microorm.query.query import Query
from microorm.query.results import MAX_VALUES
from microorm.signals import m2m_changed
from microorm.sql.batches import sliced


def many_to_many_of(relation: Any) -> Any:
    """Return the many-to-many relation that *relation* is one side of; None for a relation of another kind."""
    found = relation if relation.many_to_many else getattr(relation, "reverse_of", None)
    return found if found is not None and found.many_to_many else None


class ThroughRows:
    """Change which rows the owner of *query* is related to: rows of the through model, each a pair of keys.

    *defaults* are the values of the other fields of these rows. *raw* is passed on to the receivers of `m2m_changed`.
    """

    def __init__(self, query: Any, defaults: Mapping[str, Any] | None = None, *, raw: bool = False) -> None:
        self._query = query
        self._relation = relation = query._relation
        self._owner, self._key = query._owner, query._key
        self._many_to_many = many_to_many_of(relation)
        self._near, self._far = (step.foreign_key for step in relation.steps)
        self._model: Any = relation.target
        self._through: Any = self._near.owner
        self._schema: Schema = self._through.__schema__
        self._raw = raw
        self._defaults = self._checked_defaults(defaults)
        self._databases: Databases = self._schema.registry.databases
        self._schema.refuse_write()
        self._database: Database = self._databases.for_write(
            self._through, self._schema.home, query._using, self._owner
        )
        m2m_changed.refuse_waiting(self._through)

    def create(self, values: dict[str, Any]) -> Any:
        """Make an instance of *values*, insert it, and relate it."""
        database = self._query._write_database()
        self._refuse_elsewhere(placeholder(self._model, database.alias))
        self._row(self._key, None)  # raises what the constructor raises before anything is written
        with unit_of_work(self._databases, database) as made, self._unit([]) as whole:
            instance = self._query._insert(**values)
            made.dirty = whole.dirty = True
            self._add(whole, self._keys("create", [instance]))
        return instance

    def add(self, objects: Sequence[Any]) -> None:
        """Relate *objects*, instances or keys."""
        if wanted := self._keys("add", objects):
            with self._unit(objects) as whole:
                self._add(whole, wanted)

    def remove(self, objects: Sequence[Any]) -> None:
        """Remove the relation to *objects*, instances or keys, related or not."""
        if keys := self._keys("remove", objects):
            with self._unit(objects) as whole:
                self._remove(whole, keys)

    def clear(self) -> None:
        """Remove all relations."""
        with self._unit([]) as whole:
            self._remove(whole, None)

    def set(self, objects: Sequence[Any], *, clear: bool) -> None:
        """Relate *objects*, instances or keys, and no others; with *clear* remove all relations first."""
        wanted = self._keys("set", objects)
        with self._unit(objects) as whole:
            if clear:
                rows = self._rows(wanted)
                self._remove(whole, None)
                if wanted:
                    self._insert(whole, wanted, rows)
                return
            present = self._related(whole, self._near, self._far)
            new = [key for key in wanted if key not in present]
            rows = self._rows(new, self._reversed(whole, new))
            if surplus := [key for key in present if key not in set(wanted)]:
                self._remove(whole, self._shown_ones(surplus))
            if new:
                self._insert(whole, new, rows)

    def _shown_ones(self, keys: list[Any]) -> list[Any]:
        """Return those of *keys* whose rows the relation shows: all, unless their model has a default filter."""
        rows = self._model.objects.using(self._database.alias)
        if rows._default is None:
            return keys
        column = self._far.to.column
        return [key for part in _parts(keys) for key in rows.filter(column.in_(part)).scalars(column)]

    def _add(self, whole: UnitOfWork, wanted: list[Any]) -> None:
        new = wanted
        if not self._unique or m2m_changed._route(self._through):
            present = self._related(whole, self._near, self._far, wanted)
            new = [key for key in wanted if key not in present]
        self._insert(whole, new, self._rows(new, self._reversed(whole, wanted)))

    def _insert(self, whole: UnitOfWork, new: Iterable[Any], rows: list[Any]) -> None:
        """Insert *rows*, which relate the keys *new*; a pair that another transaction has inserted stays as it is."""
        self._send(whole, "pre_add", new)
        if rows:
            whole.dirty = True
            query = Query(self._through).using(self._database.alias)
            if self._unique:
                query.bulk_create(rows, on_conflict="ignore", unique_fields=self._names)
            else:
                query.bulk_create(rows)
        self._send(whole, "post_add", new)

    def _remove(self, whole: UnitOfWork, keys: list[Any] | None) -> None:
        """Delete the rows that relate *keys*, or all."""
        action = "clear" if keys is None else "remove"
        self._send(whole, f"pre_{action}", keys)
        for part in _parts(keys):
            whole.dirty = True
            found = self._condition(self._near, self._far, part)
            if self._many_to_many.symmetrical:
                found = or_(found, self._condition(self._far, self._near, part))
            Query(self._through).using(self._database.alias).filter(found).delete()
        self._send(whole, f"post_{action}", keys)

    def _send(self, whole: UnitOfWork, action: str, keys: Iterable[Any] | None) -> None:
        if not m2m_changed._route(self._through):
            return
        whole.dirty = True
        ReceiverScope(self._databases, self._database.alias).run(
            m2m_changed.send,
            self._through,
            instance=self._owner,
            action=action,
            reverse=self._many_to_many is not self._relation,
            model=self._model,
            pk_set=None if keys is None else set(keys),
            using=self._database.alias,
            raw=self._raw,
        )
        whole.check()

    @property
    def _names(self) -> tuple[str, str]:
        return self._near.field.name, self._far.field.name

    @property
    def _unique(self) -> bool:
        """Whether a unique constraint keeps a pair from being stored twice."""
        return any(set(names) == set(self._names) for names in unique_sets(self._schema))

    def _rows(self, new: Iterable[Any], reversed_: Iterable[Any] | None = None) -> list[Any]:
        """Make rows of the through model that relate *new*, and *reversed_* backwards if the relation is symmetrical."""
        pairs = [(self._key, key) for key in new]
        if self._many_to_many.symmetrical:
            pairs += [
                (key, self._key) for key in (new if reversed_ is None else reversed_) if key != self._key
            ]
        return [self._row(near, far) for near, far in pairs]

    def _row(self, near: Any, far: Any) -> Any:
        """Make a row that relates the keys *near* and *far*. Raises `TypeError` for a missing or unknown value."""
        names = self._names
        return create_instance(self._schema, {**self._defaults, names[0]: near, names[1]: far})

    def _reversed(self, whole: UnitOfWork, wanted: list[Any]) -> list[Any]:
        """Return the keys among *wanted* that are to be related backwards, too."""
        if self._unique or not self._many_to_many.symmetrical:
            return wanted
        present = self._related(whole, self._far, self._near, wanted)
        return [key for key in wanted if key not in present]

    def _related(
        self, whole: UnitOfWork, near: Any, far: Any, wanted: list[Any] | None = None
    ) -> dict[Any, None]:
        """Return the keys that are related by the foreign keys *near* and *far*, among *wanted* if given."""
        found: dict[Any, None] = {}
        for part in _parts(wanted):
            statement = select(far.field.column).where(self._condition(near, far, part))
            found.update(dict.fromkeys(row[0] for row in whole.channel.fetch(statement)))
        return found

    def _condition(self, near: Any, far: Any, keys: Sequence[Any] | None) -> ColumnElement[bool]:
        mine: ColumnElement[bool] = near.field.column == self._key
        return mine if keys is None else and_(mine, far.field.column.in_(keys))

    def _keys(self, method: str, objects: Iterable[Any]) -> list[Any]:
        """Return the keys of *objects*, instances or keys, without repetitions."""
        return list(dict.fromkeys(self._key_of(method, each) for each in objects))

    def _key_of(self, method: str, given: Any) -> Any:
        """Return the key of *given*, an instance or a key. Raises an error if it cannot be related."""
        field = self._far.to
        label, name = self._relation.label, self._model.__name__
        if type(given) is self._model:
            key = getattr(given, field.name)
            if key is None or given._row_state.adding:
                raise UnsavedError(
                    f"{method}() of {label} needs saved instances; {brief(given)} is not saved"
                )
            self._refuse_elsewhere(given)
            return key
        if given is None or isinstance(given, ClauseElement) or hasattr(type(given), "__schema__"):
            raise TypeError(f"{method}() of {label} takes instances of {name}, or keys, not {shown(given)}")
        return field.comparable(given)

    def _refuse_elsewhere(self, instance: Any) -> None:
        if not self._databases.allows_relation(instance, self._owner):
            raise CrossDatabaseRelation(
                f"{self._relation.name} of {brief(self._owner)} of {self._owner._row_state.alias!r} cannot have rows of "
                f"{instance._row_state.alias!r}"
            )

    def _checked_defaults(self, defaults: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return *defaults*, checked, with each function replaced by what it returns."""
        if defaults is None:
            return {}
        if not isinstance(defaults, Mapping):
            raise TypeError(f"through_defaults= must be a dictionary of values, not {brief(defaults)}")
        for key in (self._near, self._far):
            for name in (key.name, key.field.name):
                if name in defaults:
                    raise TypeError(f"through_defaults= of {self._relation.label} takes no {name!r}")
        values = {name: value() if callable(value) else value for name, value in defaults.items()}
        for foreign_key in self._schema.foreign_keys:
            foreign_key.key_of(values.get(foreign_key.name))
        return values

    @contextmanager
    def _unit(self, objects: Iterable[Any]) -> Iterator[UnitOfWork]:
        """Open a unit of work in which the owner and *objects* have dropped the related rows that they had loaded."""
        with unit_of_work(self._databases, self._database) as whole:
            whole.forget(self._owner, self._sides(type(self._owner)))
            for each in objects:
                if type(each) is self._model:
                    whole.forget(each, self._sides(self._model))
            yield whole

    def _sides(self, model: Any) -> list[str]:
        """Return the names of the relations of *model* that the through rows belong to."""
        found = []
        for each in model.__schema__.relations.values():
            with suppress(ModelError):  # a wrong declaration is reported when it is used
                if many_to_many_of(each) is self._many_to_many:
                    found.append(each.name)
        return found


def _parts(keys: list[Any] | None) -> Iterable[Sequence[Any] | None]:
    """Cut *keys* into parts that fit into one statement; None, which means all rows, is one part."""
    return [None] if keys is None else sliced(keys, MAX_VALUES)
