"""State: what an instance was loaded or saved as, and what has changed since.

An instance carries an `Origin` (shared by all rows of one load) and the loaded row as a tuple. Nothing is
copied on a load: the driver's tuple is the loaded state, and it is decoded only when somebody asks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.sql import ClauseElement

from microorm.fields.field import MISSING, Field

Decoder = Callable[[Any], Any]


class Layout:
    """Which field stands where in a loaded row, and how to read it.

    *partial*: other fields of the row were left for later.
    """

    __slots__ = ("decoders", "names", "partial", "places")

    def __init__(
        self,
        names: tuple[str, ...],
        decoders: tuple[Decoder | None, ...] | None = None,
        *,
        partial: bool = False,
    ) -> None:
        self.names = names
        self.partial = partial
        self.places = {name: place for place, name in enumerate(names)}
        self.decoders = decoders if decoders is not None and any(decoders) else None

    def value(self, row: tuple[Any, ...], name: str) -> Any:
        """The value of the field *name* in *row*; MISSING where it was not loaded."""
        place = self.places.get(name)
        if place is None:
            return MISSING
        decode = None if self.decoders is None else self.decoders[place]
        return row[place] if decode is None else decode(row[place])


class Origin:
    """Where an instance's row is, if anywhere, and how its loaded row is laid out; *partial* as the layout says.

    *before* is set while `post_save` receivers run: the origin and row as they were before the save, so that
    `changes()` can tell them what the save changed.
    """

    __slots__ = ("adding", "alias", "before", "layout", "partial", "telling_new")

    def __init__(
        self,
        alias: str | None,
        layout: Layout | None,
        *,
        adding: bool = False,
        before: tuple[Origin, tuple[Any, ...] | None] | None = None,
    ) -> None:
        self.alias = alias
        self.layout = layout
        self.adding = adding
        self.before = before
        self.partial = layout is not None and layout.partial
        self.telling_new: Origin | None = None

    def telling(self, before: tuple[Origin, tuple[Any, ...] | None]) -> Origin:
        """The same for while `post_save` receivers run; that of all new instances is one."""
        told = Origin(self.alias, self.layout, before=before)
        if before == NOTHING:
            self.telling_new = told
        return told

    def moved(self, alias: str | None) -> Origin:
        """The same in *alias*."""
        return Origin(alias, self.layout, adding=self.adding, before=self.before)


NEW = Origin(None, None, adding=True)
NOTHING = (NEW, None)
"""The origin and the loaded row of an instance that was just made."""

_new: dict[str, Origin] = {}


def new_in(alias: str) -> Origin:
    """The origin of an instance that has no row yet, and that is to be written to *alias*."""
    return _new.get(alias) or _new.setdefault(alias, Origin(alias, None, adding=True))


class State:
    """`instance._state`: `adding` (no row yet) and `db` (the alias it was loaded from or saved to)."""

    __slots__ = ("_instance",)

    def __init__(self, instance: Any) -> None:
        self._instance = instance

    def __repr__(self) -> str:
        return f"<State adding={self.adding} db={self.db!r}>"

    @property
    def adding(self) -> bool:
        """Whether the row is still to be inserted."""
        adding: bool = self._instance._origin.adding
        return adding

    @adding.setter
    def adding(self, adding: bool) -> None:
        self._replace(self.db, adding)

    @property
    def db(self) -> str | None:
        """The alias of the row, or None."""
        alias: str | None = self._instance._origin.alias
        return alias

    @db.setter
    def db(self, alias: str | None) -> None:
        self._replace(alias, self.adding)

    def _replace(self, alias: str | None, adding: bool) -> None:
        origin = self._instance._origin
        self._instance._origin = Origin(alias, origin.layout, adding=adding, before=origin.before)


def kept(fields: Sequence[Field[Any]], row: tuple[Any, ...]) -> tuple[Any, ...]:
    """*row* as a loaded row: values that can change in place are copied."""
    return tuple(
        deepcopy(value) if field.mutable and value is not None else value
        for field, value in zip(fields, row, strict=True)
    )


def merged(instance: Any, fresh: Mapping[str, Any]) -> dict[str, Any]:
    """What is loaded of *instance*, by name, once it has the *fresh* values."""
    fields: Mapping[str, Field[Any]] = instance.__schema__.by_name
    copies = kept([fields[name] for name in fresh], tuple(fresh.values()))
    loaded = dict(zip(fresh, copies, strict=True))
    layout, row = instance._origin.layout, instance._row
    for name in () if row is None else layout.names:
        if name not in loaded:
            loaded[name] = layout.value(row, name)
    return loaded


def loaded_value(instance: Any, name: str) -> Any:
    """The value of *name* as it was loaded or saved; MISSING where it was not."""
    origin, row = instance._origin, instance._row
    if origin.before is not None:
        origin, row = origin.before
    if row is None or origin.layout is None:
        return MISSING
    return origin.layout.value(row, name)


def changes(instance: Any, names: tuple[str, ...]) -> dict[str, tuple[Any, Any]]:
    """`{name: (loaded, present)}` of the fields among *names* that differ from what was loaded."""
    found: dict[str, tuple[Any, Any]] = {}
    values = instance.__dict__
    for name in names:
        present, loaded = values.get(name, MISSING), loaded_value(instance, name)
        if present is MISSING and loaded is MISSING:
            continue
        if loaded is MISSING or _differ(loaded, present):
            found[name] = (None if loaded is MISSING else loaded, None if present is MISSING else present)
    return found


def _differ(loaded: Any, present: Any) -> bool:
    if loaded is present:
        return False
    if isinstance(present, ClauseElement):
        return True
    try:
        if (
            isinstance(loaded, datetime)
            and isinstance(present, datetime)
            and loaded.tzinfo
            and present.tzinfo
        ):
            # Python calls a moment in a clock's change unequal to the same moment in another zone.
            return loaded.astimezone(UTC) != present.astimezone(UTC)
        return bool(loaded != present) or not _alike(loaded, present)
    except Exception:  # noqa: BLE001 a type whose comparison is no truth value (an array) counts as changed
        return True


def _alike(loaded: Any, present: Any) -> bool:
    """Whether two equal values are the same in JSON, too, where true is not 1, and 1 not 1.0."""
    if isinstance(loaded, dict):
        return all(_one_json(value, present[key]) for key, value in loaded.items())
    if isinstance(loaded, list):
        return all(map(_one_json, loaded, present))
    return True


def _one_json(loaded: Any, present: Any) -> bool:
    return loaded.__class__ is present.__class__ and _alike(loaded, present)


def picklable(instance: Any) -> dict[str, Any]:
    """What a pickle keeps of *instance*: its values, its state, and what was loaded, decoded."""
    loaded = None
    if instance._row is not None:
        names = instance.__schema__.names
        loaded = {name: value for name in names if (value := loaded_value(instance, name)) is not MISSING}
    origin = instance._origin
    return {
        "values": instance.__dict__,
        "alias": origin.alias,
        "adding": origin.adding,
        "loaded": loaded,
        "partial": origin.partial,
    }


def unpickle(instance: Any, state: dict[str, Any]) -> None:
    """Give *instance* what a pickle kept of it."""
    loaded = state["loaded"]
    instance.__dict__ = dict(state["values"])
    instance._row = None if loaded is None else tuple(loaded.values())
    layout = None if loaded is None else Layout(tuple(loaded), partial=state.get("partial", False))
    instance._origin = Origin(state["alias"], layout, adding=state["adding"])
