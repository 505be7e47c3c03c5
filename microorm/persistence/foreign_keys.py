"""Foreign keys of instances that are about to be written: each takes the present key of the related instance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from microorm.db.databases import Databases
from microorm.db.snapshots import Image, image_of, restore, settle
from microorm.db.transaction import open_transaction
from microorm.errors import CommitOutcomeUnknown
from microorm.mapping.schema import Schema


def refresh_foreign_keys(schema: Schema, instance: Any, image: Image | None = None) -> Image | None:
    """Set the foreign keys of *instance* to the present keys of the related instances.

    A related instance may have got its key, or another one, since it was assigned. Returns *image*, or a new one, with
    the values that were replaced; None where nothing has changed. Raises `UnsavedError` for a related instance without
    a key, and `CrossDatabaseRelation`; *instance* is then as it was.
    """
    values = instance.__dict__
    changed = [
        (each, other)
        for each in schema.foreign_keys
        if each.name in values and (other := each.outdated(instance)) is not None
    ]
    if not changed:
        return None
    image = image_of(instance) if image is None else image
    before = instance._origin
    try:
        for foreign_key, other in changed:
            foreign_key.refuse_elsewhere(instance, other)
    except BaseException:
        instance._origin = before
        raise
    taken: dict[str, Any] = {}
    for foreign_key, other in changed:
        key = foreign_key.key_of(other)
        taken |= {foreign_key.field.name: key, foreign_key.name: (key, other)}
    settle(instance, image, taken)
    return image


def refresh_all_foreign_keys(schema: Schema, method: str, objects: Sequence[Any]) -> list[Image]:
    """Do the same for all of *objects*, which *method* got, or for none: the images of those that have changed.

    A note on the error says which object it is about.
    """
    images: list[Image] = []
    for index, instance in enumerate(objects) if schema.foreign_keys else ():
        try:
            image = refresh_foreign_keys(schema, instance)
        except ValueError as error:
            error.add_note(f"in object {index} of {method}()")
            _restore_all(images)
            raise
        if image is not None:
            images.append(image)
    return images


@contextmanager
def restored_on_failure(databases: Databases, images: Sequence[Image]) -> Iterator[None]:
    """Put the instances of *images* back if the block fails, or later if the open transaction is rolled back."""
    try:
        yield
    except CommitOutcomeUnknown:
        raise
    except BaseException:
        _restore_all(images)
        raise
    for image in images:
        instance = image[0]()
        transaction = None if instance is None else open_transaction(databases, instance._origin.alias)
        if transaction is not None:
            transaction.undo.record(image)


def _restore_all(images: Sequence[Image]) -> None:
    for image in reversed(images):
        restore(image)
