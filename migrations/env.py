"""Migrations: tells alembic which tables there should be, and which database to change.

The settings are in pyproject.toml. The database is that of `-x url=…`, else of the variable FLIGHTS_URL, else a file:

    alembic upgrade head
    alembic -x url=postgresql+psycopg://postgres@127.0.0.1:5432/flights upgrade head
    alembic revision --autogenerate -m "what changes"
"""

import os
from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import NullPool, create_engine, make_url
from sqlalchemy.types import TypeEngine

from examples.flights.models import Flight
from microorm import types

DIALECTS = [
    make_url(f"{name}://").get_dialect()() for name in ("sqlite", "postgresql+psycopg", "mariadb+pymysql")
]


def in_sql(type_: TypeEngine[Any]) -> list[str]:
    return [type_.compile(dialect=dialect) for dialect in DIALECTS]


def written(kind: str, item: Any, autogenerate: AutogenContext) -> str | Literal[False]:
    """How a revision names a column's type: short where microorm has a name for it, else as alembic would."""
    if kind != "type":
        return False
    size = getattr(item, "length", None)
    names: dict[str, TypeEngine[Any]] = {
        "types.integer_type()": types.integer_type(),
        f"types.text_type({size})": types.text_type(size),
        "types.UtcDateTime()": types.UtcDateTime(),
    }
    for name, known in names.items():
        if in_sql(item) == in_sql(known):
            autogenerate.imports.add("from microorm import types")
            return name
    return False


asked = context.get_x_argument(as_dictionary=True).get("url")
url = asked or os.environ.get("FLIGHTS_URL") or "sqlite:///flights.db"
options: dict[str, Any] = {
    "target_metadata": Flight.__table__.metadata,
    "render_as_batch": True,  # SQLite changes a table by building it anew
    "render_item": written,
}

if context.is_offline_mode():
    context.configure(url=url, literal_binds=True, **options)
    with context.begin_transaction():
        context.run_migrations()
else:
    # A plain engine, with SQLite's foreign keys off: else building a parent table anew would delete its children.
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        context.configure(connection=connection, **options)
        with context.begin_transaction():
            context.run_migrations()
