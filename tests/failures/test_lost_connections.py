"""Lost connections: at COMMIT, in the middle of a transaction, and while idle."""

from collections.abc import Callable, Iterator
from time import sleep
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError

import microorm
from microorm import CommitOutcomeUnknown, TransactionError
from microorm.db.autocommit import AutocommitConnection
from microorm.db.engines import pool
from microorm.signals import post_save
from tests.failures.proxy import Proxy

pytestmark = pytest.mark.servers_only

AT_COMMIT = "the connection to 'default' was lost while COMMIT ran"
AT_STATEMENT = "the connection to 'default' was lost while a statement ran"


@pytest.fixture
def proxy(url: str) -> Iterator[Proxy]:
    """The proxy that the alias `default` goes through."""
    with Proxy(url) as proxy:
        yield proxy


@pytest.fixture
def pool_size() -> int:
    """The size of the pool; a pool of one connection keeps none idle."""
    return 5


@pytest.fixture
def databases(proxy: Proxy, on_its_way: Any, pool_size: int) -> Iterator[microorm.Databases]:
    """The alias `default`, reached through the proxy."""
    options = {"connect_args": {"connect_timeout": 60}, "pool_size": pool_size}
    with microorm.Databases({"default": {"url": proxy.url, **options}}) as databases:
        yield on_its_way(databases)


@pytest.fixture
def commits_apart(backend: str, way: str, pool_size: int) -> bool:
    """Whether a write outside a block needs a separate COMMIT."""
    return (backend, way, pool_size) == ("mariadb", "driver", 1)


@pytest.fixture
def kill(backend: str, find_server: Any) -> Callable[[int], None]:
    """Return a function that kills a backend, and waits until it is gone."""
    server = find_server(backend)

    def kill(backend_id: int) -> None:
        if backend == "postgresql":
            assert server._run("SELECT pg_terminate_backend(:id, 5000)", id=backend_id) == [True]
            return
        server._run("KILL CONNECTION :id", id=backend_id)
        alive = "SELECT id FROM information_schema.processlist WHERE id = :id"
        while server._run(alive, id=backend_id):
            sleep(0.001)

    return kill


@pytest.fixture
def backend_id(backend: str, databases: microorm.Databases) -> Callable[[], int]:
    """Return a function that returns the id of the current backend of `default`."""
    sql = "SELECT pg_backend_pid()" if backend == "postgresql" else "SELECT connection_id()"

    def backend_id() -> int:
        with databases.connection() as connection:
            return connection.scalar(text(sql))  # type: ignore[no-any-return]

    return backend_id


def lost(error: BaseException | None) -> bool:
    """Return whether *error* is SQLAlchemy's for a lost connection."""
    return isinstance(error, OperationalError) and error.connection_invalidated


def works(databases: Any, Book: Any) -> bool:
    """Check that later work of each kind succeeds, and remove its rows."""
    ran: list[str] = []
    lone = Book(title="later").save()
    with databases.atomic():
        inside = Book(title="later still").save()
        databases.on_commit(lambda: ran.append("committed"))
        with databases.atomic():
            inside.pages = 5
            inside.save()
    found = {book.title: book.pages for book in Book.objects.filter(Book.title.like("later%"))}
    lone.delete()
    inside.delete()
    return found == {"later": 0, "later still": 5} and ran == ["committed"]


@pytest.mark.parametrize("answered", [True, False])
def test_a_block_whose_commit_has_no_answer_has_no_known_outcome(
    databases: Any, Book: Any, proxy: Proxy, titles: Any, answered: bool
) -> None:
    """Whether COMMIT has reached the server or not; functions do not run, and instances keep their saved state."""
    ran: list[str] = []
    old = Book(title="old").save()
    new, inner = Book(title="new"), Book(title="inner")
    with pytest.raises(CommitOutcomeUnknown) as caught, databases.atomic():
        databases.on_commit(lambda: ran.append("committed"))
        new.save()
        with databases.atomic():
            inner.save()
        old.title = "renamed"
        old.save()
        proxy.cut(b"COMMIT", answered=answered)
    assert str(caught.value) == AT_COMMIT
    assert lost(caught.value.__cause__)
    assert titles() == (["inner", "new", "renamed"] if answered else ["old"])
    assert ran == []
    assert (new._state.adding, new._state.db, new.changes(), old.changes()) == (False, "default", {}, {})
    assert Book.objects.filter(id=new.id, title="new").exists() is answered
    assert Book.objects.filter(id=inner.id, title="inner").exists() is answered
    assert works(databases, Book)
    assert ran == []
    assert proxy.cuts == 1


@pytest.mark.parametrize("pool_size", [1, 5])
def test_a_lone_save_whose_answer_is_lost_has_no_known_outcome(
    databases: Any, Book: Any, proxy: Proxy, titles: Any, commits_apart: bool
) -> None:
    """The row is stored; the instance keeps its key and its values."""
    Book(title="old").save()
    new = Book(title="new")
    new.id = 77
    proxy.cut(b"COMMIT" if commits_apart else b"INSERT", answered=True)
    with pytest.raises(CommitOutcomeUnknown) as caught:
        new.save()
    assert str(caught.value) == (AT_COMMIT if commits_apart else AT_STATEMENT)
    assert lost(caught.value.__cause__)
    assert titles() == ["new", "old"]
    assert (new.id, new.title, new.pages) == (77, "new", 0)
    assert Book.objects.get(id=new.id).title == "new"
    assert works(databases, Book)


@pytest.mark.parametrize("pool_size", [1, 5])
def test_a_key_that_came_before_the_lost_answer_is_kept(
    databases: Any, Book: Any, proxy: Proxy, titles: Any, look: Any, commits_apart: bool
) -> None:
    """A key in the lost answer is unknown; the instance is then as it was."""
    new = Book(title="new")
    before = look(new)
    proxy.cut(b"COMMIT" if commits_apart else b"INSERT", answered=True)
    with pytest.raises(CommitOutcomeUnknown):
        new.save()
    assert titles() == ["new"]
    if commits_apart:
        assert (new.id, new._state.adding) == (Book.objects.get(title="new").id, False)
    else:
        assert look(new) == before
    assert works(databases, Book)


@pytest.mark.parametrize("pool_size", [1, 5])
def test_a_lone_update_whose_answer_is_lost_has_no_known_outcome(
    databases: Any, Book: Any, proxy: Proxy, titles: Any, commits_apart: bool
) -> None:
    """For an instance, a query, and a delete."""
    book = Book(title="old").save()
    book.title = "new"
    proxy.cut(b"COMMIT" if commits_apart else b"UPDATE", answered=True)
    with pytest.raises(CommitOutcomeUnknown):
        book.save()
    assert (titles(), book.title, book.id) == (["new"], "new", Book.objects.get().id)
    proxy.cut(b"COMMIT" if commits_apart else b"UPDATE", answered=True)
    with pytest.raises(CommitOutcomeUnknown):
        Book.objects.filter(title="new").update(title="newer")
    assert titles() == ["newer"]
    assert Book.objects.get().title == "newer"  # and opens a connection again, which can be cut
    proxy.cut(b"COMMIT" if commits_apart else b"DELETE", answered=True)
    with pytest.raises(CommitOutcomeUnknown):
        book.delete()
    assert (titles(), book.pk is None) == ([], False)
    assert works(databases, Book)


def test_a_save_with_receivers_whose_commit_has_no_answer(
    databases: Any, Book: Any, proxy: Proxy, titles: Any
) -> None:
    """`on_commit` receivers are not called."""
    told: list[str] = []

    def at_once(instance: Any, **kwargs: Any) -> None:
        told.append("at once")

    def waiting(instance: Any, **kwargs: Any) -> None:
        told.append("committed")

    post_save.connect(at_once, sender=Book, weak=False)
    post_save.connect(waiting, sender=Book, weak=False, delivery="on_commit")
    new = Book(title="new")
    proxy.cut(b"COMMIT", answered=True)
    with pytest.raises(CommitOutcomeUnknown, match=f"^{AT_COMMIT}$"):
        new.save()
    assert told == ["at once"]
    assert titles() == ["new"]
    assert (new.id, new._state.adding) == (Book.objects.get(title="new").id, False)
    post_save.disconnect(at_once, sender=Book)
    post_save.disconnect(waiting, sender=Book)
    assert works(databases, Book)


def test_a_bulk_create_whose_commit_has_no_answer(
    databases: Any, Book: Any, proxy: Proxy, titles: Any
) -> None:
    """All rows are stored, and the instances keep their keys."""
    books = [Book(title=f"{n}") for n in range(5, 9)]
    proxy.cut(b"COMMIT", answered=True)
    with pytest.raises(CommitOutcomeUnknown, match=f"^{AT_COMMIT}$"), databases.atomic():
        Book.objects.bulk_create(books)
    assert titles() == ["5", "6", "7", "8"]
    assert [(book.id, book._state.adding) for book in books] == [
        (Book.objects.get(title=book.title).id, False) for book in books
    ]
    assert works(databases, Book)


@pytest.mark.parametrize("pool_size", [1, 5])
def test_a_lone_statement_that_is_lost(
    databases: Any, Book: Any, proxy: Proxy, titles: Any, look: Any, commits_apart: bool
) -> None:
    """In autocommit it may have been stored; before a separate COMMIT it was not."""
    new = Book(title="new")
    before = look(new)
    proxy.cut(b"INSERT", answered=False)
    with pytest.raises((CommitOutcomeUnknown, OperationalError)) as caught:
        new.save()
    if commits_apart:
        assert lost(caught.value)
    else:
        assert str(caught.value) == AT_STATEMENT
        assert lost(caught.value.__cause__)
    assert look(new) == before
    assert titles() == []
    new.save()
    assert titles() == ["new"]
    assert works(databases, Book)


def test_a_read_that_is_lost_says_so(databases: Any, Book: Any, proxy: Proxy) -> None:
    """SQLAlchemy's error is raised; nothing about it is unknown."""
    book = Book(title="a", pages=3).save()
    for read in (
        lambda: Book.objects.get(id=book.id),
        lambda: Book.objects.count(),
        lambda: Book.objects.filter(Book.pages > 2).all(),
        book.refresh_from_db,
    ):
        proxy.cut(b"FROM", answered=False)
        with pytest.raises(OperationalError) as caught:
            read()
        assert lost(caught.value)
    assert (book.title, book.pages, proxy.cuts) == ("a", 3, 4)
    assert works(databases, Book)


@pytest.mark.parametrize("nested", [False, True])
def test_a_statement_lost_in_a_block_undoes_all_of_it(
    databases: Any, Book: Any, proxy: Proxy, titles: Any, look: Any, nested: bool
) -> None:
    """A surrounding savepoint is lost, too; rows, instances and functions are as before."""
    ran: list[str] = []
    old, first, second = Book(title="old").save(), Book(title="first"), Book(title="second")
    before = [look(each) for each in (old, first, second)]
    with pytest.raises(TransactionError) as caught, databases.atomic():
        databases.on_commit(lambda: ran.append("committed"))
        first.save()
        old.pages = 5
        old.save()
        proxy.cut(b"INSERT", answered=False)
        with pytest.raises(OperationalError) as statement:
            if nested:
                with databases.atomic():
                    second.save()
            else:
                second.save()
        assert lost(statement.value)
        with pytest.raises(TransactionError, match="^the block on 'default' is doomed by an earlier error: "):
            Book.objects.count()
        with pytest.raises(TransactionError, match="^the block on 'default' is doomed by an earlier error: "):
            second.save()
    assert str(caught.value).startswith(
        "the block on 'default' was rolled back because of an earlier error: OperationalError("
    )
    assert caught.value.__cause__ is statement.value
    old.pages = 0
    assert [look(each) for each in (old, first, second)] == before
    assert titles() == ["old"]
    assert works(databases, Book)
    assert ran == []


def test_a_savepoint_that_is_lost_undoes_all(databases: Any, Book: Any, proxy: Proxy, titles: Any) -> None:
    """While it is set, released or rolled back."""
    for verb in (b"SAVEPOINT", b"RELEASE SAVEPOINT", b"ROLLBACK TO SAVEPOINT"):
        first, second = Book(title="first"), Book(title="second")
        Book.objects.count()  # and opens a connection again, which can be cut
        with pytest.raises(TransactionError) as caught, databases.atomic():
            first.save()
            proxy.cut(verb, answered=False)
            with pytest.raises((LookupError, OperationalError)) as inner, databases.atomic():
                second.save()
                if verb.startswith(b"ROLLBACK"):
                    raise LookupError("mine")
            assert lost(inner.value) is not verb.startswith(b"ROLLBACK")
            with pytest.raises(
                TransactionError, match="^the block on 'default' is doomed by an earlier error"
            ):
                Book.objects.count()
        assert lost(caught.value.__cause__)
        assert [(each.id, each._state.adding) for each in (first, second)] == [(None, True)] * 2
        assert titles() == []
    assert proxy.cuts == 3
    assert works(databases, Book)


def test_a_backend_killed_in_a_block(
    databases: Any, Book: Any, kill: Any, backend_id: Any, titles: Any, look: Any
) -> None:
    """The next statement raises SQLAlchemy's error, and the end of the block a TransactionError; the pool recovers."""
    first, second = Book(title="first"), Book(title="second")
    before = [look(first), look(second)]
    with pytest.raises(TransactionError) as caught, databases.atomic():
        first.save()
        kill(backend_id())
        with pytest.raises(DBAPIError) as statement:
            second.save()
        assert lost(statement.value)
    assert caught.value.__cause__ is statement.value
    assert [look(first), look(second)] == before
    assert titles() == []
    assert works(databases, Book)


def test_a_backend_killed_before_the_block_ends(
    databases: Any, Book: Any, kill: Any, backend_id: Any, titles: Any
) -> None:
    """COMMIT fails on the dead connection; an exception of the program is raised unchanged."""
    with pytest.raises(CommitOutcomeUnknown, match=f"^{AT_COMMIT}$"), databases.atomic():
        Book(title="first").save()
        kill(backend_id())
    second = Book(title="second")
    with pytest.raises(LookupError, match="^mine$"), databases.atomic():
        second.save()
        kill(backend_id())
        raise LookupError("mine")
    assert (second.id, second._state.adding) == (None, True)
    assert titles() == []
    assert works(databases, Book)


def test_a_backend_killed_while_idle_is_not_noticed(
    databases: Any, Book: Any, kill: Any, backend_id: Any, titles: Any
) -> None:
    """The pool pings connections before use, so single writes, reads and blocks succeed."""
    Book(title="a").save()
    kill(backend_id())
    Book(title="b").save()
    kill(backend_id())
    assert Book.objects.get(title="b").id
    kill(backend_id())
    with databases.atomic():
        Book(title="c").save()
    assert titles() == ["a", "b", "c"]


@pytest.fixture
def spare_id(databases: microorm.Databases) -> Callable[[], int]:
    """Return a function that returns the id of the backend of the next idle connection."""

    def spare_id() -> int:
        database = databases.database("default")
        spare = database.idle_connections.take()
        assert spare is not None
        driver: Any = spare[0].dbapi_connection
        number: int = driver.info.backend_pid if database.dialect == "postgresql" else driver.thread_id()
        assert database.idle_connections.keep(*spare)
        return number

    return spare_id


@pytest.mark.parametrize("way", ["driver"])
def test_a_spare_that_was_killed_while_idle_is_not_noticed(
    databases: Any, Book: Any, kill: Any, spare_id: Any, titles: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An expired one goes through the pool, which pings it, for writes and for reads."""
    Book(title="a").save()
    kill(spare_id())
    expire(monkeypatch)
    Book(title="b").save()
    kill(spare_id())
    expire(monkeypatch)
    assert Book.objects.get(title="b").id
    assert titles() == ["a", "b"]
    assert works(databases, Book)


@pytest.mark.parametrize("way", ["driver"])
def test_a_spare_that_was_killed_a_moment_ago_is_an_error_once(
    databases: Any, Book: Any, kill: Any, spare_id: Any, titles: Any
) -> None:
    """SQLAlchemy's error for a read, an unknown outcome for a write; other idle connections are then not used without a ping."""
    Book(title="a").save()
    others = [AutocommitConnection(databases.database("default"), writes=False) for _ in range(2)]
    for other in others:
        other.__exit__(None, None, None)
    kill(spare_id())
    with pytest.raises(OperationalError) as caught:
        Book.objects.get(title="a")
    assert lost(caught.value)
    assert databases.database("default").idle_connections.take() is None
    assert Book.objects.get(title="a").id
    kill(spare_id())
    new = Book(title="b")
    with pytest.raises(CommitOutcomeUnknown) as unknown:
        new.save()
    assert lost(unknown.value.__cause__)
    new.save()
    assert titles() == ["a", "b"]
    assert works(databases, Book)


@pytest.mark.parametrize("way", ["driver"])
def test_a_killed_spare_goes_back_without_an_error(
    databases: Any, Book: Any, kill: Any, spare_id: Any
) -> None:
    """Whether the driver switches autocommit by a statement or locally."""
    Book(title="a").save()
    kill(spare_id())
    databases.database("default").idle_connections.clear()
    assert databases.engine().pool.checkedout() == 0
    assert works(databases, Book)


def expire(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all idle connections expire."""
    later = pool.monotonic() + 2 * pool.TRUSTED
    monkeypatch.setattr(pool, "monotonic", lambda: later)
