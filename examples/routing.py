"""Routing: a router decides where each model is read and written, and which tables each database has.

    python examples/routing.py

Prints:
    tables: primary ['book'], replica ['book'], log ['visit']
    Book went to primary, Visit to log
    read from the replica: []
    read inside a transaction on the primary: ['Dune']
    read from the primary by name: ['Dune']
    the replica has caught up: ['Dune']
    the router returns a wrong alias: no database named 'lgo'; configured: 'log', 'primary', 'replica'; nearest: 'log'
"""

from typing import Any

import sqlalchemy

import microorm
from microorm import Field, Model, Router, atomic, field
from microorm.errors import UnknownAlias

ALIASES = ("primary", "replica", "log")


class Book(Model):
    title: Field[str] = field(max_length=100)


class Visit(Model):
    page: Field[str]


class ReplicaAndLog(Router):
    """Write to `primary`, read from `replica`, keep visits in `log`. Returning None would ask the next router."""

    log = "log"

    def db_for_read(self, model: type[Model[Any]], **hints: Any) -> str:
        return self.log if model is Visit else "replica"

    def db_for_write(self, model: type[Model[Any]], **hints: Any) -> str:
        return self.log if model is Visit else "primary"

    def allow_migrate(
        self, alias: str, label: str, model: type[Model[Any]] | None = None, **hints: Any
    ) -> bool:
        return (alias == "log") == label.endswith(".Visit")


def titles(alias: str | None = None) -> list[str]:
    query = Book.objects if alias is None else Book.objects.using(alias)
    return [book.title for book in query]


def tables(alias: str) -> list[str]:
    with microorm.connection(alias) as connection:
        return sqlalchemy.inspect(connection).get_table_names()


router = ReplicaAndLog()
microorm.configure(dict.fromkeys(ALIASES, "sqlite://"), routers=[router])
microorm.create_all()
print("tables:", ", ".join(f"{alias} {tables(alias)}" for alias in ALIASES))
dune, visit = Book(title="Dune").save(), Visit(page="/dune").save()
print(f"Book went to {dune._state.db}, Visit to {visit._state.db}")
print(f"read from the replica: {titles()}")
with atomic("primary"):
    print(f"read inside a transaction on the primary: {titles()}")
print(f"read from the primary by name: {titles('primary')}")
dune.save(using="replica", raw=True)
print(f"the replica has caught up: {titles()}")
router.log = "lgo"
try:
    Visit(page="/solaris").save()
except UnknownAlias as error:
    print(f"the router returns a wrong alias: {error}")
microorm.close()
