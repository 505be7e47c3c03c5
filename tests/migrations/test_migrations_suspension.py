"""A foreign key is never in the way of a change: of the columns on both sides, of an index that it uses."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import UniqueConstraint

from microorm import Databases, Field, ForeignKey, field, foreign_key
from tests.migrations.shop import define, execute, history
from tests.migrations.test_migrations_renames import Steps

ALL = pytest.mark.backends("sqlite-file", "postgresql", "mariadb")
TEXT = (Field[str], field(max_length=9))


def lands(length: int | None = None, **options: Any) -> Any:
    """Lands and their towns; *length* is that of a land's code, which is its key; without it there is a number."""

    def models(base: Any) -> None:
        key = Field[int] if length is None else Field[str]
        code = field(primary_key=True, **({} if length is None else {"max_length": length}))
        land = define(base, "Land", {"code": (key, code)})
        towns = {"land": (ForeignKey[land], foreign_key(**options)), "name": TEXT}
        define(base, "Town", towns)

    return models


@ALL
def test_a_key_that_is_referred_to_gets_longer(database: Databases, folder: Path) -> None:
    steps = Steps(database, folder, lands(2), lands(5))
    execute(
        database, "INSERT INTO land VALUES ('de')", "INSERT INTO town (land_id, name) VALUES ('de', 'Jena')"
    )
    text = steps.change()
    assert ("create_foreign_key" in text) is ("sqlite" not in str(database.engine().url))
    assert execute(database, "SELECT land_id FROM town") == [("de",)]


@ALL
def test_a_foreign_key_goes_with_the_constraint_that_it_needs(database: Databases, folder: Path) -> None:
    def old(base: Any) -> None:
        land = define(base, "Land", {"code": (Field[str], field(unique=True, max_length=9))})
        define(base, "Town", {"land": (ForeignKey[land], foreign_key(to_field="code")), "name": TEXT})

    def new(base: Any) -> None:
        define(base, "Land", {"code": (Field[str], field(max_length=9))})
        define(base, "Town", {"name": TEXT})

    steps = Steps(database, folder, old, new)
    execute(
        database,
        "INSERT INTO land (code) VALUES ('de')",
        "INSERT INTO town (land_id, name) VALUES ('de', 'Jena')",
    )
    migrations = history(steps.new, folder)
    migrations.make("second")
    migrations.migrate()
    assert migrations.check() == []
    migrations.migrate("-1")
    assert execute(database, "SELECT land_id, name FROM town") == [
        (None, "Jena")
    ]  # it comes back as nullable


@ALL
def test_a_unique_foreign_key_becomes_a_plain_one(database: Databases, folder: Path) -> None:
    steps = Steps(database, folder, lands(2, unique=True), lands(2))
    execute(
        database, "INSERT INTO land VALUES ('de')", "INSERT INTO town (land_id, name) VALUES ('de', 'Jena')"
    )
    steps.change()
    execute(database, "INSERT INTO town (land_id, name) VALUES ('de', 'Ulm')")


@ALL
def test_a_unique_constraint_goes_that_a_foreign_key_has_used(database: Databases, folder: Path) -> None:
    def models(*table_args: Any) -> Any:
        def define_both(base: Any) -> None:
            land = define(base, "Land", {"name": TEXT})
            towns = {"land": (ForeignKey[land], foreign_key(index=False)), "name": TEXT}
            define(base, "Town", towns, table_args=table_args)

        return define_both

    steps = Steps(database, folder, models(UniqueConstraint("land_id", "name", name="once")), models())
    execute(
        database,
        "INSERT INTO land (name) VALUES ('D')",
        "INSERT INTO town (land_id, name) VALUES (1, 'Jena')",
    )
    steps.change()
    execute(database, "INSERT INTO town (land_id, name) VALUES (1, 'Jena')")
