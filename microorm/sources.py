"""Sources: what was generated for a model, as text to read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def explain(schema: Any) -> str:
    """The functions that were generated for the model of *schema*, and by alias the SQL that was prepared, so far."""
    databases = schema.registry.databases
    parts = list(_functions(schema))
    for alias in databases.aliases:
        database = databases.database(alias)
        plans = database.plans.get(schema)
        if plans is not None:
            parts += [(f"{alias!r} ({database.dialect}): {title}", text) for title, text in _prepared(plans)]
    return "\n\n".join(f"# {title}\n{text}" for title, text in parts if text)


def _functions(schema: Any) -> Iterator[tuple[str, str]]:
    yield f"{schema.label}: the constructor", _source(schema.model.__init__)
    for names, collect in schema.collectors.items():
        yield f"the row to write of {', '.join(names) or 'nothing'}", _source(collect)
    for names, gather in schema.gatherers.items():
        yield f"the rows to write of {', '.join(names)}, of many new instances", _source(gather)
    for wanted, (_, build) in schema.builders.items():
        yield f"instances of rows of {_fields(wanted)} that SQLAlchemy has decoded", _source(build)


def _prepared(plans: Any) -> Iterator[tuple[str, str]]:
    yield "instances of the driver's rows", _source(plans.loader.build)
    for key, plan in plans.made.items():
        if (sql := getattr(plan, "sql", None)) is None:
            yield f"instances of the driver's rows of {_fields(plan.wanted)}", _source(plan.build)
        else:
            verb, *said = (key,) if isinstance(key, str) else key
            names = said[0] if said and verb != "read" else ()
            title = f"{verb} {', '.join(names)}".strip()
            yield title, "\n".join(filter(None, (sql, plan.bind and _source(plan.bind))))


def _fields(wanted: tuple[str, ...] | None) -> str:
    return "all fields" if wanted is None else ", ".join(wanted)


def _source(function: Any) -> str:
    return str(getattr(function, "__source__", ""))
