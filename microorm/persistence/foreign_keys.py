"""Foreign keys of instances that are about to be written: each takes the present key of the related instance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from microorm.db.atomic import UnitOfWork
from microorm.db.snapshots import Snapshot, apply_generated, apply_related
from microorm.mapping.schema import Schema


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


def refresh_all_foreign_keys(schema: Schema, work: UnitOfWork, method: str, objects: Sequence[Any]) -> None:
    """Do the same for all of *objects*, which *method* got. A note on an error says which object it is about."""
    for index, instance in enumerate(objects) if schema.foreign_keys else ():
        try:
            refresh_foreign_keys(schema, instance, work.snapshot(instance))
        except ValueError as error:
            error.add_note(f"in object {index} of {method}()")
            raise
