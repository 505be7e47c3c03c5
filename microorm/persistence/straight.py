"""Straight: plain writes and reads, done in as few steps as there are.

`saving`, `deleting` and `results` say all that may happen on the way of a row. Most rows meet none of it: nothing routes,
the block is a block and no more, the row is written whole. That is asked here once, and what it needs was looked up
before, so that such a row costs little besides its statement. Where anything else is the case nothing is done, and
the caller takes the long way, which comes to the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import ref

from microorm.db.connection import Channel, Lone
from microorm.db.context import latest
from microorm.db.databases import Databases
from microorm.db.engine import Database
from microorm.db.routing import DEFAULT_ALIAS
from microorm.db.snapshots import Image, restore
from microorm.db.transaction import Block
from microorm.errors import CommitOutcomeUnknown, InvalidValue
from microorm.fields.field import MISSING
from microorm.mapping.codegen import Row
from microorm.mapping.schema import Schema
from microorm.persistence.writing import PLAIN
from microorm.sql.statements import Load, plans_of

Tell = Callable[..., None]
Get = tuple[Callable[[dict[str, Any]], Row], Load]

MOST_GETS = 64


class Straight:
    """What plain writes and reads of one model on one database need, looked up once."""

    __slots__ = (
        "collect",
        "collect_key",
        "collect_new",
        "delete",
        "gets",
        "insert",
        "insert_new",
        "key",
        "origin",
        "origin_new",
        "update",
        "writable",
    )

    def __init__(self, schema: Schema, database: Database) -> None:
        plans, generated = plans_of(schema, database), schema.generated
        self.key = None if generated is None else generated.name
        self.gets: dict[tuple[str, ...], Get] = {}
        self.collect_key, self.delete = schema.collector(schema.key_names), plans.delete()
        # Whether a row is written as it stands.
        self.writable = bool(schema.plain_names) and not (
            schema.server_made or schema.updating or schema.mutable
        )
        if not self.writable:
            return
        names = schema.written_names
        self.collect, self.origin = schema.collector(names), plans.origin(names)
        self.insert, self.update = plans.insert(names), plans.update(schema.plain_names)
        new_names = names if generated is None else schema.plain_names
        self.collect_new, self.insert_new = schema.collector(new_names), plans.insert(new_names)
        self.origin_new = plans.origin(new_names + self.insert_new.made_names)


def straight_of(schema: Schema, database: Database) -> Straight:
    """What plain writes and reads of *schema* on *database* need, looked up and kept."""
    straight = database.straight[schema] = Straight(schema, database)
    return straight


def at_hand(schema: Schema, alias: str | None) -> tuple[Database, Block | None] | None:
    """Where *alias*, else the home of the model, is reached here, and the block that is open there, if one is.

    None where anything else has a say.
    """
    databases: Databases = schema.registry.databases
    if databases.routers:
        return None
    alias = alias or schema.home or DEFAULT_ALIAS
    block: Block | None = latest()
    if block is None:
        return databases.database(alias), None
    if not block.plain or block.closed or block.alias != alias or block.owner is not databases:
        return None
    transaction = block.transaction
    if transaction.blocks[-1] is not block or not databases.holds(transaction.database):
        return None
    return transaction.database, block


def save_straight(schema: Schema, instance: Any, tell: Tell | None = None) -> bool:
    """Save all of *instance*, and then *tell*; False where that takes more, and nothing was done.

    What *tell* raises dooms the block, and the instance is as it was.
    """
    origin, values = instance._origin, instance.__dict__
    place = None if origin.partial or origin.before is not None else at_hand(schema, origin.alias)
    if place is None:
        return False
    database, block = place
    plan = database.straight.get(schema) or straight_of(schema, database)
    if not plan.writable or (tell is not None if block is None else block.readonly):
        return False
    new = plan.key is not None and values.get(plan.key) is None
    if not new and origin.adding and not schema.key_has_default:
        return False  # a key that was set by hand
    row = plan.collect_new(values) if new else plan.collect(values)
    if row.__class__ is not tuple:
        return False
    image: Image = (ref(instance), origin, instance._row, {})
    if block is None:
        _write_alone(plan, database, instance, row, image)
        return True
    with block.transaction as transaction:
        try:
            created = _write(plan, transaction, instance, row, image)
        except BaseException as error:  # an interrupt, too, after which nobody knows what was done
            restore(image)
            transaction.doom(error)
            raise
    if tell is not None:
        try:
            tell(schema, database.alias, instance, PLAIN, image[1:3], created=created)
        except BaseException as error:
            restore(image)
            transaction.doom(error)
            raise
    return True


def _write_alone(plan: Straight, database: Database, instance: Any, row: Row, image: Image) -> None:
    try:
        with Lone(database, prepared=True, writes=True) as channel:
            _write(plan, channel, instance, row, image)
    except CommitOutcomeUnknown:
        raise
    except BaseException:
        restore(image)
        raise


def _write(plan: Straight, channel: Channel, instance: Any, row: Row, image: Image) -> bool:
    """Write *row*, without the key where the database makes it, and settle *instance*; whether by an INSERT."""
    key, values, made = plan.key, instance.__dict__, image[3]
    origin, created, number = plan.origin, True, None
    if key is not None and values.get(key) is None:
        (number,) = plan.insert_new.insert(channel, row)
        made[key] = (values.get(key, MISSING), number)
        row, origin = (*row, number), plan.origin_new
    elif image[1].adding or not plan.update.run(channel, row).rowcount:
        plan.insert.insert(channel, row)
    else:
        created = False
    # Kept before anything is changed, so that an interrupt leaves nothing that a rollback does not know.
    channel.keep(image)
    if made and key is not None:
        values[key] = number
    instance._row, instance._origin = row, origin
    return created


def delete_straight(schema: Schema, instance: Any) -> int | None:
    """Delete the row of *instance*, which no table refers to, of whose deletes nobody is told: how many there were.

    None where that takes more, and nothing was done.
    """
    origin, values = instance._origin, instance.__dict__
    place = at_hand(schema, origin.alias)
    if place is None:
        return None
    database, block = place
    plan = database.straight.get(schema) or straight_of(schema, database)
    row = plan.collect_key(values)
    if row.__class__ is not tuple or (block is not None and block.readonly):
        return None
    made = {} if plan.key is None else {plan.key: (row[0], None)}
    image: Image = (ref(instance), origin, instance._row, made)
    with Lone(database, prepared=True, writes=True) if block is None else block.transaction as channel:
        try:
            count = int(plan.delete.run(channel, row).rowcount)
            channel.keep(image)
        except BaseException as error:
            channel.doom(error)
            raise
    if plan.key is not None:
        values[plan.key] = None
    return count


def load_straight(schema: Schema, equalities: dict[str, Any]) -> list[Any] | None:
    """The instances, or the first two, whose fields have the values of *equalities*; None where that takes more."""
    place = at_hand(schema, None)
    if place is None:
        return None
    database, block = place
    names = tuple(equalities)
    gets = (database.straight.get(schema) or straight_of(schema, database)).gets
    get = gets.get(names) or _keep_get(schema, database, gets, names)
    if get is None:
        return None
    collect, load = get
    try:
        row = collect(equalities)
    except InvalidValue:
        return None
    if row.__class__ is not tuple:
        return None
    for value in row:  # and not `in`, which would compare values of any type
        if value is None:
            return None
    with Lone(database, prepared=True, writes=False) if block is None else block.transaction as channel:
        return load.instances(channel, row)


def _keep_get(
    schema: Schema, database: Database, gets: dict[tuple[str, ...], Get], names: tuple[str, ...]
) -> Get | None:
    """How to get an instance by *names*, kept in *gets*; None where one is not a field's."""
    get = None
    if names and all(name in schema.by_name for name in names):
        limit = None if set(names).issuperset(schema.key_names) else 2
        get = (schema.collector(names), plans_of(schema, database).load(names, limit=limit))
        if len(gets) >= MOST_GETS:
            gets.clear()
        gets[names] = get
    return get
