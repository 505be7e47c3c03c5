"""Tenants: which database a model goes to, and what is refused."""

import asyncio
import threading
from typing import Any

import pytest

from microorm import (
    ConfigurationError,
    CrossDatabaseRelation,
    Databases,
    Field,
    ForeignKey,
    Model,
    Registry,
    ScopeWarning,
    TenantError,
    UnknownAlias,
    foreign_key,
)
from microorm.outbox import Relay
from microorm.routers import Tenants, current_tenant, tenant
from microorm.signals import post_save


class World:
    """Two tenants, `red` and `blue`, and the shared models on `default`."""

    def __init__(self, url: Any) -> None:
        self.router = Tenants(shared=["accounts", "billing.Plan"])
        self.databases = databases = Databases(url(), routers=[self.router])
        registry = Registry(databases)
        for alias in ("red", "blue"):
            databases.add(alias, url())

        class User(Model, registry=registry, app="accounts"):
            name: Field[str]

        class Plan(Model, registry=registry, app="billing"):
            name: Field[str]

        class Author(Model, registry=registry, app="shop"):
            name: Field[str]

        class Book(Model, registry=registry, app="shop"):
            title: Field[str]
            author: ForeignKey[Author | None] = foreign_key(on_delete="cascade", default=None)

        self.registry, self.User, self.Plan, self.Author, self.Book = registry, User, Plan, Author, Book

    def tenant(self, alias: str) -> Any:
        return tenant(alias, self.databases)

    @property
    def current(self) -> str | None:
        return current_tenant(self.databases)

    def titles(self, alias: str) -> list[str]:
        return sorted(self.Book.objects.using(alias).scalars(self.Book.title))


@pytest.fixture
def world(fresh_url):
    world = World(fresh_url)
    with world.databases:
        world.registry.create_all()
        yield world


def test_models_of_tenants_go_to_the_current_one_and_shared_ones_to_theirs(world) -> None:
    with world.tenant("red"):
        book = world.Book(title="Lathe").save()
        user = world.User(name="Ursula").save()
        plan = world.Plan(name="free").save()
        assert world.Book.objects.get().title == "Lathe"
    with world.tenant("blue"):
        assert world.Book.objects.count() == 0
        assert world.User.objects.count() == 1
    assert [each._state.db for each in (book, user, plan)] == ["red", "default", "default"]


def test_each_database_has_its_tables(world) -> None:
    held = {alias: {table.name for table in tables} for alias, tables in world.registry.tables_by_alias()}
    assert held == {"default": {"user", "plan"}, "red": {"author", "book"}, "blue": {"author", "book"}}


def test_models_of_tenants_are_refused_without_one(world) -> None:
    for use in (lambda: world.Book(title="x").save(), world.Book.objects.count, world.Book.objects.delete):
        with pytest.raises(
            TenantError,
            match="^shop.Book is a model of tenants, and no tenant is current; write `with tenant",
        ):
            use()
    assert world.User.objects.count() == 0
    assert (world.titles("red"), world.current) == ([], None)


def test_an_instance_goes_back_to_its_tenant(world) -> None:
    with world.tenant("red"):
        book = world.Book(title="Lathe", author=world.Author(name="Ursula").save()).save()
    book.title = "Heaven"
    book.save()
    book = world.Book.objects.using("red").get()
    assert (book.title, book.author.name) == ("Heaven", "Ursula")
    book.delete()
    assert world.titles("red") == []


def test_an_instance_of_another_tenant_is_refused(world) -> None:
    with world.tenant("red"):
        book = world.Book(title="Lathe").save()
    with world.tenant("blue"):
        book.title = "Heaven"
        for use in (book.save, book.delete):
            with pytest.raises(
                TenantError, match="belongs to the tenant 'red', and the current one is 'blue'$"
            ):
                use()
        book.save(using="red")
    assert (world.titles("red"), world.titles("blue")) == (["Heaven"], [])


def test_rows_of_two_tenants_are_not_related(world) -> None:
    with world.tenant("red"):
        author = world.Author(name="Ursula").save()
    with world.tenant("blue"):
        book = world.Book(title="Lathe").save()
        with pytest.raises(CrossDatabaseRelation):
            book.author = author


def test_the_tenant_is_the_alias_of_blocks_and_connections(world) -> None:
    done = []
    with world.tenant("red"):
        with world.databases.atomic():
            world.Book(title="kept").save()
            world.databases.on_commit(lambda: done.append(world.current))
        with pytest.raises(ZeroDivisionError):
            with world.databases.atomic():
                world.Book(title="lost").save()
                raise ZeroDivisionError
        with world.databases.connection() as connection:
            assert connection.execute(world.Book.objects.statement).scalars().all() != []
    assert (world.titles("red"), done) == (["kept"], ["red"])


def test_blocks_are_nested(world) -> None:
    with world.tenant("red"):
        with world.tenant("blue"):
            assert world.current == "blue"
        assert world.current == "red"
        with world.databases.using("blue"):
            world.Book(title="Lathe").save()
    assert (world.current, world.titles("blue")) == (None, ["Lathe"])


def test_a_receiver_has_the_tenant_of_the_row(world) -> None:
    seen = []

    def note(instance: Any, using: str, **kwargs: Any) -> None:
        seen.append((using, world.current, world.Book.objects.count()))
        world.User(name=instance.title).save()

    post_save.connect(note, sender=world.Book)
    world.Book(title="at once").save(using="red")
    with world.tenant("blue"):
        world.Book(title="elsewhere").save(using="red")
    assert seen == [("red", "red", 1), ("red", "red", 2)]
    assert world.User.objects.count() == 2


def test_a_receiver_of_a_shared_model_keeps_the_tenant(world) -> None:
    seen = []

    def note(instance: Any, **kwargs: Any) -> None:
        seen.append(world.current)

    post_save.connect(note, sender=world.User)
    with world.tenant("red"):
        world.User(name="Ursula").save()
    world.User(name="Ursula").save()
    assert seen == ["red", None]


def test_a_receiver_after_the_commit_has_the_tenant_although_its_scope_has_ended(world) -> None:
    seen = []

    def note(instance: Any, **kwargs: Any) -> None:
        seen.append((world.current, world.Book.objects.count()))

    post_save.connect(note, sender=world.Book, delivery="on_commit")
    with world.databases.atomic("red"):
        with world.tenant("red"):
            world.Book(title="Lathe").save()
        assert seen == []
    assert seen == [("red", 1)]


def test_a_durable_receiver_has_the_tenant_of_its_event(world) -> None:
    seen = []

    def note(instance: Any, event: Any, **kwargs: Any) -> None:
        seen.append((event.alias, world.current, world.Book.objects.get().title))

    post_save.connect(note, sender=world.Book, delivery="durable", dispatch_uid="note")
    try:
        world.registry.create_all()
        for alias in ("red", "blue"):
            with world.tenant(alias):
                world.Book(title=f"of {alias}").save()
        relay = Relay(world.databases)
        assert relay.aliases == ("red", "blue")
        assert relay.drain() == 2
    finally:
        post_save.disconnect(note, world.Book, "note")
    assert seen == [("red", "red", "of red"), ("blue", "blue", "of blue")]


def test_threads_have_tenants_of_their_own(world) -> None:
    found, meet = {}, threading.Barrier(2, timeout=10)

    def work(alias: str) -> None:
        before = world.current
        with world.tenant(alias):
            meet.wait()
            world.Book(title=alias).save()
            meet.wait()
            found[alias] = (before, world.current, world.titles(alias))

    with world.tenant("red"):
        threads = [threading.Thread(target=work, args=(alias,)) for alias in ("red", "blue")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == {alias: (None, alias, [alias]) for alias in ("red", "blue")}


def test_tasks_inherit_the_tenant_and_change_it_for_themselves(world) -> None:
    async def work(alias: str | None) -> str | None:
        if alias is None:
            book = await world.Book(title="inherited").asave()
            return book._state.db
        with world.tenant(alias):
            await asyncio.sleep(0)
            book = await world.Book(title=alias).asave()
            return book._state.db

    async def main() -> None:
        with world.tenant("red"):
            found = await asyncio.gather(work("blue"), work(None), work("red"))
            assert found == ["blue", "red", "red"]
            assert await asyncio.to_thread(lambda: world.current) == "red"
            async with world.databases.atomic():
                await world.Book(title="in a block").asave()
            late = asyncio.create_task(late_work())
        with pytest.raises(TenantError, match="no tenant is current"):
            await late

    async def late_work() -> None:
        await asyncio.sleep(0.01)  # the scope of its parent ends meanwhile
        await world.Book.objects.acount()

    asyncio.run(main())
    assert world.titles("red") == ["in a block", "inherited", "red"]


def test_a_tenant_that_was_removed_is_unknown(world) -> None:
    with world.tenant("red"):
        world.databases.remove("red")
        with pytest.raises(UnknownAlias, match="no database named 'red'; it was removed"):
            world.Book.objects.count()
    with pytest.raises(UnknownAlias, match="it was removed"):
        world.tenant("red")


@pytest.mark.backends("sqlite-memory")
def test_what_is_no_tenant_is_refused(world) -> None:
    with pytest.raises(TenantError, match="^'default' is not the database of a tenant$"):
        world.tenant("default")
    with pytest.raises(UnknownAlias, match="no database named 'rde'; .*; nearest: 'red'"):
        world.tenant("rde")
    with pytest.raises(TypeError):
        world.tenant()


@pytest.mark.backends("sqlite-memory")
def test_a_generator_that_is_closed_elsewhere_warns(world) -> None:
    def rows() -> Any:
        with world.tenant("red"):
            yield 1

    generator = rows()
    threading_result = threading.Thread(target=next, args=(generator,))
    threading_result.start()
    threading_result.join()
    with pytest.warns(ScopeWarning, match="^tenant\\('red'\\) was left in another context"):
        generator.close()


def test_named_models_are_of_tenants_and_others_are_shared() -> None:
    router = Tenants(models=["shop", "billing.Invoice"], shared_alias="main", other_aliases=["logs"])
    labels = ("shop.Book", "billing.Invoice", "billing.Plan", "accounts.User")
    assert [label for label in labels if router.is_shared(label)] == ["billing.Plan", "accounts.User"]
    assert [alias for alias in ("main", "logs", "red") if router.is_tenant(alias)] == ["red"]
    assert [router.allow_migrate(alias, "shop.Book") for alias in ("main", "logs", "red")] == [
        False,
        None,
        True,
    ]
    assert [router.allow_migrate(alias, "billing.Plan") for alias in ("main", "logs", "red")] == [
        True,
        None,
        False,
    ]
    assert repr(router) == "<Tenants models=['billing.Invoice', 'shop']>"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "^Tenants\\(\\) needs shared=, or else models="),
        ({"shared": [], "models": []}, "^Tenants\\(\\) needs shared=, or else models="),
        ({"shared": "accounts"}, "^shared= must be a list of names, not 'accounts'"),
        ({"models": [object]}, "^models= must be a list of names, not "),
        ({"shared": [], "other_aliases": "logs"}, "^other_aliases= must be a list of names, not 'logs'"),
    ],
)
def test_invalid_options_are_refused(options: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Tenants(**options)


def test_a_tenant_needs_the_router(sqlite_url) -> None:
    with Databases({"red": sqlite_url}) as databases:
        for use in (lambda: tenant("red", databases), lambda: current_tenant(databases)):
            with pytest.raises(ConfigurationError, match="no router of these databases is a Tenants"):
                use()
