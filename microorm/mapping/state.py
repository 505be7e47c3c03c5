"""The loaded state of an instance, and what has changed since.

An instance has a `RowState`, shared by all instances of one result, and its loaded row. The loaded row is the driver's
tuple: nothing is copied when an instance is loaded, and loaded values are decoded when they are used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from datetime import UTC, datetime
from textwrap import shorten
from typing import Any

from sqlalchemy.sql import ClauseElement

from microorm.db.context import awaited_call
from microorm.fields.field import MISSING, Field
from microorm.messages import MAX_VALUE, brief_value


class RowLayout:
    """The index and decoder of each field in a loaded row; *partial* if some fields were deferred.

    *as_json* is what `serialization.encode_row` has made for its rows.
    """

    __slots__ = ("as_json", "decoders", "indexes", "names", "partial")

    def __init__(
        self,
        names: tuple[str, ...],
        decoders: tuple[Callable[[Any], Any] | None, ...] | None = None,
        *,
        partial: bool = False,
    ) -> None:
        self.names = names
        self.partial = partial
        self.indexes = {name: index for index, name in enumerate(names)}
        self.decoders = decoders if decoders is not None and any(decoders) else None
        self.as_json: Callable[[tuple[Any, ...]], str] | None = None

    def value(self, row: tuple[Any, ...], name: str) -> Any:
        """Return the value of the field *name* in *row*; MISSING if it was not loaded."""
        if (index := self.indexes.get(name)) is None:
            return MISSING
        decode = None if self.decoders is None else self.decoders[index]
        return row[index] if decode is None else decode(row[index])


class RowState:
    """The alias of an instance's row, whether it is still to be inserted, and the layout of its loaded row.

    *before* is set while `post_save` receivers run: the state and loaded row from before the save, with which
    `changes()` compares. A copy of the instance keeps it until its first save (*copied*). *plain*: there is no *before*,
    and no field was deferred. *awaited*: an awaited call has loaded or saved the row, by default the one that is running.
    """

    __slots__ = (
        "_of_copies",
        "adding",
        "after_insert",
        "alias",
        "awaited",
        "before",
        "copied",
        "layout",
        "partial",
        "plain",
    )

    def __init__(
        self,
        alias: str | None,
        layout: RowLayout | None,
        *,
        adding: bool = False,
        before: tuple[RowState, tuple[Any, ...] | None] | None = None,
        copied: bool = False,
        awaited: bool | None = None,
    ) -> None:
        self.alias = alias
        self.awaited = awaited_call() is not None if awaited is None else awaited
        self.layout = layout
        self.adding = adding
        self.before = before
        self.copied = copied
        self.partial = layout is not None and layout.partial
        self.plain = before is None and not self.partial
        self.after_insert: RowState | None = None
        self._of_copies: RowState | None = None

    def with_before(self, before: tuple[RowState, tuple[Any, ...] | None]) -> RowState:
        """Return the state for receivers of `post_save`; all new instances share one."""
        state = RowState(self.alias, self.layout, before=before, awaited=self.awaited)
        if before == NOTHING:
            self.after_insert = state
        return state

    def without_before(self) -> RowState:
        """The same once its `post_save` receivers have run."""
        return RowState(self.alias, self.layout, adding=self.adding, awaited=self.awaited)

    def of_copy(self) -> RowState:
        """Return the state for a copy of the instance; all copies share one."""
        if self.before is None or self.copied:
            return self
        if self._of_copies is None:
            self._of_copies = RowState(
                self.alias,
                self.layout,
                adding=self.adding,
                before=self.before,
                copied=True,
                awaited=self.awaited,
            )
        return self._of_copies

    def moved(self, alias: str | None) -> RowState:
        """Return the same state in *alias*."""
        return RowState(
            alias,
            self.layout,
            adding=self.adding,
            before=self.before,
            copied=self.copied,
            awaited=self.awaited,
        )


NEW = RowState(None, None, adding=True, awaited=False)
NOTHING = (NEW, None)
"""The state and loaded row of a new instance."""

_new: dict[str, RowState] = {}


def new_in(alias: str) -> RowState:
    """Return the state of a new instance that is to be written to *alias*."""
    return _new.get(alias) or _new.setdefault(alias, RowState(alias, None, adding=True, awaited=False))


def placeholder(model: type[Any], alias: str) -> Any:
    """Return an empty new instance of *model* in *alias*: it stands for a row in questions to the routers."""
    instance = object.__new__(model)
    instance._row, instance._row_state, instance._related = None, new_in(alias), None
    return instance


def keep_related(instance: Any, name: str, found: tuple[Any, Any]) -> None:
    """Cache what *instance* is related to by the relation *name*: *found* is a key, and what was found by it."""
    if (related := instance._related) is None:
        instance._related = {name: found}
    else:
        related[name] = found


def kept_related(instance: Any, name: str) -> tuple[Any, Any] | None:
    """Return what `keep_related` has cached, or None."""
    related: dict[str, Any] | None = instance._related
    return None if related is None else related.get(name)


def drop_related(instance: Any, name: str) -> None:
    """Drop what is cached of the relation *name*. The name stays, since a rollback looks for it."""
    if instance._related is not None and name in instance._related:
        instance._related[name] = None


class State:
    """`instance._state`, as in Django: `adding` (no row yet) and `db` (the alias of the row)."""

    __slots__ = ("_instance",)

    def __init__(self, instance: Any) -> None:
        self._instance = instance

    def __repr__(self) -> str:
        return f"<State adding={self.adding} db={self.db!r}>"

    @property
    def adding(self) -> bool:
        """Whether the row is still to be inserted."""
        adding: bool = self._instance._row_state.adding
        return adding

    @adding.setter
    def adding(self, adding: bool) -> None:
        self._replace(self.db, adding)

    @property
    def db(self) -> str | None:
        """The alias of the row, or None."""
        alias: str | None = self._instance._row_state.alias
        return alias

    @db.setter
    def db(self, alias: str | None) -> None:
        self._replace(alias, self.adding)

    def _replace(self, alias: str | None, adding: bool) -> None:
        state = self._instance._row_state
        self._instance._row_state = RowState(
            alias, state.layout, adding=adding, before=state.before, copied=state.copied
        )


def copied_row(fields: Sequence[Field[Any]], row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return *row* with copies of the values that can change in place."""
    return tuple(
        deepcopy(value) if field.mutable and value is not None else value
        for field, value in zip(fields, row, strict=True)
    )


def merge_loaded(instance: Any, fresh: Mapping[str, Any]) -> dict[str, Any]:
    """Return the loaded values of *instance* by name, updated by *fresh*."""
    fields: Mapping[str, Field[Any]] = instance.__schema__.by_name
    copies = copied_row([fields[name] for name in fresh], tuple(fresh.values()))
    loaded = dict(zip(fresh, copies, strict=True))
    layout, row = instance._row_state.layout, instance._row
    for name in () if row is None else layout.names:
        if name not in loaded:
            loaded[name] = layout.value(row, name)
    return loaded


def loaded_value(instance: Any, name: str) -> Any:
    """Return the loaded or saved value of *name*; MISSING if there is none."""
    state, row = instance._row_state, instance._row
    if state.before is not None:
        state, row = state.before
    if row is None or state.layout is None:
        return MISSING
    return state.layout.value(row, name)


def changes(
    instance: Any, names: tuple[str, ...], foreign_keys: Sequence[Any] = ()
) -> dict[str, tuple[Any, Any]]:
    """Return `{name: (loaded, current)}` of the fields among *names* that have changed.

    The current value of *foreign_keys* is the key that the related instance has by now, as a save would write it.
    """
    found: dict[str, tuple[Any, Any]] = {}
    values = instance.__dict__
    for foreign_key in foreign_keys:
        other = foreign_key.assigned(instance)
        if other is not None and (key := other.__dict__.get(foreign_key.key_field.name)) is not None:
            values = {**values, foreign_key.field.name: key}
    for name in names:
        current, loaded = values.get(name, MISSING), loaded_value(instance, name)
        if current is MISSING and loaded is MISSING:
            continue
        if loaded is MISSING or _differ(loaded, current):
            found[name] = (None if loaded is MISSING else loaded, None if current is MISSING else current)
    return found


def described(instance: Any, names: Sequence[str] | None = None) -> str:
    """Return a text for *instance*: its model, and the values of *names*, by default its key and all that is loaded.

    It loads nothing. Long values are cut.
    """
    schema, values = instance.__schema__, instance.__dict__
    if names is None:
        names = (*schema.key_names, *[each for each in schema.plain_names if each in values])
    shown = [f"{name}={_shown(values.get(name))}" for name in names]
    return f"{schema.name}({', '.join(shown)})"


def _shown(value: Any) -> str:
    if not isinstance(value, ClauseElement):
        return brief_value(value)
    try:
        return f"<SQL {shorten(str(value), MAX_VALUE, placeholder='…')}>"
    except Exception:  # noqa: BLE001 SQL that only a database's own dialect can compile
        return f"<SQL {type(value).__name__}>"


def _differ(loaded: Any, current: Any) -> bool:
    if loaded is current:
        return False
    if isinstance(current, ClauseElement):
        return True
    try:
        both = isinstance(loaded, datetime) and isinstance(current, datetime)
        if both and loaded.tzinfo and current.tzinfo:
            # Python compares an ambiguous local time as unequal to the same time in another zone.
            return bool(loaded.astimezone(UTC) != current.astimezone(UTC))
        return bool(loaded != current) or not _equal_json(loaded, current)
    except Exception:  # noqa: BLE001 values that cannot be compared, such as arrays, count as changed
        return True


def _equal_json(loaded: Any, current: Any) -> bool:
    """Whether two equal values are also equal as JSON, where true is not 1, and 1 not 1.0."""
    if isinstance(loaded, dict):
        return all(_equal_json_item(value, current[key]) for key, value in loaded.items())
    if isinstance(loaded, list):
        return all(map(_equal_json_item, loaded, current))
    return True


def _equal_json_item(loaded: Any, current: Any) -> bool:
    return loaded.__class__ is current.__class__ and _equal_json(loaded, current)
