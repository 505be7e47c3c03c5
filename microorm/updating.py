"""Updating: one statement that changes many rows, and who is told of it (DESIGN 6, CONTRACT M1)."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Update

from microorm.engines import Database
from microorm.schema import Schema
from microorm.scopes import note_split_write
from microorm.signals import post_update, pre_update


def update_found(
    schema: Schema, database: Database, statement: Update, query: Any, values: dict[str, Any]
) -> int:
    """Send *statement*, which sets *values* in the rows of *query*, as one unit with its signals.

    Each receiving signal has a copy of *values*, so that none is told what was not sent. Returns the number of
    rows.
    """
    databases, model = schema.registry.databases, schema.model
    pre_update.refuse_waiting(model)
    post_update.refuse_waiting(model)
    told = bool(pre_update._route(model) or post_update._route(model))
    if not told or databases.transaction(database) is not None:
        return _update(schema, database, statement, query, values)
    note_split_write(databases, database.alias)
    with databases.block(database):
        return _update(schema, database, statement, query, values)


def _update(schema: Schema, database: Database, statement: Update, query: Any, values: dict[str, Any]) -> int:
    databases, model, alias = schema.registry.databases, schema.model, database.alias
    with databases.channel(database, prepared=False, writes=True) as channel:
        try:
            if pre_update._route(model):
                with databases.receiving(alias):
                    pre_update.send(model, query=query, values=dict(values), using=alias)
                with channel:  # a receiver may have doomed it
                    pass
            count = int(channel.execute(statement).rowcount)
            if post_update._route(model):
                with databases.receiving(alias):
                    post_update.send(model, query=query, values=dict(values), using=alias, count=count)
        except BaseException as error:
            channel.doom(error)
            raise
    return count
