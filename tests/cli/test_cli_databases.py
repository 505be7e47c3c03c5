"""`microorm databases` shows which can be reached, waits for none too long, and creates nothing."""

import json
import re
import socket
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine

from microorm import Databases
from microorm.cli import databases as command
from microorm.cli.databases import check_databases, heads
from microorm.errors import MigrationError
from microorm.migrations import Revision
from tests.programs import Program

VERSION = sqlite3.sqlite_version
HEADER = "alias\tdialect\tversion\treachable\trevision\tpool\turl\n"


@pytest.fixture
def silent_port() -> Iterator[int]:
    """The port of a server that accepts connections and sends nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def closed_port() -> int:
    """A port without a server."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


@pytest.mark.backends("sqlite-file", "postgresql", "mariadb")
def test_a_database_that_answers_has_its_version(url: str) -> None:
    with Databases(url) as databases:
        (status,) = check_databases(databases)
        assert status.reachable
        assert status.reason is None
        assert status.version is not None
        assert status.version[0].isdigit()
        assert status.pool == "QueuePool 5"
        assert not databases.database("default").opened, "the program's own pool was not used"


def test_a_missing_file_is_not_created(tmp_path: Path) -> None:
    urls = {"default": f"sqlite:///{tmp_path}/new.db", "lost": f"sqlite:///{tmp_path}/nowhere/new.db"}
    with Databases(urls) as databases:
        default, lost = check_databases(databases)
    assert (default.reachable, default.version) == (True, VERSION)
    assert not lost.reachable
    assert "nowhere" in str(lost.reason)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_only_read(tmp_path: Path) -> None:
    file = tmp_path / "a b%20#.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE x (a)")
    connection.close()
    before = file.read_bytes()
    url = create_engine("sqlite://").url.set(database=str(file))
    (tmp_path / "text.db").write_text("this is not a database, and long enough to show it" * 9)
    with Databases({"default": url, "text": f"sqlite:///{tmp_path}/text.db"}) as databases:
        default, text = check_databases(databases)
    assert default.reachable
    assert file.read_bytes() == before
    assert text.reason == "file is not a database"


def test_memory_is_reachable() -> None:
    with Databases("sqlite://") as databases:
        (status,) = check_databases(databases)
    assert (status.reachable, status.version, status.dialect) == (True, VERSION, "sqlite")
    assert status.as_dict()["reachable"]


@pytest.mark.parametrize("driver", ["postgresql+psycopg", "mariadb+pymysql"])
def test_a_missing_server_is_reported_without_the_password(driver: str, closed_port: int) -> None:
    with Databases(f"{driver}://user:geheim@127.0.0.1:{closed_port}/x?password=geheim") as databases:
        (status,) = check_databases(databases)
    assert not status.reachable
    assert "127.0.0.1" in str(status.reason)
    assert "\n" not in str(status.reason)
    assert "geheim" not in str(status)


@pytest.mark.slow
def test_a_silent_server_is_given_up_by_each_driver(silent_port: int, monkeypatch: Any) -> None:
    """Before the deadline of all of them together."""
    monkeypatch.setattr(command, "_DEADLINE", 60)
    urls = {
        "postgresql": f"postgresql+psycopg://user@127.0.0.1:{silent_port}/x",
        "mariadb": f"mariadb+pymysql://user@127.0.0.1:{silent_port}/x",
    }
    with Databases(urls) as databases:
        for status in check_databases(databases):
            assert not status.reachable
            assert "no answer within" not in str(status.reason)


def test_a_driver_that_hangs_delays_no_other(monkeypatch: Any) -> None:
    """It has a deadline; an answer after that changes nothing."""
    go_on, read_version = threading.Event(), command._read_version

    def hang(database: Any) -> str:
        if database.alias == "slow":
            go_on.wait(60)
        return read_version(database)

    monkeypatch.setattr(command, "_read_version", hang)
    monkeypatch.setattr(command, "_DEADLINE", 1)
    with Databases({"slow": "sqlite://", "fast": "sqlite://"}) as databases:
        slow, fast = check_databases(databases)
        go_on.set()
        for thread in threading.enumerate():
            if thread.daemon and thread.name.endswith("(_check_database)"):
                thread.join()
    assert slow.reason == "no answer within 1 seconds"
    assert fast.reachable


# The command.


def revision(id_: str, *down: str, **applied: bool) -> Revision:
    return Revision(id_, id_, down, Path(id_), applied)


def test_without_migrations_there_is_no_revision(invoke: Any, migrations: Any, tmp_path: Path) -> None:
    done = invoke("databases")
    assert (done.stderr, done.exit_code) == ("", 0)
    assert done.stdout == HEADER + "".join(
        f"{alias}\tsqlite\t{VERSION}\tyes\t-\tQueuePool 5\tsqlite:///{tmp_path}/{file}.db\n"
        for alias, file in (("default", "shop"), ("archive", "archive"))
    )
    assert migrations.calls == ()
    assert [file.name for file in tmp_path.iterdir()] == ["pyproject.toml"]


def test_each_database_has_its_revision(invoke: Any, migrations: Any, project: Program) -> None:
    project.write({"migrations/env.py": ""})
    migrations.answer = [revision("a", default=True, archive=False)]
    found = json.loads(invoke("databases", "--json").stdout)
    assert [(each["alias"], each["revision"], each["reachable"]) for each in found] == [
        ("default", "a", True),
        ("archive", None, True),
    ]


def test_heads_are_applied_revisions_that_no_other_follows() -> None:
    revisions = [
        revision("a", one=True, two=True),
        revision("b", "a", one=True, two=False),
        revision("c", "a", one=True),
        revision("d", "b", "c", one=False),
    ]
    assert heads(revisions, "one") == ["b", "c"]
    assert heads(revisions, "two") == ["a"]
    assert heads(revisions, "three") == []


def test_a_broken_history_does_not_hide_the_databases(invoke: Any, migrations: Any, project: Program) -> None:
    project.write({"migrations/env.py": ""})
    migrations.answer = MigrationError("two revisions are called 'a'")
    done = invoke("databases")
    assert [line.split("\t")[4] for line in done.stdout.splitlines()[1:]] == ["?", "?"]
    assert (done.stderr, done.exit_code) == ("microorm: two revisions are called 'a'\n", 1)
    assert "Traceback" in invoke("--traceback", "databases").stderr


def test_models_that_raise_do_not_hide_the_databases(invoke: Any, shop: Program) -> None:
    shop.write({"shop/models.py": "1 / 0\n", "migrations/env.py": ""})
    done = invoke("databases")
    assert [line.split("\t")[3] for line in done.stdout.splitlines()] == ["reachable", "yes", "yes"]
    assert done.stderr.startswith(
        f"microorm: shop.models, {shop.folder}/shop/models.py:1: ZeroDivisionError: "
    )
    assert done.exit_code == 1


def test_an_unreachable_database_is_status_1(invoke: Any, migrations: Any, project: Program) -> None:
    """The reason is on stderr, the others are shown, and no password is."""
    project.write(
        {
            "migrations/env.py": "",
            "pyproject.toml": "[tool.microorm.databases]\n"
            "default = 'sqlite://'\n"
            "lost = 'sqlite:///nowhere/x.db'\n"
            "far = { url = 'postgresql+pg8000://user:geheim@127.0.0.1/x?sslpassword=geheim', pool_size = 3 }\n",
        }
    )
    done = invoke("databases")
    assert done.exit_code == 1
    assert [line.split("\t")[3:6] for line in done.stdout.splitlines()[1:]] == [
        ["yes", "?", "QueuePool 5"],
        ["no", "?", "QueuePool 5"],
        ["no", "?", "-"],
    ]
    assert re.match(
        r"microorm: lost: database 'lost' is the file '.*/nowhere/x\.db', and the folder '.*/nowhere' does not exist",
        done.stderr,
    )
    assert done.stderr.endswith(
        "; far: the driver of database 'far' is not installed: No module named 'pg8000'; install it, or write "
        "postgresql+psycopg:// and pip install 'microorm[postgres]'\n"
    )
    assert "geheim" not in done.output
    assert migrations.calls == ()
