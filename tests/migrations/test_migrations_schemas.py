"""Tables in a schema of their own are migrated as others are, on the databases that have schemas."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import CheckConstraint

from microorm import Databases, Field, ForeignKey, field, foreign_key
from tests.migrations.shop import define, execute, history, migrated, new_base


@pytest.fixture
def schema(database: Databases) -> Iterator[str]:
    """A schema beside that of the database, which on MariaDB is another database."""
    (name,) = execute(
        database, "SELECT current_schema()" if _is_postgresql(database) else "SELECT DATABASE()"
    )[0]
    execute(database, f"CREATE SCHEMA {name}_more")
    yield f"{name}_more"
    execute(database, f"DROP SCHEMA {name}_more" + (" CASCADE" if _is_postgresql(database) else ""))


def _is_postgresql(database: Databases) -> bool:
    return database.database("default").dialect == "postgresql"


def models(databases: Databases, schema: str, length: int, condition: str, **fields: Any) -> Any:
    """Authors and their books, in *schema*."""
    base = new_base(databases)
    author = define(
        base, "Author", {"name": (Field[str], field(max_length=9))}, table_args=({"schema": schema},)
    )
    title = (Field[str], field(max_length=length, index=True))
    written = (ForeignKey[author], foreign_key())
    args = (CheckConstraint(condition, name="filled"), {"schema": schema})
    define(base, "Book", {"title": title, "author": written, **fields}, table_args=args)
    return base


@pytest.mark.backends("postgresql", "mariadb")
def test_tables_in_a_schema_are_created_changed_and_reverted(
    database: Databases, folder: Path, schema: str
) -> None:
    old = models(database, schema, 9, "title <> ''")
    first = migrated(old, folder, "first")
    assert first.check() == []
    execute(
        database,
        f"INSERT INTO {schema}.author (name) VALUES ('Lem')",
        f"INSERT INTO {schema}.book (title, author_id) VALUES ('Solaris', 1)",
    )
    pages = (Field[int], field(default=7))
    new = models(database, schema, 40, "title <> 'x'", pages=pages)
    migrations = migrated(new, folder, "second")
    assert migrations.check() == []
    assert execute(database, f"SELECT title, pages FROM {schema}.book") == [("Solaris", 7)]
    migrations.migrate("-1")
    assert history(old, folder).compare() == []
    migrations.migrate("base")


@pytest.mark.backends("sqlite-file")
def test_on_sqlite_a_table_in_a_schema_is_left_out(database: Databases, folder: Path) -> None:
    base = new_base(database)
    define(base, "Author", {"name": Field[str]})
    define(base, "Book", {"title": Field[str]}, table_args=({"schema": "more"},))
    migrations = migrated(base, folder, "first")
    assert migrations.check() == []
    assert execute(database, "SELECT name FROM sqlite_master WHERE name IN ('author', 'book')") == [
        ("author",)
    ]
