"""`microorm databases`: what answers, at which revision, and status 1 where one does not."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from microorm.cli.databases import heads
from microorm.errors import MigrationError
from microorm.migrations import Revision

VERSION = sqlite3.sqlite_version
HEADER = "alias\tdialect\tversion\treachable\trevision\tpool\turl\n"


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


def test_the_revision_is_the_newest_of_each(invoke: Any, migrations: Any, tmp_path: Path) -> None:
    (tmp_path / "migrations").mkdir()
    (tmp_path / "migrations" / "env.py").touch()
    migrations.answer = [revision("a", default=True, archive=False)]
    found = json.loads(invoke("databases", "--json").stdout)
    assert [(each["alias"], each["revision"], each["reachable"]) for each in found] == [
        ("default", "a", True),
        ("archive", None, True),
    ]


def test_heads_are_those_below_no_other() -> None:
    revisions = [
        revision("a", one=True, two=True),
        revision("b", "a", one=True, two=False),
        revision("c", "a", one=True),
        revision("d", "b", "c", one=False),
    ]
    assert heads(revisions, "one") == ["b", "c"]
    assert heads(revisions, "two") == ["a"]
    assert heads(revisions, "three") == []


def test_revisions_that_cannot_be_read_do_not_hide_the_rest(
    invoke: Any, migrations: Any, tmp_path: Path
) -> None:
    (tmp_path / "migrations").mkdir()
    (tmp_path / "migrations" / "env.py").touch()
    migrations.answer = MigrationError("two revisions are called 'a'")
    done = invoke("databases")
    assert [line.split("\t")[4] for line in done.stdout.splitlines()[1:]] == ["?", "?"]
    assert (done.stderr, done.exit_code) == ("microorm: two revisions are called 'a'\n", 1)
    assert "Traceback" in invoke("--traceback", "databases").stderr


def test_one_that_does_not_answer_is_status_1(invoke: Any, migrations: Any, tmp_path: Path) -> None:
    """Its reason is told on stderr, the others are shown, and no password is."""
    (tmp_path / "migrations").mkdir()
    (tmp_path / "migrations" / "env.py").touch()
    (tmp_path / "pyproject.toml").write_text(
        "[tool.microorm.databases]\n"
        "default = 'sqlite://'\n"
        "lost = 'sqlite:///nowhere/x.db'\n"
        "far = { url = 'postgresql+pg8000://user:geheim@127.0.0.1/x?sslpassword=geheim', pool_size = 3 }\n"
    )
    done = invoke("databases")
    assert done.exit_code == 1
    assert [line.split("\t")[3:5] for line in done.stdout.splitlines()[1:]] == [
        ["yes", "?"],
        ["no", "?"],
        ["no", "?"],
    ]
    assert done.stderr.startswith("microorm: lost: [Errno 2] No such file or directory: ")
    assert done.stderr.endswith("; far: the driver of database 'far' is missing: No module named 'pg8000'\n")
    assert "geheim" not in done.output
    assert migrations.calls == ()


@pytest.mark.slow
def test_models_that_raise_do_not_hide_the_databases(program: Any) -> None:
    program.write({"shop/models.py": "1 / 0\n", "migrations/env.py": ""})
    out, err, status = program.run("databases")
    assert [line.split("\t")[3] for line in out.splitlines()] == ["reachable", "yes", "yes"]
    assert err.startswith(f"microorm: shop.models, {program.folder}/shop/models.py:1: ZeroDivisionError: ")
    assert status == 1
