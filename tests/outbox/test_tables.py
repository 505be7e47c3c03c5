"""The tables of the outbox are made and migrated as those of all models, where they are needed."""

import gc
import weakref
from pathlib import Path

import pytest
from sqlalchemy import inspect

import microorm
import microorm.outbox
from microorm import Field, Model, Registry
from microorm.migrations import Migrations, write_environment
from microorm.signals import post_save

OUTBOX = {"microorm_outbox", "microorm_outbox_dead", "microorm_outbox_done"}
SERVERS = pytest.mark.backends("sqlite-file", "postgresql", "mariadb")


class Split:
    """Notes live on the alias `other`, all else on `default`."""

    def allow_migrate(self, alias, label, model=None, **hints):
        return (alias == "other") == (label == "shop.Note")

    def db_for_write(self, model, **hints):
        return "other" if model.__name__ == "Note" else None

    db_for_read = db_for_write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_environment(tmp_path / "migrations")
    return tmp_path / "migrations"


def tables(databases, alias: str) -> set[str]:
    return set(inspect(databases.engine(alias)).get_table_names())


@SERVERS
def test_a_migration_makes_them_where_a_model_has_durable_receivers(url, other_url, folder) -> None:
    def charge(**kwargs):
        pass

    with microorm.Databases({"default": url, "other": other_url}, routers=[Split()]) as databases:
        registry = Registry(databases)

        class Order(Model, registry=registry, app="shop"):
            name: Field[str]

        class Note(Model, registry=registry, app="shop"):
            name: Field[str]

        post_save.connect(charge, sender=Order, delivery="durable", dispatch_uid="charge")
        try:
            migrations = Migrations(folder, registry)
            assert migrations.make("first") is not None
            migrations.migrate()
            assert tables(databases, "default") == OUTBOX | {"order", "alembic_version"}
            assert tables(databases, "other") == {"note", "alembic_version"}
            assert migrations.check() == []
            assert migrations.make("again") is None
            post_save.connect(charge, sender=Note, delivery="durable", dispatch_uid="charge")
            assert migrations.make("notes too") is not None
            migrations.migrate()
            assert tables(databases, "other") == OUTBOX | {"note", "alembic_version"}
            assert migrations.check() == []
            Note(name="a").save()
            assert microorm.outbox.Relay(databases).drain() == 1
            migrations.migrate("base")
            assert tables(databases, "default") == tables(databases, "other") == {"alembic_version"}
            migrations.migrate()
            assert migrations.check() == [], "the whole history makes the same"
        finally:
            post_save.disconnect(charge, Order, "charge")
            post_save.disconnect(charge, Note, "charge")


@SERVERS
def test_they_stay_with_their_events_when_the_last_durable_receiver_is_gone(url, folder) -> None:
    def charge(**kwargs):
        raise ValueError

    def models(databases) -> tuple[Registry, type]:
        registry = Registry(databases)

        class Order(Model, registry=registry, app="shop"):
            name: Field[str]

        return registry, Order

    with microorm.Databases(url) as databases:
        registry, Order = models(databases)
        post_save.connect(charge, sender=Order, delivery="durable", dispatch_uid="charge")
        try:
            migrations = Migrations(folder, registry)
            assert migrations.make("first") is not None
            migrations.migrate()
            Order(name="a").save()
            assert microorm.outbox.Relay(databases).run_once() == 1
        finally:
            post_save.disconnect(charge, Order, "charge")
        assert migrations.make("gone") is None
    with microorm.Databases(url) as databases:  # as another process, whose models have none
        registry, Order = models(databases)
        migrations = Migrations(folder, registry)
        assert migrations.check() == []
        assert migrations.make("gone") is None
        outbox = microorm.outbox.Outbox(databases)
        assert [(each.receiver, each.retrying) for each in outbox.status()] == [("charge", 1)]
        assert (outbox.dead(), outbox.prune(30)) == ([], 0)
        post_save.connect(charge, sender=Order, delivery="durable", dispatch_uid="charge")
        try:
            assert migrations.make("back") is None
        finally:
            post_save.disconnect(charge, Order, "charge")


def test_an_outbox_without_receivers_and_tables_is_an_error(databases) -> None:
    with pytest.raises(microorm.ConfigurationError, match="no model has a durable receiver"):
        microorm.outbox.Outbox(databases)


@SERVERS
def test_created_tables_are_those_that_migrations_want(shop, folder) -> None:
    shop.note()
    shop.registry.create_all()
    assert [each.text for each in Migrations(folder, shop.registry).compare()] == []


def test_a_wildcard_receiver_needs_them_wherever_there_is_a_model(databases, registry, Base) -> None:
    def charge(**kwargs):
        pass

    post_save.connect(charge, delivery="durable", dispatch_uid="all", registry=registry)
    try:

        class Order(Base):
            name: Field[str]

        registry.create_all()
        assert tables(databases, "default") >= OUTBOX
        Order(name="a").save()
        assert microorm.outbox.Relay(databases).drain() == 1
    finally:
        post_save.disconnect(charge, None, "all")


def test_a_receiver_of_an_abstract_model_needs_them_for_the_models_derived_from_it(
    databases, registry, Base
) -> None:
    seen = []

    def charge(instance, **kwargs):
        seen.append(instance.name)

    class Named(Base, abstract=True):
        name: Field[str]

    post_save.connect(charge, Named, delivery="durable", dispatch_uid="named", subclasses=True)

    class Order(Named):
        pass

    registry.create_all()
    Order(name="a").save()
    microorm.outbox.Relay(databases).drain()
    assert seen == ["a"]
    post_save.disconnect(charge, Named, "named")


def test_a_receiver_of_a_label_needs_them_once_the_model_is_defined(databases, registry, Base) -> None:
    seen = []

    def charge(instance, **kwargs):
        seen.append(instance.name)

    post_save.connect(charge, "later.Order", delivery="durable", dispatch_uid="later", registry=registry)
    assert not any(label.startswith("microorm.") for label in registry.models)

    class Order(Model, registry=registry, app="later"):
        name: Field[str]

    registry.create_all()
    Order(name="a").save()
    microorm.outbox.Relay(databases).drain()
    assert seen == ["a"]
    post_save.disconnect(charge, "later.Order", "later", registry=registry)


def test_a_registry_with_an_outbox_can_be_freed(sqlite_url) -> None:
    def charge(**kwargs):
        pass

    def use() -> "weakref.ref[Registry]":
        with microorm.Databases(sqlite_url) as databases:
            registry = Registry(databases)

            class Order(Model, registry=registry):
                name: Field[str]

            post_save.connect(charge, Order, delivery="durable", dispatch_uid="freed")
            registry.create_all()
            Order(name="a").save()
            microorm.outbox.Relay(databases).drain()
            post_save.disconnect(charge, Order, "freed")
            return weakref.ref(registry)

    held = use()
    gc.collect()
    assert held() is None


def test_the_index_of_due_events_is_used(shop, backend) -> None:
    """A claim goes through the events that are due, not through all."""
    shop.note()
    shop.registry.create_all()
    store = shop.relay().store("default")
    statement = store._due(10, lost=False, columns=[store.waiting.c.id])
    with shop.databases.connection() as connection:
        if backend == "postgresql":
            connection.exec_driver_sql("SET enable_seqscan = off")
        plan = "EXPLAIN QUERY PLAN " if backend.startswith("sqlite") else "EXPLAIN "
        compiled = statement.compile(connection, compile_kwargs={"literal_binds": True})
        found = str(connection.exec_driver_sql(plan + str(compiled).replace("%", "%%")).fetchall())
    assert "ix_microorm_outbox_due" in found
    assert "due_at" in found or backend == "mariadb"
