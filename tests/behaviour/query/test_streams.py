"""`iterate()`: rows chunk by chunk, outside a block and inside one, read to the end or not."""

import gc
import threading
from typing import Any

import pytest
from sqlalchemy import QueuePool, create_engine, event, text

import microorm
from microorm import Field, InvalidValue, TransactionError
from microorm.signals import post_init, pre_init
from tests.behaviour.shelves import titles

MEMORY = pytest.mark.backends("sqlite-memory")


@pytest.fixture
def sent(databases: Any) -> list[str]:
    """What goes through SQLAlchemy's connection to `default`, as all streams do."""
    sent: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        sent.append(" ".join(statement.split()))

    event.listen(databases.engine("default"), "before_cursor_execute", note)
    return sent


def in_use(databases: Any) -> int:
    """How many connections are out of the pool; none is kept ready between two statements."""
    databases.database("default").idle_connections.clear()
    return int(databases.engine("default").pool.checkedout())


def test_it_gives_what_all_gives(Book, shelf, databases, subtests):
    """Every row once and in order, whatever the size of a chunk; outside a block, in one, and in one for reading."""
    for chunk in (1, 2, 4, 5, 6, 1000):
        with subtests.test(chunk=chunk):
            check_chunks(Book, shelf, databases, chunk)


def check_chunks(Book: Any, shelf: Any, databases: Any, chunk: int) -> None:
    assert list(shelf.iterate(chunk)) == shelf.all()
    assert titles(shelf.filter(Book.pages > 1)[1:].iterate(chunk=chunk)) == "cde"
    assert titles(shelf.filter(title="z").iterate(chunk)) == ""
    assert [vars(book) for book in shelf.iterate(chunk)] == [vars(book) for book in shelf.all()]
    assert [book.changes() for book in shelf.iterate(chunk)] == [{}] * 5
    assert {(book._state.adding, book._state.db) for book in shelf.iterate()} == {(False, "default")}
    for options in ({}, {"readonly": True}):
        with databases.atomic(**options):
            assert list(shelf.iterate(chunk)) == shelf.all()
            assert [vars(book) for book in shelf.iterate(chunk)] == [vars(book) for book in shelf.all()]
    assert in_use(databases) == 0


def test_the_loop_may_write_and_open_blocks(Book, shelf, databases):
    """Outside a block the stream has a connection of its own, and no scope: all else goes on as if it were not there."""
    for book in shelf.iterate(chunk=2):
        book.pages += 10
        book.save()
        with databases.atomic():
            assert Book.objects.get(pk=book.id).pages == book.pages
            Book(title="f").save()
    assert Book.objects.filter(Book.pages > 10).count() == 5
    assert Book.objects.filter(title="f").count() == 5


def test_the_loop_may_write_inside_a_block(Book, shelf, databases):
    """What it writes does not show in the stream; other statements, savepoints and streams run meanwhile."""
    with databases.atomic():
        seen = []
        for book in shelf.iterate(chunk=2):
            seen.append(book.title)
            with databases.atomic():
                Book(title=book.title + "'").save()
                assert len(list(Book.objects.filter(Book.title < "c").iterate(1))) > 0
            Book.objects.filter(Book.title == "d").update(pages=99)
        assert "".join(seen) == "abcde"
    assert Book.objects.count() == 10


def test_a_stream_left_open_gives_its_connection_back(Book, shelf, databases):
    """Closed, or forgotten: at once, and the connection serves the next."""
    for _ in range(3):
        stream = shelf.iterate(chunk=1)
        assert next(stream).title == "a"
        stream.close()
        assert in_use(databases) == 0
        stream = shelf.iterate(chunk=1)
        assert next(stream).title == "a"
        del stream
        gc.collect()
        assert in_use(databases) == 0
    for book in shelf.iterate(chunk=2):
        if book.title == "b":
            break
    del book
    with pytest.raises(ZeroDivisionError):
        for _ in shelf.iterate(chunk=2):
            raise ZeroDivisionError
    gc.collect()
    assert in_use(databases) == 0
    assert Book.objects.count() == 5


def test_nothing_is_sent_before_the_first_step(Book, shelf, databases, sent):
    """Lazy; one statement, and in a block of PostgreSQL one more for each chunk."""
    del sent[:]
    stream = shelf.iterate(chunk=2)
    assert sent == []
    assert in_use(databases) == 0
    assert titles(stream) == "abcde"
    assert len([each for each in sent if "FROM book" in each]) == 1
    with databases.atomic():
        del sent[:]
        assert titles(shelf.iterate(chunk=2)) == "abcde"
        many = 1 + 3 + 1 if databases.database("default").dialect == "postgresql" else 1
        assert len(sent) == many, sent


def test_a_block_ends_well_with_a_stream_half_read(Book, shelf, databases, undone):
    """Committed or rolled back; what is left of the stream cannot be read, and nothing is sent for it any more."""
    with databases.atomic():
        Book(title="f").save()
        committed = shelf.iterate(chunk=1)
        assert next(committed).title == "a"
    with undone():
        Book(title="g").save()
        rolled_back = shelf.iterate(chunk=1)
        assert next(rolled_back).title == "a"
    with databases.atomic():
        with databases.atomic():
            nested = shelf.iterate(chunk=1)
            next(nested)
        with pytest.raises(
            TransactionError, match=r"^the block on 'default' in which iterate\(\) was started has ended"
        ):
            next(nested)
        assert Book.objects.count() == 6
        dropped = shelf.iterate(chunk=1)
        next(dropped)
        del dropped
        closed = shelf.iterate(chunk=1)
        next(closed)
        closed.close()
        assert Book.objects.count() == 6
    for stream in (committed, rolled_back):
        with pytest.raises(
            TransactionError, match=r"^the block on 'default' in which iterate\(\) was started has ended"
        ):
            next(stream)
    assert titles(shelf) == "abcdef"
    assert in_use(databases) == 0


def test_a_doomed_block_streams_no_more(Book, shelf, databases):
    """Every statement in it is refused, the next chunk as well."""
    with databases.atomic():
        with pytest.raises(TransactionError, match="rolled back"), databases.atomic():
            stream = shelf.iterate(chunk=1)
            next(stream)
            with pytest.raises(Exception, match="nothing_here"), databases.connection() as connection:
                connection.execute(text("SELECT * FROM nothing_here"))
            if databases.database("default").dialect == "postgresql":
                with pytest.raises(TransactionError, match="doomed"):
                    next(stream)
            with pytest.raises(TransactionError, match="doomed"):
                next(shelf.iterate())
        assert Book.objects.count() == 5


def test_a_stream_sees_the_block_that_it_is_in(Book, shelf, databases, undone):
    """And the rows as they were when it began, of one statement."""
    with undone():
        Book(title="f").save()
        assert titles(shelf.iterate(chunk=2)) == "abcdef"
        with databases.atomic():
            assert titles(shelf.iterate(chunk=2)) == "abcdef"
    stream = shelf.iterate(chunk=1)
    next(stream)
    Book(title="z").save()
    Book.objects.filter(title="c").delete()
    assert titles(stream) == "bcde"
    assert titles(shelf) == "abdez"


def test_several_streams_at_once(Book, shelf, databases):
    """Outside a block each has its connection; inside they share it."""
    for block in (False, True):
        with databases.atomic() if block else databases.using("default"):
            left, right = shelf.iterate(chunk=1), shelf.exclude(title="a").iterate(chunk=2)
            assert [(a.title, b.title) for a, b in zip(left, right, strict=False)] == [
                ("a", "b"),
                ("b", "c"),
                ("c", "d"),
                ("d", "e"),
            ]
            left.close()
    assert in_use(databases) == 0


@pytest.mark.sync_only("the connection of a stream belongs to the event loop")
def test_a_stream_may_be_read_by_another_thread(Book, shelf, databases):
    """Outside a block it belongs to nobody."""
    stream, seen = shelf.iterate(chunk=1), []
    seen.append(next(stream).title)
    thread = threading.Thread(target=lambda: seen.extend(book.title for book in stream))
    thread.start()
    thread.join()
    assert "".join(seen) == "abcde"
    assert in_use(databases) == 0


def test_a_stream_reads_where_the_query_does(Book, registry, databases):
    """`using`, and the instances know it."""
    registry.create_all("other")
    Book.objects.using("other").bulk_create([Book(title=title) for title in "abc"])
    assert list(Book.objects.iterate()) == []
    assert {book._state.db for book in Book.objects.using("other").iterate(2)} == {"other"}
    with databases.using("other"):
        assert len(list(Book.objects.iterate(2))) == 3
    with databases.atomic("other"):
        assert len(list(Book.objects.using("other").iterate(2))) == 3
        assert list(Book.objects.using("default").iterate(2)) == []


def test_values_of_all_types_are_decoded(Book, shelf, databases):
    """As by `all`: JSON, decimals and NULL."""
    Book.objects.filter(title="b").update(tags=["x", {"y": 1}])
    expected = [(book.price, book.tags) for book in shelf.all()]
    assert [(book.price, book.tags) for book in shelf.iterate(2)] == expected
    with databases.atomic():
        assert [(book.price, book.tags) for book in shelf.iterate(2)] == expected
    book = next(shelf.iterate())
    book.tags.append("new")
    assert book.changed_fields == {"tags"}


def test_an_error_of_the_database_is_sqlalchemys_and_frees_the_connection(Book, databases):
    with databases.connection() as connection:
        connection.execute(text("DROP TABLE book"))
    with pytest.raises(Exception, match="book") as raised:
        next(Book.objects.iterate())
    assert type(raised.value).__module__ == "sqlalchemy.exc"
    del raised
    gc.collect()
    assert in_use(databases) == 0


@MEMORY
def test_making_instances_is_told(Book, shelf, listen):
    """As on any load."""
    heard: list[str] = []
    listen(pre_init, lambda kwargs, **_: heard.append("before " + kwargs["title"]), sender=Book)
    listen(post_init, lambda instance, **_: heard.append("after " + instance.title), sender=Book)
    assert titles(shelf[:2].iterate(chunk=1)) == "ab"
    assert heard == ["before a", "after a", "before b", "after b"]


@MEMORY
def test_a_chunk_is_a_positive_int(Book):
    """Said at the call, not at the first step."""
    for chunk in (0, -1):
        with pytest.raises(ValueError, match=rf"^iterate\(\) takes a positive number, not {chunk}$"):
            Book.objects.iterate(chunk)
    for other in ("2", 2.0, True, None):
        with pytest.raises(TypeError, match=r"^iterate\(\) takes an int, not "):
            Book.objects.iterate(other)
    with pytest.raises(InvalidValue):
        Book.objects.filter(pages="x").iterate()


@MEMORY
def test_a_file_outside_of_wal_mode_is_not_kept_locked(databases, sqlite_url):
    """A reader there would keep the loop's own writes waiting, so the rows are taken at once."""
    with microorm.Databases({"default": create_engine(sqlite_url)}) as given:
        registry = microorm.Registry(given)

        class Note(microorm.Model, registry=registry):
            text: Field[str]

        registry.create_all()
        Note.objects.bulk_create([Note(text=str(number)) for number in range(5)])
        for note in Note.objects.iterate(chunk=1):
            note.text += "!"
            note.save()
        assert Note.objects.filter(Note.text.endswith("!")).count() == 5
        given.engine().dispose()


@pytest.mark.backends("mariadb")
def test_mariadb_is_told_to_stop(Book, databases, wire):
    """A stream that is closed early does not read the rest of a large result."""
    Book.objects.bulk_create([Book(title=f"{number:05}" + "x" * 30) for number in range(2000)])
    cross = Book.objects.filter(Book.title > "0")
    with wire.everything() as sent:
        stream = cross.iterate(chunk=10)
        next(stream)
        stream.close()
    assert [each for each in sent if each.startswith("KILL QUERY")]
    assert in_use(databases) == 0
    assert cross.count() == 2000


@pytest.mark.backends("mariadb")
@pytest.mark.sync_only("about an engine that was given, which is synchronous")
def test_mariadb_is_told_to_stop_by_a_connection_outside_of_the_pool(url):
    """The stream may have the only one of the pool, and would wait for itself."""
    engine = create_engine(url, poolclass=QueuePool, pool_size=1, max_overflow=0, pool_timeout=0.1)
    sent: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda *given: sent.append(given[2]))
    with microorm.Databases({"default": engine}) as given:
        registry = microorm.Registry(given)

        class Note(microorm.Model, registry=registry):
            text: Field[str]

        registry.create_all()
        Note.objects.bulk_create([Note(text=f"{number:05}" + "x" * 30) for number in range(500)])
        for _ in Note.objects.iterate(chunk=10):
            break
        assert [each for each in sent if each.startswith("KILL QUERY")]
        assert Note.objects.count() == 500
        given.database("default").idle_connections.clear()
        assert engine.pool.checkedout() == 0
    engine.dispose()


@pytest.mark.backends("mariadb")
def test_mariadb_waits_for_a_slow_reader(Book, shelf, databases, sent):
    """Its server would hang up after a minute; the connection is as before when the stream is read."""
    del sent[:]
    assert titles(shelf.iterate(chunk=2)) == "abcde"
    assert [each for each in sent if each.startswith("SET SESSION")] == [
        "SET SESSION net_write_timeout = 86400",
        "SET SESSION net_write_timeout = DEFAULT",
    ]
    with databases.connection() as connection:
        asked = text("SELECT @@session.net_write_timeout = @@global.net_write_timeout")
        assert connection.scalar(asked) == 1
