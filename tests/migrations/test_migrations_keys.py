"""Another primary key is told and not passed over; an index on an expression is made where it cannot be seen."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Index, func, inspect, text

from microorm import Databases, Field, Model, field
from microorm.errors import MigrationError
from microorm.migrations import Migrations

Anew = Callable[[], type[Model]]


@pytest.mark.backends("sqlite-file", "postgresql", "mariadb")
def test_another_primary_key_is_refused_and_told(anew: Anew, migrations: Any) -> None:
    old: Any = anew()

    class Book(old):
        code: Field[int] = field(default=0)

    history: Migrations = migrations(old)
    history.make("first")
    history.migrate()
    new: Any = anew()

    class Tome(new, table="book"):
        code: Field[int] = field(primary_key=True)

    history = migrations(new)
    told = "the primary key of 'book' is ('id',), and ('code',) in the models"
    assert told in [each.text for each in history.check()]
    with pytest.raises(
        MigrationError, match=r"the primary key of 'book' is \('id',\), and \('code',\) in the models"
    ):
        history.make("another key")
    assert len(history.show()) == 1


@pytest.mark.backends("sqlite-file", "postgresql")
def test_an_index_on_an_expression_is_made(anew: Anew, migrations: Any, databases: Databases) -> None:
    old: Any = anew()

    class Book(old, table_args=(Index("small", func.lower(text("title")), unique=True),)):
        title: Field[str] = field(max_length=40)

    history: Migrations = migrations(old)
    history.make("first")
    history.migrate()
    assert history.check() == []
    new: Any = anew()

    class Tome(
        new,
        table="book",
        table_args=(
            Index("small", func.lower(text("title")), unique=True),
            Index("up", func.upper(text("title"))),
        ),
    ):
        title: Field[str] = field(max_length=40)

    history = migrations(new)
    made = history.make("another index")
    assert made is not None
    history.migrate()
    assert history.check() == []
    history.migrate("base")
    with databases.engine().connect() as connection:
        assert not inspect(connection).has_table("book")
