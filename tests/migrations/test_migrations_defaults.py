"""A default is another where it says something else, and the same where a database only words it otherwise."""

from typing import Any

import pytest
from alembic.migration import MigrationContext
from sqlalchemy import Column, Integer, MetaData, String, Table, inspect, text
from sqlalchemy.types import TypeEngine

from microorm import Databases
from microorm.migrations.compare import compare_default

pytestmark = pytest.mark.backends("sqlite-file", "postgresql", "mariadb")


@pytest.mark.parametrize(
    ("type_", "stored", "wanted", "differs"),
    [
        (Integer(), "5", "5", False),
        (Integer(), "5", "6", True),
        (Integer(), text("2 + 3"), text("(2 + 3)"), False),
        (String(9), "a", "a", False),
        (String(9), "a", "b", True),
        (String(9), "a", None, True),
        (String(9), None, "a", True),
        (String(9), None, None, False),
    ],
)
def test_defaults_are_compared_by_what_they_say(
    databases: Databases, type_: TypeEngine[Any], stored: Any, wanted: Any, differs: bool
) -> None:
    with databases.engine().connect() as connection:
        there: Column[Any] = Column("value", type_, server_default=stored)
        Table("shelf", MetaData(), there).create(connection)
        connection.commit()
        (told,) = inspect(connection).get_columns("shelf")
        asked: Column[Any] = Column("value", type_, server_default=wanted)
        rendered = wanted if isinstance(wanted, str) else None
        migration = MigrationContext.configure(connection)
        compared = compare_default(migration, there, asked, told["default"], asked.server_default, rendered)
        assert compared is differs
