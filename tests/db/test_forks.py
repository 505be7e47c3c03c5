"""Forks: a child process uses connections of its own, and those of its parent stay usable.

Each test runs a separate program, since a test runner with threads should not be forked.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from microorm.db import owners as forks

pytestmark = pytest.mark.slow  # a process for each

ROOT = Path(__file__).parent.parent.parent

WORLD = """
import os, sys, threading
from sqlalchemy import create_engine
from microorm import Databases, Field, Model, Registry, TransactionError, TransactionSharedError, field

url = sys.argv[1]
options = {"connect_args": {"timeout": 0.1}} if url.startswith("sqlite") else {}
databases = Databases({"default": create_engine(url, **options) if GIVEN else {"url": url, **options}})
registry = Registry(databases)

class Book(Model, registry=registry):
    title: Field[str] = field(max_length=20)

def titles():
    return [book.title for book in Book.objects.order_by("id")]

def say(*words):
    print(*words, flush=True)

def wait_for(child):
    say("child ended with", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

registry.create_all()
Book(title="first").save()
"""

IDLE = """
with databases.connection() as connection:
    pooled = connection.connection.driver_connection

def is_pooled():
    with databases.connection() as connection:
        return connection.connection.driver_connection is pooled

child = os.fork()
if not child:
    say("child has the pooled connection:", is_pooled())
    Book(title="of the child").save()
    with databases.atomic():
        say("child", titles())
    databases.close()
    sys.exit()
wait_for(child)
say("parent has it:", is_pooled())
Book(title="of the parent").save()
say("parent", titles())
"""

INSIDE = """
there, here = os.pipe(), os.pipe()
with databases.atomic():
    Book(title="of the block").save()
    child = os.fork()
    if child:
        os.read(there[0], 1)
        Book(title="after the fork").save()
    else:
        for attempt in (titles, Book(title="no").save, lambda: databases.on_commit(print)):
            try:
                attempt()
            except TransactionSharedError as error:
                say("child:", error)
if not child:
    for attempt in (titles, Book(title="of the child 2").save):
        try:
            found = attempt()
            say("child works:", found if attempt is titles else found is not None)
        except TransactionError as error:
            say("child:", error)
    os.write(there[1], b".")
    sys.exit()
wait_for(child)
say("parent", sorted(titles()))
"""

THREADS = """
begun, go_on = threading.Event(), threading.Event()
before = titles()

def work():
    with databases.atomic():
        Book(title="before the next fork").save()
        begun.set()
        go_on.wait()
        Book(title="after the next fork").save()

thread = threading.Thread(target=work)
thread.start()
begun.wait()
child = os.fork()
if not child:
    try:
        say("child has read", "as many as there are" if titles() == before else titles())
    except TransactionError as error:
        say("child:", error)
    sys.exit()
wait_for(child)
go_on.set()
thread.join()
say("parent", sorted(titles()))
"""


def run(program: str, url: str, *, given: bool = False) -> list[str]:
    """Run *program* in a process of its own, and return its output."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", f"GIVEN = {given}\n{WORLD}{program}", url],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


FORKED = (
    "child: this process cannot use the file of 'default': it was forked while a block was open on it, in some thread, "
    "and SQLite allows no use after that; fork outside blocks, or start the process by 'spawn'"
)


def idle_says(backend: str) -> list[str]:
    """The output of IDLE. The parent closes its connections to a file before the fork."""
    titles = (
        ["first", "of the parent"]
        if backend == "sqlite-memory"
        else ["first", "of the child", "of the parent"]
    )
    return [
        "child has the pooled connection: False",
        "child ['first', 'of the child']",
        "child ended with 0",
        f"parent has it: {backend != 'sqlite-file'}",
        f"parent {titles}",
    ]


def test_a_child_leaves_what_its_parent_has_open_alone(url: str, backend: str) -> None:
    """Idle and pooled connections, an open block, which the child cannot use or end, and a block of another thread.

    A memory database is copied by the fork. SQLite's locks are not inherited, so the child of a block cannot use the file.
    """
    is_server = backend in ("postgresql", "mariadb")
    first = (
        ["first", "of the parent"]
        if backend == "sqlite-memory"
        else ["first", "of the child", "of the parent"]
    )
    told = run(IDLE + INSIDE + THREADS, url)
    assert told[:5] == idle_says(backend)
    blocks = [*first, "of the block", "after the fork"] + ["of the child 2"] * is_server
    assert told[5:11] == [
        *["child: the open block on 'default' belongs to another process"] * 3,
        *([FORKED] * 2 if backend == "sqlite-file" else [f"child works: {first}", "child works: True"]),
        "child ended with 0",
    ]
    assert told[11] == f"parent {sorted(blocks)}"
    assert told[12:] == [
        FORKED if backend == "sqlite-file" else "child has read as many as there are",
        "child ended with 0",
        f"parent {sorted([*blocks, 'before the next fork', 'after the next fork'])}",
    ]


@pytest.mark.backends("sqlite-file", "postgresql")
def test_a_child_leaves_the_connections_of_an_engine_that_was_given_alone(url: str, backend: str) -> None:
    """Its pool is treated like that of other engines."""
    assert run(IDLE, url, given=True) == idle_says(backend)


class Watched:
    """An object that records the calls of its methods."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def before_fork(self) -> None:
        self.told.append("before")

    def after_fork(self) -> None:
        self.told.append("after")


def test_what_is_watched_is_told_until_it_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """`before_fork` in the parent, `after_fork` in the child; it may be forgotten twice."""
    monkeypatch.setattr("microorm.db.owners._held", [])
    monkeypatch.setattr("microorm.db.owners._Process.token", token := object())
    watched = Watched()
    forks.watch(watched)
    forks._before()
    assert (watched.told, forks.process()) == (["before"], token)
    forks._after_in_child()
    assert watched.told == ["before", "after"]
    assert forks.process() is not token
    child = forks.process()
    forks._after_in_child()
    assert forks.process() is not child
    forks.forget(watched)
    forks.forget(watched)
    forks._before()
    assert watched.told == ["before", "after"]
    assert watched not in forks._held


def test_what_is_watched_is_not_kept_alive() -> None:
    """Except during a fork."""
    forks.watch(Watched())
    assert not any(isinstance(known(), Watched) for known in forks._watched.values())
