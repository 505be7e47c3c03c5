"""What else knows of copies and hints: migrations, fixtures, the databases of a test run, routers of a program."""

import json
from pathlib import Path
from typing import Any

import pytest

import microorm
from microorm import Databases, Field, Model, Registry, Router
from microorm.errors import ConfigurationError
from microorm.fixtures import dump
from microorm.migrations.targets import targets
from microorm.routers import PrimaryReplica
from microorm.testing.databases import made_databases
from tests.routers.cluster import Cluster
from tests.routers.conftest import Clock

pytestmark = pytest.mark.backends("sqlite-file")


def test_migrations_leave_copies_alone(cluster: Cluster) -> None:
    found = targets(cluster.registry, {})
    assert [each.aliases for each in found] == [("default",)]
    with pytest.raises(
        ConfigurationError, match="'one' is a copy of 'default', where its tables are migrated"
    ):
        targets(cluster.registry, {}, "one")


def test_a_dump_reads_from_a_replica(cluster: Cluster, tmp_path: Path) -> None:
    dump(tmp_path / "books.json", models=[cluster.Book], registry=cluster.registry)
    (book,) = json.loads((tmp_path / "books.json").read_text())
    assert book["fields"]["title"] == "stale"


def test_in_a_test_run_a_replica_is_the_database_of_its_primary(fresh_file: Any, tmp_path: Path) -> None:
    """So that a test that commits can read what it has written."""
    router = PrimaryReplica("default", ["one"], sticky=0)
    microorm.configure({"default": fresh_file(), "one": fresh_file()}, routers=[router])
    try:
        with made_databases(tmp_path, tmp_path) as databases:
            assert databases.database("one").url == databases.database("default").url
            registry = Registry(databases)

            class Thing(Model, registry=registry):
                name: Field[str]

            registry.create_all()
            Thing(name="a").save()
            assert Thing.objects.get().name == "a"
            assert router.stats().reads == {"one": 1}
    finally:
        microorm.close()


class Listening(Router):
    """A router that answers nothing, and keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []

    def db_for_read(self, model: type[Any], **hints: Any) -> None:
        self.told.append(hints)

    db_for_write = db_for_read


def test_a_router_is_told_what_is_read_and_written(sqlite_url: str) -> None:
    router = Listening()
    with Databases(sqlite_url, routers=[router]) as databases:
        registry = Registry(databases)

        class Book(Model, registry=registry):
            title: Field[str]

        registry.create_all()

        def told(act: Any) -> dict[str, Any]:
            router.told.clear()
            act()
            return router.told[0]

        query = Book.objects.filter(title="x")
        assert told(query.all)["values"] == {"title": "x"}
        assert told(query.count)["query"]._equal == (("title",), ("x",))
        assert (
            told(lambda: Book.objects.filter(Book.id > 1).get(title="y") if query.exists() else None)[
                "in_atomic"
            ]
            is False
        )
        assert told(lambda: Book.objects.using("default").count() or router.told.append({})) == {}
        assert told(lambda: query.update(title="z"))["changes"] == {"title": "z"}
        book = Book(title="a")
        assert told(lambda: Book.objects.bulk_create(each for each in [book]))["instances"] == [book]
        assert told(lambda: Book.objects.create(title="b"))["instances"][0].title == "b"
        assert told(book.save).keys() == {"in_atomic", "instance"}
        with databases.atomic():
            assert told(query.count)["reading"] is True


def test_an_error_in_configured_keeps_the_earlier_configuration(sqlite_url: str) -> None:
    class Refusing(Router):
        def configured(self, databases: Any, aliases: Any) -> None:
            assert list(aliases) == ["other"]
            raise ConfigurationError("not these")

    with Databases(sqlite_url) as databases:
        with pytest.raises(ConfigurationError, match="not these"):
            databases.configure({"other": sqlite_url}, routers=[Refusing()])
        assert (databases.aliases, databases.routers) == (("default",), ())


def test_the_guard_of_an_alias_costs_nothing_without_routers(sqlite_url: str, clock: Clock) -> None:
    with Databases(sqlite_url) as databases:
        database = databases.database("default")
        assert (database.guard, database.row_alias, databases.copied) == (None, "default", frozenset())
