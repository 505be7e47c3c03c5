"""Every kind of change is found, applied to tables with rows and reverted, and the rows are what they were."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select

import microorm
from microorm import Databases, Registry
from microorm.migrations import Migrations
from tests.migrations.changes import CHANGES, Change


class Trial:
    """One change, whose tables begin with a prefix of its own, so that many can be tried at once."""

    def __init__(self, number: int, change: Change, before: Registry, after: Registry) -> None:
        self.change = change
        self.prefix = f"c{number:02}_"
        self.before, self.after = before, after
        change.before(self._base(before))
        change.after(self._base(after))

    def _base(self, registry: Registry) -> Any:
        prefix = self.prefix

        class Base(microorm.Model, registry=registry, app=prefix, abstract=True):
            def __init_subclass__(cls, **options: Any) -> None:
                super().__init_subclass__(table=prefix + cls.__name__.lower(), **options)

        return Base

    @property
    def renames(self) -> list[str]:
        return [
            f"{self.prefix}{old}:{self.prefix}{new}" if table is None else f"{self.prefix}{table}.{old}:{new}"
            for table, old, new in self.change.renames
        ]

    def table(self, registry: Registry) -> Any:
        """The table of the rows, by the name that it has in *registry*."""
        renamed = {old: new for table, old, new in self.change.renames if table is None}
        tables = registry.metadata.tables
        name = self.prefix + self.change.table
        return tables[name] if name in tables else tables[self.prefix + renamed[self.change.table]]

    def rows(self, databases: Databases, registry: Registry) -> list[dict[str, Any]]:
        if not self.change.rows:
            return []
        table = self.table(registry)
        with databases.connection() as connection:
            query = select(table).order_by(*table.primary_key.columns)
            return [dict(row._mapping) for row in connection.execute(query)]

    def fill(self, databases: Databases) -> None:
        """Insert the rows of the change."""
        if self.change.rows:
            with databases.connection() as connection:
                connection.execute(insert(self.table(self.before)), list(self.change.rows))
                connection.commit()
        self.stored = self.rows(databases, self.before)

    def check_applied(self, databases: Databases) -> None:
        """Look for the rows, and for the expected values in new and changed columns."""
        kept = self.rows(databases, self.after)
        assert [each["id"] for each in kept] == [each["id"] for each in self.stored], self.change.title
        for row, stored in zip(kept, self.stored, strict=True):
            for name, value in row.items():
                wanted = self.change.expected.get(name, stored.get(name))
                assert wanted(value) if callable(wanted) else value == wanted, (self.change.title, name)

    def check_reverted(self, databases: Databases) -> None:
        """Look for the rows, without the columns whose values were dropped or filled."""
        lost: set[str] = set()
        if self.stored and not self.change.renames:
            gone = set(self.table(self.before).c.keys()) - set(self.table(self.after).c.keys())
            lost = gone | self.change.expected.keys()

        def without(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
            return [{name: value for name, value in row.items() if name not in lost} for row in rows]

        assert without(self.rows(databases, self.before)) == without(self.stored), self.change.title


def try_changes(changes: Sequence[Change], databases: Databases, folder: Path, dialect: str) -> None:
    """Make, apply, revert and apply again one revision of all *changes*."""
    old, new = Registry(databases), Registry(databases)
    trials = [Trial(number, change, old, new) for number, change in enumerate(changes)]
    before, after = Migrations(folder, old), Migrations(folder, new)
    before.make("before")
    before.migrate()
    for trial in trials:
        trial.fill(databases)

    differences = " ".join(each.text for each in after.check())
    seen = {trial.change.title for trial in trials if trial.prefix in differences}
    assert seen == {change.title for change in changes if dialect in change.seen}
    made = after.make("after", renames=[rename for trial in trials for rename in trial.renames])
    assert (made is not None) is bool(seen)
    if made is None:
        return
    after.migrate()
    assert after.check() == []
    for trial in trials:
        trial.check_applied(databases)

    after.migrate("-1")
    assert sorted(each.text for each in before.compare()) == [
        f"the column '{trial.prefix}book.{name}' differs in its nullability"
        for trial in trials
        for name in trial.change.returns
    ]
    for trial in trials:
        trial.check_reverted(databases)
    after.migrate()
    assert after.check() == []


@pytest.mark.backends("sqlite-file", "postgresql", "mariadb")
def test_all_changes_are_found_applied_and_reverted(database: Databases, folder: Path, backend: str) -> None:
    try_changes(CHANGES, database, folder, backend.partition("-")[0])


@pytest.mark.parametrize(
    "title", ["a new table", "two dropped tables that refer to each other", "a table comment"]
)
def test_a_database_may_begin_or_end_empty_or_need_nothing(title: str, sqlite_url: str, folder: Path) -> None:
    (change,) = (each for each in CHANGES if each.title == title)
    with Databases(sqlite_url) as databases:
        try_changes([change], databases, folder, "sqlite")
