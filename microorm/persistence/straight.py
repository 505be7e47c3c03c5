"""Straight: plain writes and reads, done in as few steps as there are.

`saving`, `deleting` and `results` say all that may happen on the way of a row. Most rows meet none of it: nothing routes,
the block is a block and no more, the row is written whole. That is asked here once, and what it needs was looked up
before, so that such a row costs little besides its statement. Where anything else is the case nothing is done, and
the caller takes the long way, which comes to the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from microorm.db.connection import Lone
from microorm.db.context import latest
from microorm.db.databases import Databases
from microorm.db.engine import Database
from microorm.db.routing import DEFAULT_ALIAS
from microorm.db.transaction import Block
from microorm.errors import InvalidValue
from microorm.mapping.codegen import Row
from microorm.mapping.schema import Schema
from microorm.sql.statements import Load, plans_of

Tell = Callable[..., None]
Get = tuple[Callable[[dict[str, Any]], Row], Load]

MOST_GETS = 64


class Straight:
    """What plain writes and reads of one model on one database need, looked up once."""

    __slots__ = ("gets",)

    def __init__(self, schema: Schema, database: Database) -> None:
        self.gets: dict[tuple[str, ...], Get] = {}


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
    with Lone(database, writes=False) if block is None else block.transaction as channel:
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
