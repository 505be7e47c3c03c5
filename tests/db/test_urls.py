"""URLs: which database they name, and which parts are shown."""

import pytest
from sqlalchemy import make_url

from microorm import ConfigurationError
from microorm.db.engines.urls import FORMS, is_memory, masked, read_url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql+psycopg://app:s3cret@db:5432/shop", "postgresql+psycopg://app:***@db:5432/shop"),
        ("mysql+pymysql://app@db/shop", "mysql+pymysql://app@db/shop"),
        ("sqlite:///shop.db", "sqlite:///shop.db"),
        ("sqlite:///a@b.db", "sqlite:///a%40b.db"),
        (
            "postgresql://db/shop?sslpassword=s3cret&sslmode=require",
            "postgresql://db/shop?sslmode=require&sslpassword=***",
        ),
        ("postgresql://db/shop?sslkey=s3cret", "postgresql://db/shop?sslkey=***"),
        ("mysql://db/shop?auth_plugin=ed25519", "mysql://db/shop?auth_plugin=ed25519"),
        (
            "postgresql://db/shop?ACCESS_TOKEN=s3cret&token=s3cret",
            "postgresql://db/shop?ACCESS_TOKEN=***&token=***",
        ),
        (
            "postgresql://db/shop?client_secret=s3cret&db_pwd=s3cret",
            "postgresql://db/shop?client_secret=***&db_pwd=***",
        ),
        (
            "postgresql://db/shop?aws_credentials=s3cret&x-auth=s3cret",
            "postgresql://db/shop?aws_credentials=***&x-auth=***",
        ),
        ("postgresql://app:p@s3cret/word@db:5432/shop", "postgresql://app:***@***/***"),
        ("postgresql://app:p@s3cret@db/shop", "postgresql://app:***@***/***"),
    ],
)
def test_what_is_secret_is_never_shown(url: str, shown: str) -> None:
    """Neither the password, nor the rest of one with an @ in it, nor secrets in the query."""
    assert masked(make_url(url)) == shown
    assert "s3cret" not in shown


@pytest.mark.parametrize(
    ("url", "memory"),
    [
        ("sqlite://", True),
        ("sqlite:///:memory:", True),
        ("sqlite+pysqlite:///:memory:", True),
        ("sqlite:///file::memory:?cache=shared&uri=true", True),
        ("sqlite:///file:shop?mode=memory&cache=shared&uri=true", True),
        ("sqlite:///file:/shop?vfs=memdb&uri=true", True),
        ("sqlite:///shop.db", False),
        ("sqlite:///file:shop.db?mode=ro&uri=true", False),
        ("postgresql://db/", False),
        ("mysql://db/?mode=memory", False),
    ],
)
def test_a_memory_database_is_known_as_one(url: str, memory: bool) -> None:
    """It is shared by all threads, in whichever way it is written."""
    assert is_memory(make_url(url)) is memory


def test_each_memory_database_is_one_of_its_own_unless_it_has_a_name() -> None:
    """Two times `sqlite://` are two databases; the same name is the same database."""
    unnamed = [read_url("a", url) for url in ("sqlite://", "sqlite://", "sqlite:///:memory:")]
    assert len({url.database for url in unnamed}) == 3
    assert all(url.database.startswith("file:/microorm-") for url in unnamed if url.database)
    assert all(url.query == {"vfs": "memdb", "uri": "true"} for url in unnamed)
    named = [
        read_url("a", url)
        for url in (
            "sqlite:///file:shop?mode=memory&cache=shared&uri=true",
            "sqlite:///file:/shop?vfs=memdb&uri=true",
        )
    ]
    assert [url.database for url in named] == ["file:/shop", "file:/shop"]
    assert named[0] == named[1]


def test_other_urls_stay_as_they_are() -> None:
    """Whatever SQLAlchemy accepts, as text or as its URL."""
    url = make_url("postgresql+psycopg://app:s3cret@db:5432/shop?sslmode=require")
    assert read_url("a", url) == url
    assert read_url("a", url.render_as_string(hide_password=False)) == url
    assert read_url("a", "sqlite:////tmp/shop.db").database == "/tmp/shop.db"


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("s3cret", f"cannot be read by SQLAlchemy; {FORMS}"),
        ("", f"cannot be read by SQLAlchemy; {FORMS}"),
        ("postgresql://app:s3cret@db:port/shop", f"cannot be read by SQLAlchemy; {FORMS}"),
        (
            "sqlite://s3cret.db",
            "names a host, which SQLite does not have; write three slashes before a relative path, "
            "sqlite:///shop.db, and four before an absolute one",
        ),
        ("nosuch://app:s3cret@db/shop", "names 'nosuch', which SQLAlchemy does not know"),
        (
            "postgresql+nosuch://app:s3cret@db/shop",
            "names 'postgresql+nosuch', which SQLAlchemy does not know; write postgresql+psycopg://",
        ),
    ],
)
def test_a_bad_url_is_an_error_that_does_not_repeat_it(url: str, problem: str) -> None:
    """It names the alias and the reason, and no part that could be a password."""
    with pytest.raises(ConfigurationError) as caught:
        read_url("shop", url)
    assert str(caught.value) == f"the URL of database 'shop' {problem}"
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__
