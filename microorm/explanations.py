"""Explanations: how a database would find the rows of a query, in its own words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from sqlalchemy import Select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import ClauseElement, Executable
from sqlalchemy.sql.compiler import SQLCompiler

from microorm.db.connection import Channel
from microorm.fields.types import MARIADB

Format = Literal["text", "json", "xml", "yaml"]

# What each can be asked for; nothing else is made part of the SQL.
_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "postgresql": ("analyze", "verbose", "format='text'", "format='json'", "format='xml'", "format='yaml'"),
    **dict.fromkeys(MARIADB, ("analyze", "format='text'", "format='json'")),
    "sqlite": ("format='text'",),
}


class Explained(Executable, ClauseElement):
    """A SELECT that is not run, or not for its rows: the database tells what it does."""

    inherit_cache = False

    def __init__(self, verb: str, statement: Select[Any]) -> None:
        self.verb = verb
        self.statement = statement


@compiles(Explained)
def _explain(element: Explained, compiler: SQLCompiler, **options: Any) -> str:
    return f"{element.verb} {compiler.process(element.statement, **options)}"


def explanation_verb(dialect: str, *, analyze: bool, verbose: bool, format: Format | None) -> str:
    """The SQL that goes before a SELECT. `ValueError` for what *dialect* cannot be asked for."""
    asked = [name for name, wanted in (("analyze", analyze), ("verbose", verbose)) if wanted]
    if format is not None:
        asked.append(f"format={format!r}")
    known = _OPTIONS.get(dialect, ())
    for each in asked:
        if each not in known:
            raise ValueError(f"explain(): {dialect} knows no {each}; known: {', '.join(known)}")
    if dialect == "sqlite":
        return "EXPLAIN QUERY PLAN"
    if dialect == "postgresql":
        words = [known[known.index(each)].upper().replace("=", " ").replace("'", "") for each in asked]
        return f"EXPLAIN ({', '.join(words)})" if words else "EXPLAIN"
    verb = "ANALYZE" if analyze else "EXPLAIN"
    return f"{verb} FORMAT=JSON" if format == "json" else verb


def explained(channel: Channel, verb: str, statement: Select[Any]) -> str:
    """What the database answers, as lines of text."""
    # The driver's own rows: the types of the columns that are selected say nothing of them.
    cursor: Any = channel.execute(Explained(verb, statement)).cursor
    names = [each[0] for each in cursor.description]
    return _shown(names, cursor.fetchall(), tree=channel.database.is_sqlite)


def _shown(names: Sequence[str], rows: Sequence[Any], *, tree: bool) -> str:
    if tree:
        depth = {0: -1}
        for number, parent, _, _ in rows:
            depth[number] = depth.get(parent, -1) + 1
        return "\n".join("  " * depth[number] + detail for number, _, _, detail in rows)
    if len(names) == 1:
        return "\n".join(
            each if isinstance(each, str) else json.dumps(each, indent=2) for (each,) in map(tuple, rows)
        )
    return "\n".join(
        " | ".join("" if value is None else str(value) for value in row) for row in (names, *rows)
    )
