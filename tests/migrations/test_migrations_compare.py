"""A database is compared with the models by what its tables mean, however it words that, and renames are recognised."""

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import pytest
from alembic.migration import MigrationContext
from sqlalchemy import (
    CheckConstraint,
    Column,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    func,
    inspect,
    text,
)

from microorm import Databases, Field, field
from microorm.errors import MigrationError
from microorm.migrations.compare import (
    TEMPORARY_TABLE,
    compare_default,
    stored_checks,
    temporary_table,
)
from tests.migrations.shop import define, history, migrated, new_base, tables

ALL = pytest.mark.backends("sqlite-file", "postgresql", "mariadb")
TITLE = (Field[str], field(max_length=40))

CHECKS = (
    "pages BETWEEN 1 AND 9",
    "title LIKE 'a%' OR title = 'b :c'",
    "coalesce(pages, 0) + 1 > 0",
    "NOT (title IN ('x', 'y''z'))",
)
DEFAULTS: dict[str, Any] = {
    "text": (Field[str], field(server_default="plain")),
    "number": (Field[int], field(server_default="5")),
    "half": (Field[float], field(server_default=text("0.5"))),
    "digits": (Field[Decimal], field(server_default=text("1.50"), max_digits=8, decimal_places=2)),
    "flag": (Field[bool], field(server_default=text("true"))),
    "moment": (Field[datetime], field(server_default=func.now())),
    "naive": (Field[datetime], field(server_default=func.now(), timezone=False)),
    "small": (Field[str], field(server_default=func.lower("ABC"), max_length=9)),
}


@ALL
def test_checks_and_defaults_that_a_database_rewrites_are_the_same(database: Databases, folder: Path) -> None:
    base = new_base(database)
    checks = [
        CheckConstraint(text(check.replace(":", r"\:")), name=f"check{number}")
        for number, check in enumerate(CHECKS)
    ]
    fields = {"title": TITLE, "pages": (Field[int | None], field(default=None))}
    define(base, "Book", fields, table_args=tuple(checks))
    made = define(base, "Shelf", DEFAULTS)
    migrations = migrated(base, folder, "first")
    assert migrations.check() == []
    stored = made().save()
    assert abs((datetime.now(UTC) - stored.moment).total_seconds()) < 3600
    (found,) = made.objects
    assert all(getattr(found, name) == getattr(stored, name) for name in DEFAULTS)
    migrations.migrate("base")
    migrations.migrate()
    assert migrations.check() == []


@ALL
def test_the_check_of_mariadb_for_json_is_ignored(database: Databases, folder: Path) -> None:
    base = new_base(database)

    class Book(base):
        order: Field[Literal["a", "b"]] = field(default="a")
        tags: Field[list[str]] = field(default_factory=list)

    migrations = migrated(base, folder, "first")
    with database.connection() as connection:
        assert set(stored_checks(connection, "book")) == {"ck_book_order"}
    assert migrations.check() == []
    Book().save()


@ALL
def test_defaults_are_compared_by_their_meaning(database: Databases) -> None:
    number, name = Integer(), String(9)
    cases: list[tuple[Any, Any, Any, bool]] = [
        (number, "5", "5", False),
        (number, "5", "6", True),
        (number, text("2 + 3"), text("(2 + 3)"), False),
        (name, "a", "a", False),
        (name, "a", "b", True),
        (name, "a", None, True),
        (name, None, "a", True),
        (name, None, None, False),
    ]
    stored = [
        Column(f"c{index}", type_, server_default=default)
        for index, (type_, default, _, _) in enumerate(cases)
    ]
    with database.engine().connect() as connection:
        Table("shelf", MetaData(), *stored).create(connection)
        connection.commit()
        reflected = {each["name"]: each["default"] for each in inspect(connection).get_columns("shelf")}
        migration = MigrationContext.configure(connection)
        for column, (type_, _, default, differs) in zip(stored, cases, strict=True):
            wanted: Column[Any] = Column(column.name, type_, server_default=default)
            rendered = default if isinstance(default, str) else None
            assert differs is compare_default(
                migration, column, wanted, reflected[column.name], wanted.server_default, rendered
            ), column.name


@ALL
def test_a_temporary_table_is_dropped_after_the_block(database: Databases) -> None:
    with database.engine().connect() as connection:
        items = [Column("pages", Integer), CheckConstraint(text("pages IN (1, 2)"), name="ck")]
        with temporary_table(connection, *items) as inspector:
            (check,) = inspector.get_check_constraints(TEMPORARY_TABLE)
            assert check["name"] == "ck"
        with pytest.raises(LookupError), temporary_table(connection, Column("pages", Integer)):
            raise LookupError
        connection.commit()
        assert not inspect(connection).has_table(TEMPORARY_TABLE)


@ALL
def test_another_primary_key_is_found_and_refused(database: Databases, folder: Path) -> None:
    old, new = new_base(database), new_base(database)
    define(old, "Book", {"code": (Field[int], field(default=0))})
    migrated(old, folder, "first")
    define(new, "Book", {"code": (Field[int], field(primary_key=True))})
    migrations = history(new, folder)
    message = "the primary key of 'book' is 'id', but 'code' in the models"
    assert message in [each.text for each in migrations.check()]
    with pytest.raises(MigrationError, match=message):
        migrations.make("another key")
    assert len(migrations.show()) == 1


@pytest.mark.backends("sqlite-file", "postgresql")
def test_an_index_on_an_expression_is_created(database: Databases, folder: Path) -> None:
    def book(*functions: Any) -> Any:
        base = new_base(database)
        indexes = [Index(f"ix_{number}", each(text("title"))) for number, each in enumerate(functions)]
        define(base, "Book", {"title": TITLE}, table_args=tuple(indexes))
        return base

    assert migrated(book(func.lower), folder, "first").check() == []
    migrations = migrated(book(func.lower, func.upper), folder, "another index")
    assert migrations.check() == []
    migrations.migrate("base")
    assert "book" not in tables(database, "default")
