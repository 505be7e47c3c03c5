"""Databases: configuration, use and closing; secrets are never shown."""

import contextlib
import os
import subprocess
import sys
import threading
from collections import UserDict
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, inspect, make_url, text
from sqlalchemy.exc import SQLAlchemyError

import microorm
from microorm import (
    ConfigurationError,
    Databases,
    Field,
    Model,
    Registry,
    Router,
    TransactionError,
    UnknownAlias,
)
from microorm.db.context import ReceiverScope
from microorm.db.engines.urls import FORMS
from tests.pools import unreturned

ROOT = Path(__file__).parent.parent.parent


def answer(databases: Databases, alias: str = "default") -> int:
    """Return the result of a query on the database of *alias*."""
    with databases.connection(alias) as connection:
        return connection.execute(text("SELECT 42")).scalar_one()


def test_it_is_configured_in_many_forms(tmp_path: Path) -> None:
    """One URL is `default`; a mapping may hold URLs as text or objects, Engines, and mappings of options."""
    engine = create_engine("sqlite://")
    for one in ("sqlite://", make_url("sqlite://"), engine):
        with Databases(one) as databases:
            assert databases.aliases == ("default",)
            assert answer(databases) == 42
    several = {
        "text": "sqlite://",
        "url": make_url(f"sqlite:///{tmp_path}/a.db"),
        "engine": engine,
        "_options_2": UserDict({"url": "sqlite://", "echo": False, "pool_size": 2}),
    }
    with Databases(UserDict(several), [Router()]) as databases:
        assert databases.aliases == ("text", "url", "engine", "_options_2")
        assert [answer(databases, alias) for alias in databases.aliases] == [42] * 4
        assert databases.engine("engine") is engine
        assert databases.engine("_options_2").pool.size() == 2
        assert len(databases.routers) == 1
    assert databases.aliases == ()
    engine.dispose()


def test_configure_is_the_same_later(tmp_path: Path) -> None:
    """`Databases()` can be configured later; routers may be given by keyword."""
    databases, router = Databases(), Router()
    assert (databases.aliases, databases.routers) == ((), ())
    assert databases.configure("sqlite://", routers=(router,)) is None
    assert (databases.aliases, databases.routers) == (("default",), (router,))
    databases.close()
    assert (databases.aliases, databases.routers) == ((), ())


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({}, "configure() needs at least one database"),
        (5, "database 'default' must be a URL, an Engine or a mapping, not int"),
        ({"default": None}, "database 'default' must be a URL, an Engine or a mapping, not NoneType"),
        ({"default": ["sqlite://"]}, "database 'default' must be a URL, an Engine or a mapping, not list"),
        ({"default": {}}, "database 'default' has no 'url'; given: nothing"),
        ({"shop": {"uri": "s3cret", "echo": True}}, "database 'shop' has no 'url'; given: 'echo', 'uri'"),
        ({"shop": {"url": 5}}, "database 'shop' must be a URL, an Engine or a mapping, not int"),
        ("s3cret", f"the URL of database 'default' cannot be read by SQLAlchemy; {FORMS}"),
        ("nosuch://s3cret", "the URL of database 'default' names 'nosuch', which SQLAlchemy does not know"),
        (
            {"my-shop": "sqlite://"},
            "invalid alias 'my-shop': use ASCII letters, digits and underscores, and no digit first",
        ),
        (
            {"": "sqlite://"},
            "invalid alias '': use ASCII letters, digits and underscores, and no digit first",
        ),
        (
            {"2nd": "sqlite://"},
            "invalid alias '2nd': use ASCII letters, digits and underscores, and no digit first",
        ),
        (
            {"shop\n": "sqlite://"},
            "invalid alias 'shop\\n': use ASCII letters, digits and underscores, and no digit first",
        ),
        (
            {"größe": "sqlite://"},
            "invalid alias 'größe': use ASCII letters, digits and underscores, and no digit first",
        ),
        ({5: "sqlite://"}, "invalid alias 5: use ASCII letters, digits and underscores, and no digit first"),
    ],
)
def test_wrong_settings_are_an_error_and_change_nothing(settings: Any, problem: str) -> None:
    """The earlier configuration stays in use."""
    with Databases({"before": "sqlite://"}) as databases:
        with pytest.raises(ConfigurationError) as caught:
            databases.configure(settings)
        assert str(caught.value) == problem
        assert "s3cret" not in repr(caught.value)
        assert databases.aliases == ("before",)
        assert answer(databases, "before") == 42
    with pytest.raises(ConfigurationError):
        Databases(settings)


@pytest.mark.parametrize(
    ("routers", "problem"),
    [
        ("router", "routers= must be a list of routers, not 'router'"),
        (b"router", "routers= must be a list of routers, not b'router'"),
        (5, "routers= must be a list of routers, not 5"),
        ([Router(), Router], "routers= must hold instances; Router is a class"),
    ],
)
def test_wrong_routers_are_an_error(routers: Any, problem: str) -> None:
    """A class or a string is not a router."""
    databases = Databases()
    with pytest.raises(ConfigurationError) as caught:
        databases.configure("sqlite://", routers=routers)
    assert str(caught.value) == problem
    assert databases.aliases == ()


def test_configuring_again_is_an_error_once_a_connection_was_opened() -> None:
    """Before that, the new settings replace the old ones; after `close()` any are accepted."""
    databases = Databases({"a": "sqlite://", "b": "sqlite://", "c": "sqlite://"})
    databases.configure({"a": "sqlite://", "b": "sqlite://", "d": "sqlite://"}, routers=[Router()])
    assert databases.engine("a") is databases.engine("a")  # making an engine opens no connection
    databases.configure({"b": "sqlite://", "a": "sqlite://"})
    assert (databases.aliases, databases.routers) == (("b", "a"), ())
    for alias in ("b", "a"):
        assert answer(databases, alias) == 42
    with pytest.raises(ConfigurationError) as caught:
        databases.configure("sqlite://")
    assert (
        str(caught.value)
        == "the databases are already configured, and have open connections: a, b; call close() first"
    )
    assert answer(databases, "a") == 42
    databases.close()
    databases.configure("sqlite://")
    assert databases.aliases == ("default",)
    databases.close()


def test_an_engine_that_was_used_before_counts_once_it_is_used_here() -> None:
    """It may already have connections when it is given."""
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    with Databases(engine) as databases:
        databases.configure(engine)
        assert answer(databases) == 42
        with pytest.raises(
            ConfigurationError,
            match=r"^the databases are already configured, and have open connections: default; call close\(\) first$",
        ):
            databases.configure("sqlite://")
    with engine.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar_one() == 1
    engine.dispose()


def test_closing_forgets_everything_and_can_be_done_twice(sqlite_url: str) -> None:
    """Closed databases raise an error, and can be configured again."""
    databases = Databases()
    databases.close()
    databases.configure(sqlite_url)
    registry = Registry(databases)

    class Book(Model, registry=registry):
        title: Field[str]

    registry.create_all()
    book = Book(title="a").save()
    engine = databases.engine()
    databases.close()
    databases.close()
    assert engine.pool.checkedin() == 0
    lost = Book(title="b")
    for use in (
        lost.save,
        book.delete,
        Book.objects.count,
        databases.engine,
        lambda: databases.atomic().__enter__(),
        lambda: databases.on_commit(print),
        lambda: databases.using("default"),
        lambda: databases.connection().__enter__(),
    ):
        with pytest.raises(
            UnknownAlias,
            match=r"^no database named 'default'; configured: none, since the databases were closed; call configure",
        ):
            use()
    for use in (registry.create_all, registry.drop_all):
        with pytest.raises(ConfigurationError, match=r"^no database is configured; call configure"):
            use()
    assert (lost._state.adding, book.id is not None) == (True, True)
    databases.configure(sqlite_url)
    book.title = "c"
    assert book.save().id == lost.save().id - 1
    assert [each.title for each in Book.objects.order_by("id")] == ["c", "b"]
    databases.close()


def test_closing_inside_a_block_is_an_error(sqlite_url: str) -> None:
    """The block continues."""
    databases = Databases(sqlite_url)
    with databases.atomic():
        with pytest.raises(TransactionError) as caught:
            databases.close()
        assert str(caught.value) == "the databases cannot be closed while a block is open on 'default'"
        assert answer(databases) == 42
    databases.close()


def test_a_with_closes_them_after_an_error_too() -> None:
    """`Databases` is a context manager that returns itself."""
    kept = Databases("sqlite://")
    with pytest.raises(LookupError), kept as databases:
        assert databases is kept
        raise LookupError
    assert kept.aliases == ()


def test_no_secret_is_shown() -> None:
    """Neither in a repr nor in an error; of a URL, an Engine or options."""
    shown = (
        "<Databases <Database 'a' postgresql+psycopg://app:***@db/shop?sslpassword=***>, "
        "<Database 'b' postgresql+psycopg://app:***@db/shop>, <Database 'c' mysql+pymysql://app:***@db/shop>>"
    )
    settings = {
        "a": "postgresql+psycopg://app:s3cret@db/shop?sslpassword=s3cret",
        "b": create_engine("postgresql+psycopg://app:s3cret@db/shop"),
        "c": {"url": "mysql+pymysql://app:s3cret@db/shop", "connect_args": {"password": "s3cret"}},
    }
    with Databases(settings) as databases:
        assert repr(databases) == shown
        assert "s3cret" not in repr(databases.database("c"))
        with pytest.raises(UnknownAlias) as caught:
            databases.database("d")
        assert "s3cret" not in str(caught.value)
    assert repr(databases) == "<Databases not configured>"
    with Databases("mysql+pymysql://app:s3cret@127.0.0.1:1/shop?no_such_option=s3cret") as databases:
        with pytest.raises((SQLAlchemyError, TypeError)) as failed:
            answer(databases)
        assert "s3cret" not in str(failed.value)


@pytest.mark.parametrize("option", ["no_such_option", "poolclass"])
def test_wrong_options_are_an_error_at_the_first_use(option: str) -> None:
    """ConfigurationError names the alias and SQLAlchemy's message, without values."""
    with Databases({"shop": {"url": "sqlite://", option: "s3cret"}}) as databases:
        with pytest.raises((ConfigurationError, AttributeError)) as caught:
            databases.engine("shop")
        assert "s3cret" not in str(caught.value) or option == "poolclass"
        if option == "no_such_option":
            assert str(caught.value).startswith(
                "the options of database 'shop' are invalid: Invalid argument(s)"
            )


def test_a_driver_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the first use, so that a program may configure databases that it does not use."""
    monkeypatch.setitem(sys.modules, "pymysql", None)
    with Databases({"shop": "mysql+pymysql://app@db/shop"}) as databases:
        with pytest.raises(
            ConfigurationError, match=r"^the driver of database 'shop' is not installed: .*pymysql"
        ):
            databases.engine("shop")


def test_an_alias_is_named_by_using_or_comes_first() -> None:
    with Databases({"default": "sqlite://", "archive": "sqlite://"}) as databases:
        archive = databases.engine("archive")
        assert databases.engine(using="archive") is archive
        for named in (databases.connection("archive"), databases.connection(using="archive")):
            with named as connection:
                assert connection.engine is archive
        with databases.using("archive"), databases.connection() as connection:
            assert connection.engine is archive


def test_an_unknown_alias_names_the_known_ones_and_the_nearest() -> None:
    """In every function that takes an alias."""
    with Databases({"default": "sqlite://", "archive": "sqlite://"}) as databases:
        registry = Registry(databases)
        for use in (
            databases.database,
            databases.engine,
            databases.async_engine,
            databases.using,
            lambda alias: databases.atomic(alias).__enter__(),
            lambda alias: databases.on_commit(print, using=alias),
            lambda alias: databases.connection(alias).__enter__(),
            registry.create_all,
        ):
            with pytest.raises(UnknownAlias) as caught:
                use("arcive")
            assert str(caught.value) == (
                "no database named 'arcive'; configured: 'archive', 'default'; nearest: 'archive'"
            )
            assert (caught.value.alias, caught.value.known) == ("arcive", ("archive", "default"))
        with pytest.raises(
            UnknownAlias, match=r"^no database named \['archive'\]; configured: 'archive', 'default'$"
        ):
            databases.database(["archive"])  # type: ignore[arg-type]


def test_atomic_takes_an_alias_or_a_function() -> None:
    """Anything else is a TypeError."""
    with Databases("sqlite://") as databases:
        for wrong in (5, b"default", ["default"]):
            with pytest.raises(TypeError) as caught:
                databases.atomic(wrong)
            assert str(caught.value) == f"the alias for atomic() must be a string, not {wrong!r}"


def test_a_connection_outside_a_block_commits_each_statement(databases: Any) -> None:
    """It is closed at the end, also after an error; without an alias the current one is used."""
    with databases.connection("default") as connection:
        connection.execute(text("CREATE TABLE t (n INTEGER)"))
        connection.execute(text("INSERT INTO t VALUES (1)"))
        connection.rollback()
    with pytest.raises(LookupError), databases.connection("default") as connection:
        connection.execute(text("INSERT INTO t VALUES (2)"))
        raise LookupError
    assert connection.closed
    assert unreturned(databases) == 0
    with databases.connection() as connection:
        assert list(connection.execute(text("SELECT n FROM t ORDER BY n")).scalars()) == [1, 2]
    with databases.using("other"), databases.connection() as connection:
        assert connection.engine is databases.engine("other")
    with ReceiverScope(databases, "other"), databases.connection() as connection:
        assert connection.engine is databases.engine("other")
    with databases.atomic("other"), databases.connection() as connection:
        assert connection.engine is databases.engine("other")
        with databases.connection("default") as connection:
            assert connection.engine is databases.engine("default")
    with databases.connection() as connection:
        connection.execute(text("DROP TABLE t"))


def test_a_block_after_a_lone_connection_is_a_transaction_again(databases: Any) -> None:
    """Autocommit is switched off before the connection returns to the pool."""
    with databases.connection() as connection:
        connection.execute(text("CREATE TABLE t (n INTEGER)"))
    with contextlib.suppress(LookupError), databases.atomic(), databases.connection() as connection:
        connection.execute(text("INSERT INTO t VALUES (1)"))
        raise LookupError
    with databases.connection() as connection:
        assert connection.execute(text("SELECT count(*) FROM t")).scalar_one() == 0
        connection.execute(text("DROP TABLE t"))


@pytest.mark.backends("sqlite-file", "sqlite-memory", "postgresql")
def test_tables_are_made_inside_a_block_too(databases: Any, registry: Any, Base: Any) -> None:
    """`create_all` uses the connection of the open block."""

    class Book(Base):
        title: Field[str]

    with databases.atomic():
        registry.create_all("default")
        Book(title="a").save()
        with databases.connection() as connection:
            assert inspect(connection).has_table("book")
    assert Book.objects.count() == 1
    with databases.connection("other") as connection:
        assert not inspect(connection).has_table("book")


@pytest.mark.backends("mariadb")
def test_tables_are_not_made_in_a_block_that_they_would_commit(
    databases: Any, registry: Any, Base: Any
) -> None:
    """MariaDB commits when a table is created or dropped. A block on another alias does not matter."""

    class Book(Base):
        title: Field[str]

    registry.create_all("default")
    with contextlib.suppress(LookupError), databases.atomic():
        Book(title="lost").save()
        for act in (registry.create_all, registry.drop_all):
            with pytest.raises(TransactionError) as caught:
                act("default")
            assert str(caught.value) == (
                "'default' would commit the open block, since MariaDB commits when tables are created or dropped"
            )
        registry.create_all("other")
        raise LookupError
    assert (Book.objects.count(), Book.objects.using("other").count()) == (0, 0)


@pytest.mark.backends("sqlite-memory")
def test_a_memory_database_is_shared_by_all_threads(databases: Any, registry: Any, Base: Any) -> None:
    """As long as the Databases are open."""

    class Book(Base):
        title: Field[str]

    registry.create_all()

    def work(title: str) -> None:
        for _ in range(5):
            with databases.atomic():
                Book(title=title).save()

    threads = [threading.Thread(target=work, args=[str(n)]) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Book.objects.count() == 20
    assert Book.objects.using("other").count() == 0
    databases.engine().dispose()
    assert Book.objects.count() == 20


DEFAULTS = """
import sys
import microorm
from microorm import (
    Field, Model, atomic, close, configure, connection, create_all, drop_all, field, on_commit, using,
)

later = [name for name in ("alembic", "click", "rich", "sqlalchemy.ext.asyncio") if name in sys.modules]
print("loaded:", later)

@atomic
def add(title):
    on_commit(lambda: print("committed", title))
    return Book(title=title).save()

class Book(Model):
    title: Field[str] = field(max_length=20)

close()
configure({"default": "sqlite://", "archive": "sqlite://"})
create_all()
add("a")
with atomic(), connection() as c:
    print("count", c.exec_driver_sql("SELECT count(*) FROM book").scalar_one())
with using("archive"):
    print("saved in", add("b")._state.db)
drop_all("archive")
with connection("archive") as c:
    print("tables", c.exec_driver_sql("SELECT count(*) FROM sqlite_master WHERE name = 'book'").scalar_one())
print(microorm.default_databases.aliases, list(microorm.default_registry.models))
close()
print(microorm.default_databases.aliases)
"""


@pytest.mark.slow
def test_the_functions_of_the_package_are_those_of_the_defaults() -> None:
    """In a new process, whose import of the package loads only what is needed."""
    for name in ("configure", "close", "atomic", "on_commit", "using", "connection"):
        assert getattr(microorm, name) == getattr(microorm.default_databases, name)
    for name in ("create_all", "drop_all"):
        assert getattr(microorm, name) == getattr(microorm.default_registry, name)
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", DEFAULTS],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "loaded: []",
        "committed a",
        "count 1",
        "committed b",
        "saved in archive",
        "tables 0",
        "('default', 'archive') ['main.Book']",
        "()",
    ]
