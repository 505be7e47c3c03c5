"""Which databases answer: all are asked at once, none for long, and nothing is made by asking."""

import socket
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine

from microorm import Databases
from microorm.cli import answers
from microorm.cli.answers import ask


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def closed_port() -> int:
    """A port at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


@pytest.mark.backends("sqlite-file", "postgresql", "mariadb")
def test_a_database_that_answers_tells_its_version(url: str) -> None:
    with Databases(url) as databases:
        (answer,) = ask(databases)
        assert answer.reachable
        assert answer.reason is None
        assert answer.version is not None
        assert answer.version[0].isdigit()
        assert answer.pool == "QueuePool 5"
        assert not databases.database("default").opened, "the program's own pool was not used"


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    urls = {"default": f"sqlite:///{tmp_path}/new.db", "lost": f"sqlite:///{tmp_path}/nowhere/new.db"}
    with Databases(urls) as databases:
        default, lost = ask(databases)
    assert (default.reachable, default.version) == (True, sqlite3.sqlite_version)
    assert not lost.reachable
    assert "nowhere" in str(lost.reason)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_there_is_only_read(tmp_path: Path) -> None:
    file = tmp_path / "a b%20#.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE x (a)")
    connection.close()
    before = file.read_bytes()
    url = create_engine("sqlite://").url.set(database=str(file))
    (tmp_path / "text.db").write_text("this is no database, and long enough to tell" * 9)
    with Databases({"default": url, "text": f"sqlite:///{tmp_path}/text.db"}) as databases:
        default, text = ask(databases)
    assert default.reachable
    assert file.read_bytes() == before
    assert text.reason == "file is not a database"


def test_memory_answers() -> None:
    with Databases("sqlite://") as databases:
        (answer,) = ask(databases)
    assert (answer.reachable, answer.version, answer.dialect) == (True, sqlite3.sqlite_version, "sqlite")
    assert answer.as_dict()["reachable"]


@pytest.mark.parametrize("driver", ["postgresql+psycopg", "mariadb+pymysql"])
def test_a_server_that_is_not_there_is_told_without_the_password(driver: str, closed_port: int) -> None:
    with Databases(f"{driver}://user:geheim@127.0.0.1:{closed_port}/x?password=geheim") as databases:
        (answer,) = ask(databases)
    assert not answer.reachable
    assert "127.0.0.1" in str(answer.reason)
    assert "\n" not in str(answer.reason)
    assert "geheim" not in str(answer)


@pytest.mark.slow
@pytest.mark.parametrize("driver", ["postgresql+psycopg", "mariadb+pymysql"])
def test_a_server_that_says_nothing_is_given_up(driver: str, silent: int, monkeypatch: Any) -> None:
    """By the driver, before the time is up that all of them together have."""
    monkeypatch.setattr(answers, "_DEADLINE", 60)
    with Databases(f"{driver}://user@127.0.0.1:{silent}/x") as databases:
        (answer,) = ask(databases)
    assert not answer.reachable
    assert "no answer within" not in str(answer.reason)


def test_what_hangs_does_not_hang_the_others(monkeypatch: Any) -> None:
    """Whatever a driver does, it has a deadline; what it says afterwards changes nothing."""
    go_on, version = threading.Event(), answers._version

    def hang(database: Any) -> str:
        if database.alias == "slow":
            go_on.wait(60)
        return version(database)

    monkeypatch.setattr(answers, "_version", hang)
    monkeypatch.setattr(answers, "_DEADLINE", 1)
    with Databases({"slow": "sqlite://", "fast": "sqlite://"}) as databases:
        slow, fast = ask(databases)
        go_on.set()
        for thread in threading.enumerate():
            if thread.daemon and thread.name.endswith("(_ask)"):
                thread.join()
    assert slow.reason == "no answer within 1 seconds"
    assert fast.reachable


def test_a_driver_that_is_missing_is_told(monkeypatch: Any) -> None:
    with Databases("postgresql+pg8000://user@127.0.0.1/x") as databases:
        (answer,) = ask(databases)
    assert answer.reason == "the driver of database 'default' is missing: No module named 'pg8000'"
    assert answer.pool == "-"
