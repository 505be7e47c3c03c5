"""Foreign keys of instances that are about to be written: each takes the present key of the related instance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from microorm.db.atomic import UnitOfWork
from microorm.db.snapshots import Snapshot, apply_generated, apply_related
from microorm.errors import CrossDatabaseRelation
from microorm.mapping.schema import Schema
from microorm.mapping.state import loaded_value, placeholder
from microorm.messages import brief


def refresh_foreign_keys(schema: Schema, instance: Any, snapshot: Snapshot) -> None:
    """Set the foreign keys of *instance* to the present keys of the related instances.

    A related instance may have got its key, or another one, since it was assigned. *snapshot* remembers the values that
    are replaced. Raises `UnsavedError` for a related instance without a key, and `CrossDatabaseRelation`.
    """
    if not (related := instance._related):
        return
    changed = [
        (each, other)
        for each in schema.foreign_keys
        if each.name in related and (other := each.outdated(instance)) is not None
    ]
    if not changed:
        return
    for foreign_key, other in changed:
        foreign_key.check_alias(instance, other)
    for foreign_key, other in changed:
        key = foreign_key.key_of(other)
        apply_generated(instance, snapshot, {foreign_key.field.name: key})
        apply_related(instance, snapshot, {foreign_key.name: (key, other)})


def refuse_elsewhere(schema: Schema, instance: Any, alias: str) -> None:
    """Raise `CrossDatabaseRelation` if *instance*, written to *alias*, would refer to a row of another alias.

    A key that is the loaded one is written as it is: such a save copies a row to another alias.
    """
    related = instance._related or {}
    for each in schema.foreign_keys:
        kept = related.get(each.name)  # not `assigned`, whose call most saves do not need
        if kept is None or kept[1] is None or kept[1]._row_state.alias in (None, alias):
            continue
        if (other := each.assigned(instance)) is None or _is_copied(instance, each.field.name):
            continue
        if not schema.registry.databases.allows_relation(placeholder(schema.model, alias), other):
            raise CrossDatabaseRelation(
                f"{each.label} of {alias!r} cannot refer to {brief(other)} of {other._row_state.alias!r}"
            )


def _is_copied(instance: Any, name: str) -> bool:
    """Return whether the key in the field *name* is the one that *instance* was loaded or saved with."""
    return not instance._row_state.adding and bool(loaded_value(instance, name) == instance.__dict__[name])


def refresh_all_foreign_keys(
    schema: Schema, work: UnitOfWork, alias: str, method: str, objects: Sequence[Any]
) -> None:
    """Refresh the foreign keys of all *objects*, which *method* got and writes to *alias*; refuse what is elsewhere.

    A note on an error says which object it is about.
    """
    for index, instance in enumerate(objects) if schema.foreign_keys else ():
        if not instance._related:
            continue
        try:
            refresh_foreign_keys(schema, instance, work.snapshot(instance))
            refuse_elsewhere(schema, instance, alias)
        except ValueError as error:
            error.add_note(f"in object {index} of {method}()")
            raise
