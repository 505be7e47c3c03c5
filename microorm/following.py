"""Following: the one instance that another refers to, or that refers to it, loaded when it is asked for."""

from __future__ import annotations

from typing import Any

from microorm.chains import other_side
from microorm.db.context import refuse_lazy
from microorm.db.engine import Database
from microorm.mapping.schema import Schema
from microorm.sql.statements import plans_of


def follow(instance: Any, relation: Any, key: Any) -> Any:
    """What *relation* of *instance* leads to by *key*: one statement, on the instance's alias unless routed; or None.

    Where it is the only one that leads back, what is found refers to *instance*, too. Raises `LazyLoadError` where lazy
    loads are refused.
    """
    refuse_lazy(instance, relation.name)
    step = relation.steps[-1]
    schema: Schema = step.schema
    databases = schema.registry.databases
    database: Database = databases.for_read(schema.model, schema.home, None, instance)
    load = plans_of(schema, database).load((step.far.name,))
    with databases.channel(database, prepared=True, writes=False) as channel:
        found = load.instances(channel, (key,))
    if not found:
        return None
    back = step.foreign_key.name if step.reverse else other_side(step.foreign_key)
    if back is not None:
        found[0].__dict__[back] = (key, instance)
    return found[0]
