"""Every kind of change is found, applied to tables with rows, taken back, and the rows are what they were."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import insert, select

import microorm
from tests.migrations.changes import CHANGES, Change

pytestmark = pytest.mark.backends("sqlite-file", "postgresql", "mariadb")


@pytest.fixture
def databases(url: str) -> Any:
    """One database: the matter is the change."""
    with microorm.Databases(url) as databases:
        yield databases


def table_of(base: Any, name: str) -> Any:
    return base.__options__.registry.metadata.tables[name]


def rows_of(databases: microorm.Databases, table: Any) -> list[dict[str, Any]]:
    with databases.connection() as connection:
        query = select(table).order_by(*table.primary_key.columns)
        return [dict(row._mapping) for row in connection.execute(query)]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.title.replace(" ", "-"))
def test_a_change_is_found_applied_and_taken_back(
    change: Change, databases: Any, anew: Callable[[], Any], migrations: Any, backend: str
) -> None:
    dialect = backend.partition("-")[0]
    old, new = anew(), anew()
    change.before(old)
    change.after(new)
    before, after = migrations(old), migrations(new)
    before.make("before")
    before.migrate()
    if change.rows:
        with databases.connection() as connection:
            connection.execute(insert(table_of(old, change.table)), list(change.rows))
            connection.commit()
    stored = rows_of(databases, table_of(old, change.table)) if change.rows else []

    assert bool(after.check()) is (dialect in change.seen)
    made = after.make("after", renames=change.renames)
    assert (made is not None) is (dialect in change.seen)
    if made is None:
        return
    after.migrate()
    assert after.check() == []
    assert after.make("nothing") is None
    if change.rows:
        renamed = {old: new for old, _, new in (each.partition(":") for each in change.renames)}
        kept = rows_of(databases, table_of(new, renamed.get(change.table, change.table)))
        assert [each["id"] for each in kept] == [each["id"] for each in stored]
        for row, was in zip(kept, stored, strict=True):
            for name, value in row.items():
                wanted = change.expected.get(name, was.get(name))
                assert wanted(value) if callable(wanted) else value == wanted, name

    after.migrate("-1")
    assert [each.text for each in before.compare()] == [
        f"the column 'book.{name}' differs in its nullability" for name in change.returns
    ]
    if change.rows:
        again = rows_of(databases, table_of(old, change.table))
        lost = set(old_only(change, old, new))
        assert [without(row, lost) for row in again] == [without(row, lost) for row in stored]
    after.migrate()
    assert after.check() == []


def old_only(change: Change, old: Any, new: Any) -> set[str]:
    """The columns whose values are gone with them, or were filled."""
    if change.renames:
        return set()
    after = new.__options__.registry.metadata.tables.get(change.table)
    gone = {c.name for c in table_of(old, change.table).c} - {c.name for c in after.c}
    return gone | change.expected.keys()


def without(row: dict[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}
