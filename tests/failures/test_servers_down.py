"""Servers that are down, and closed databases: each operation raises a clear error and changes nothing."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

import microorm
from microorm import ConfigurationError, Field, TransactionError, UnknownAlias, field

memory = pytest.mark.backends("sqlite-memory")


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that refuses connections, held so that it stays free."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.mark.parametrize("way", ["driver", "listened"])
@pytest.mark.parametrize("driver", ["postgresql+psycopg", "mariadb+pymysql"])
def test_a_server_that_is_down_is_an_operational_error(
    driver: str, on_its_way: Any, closed_port: int, look: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """For each operation; the instance is as it was, and the password is not shown."""
    caplog.set_level("DEBUG", logger="microorm")
    url = f"{driver}://someone:s3cret@127.0.0.1:{closed_port}/shop"
    with microorm.Databases({"default": "sqlite://", "down": url}) as databases:

        class Book(microorm.Model, registry=microorm.Registry(databases)):
            title: Field[str] = field(max_length=40)

        on_its_way(databases)
        Book.__schema__.registry.create_all("default")
        kept, new = Book(title="kept").save(), Book(title="new")
        before = [look(kept), look(new)]

        def block() -> None:
            with databases.atomic("down"):
                raise AssertionError("a block without a connection was entered")

        def connection() -> None:
            with databases.connection("down"):
                raise AssertionError("there is no connection")

        for asked in (
            lambda: new.save(using="down"),
            lambda: kept.save(using="down"),
            lambda: kept.delete(using="down"),
            lambda: Book.objects.using("down").get(id=1),
            lambda: Book.objects.using("down").count(),
            lambda: Book.objects.using("down").create(title="x"),
            lambda: Book.objects.using("down").bulk_create([new]),
            lambda: Book.__schema__.registry.create_all("down"),
            block,
            connection,
        ):
            with pytest.raises(OperationalError) as caught:
                asked()
            assert "127.0.0.1" in str(caught.value)
            assert "s3cret" not in f"{caught.value}{caught.value!r}"
        assert "s3cret" not in caplog.text
        assert [look(kept), look(new)] == before
        with databases.atomic():
            new.save()
        assert [book.title for book in Book.objects.order_by("id")] == ["kept", "new"]


@pytest.mark.backends("sqlite-file", "sqlite-memory", "postgresql", "mariadb")
def test_closed_databases_say_what_is_missing(databases: Any, url: str, Book: Any, look: Any) -> None:
    """Nothing is configured; after `configure()` they work again."""
    kept, new = Book(title="kept").save(), Book(title="new")
    before = [look(kept), look(new)]
    databases.close()
    databases.close()

    def block() -> None:
        with databases.atomic():
            raise AssertionError("a block without a database was entered")

    def connection() -> None:
        with databases.connection():
            raise AssertionError("there is no connection")

    for asked in (
        new.save,
        kept.save,
        kept.delete,
        kept.refresh_from_db,
        lambda: Book.objects.get(title="kept"),
        lambda: Book.objects.count(),
        lambda: Book.objects.all(),
        lambda: Book.objects.filter(title="kept").update(title="x"),
        lambda: Book.objects.filter(title="kept").delete(),
        lambda: Book.objects.raw("SELECT * FROM book"),
        lambda: databases.on_commit(lambda: None),
        lambda: databases.engine(),
        block,
        connection,
    ):
        with pytest.raises(UnknownAlias) as caught:
            asked()
        assert (
            str(caught.value)
            == "no database named 'default'; configured: none, since the databases were closed; call configure() first"
        )
        assert isinstance(caught.value, ConfigurationError)
    assert [look(kept), look(new)] == before
    assert databases.aliases == ()
    databases.configure(url)
    if url == "sqlite://":  # it is deleted with its last connection
        Book.__schema__.registry.create_all()
        kept._state.adding = True
    kept.title = "changed"
    kept.save()
    with databases.atomic():
        new.save()
    assert [book.title for book in Book.objects.order_by("id")] == ["changed", "new"]


@memory
def test_databases_cannot_be_closed_inside_a_block(databases: Any, Book: Any, titles: Any) -> None:
    """The block and later work are not affected."""
    with databases.atomic():
        book = Book(title="a").save()
        with databases.atomic(), pytest.raises(TransactionError) as caught:
            databases.close()
        assert str(caught.value) == "the databases cannot be closed while a block is open on 'default'"
        with pytest.raises(
            ConfigurationError,
            match=r"^the databases are already configured, and have open connections: default; call close\(\) first$",
        ):
            databases.configure("sqlite://")
        Book(title="b").save()
    assert titles() == ["a", "b"]
    assert book.id
    databases.close()
    assert databases.aliases == ()
