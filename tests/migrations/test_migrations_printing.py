"""The SQL that is printed stores what a migration would store."""

from pathlib import Path
from typing import Any

import pytest

from microorm import Databases, Field, field
from tests.migrations.shop import define, execute, history, migrated, new_base

ALL = pytest.mark.backends("sqlite-file", "postgresql", "mariadb")


def run_script(databases: Databases, script: str) -> None:
    """Run *script* as a shell of the database would, statement by statement."""
    engine = databases.engine()
    with engine.connect() as connection:
        driver: Any = connection.connection.dbapi_connection
        if engine.dialect.name == "sqlite":
            driver.executescript(script)
        else:
            lines = "\n".join(line for line in script.splitlines() if not line.startswith("--"))
            for statement in filter(str.strip, lines.split(";\n")):
                driver.cursor().execute(statement)
        driver.commit()


@ALL
def test_defaults_of_every_kind_are_printed(database: Databases, folder: Path) -> None:
    old, new = new_base(database), new_base(database)
    define(old, "Book", {"title": Field[str]})
    migrated(old, folder, "first")
    execute(database, "INSERT INTO book (title) VALUES ('Dune')")
    book = define(
        new,
        "Book",
        {
            "title": Field[str],
            "share": (Field[str], field(default="50% of 'it'\\", max_length=20)),
            "cover": (Field[bytes], field(default=b"\xff\x00'")),
            "tags": (Field[dict[str, Any]], field(default_factory=dict)),
            "kind": (Field[str], field(server_default="100%", max_length=9)),
        },
    )
    migrations = history(new, folder)
    migrations.make("defaults")
    run_script(database, migrations.sql("0001:0002"))
    found = book.objects.get()
    assert (found.share, found.cover, found.tags, found.kind) == ("50% of 'it'\\", b"\xff\x00'", {}, "100%")
    assert migrations.check() == []
