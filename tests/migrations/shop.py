"""The models, routers and revisions that the tests of migrations share."""

from pathlib import Path
from textwrap import indent
from typing import Any

from sqlalchemy import inspect, text

import microorm
from microorm import Databases, Field, Registry, field
from microorm.migrations import Migrations


class Split:
    """`shop.Event` lives on the alias `other`, all else on `default`."""

    def allow_migrate(self, alias: str, label: str, model: Any = None, **hints: Any) -> bool:
        return (alias == "other") == (label == "shop.Event")

    def db_for_write(self, model: Any, **hints: Any) -> str | None:
        return "other" if model.__name__ == "Event" else None

    db_for_read = db_for_write


def new_base(databases: Databases) -> Any:
    """A base class with a registry of its own, as in a program that is started again over the same databases."""

    class Base(microorm.Model, registry=Registry(databases), app="shop", abstract=True):
        pass

    return Base


def define(base: Any, name: str, fields: dict[str, Any], **keywords: Any) -> Any:
    """Define a model from data: field → annotation, or a pair of annotation and `field()`."""
    body: dict[str, Any] = {"__annotations__": {}, "__module__": __name__}
    for each, declared in fields.items():
        annotation, value = declared if isinstance(declared, tuple) else (declared, None)
        body["__annotations__"][each] = annotation
        if value is not None:
            body[each] = value
    return type(base)(name, (base,), body, **keywords)


def define_book(base: Any, length: int = 40, **options: Any) -> Any:
    """A model `Book` with a title."""
    return define(base, "Book", {"title": (Field[str], field(max_length=length, **options))})


def history(base: Any, folder: Path) -> Migrations:
    """The history in *folder*, with the models that derive from *base*."""
    return Migrations(folder, base.__options__.registry)


def migrated(base: Any, folder: Path, message: str) -> Migrations:
    """The history after a revision for the models of *base*, which is applied."""
    migrations = history(base, folder)
    assert migrations.make(message) is not None
    migrations.migrate()
    return migrations


def revise(migrations: Migrations, *lines: str) -> Path:
    """Write a revision by hand, whose upgrade is *lines*."""
    made = migrations.make("by hand", empty=True)
    assert made is not None
    head, _, _ = made.read_text().partition("def upgrade()")
    imports = "import datetime\nfrom decimal import Decimal\nfrom microorm import types\nfrom microorm.migrations import on\n"
    upgrade = indent("\n".join(lines), "    ")
    made.write_text(
        f"{head}{imports}\ndef upgrade() -> None:\n{upgrade}\n\ndef downgrade() -> None:\n    pass\n"
    )
    return made


def execute(databases: Databases, *statements: str, using: str = "default") -> list[Any]:
    """Execute and commit *statements*; return the rows of the last one."""
    rows: list[Any] = []
    with databases.connection(using) as connection:
        for statement in statements:
            result = connection.execute(text(statement))
            rows = [tuple(row) for row in result] if result.returns_rows else []
        connection.commit()
    return rows


def tables(databases: Databases, using: str) -> set[str]:
    with databases.engine(using).connect() as connection:
        return set(inspect(connection).get_table_names())


def columns(databases: Databases, using: str, table: str = "book") -> set[str]:
    with databases.engine(using).connect() as connection:
        return {each["name"] for each in inspect(connection).get_columns(table)}
