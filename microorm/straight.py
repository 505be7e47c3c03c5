"""Straight: a plain write in an open block, done in as few steps as there are.

`saving` and `deleting` say all that may happen on the way of a row. Most rows meet none of it: nobody listens, nothing
routes, the block is a block and no more, the row is written whole. That is asked here once, and what it needs was
looked up before, so that such a write costs little besides its statement. Where anything else is the case nothing is
done, and the caller takes the long way, which comes to the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import ref

from microorm.engines import Database
from microorm.fields import MISSING
from microorm.routing import DEFAULT_ALIAS
from microorm.schema import Schema
from microorm.scopes import latest
from microorm.statements import plans_of
from microorm.transactions import Block, Transaction
from microorm.undo import Image, restore
from microorm.writing import PLAIN

Tell = Callable[..., None]


class Straight:
    """What plain writes to one table on one database need: by key name, collectors, statements and origins."""

    __slots__ = (
        "collect",
        "collect_new",
        "delete",
        "insert",
        "insert_new",
        "key",
        "origin",
        "origin_new",
        "update",
    )

    def __init__(self, schema: Schema, database: Database) -> None:
        plans, generated = plans_of(schema, database), schema.generated
        self.key = None if generated is None else generated.name
        names = schema.written_names
        self.collect = schema.collector(names)
        self.insert, self.update = plans.insert(names), plans.update(schema.plain_names)
        self.origin = plans.origin(names)
        new_names = names if generated is None else schema.plain_names
        self.collect_new = schema.collector(new_names)
        self.insert_new = plans.insert(new_names)
        self.origin_new = plans.origin(new_names + self.insert_new.made_names)


def straight_of(schema: Schema, database: Database) -> Straight | None:
    """What plain writes of *schema* on *database* need; None where a row cannot be written as it stands."""
    try:
        found: Straight | None = database.straight[schema]
    except KeyError:
        unfit = schema.server_made or schema.updating or schema.mutable or not schema.plain_names
        found = database.straight[schema] = None if unfit else Straight(schema, database)
    return found


def block_at_hand(schema: Schema, alias: str | None) -> Block | None:
    """The block here that *alias*, else where the model is at home, is written in, if nothing is left to ask."""
    block: Block | None = latest()
    if (
        block is None
        or not block.plain
        or block.closed
        or block.alias != (alias or schema.home or DEFAULT_ALIAS)
    ):
        return None
    databases, transaction = schema.registry.databases, block.transaction
    if block.owner is not databases or databases.routers or transaction.cursor_in(block) is None:
        return None
    return block if databases.holds(transaction.database) else None


def save_straight(schema: Schema, instance: Any, tell: Tell | None = None) -> bool:
    """Save all of *instance*, and then *tell*; False where that takes more, and nothing was done.

    What *tell* raises dooms the block, and the instance is as it was.
    """
    origin = instance._origin
    block = None if origin.partial or origin.before is not None else block_at_hand(schema, origin.alias)
    if block is None:
        return False
    transaction, earlier = block.transaction, (origin, instance._row)
    plan = straight_of(schema, transaction.database)
    if plan is None:
        return False
    image: Image = (ref(instance), *earlier, {})
    created = _write(schema, plan, transaction, instance, image)
    if created is not None and tell is not None:
        try:
            tell(schema, block.alias, instance, PLAIN, earlier, created=created)
        except BaseException as error:
            restore(image)
            transaction.doom(error)
            raise
    return created is not None


def _write(
    schema: Schema, plan: Straight, transaction: Transaction, instance: Any, image: Image
) -> bool | None:
    """Write all of *instance*; whether by an INSERT. None where that takes more, and nothing was done."""
    values, key = instance.__dict__, plan.key
    if key is not None and values.get(key) is None:
        created, settled = True, plan.origin_new
        row = plan.collect_new(values)
        if row.__class__ is not tuple:
            return None
        (number,) = plan.insert_new.insert(transaction, row)
        image[3][key] = (values.get(key, MISSING), number)
        row = (*row, number)
    else:
        created, settled = instance._origin.adding, plan.origin
        if created and not schema.key_has_default:
            return None
        row = plan.collect(values)
        if row.__class__ is not tuple:
            return None
        if created or not plan.update.run(transaction, row).rowcount:
            created = True
            plan.insert.insert(transaction, row)
    # Kept before anything is changed, so that an interrupt leaves nothing that a rollback does not know.
    transaction.undo.record(image)
    for name, (_, made) in image[3].items():
        values[name] = made
    instance._row, instance._origin = row, settled
    return created
