"""Checks: how the CHECKs of a table are compared with those of its model: by name, and by what they say."""

from __future__ import annotations

import re

from alembic.autogenerate.api import AutogenContext
from alembic.operations.ops import ModifyTableOps
from alembic.util import PriorityDispatchResult
from sqlalchemy import CheckConstraint, Column, Connection, Table, inspect

from microorm.fields.types import MARIADB
from microorm.migrations.dialects import ByDialect, as_text, in_words, plain
from microorm.migrations.momentary import NAME, momentary
from microorm.migrations.operations import AddedCheck, DroppedCheck

_JSON = re.compile(r"\(*json_valid\(`?(\w+)`?\)\)*", re.IGNORECASE)


def compare_checks(
    autogenerate: AutogenContext,
    changes: ModifyTableOps,
    schema: str | None,
    name: str,
    stored: Table | None,
    wanted: Table | None,
) -> PriorityDispatchResult:
    """Add to *changes* the CHECKs that the table *name* lacks, has too many, or that say something else."""
    connection = autogenerate.connection
    if stored is None or wanted is None or connection is None:
        return PriorityDispatchResult.CONTINUE
    there = stored_checks(connection, name, schema)
    asked = {
        str(each.name): each for each in wanted.constraints if isinstance(each, CheckConstraint) and each.name
    }
    told = {check: _compiled(asked[check], connection) for check in asked.keys() & there.keys()}
    # What PostgreSQL makes of its own words is not always these words: a CHECK that came back is told twice.
    differing = _differing(told, there)
    for _ in range(2):
        if differing:
            differing = _differing(_as_kept(connection, wanted, differing), there)
    for check in sorted((there.keys() - asked.keys()) | differing.keys()):
        changes.ops.append(DroppedCheck(check, name, as_text(there[check])))
    for check in sorted((asked.keys() - there.keys()) | differing.keys()):
        changes.ops.append(AddedCheck.of(name, check, in_words(asked[check].sqltext)))
    return PriorityDispatchResult.CONTINUE


def _differing(told: dict[str, str], there: dict[str, str]) -> dict[str, str]:
    return {check: words for check, words in told.items() if _words(words) != _words(there[check])}


def stored_checks(connection: Connection, table: str, schema: str | None = None) -> dict[str, str]:
    """The named CHECKs of *table*: name → expression; not those by which MariaDB keeps a column to JSON."""
    found = inspect(connection).get_check_constraints(table, schema=schema)
    return {
        str(each["name"]): each["sqltext"]
        for each in found
        if each["name"] is not None
        and not ((json := _JSON.fullmatch(each["sqltext"])) and json[1] == each["name"])
    }


def _compiled(check: CheckConstraint, connection: Connection) -> str:
    name = connection.dialect.name
    words = in_words(check.sqltext)
    return (
        words.words["mariadb" if name in MARIADB else name] if isinstance(words, ByDialect) else plain(words)
    )


def _words(expression: str) -> str:
    return " ".join(expression.split())


def _as_kept(connection: Connection, table: Table, checks: dict[str, str]) -> dict[str, str]:
    """The *checks* in the words of the database."""
    columns = [Column(column.name, column.type) for column in table.columns]
    told = [CheckConstraint(as_text(words), name=name) for name, words in checks.items()]
    with momentary(connection, *columns, *told):
        return stored_checks(connection, NAME)
