"""A table that is there for a moment leaves nothing, and its words are the database's own."""

import pytest
from sqlalchemy import CheckConstraint, Column, Integer, inspect, text

from microorm import Databases
from microorm.migrations.compare import NAME, momentary

pytestmark = pytest.mark.backends("sqlite-file", "postgresql", "mariadb")


def test_it_is_gone_when_it_was_looked_at(databases: Databases) -> None:
    with databases.engine().connect() as connection:
        items = [Column("pages", Integer), CheckConstraint(text("pages IN (1, 2)"), name="ck")]
        with momentary(connection, *items) as inspector:
            (check,) = inspector.get_check_constraints(NAME)
            assert check["name"] == "ck"
        with pytest.raises(LookupError, match="looked"), momentary(connection, Column("pages", Integer)):
            raise LookupError("looked")
        connection.commit()
        assert not inspect(connection).has_table(NAME)
