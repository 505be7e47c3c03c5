"""Reading: the SELECT of a query whose shape was seen before, with other values.

What has no shape goes through SQLAlchemy's `Connection`, which keeps what it compiles by keys of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import BindParameter, Integer

from microorm.db.engine import Database
from microorm.selection import Selection
from microorm.sql.cache_key import Shape, Shaped, shape_of
from microorm.sql.hydration import instances_of
from microorm.sql.statements import Load, plans_of


def read(query: Selection[Any], database: Database) -> list[Any] | None:
    """The instances that *query* finds in *database*, without what is prefetched; None where it has no shape."""
    schema, equal = query._schema, query._equal_expressions(query._equal)
    shapes = None if query._lock or query._related else _shapes(query, equal)
    if shapes is None:
        return None
    key = (
        "read",
        tuple([each.key for each in shapes]),
        query._limit is None,
        query._offset == 0,
        query._names,
        query._paths | query._order_paths,
    )
    values = [bind.value for each in shapes for bind in each.binds]
    values += [each for each in (query._limit, query._offset or None) if each is not None]
    with schema.registry.databases.channel(database, prepared=True, writes=False) as channel:
        if channel.cursor is None:
            rows = channel.execute(query.statement).fetchall()
            return instances_of(schema, rows, database.alias, query._names)
        load = plans_of(schema, database).kept(key, lambda: Reading(query, equal, shapes, database))
        return load.instances(channel, (*values, *load.constants))


class Reading(Load):
    """The SELECT of a query, by the values of the expressions that have *shapes*, and then of limit and offset.

    *constants* are the values that SQLAlchemy adds for the database.
    """

    __slots__ = ("constants",)

    def __init__(
        self, query: Selection[Any], equal: Sequence[Any], shapes: Sequence[Shape], database: Database
    ) -> None:
        plain = query._with(_where=(*query._where, *equal), _equal=(), _limit=None, _offset=0)
        statement, binds = plain.statement, [bind for shape in shapes for bind in shape.binds]
        for part, add in ((query._limit, "limit"), (query._offset or None, "offset")):
            if part is not None:
                bind: BindParameter[int] = BindParameter(None, part, type_=Integer(), unique=True)
                statement = getattr(statement, add)(bind)
                binds.append(bind)
        compiled: Any = statement.compile(dialect=database.engine.dialect)
        places = {id(bind): place for place, bind in enumerate(binds)}
        added = [bind for bind in compiled.bind_names if id(bind) not in places]
        self.constants = tuple([bind.value for bind in added])
        parameters = [*binds, *added]
        names = [(compiled.bind_names[bind], bind.type) for bind in parameters]
        loader = plans_of(query._schema, database).loader_of(query._names)
        super().__init__(query._schema, statement, names, database.engine.dialect, loader)


def _shapes(query: Selection[Any], equal: Sequence[Any]) -> list[Shape] | None:
    where = query._where
    if where and not isinstance(where, Shaped):
        return None
    shapes = list(where.shapes) if isinstance(where, Shaped) else []
    for each in (*equal, *query._order):
        if (shape := shape_of(query._schema, each)) is None:
            return None
        shapes.append(shape)
    binds = [id(bind) for each in shapes for bind in each.binds]
    # What is one parameter in several places is one in the SQL, too, and that has another shape.
    return shapes if len(set(binds)) == len(binds) else None
