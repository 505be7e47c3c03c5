"""`for_update()`: who waits for whom, and where it cannot be."""

import threading
from typing import Any

import pytest
from sqlalchemy import func
from sqlalchemy.exc import DBAPIError

from microorm import Field, FieldError, ForeignKey, TransactionError, field, foreign_key
from tests.behaviour.shelves import titles

MEMORY = pytest.mark.backends("sqlite-memory")
SERVERS = pytest.mark.servers_only
PATIENCE = 20


class Other:
    """Another thread, whose answer may be waited for."""

    def __init__(self, work: Any) -> None:
        self.answer: Any = None
        self._thread = threading.Thread(target=self._run, args=(work,))
        self._thread.start()

    def _run(self, work: Any) -> None:
        try:
            self.answer = work()
        except Exception as error:  # noqa: BLE001 looked at by the test
            self.answer = error

    def wait(self) -> Any:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        return self.answer


@SERVERS
def test_another_waits_until_the_block_ends(Book, shelf, databases):
    """And then sees what was written: no update is lost."""
    begun = threading.Event()

    def add() -> int:
        with databases.atomic():
            begun.set()
            book = Book.objects.for_update().get(title="a")
            book.pages += 10
            book.save()
            return int(book.pages)

    with databases.atomic():
        book = Book.objects.filter(title="a").for_update().get()
        other = Other(add)
        assert begun.wait(PATIENCE)
        book.pages += 100
        book.save()
    assert other.wait() == 111
    assert Book.objects.get(title="a").pages == 111


@pytest.mark.backends("sqlite-file", "postgresql", "mariadb")
def test_no_update_is_lost(Book, shelf, databases):
    """Four threads read, change and write; on SQLite a block has locked the whole database."""

    def add() -> None:
        for _ in range(5):
            with databases.atomic():
                book = Book.objects.for_update().get(title="a")
                book.pages += 1
                book.save()

    assert [other.wait() for other in [Other(add) for _ in range(4)]] == [None] * 4
    assert Book.objects.get(title="a").pages == 21


@SERVERS
def test_nowait_fails_and_skip_locked_leaves_out(Book, shelf, databases):
    """Neither waits; a row that is not locked is found all the same."""
    by_key = Book.objects.filter(Book.id.in_([book.id for book in shelf])).order_by("id")

    def refused() -> Any:
        with databases.atomic():
            return list(by_key.for_update(nowait=True))

    def left_out() -> str:
        with databases.atomic():
            return titles(by_key.for_update(skip_locked=True))

    def next_one() -> str:
        with databases.atomic():
            return str(by_key.for_update(skip_locked=True).first().title)

    with databases.atomic():
        locked = [Book.objects.for_update().get(pk=shelf[place].id) for place in (0, 2)]
        assert titles(locked) == "ac"
        assert isinstance(Other(refused).wait(), DBAPIError)
        assert Other(left_out).wait() == "bde"
        assert Other(next_one).wait() == "b"
    assert Other(left_out).wait() == "abcde"


@SERVERS
def test_all_ends_that_give_instances_lock(Book, shelf, databases):
    """And the streams; what counts only does not."""
    query = Book.objects.filter(title="a").for_update()

    def locked() -> bool:
        def free() -> int:
            with databases.atomic():
                found = list(Book.objects.filter(id=key).for_update(skip_locked=True))
                return len(found)

        return bool(Other(free).wait() == 0)

    key = Book.objects.get(title="a").id
    query = Book.objects.filter(id=key).for_update()
    for end in (
        query.all,
        query.get,
        query.first,
        query.last,
        query.one_or_none,
        query.values,
        query.in_bulk,
        lambda: query.in_bulk([key]),
        lambda: next(query.iterate()),
        lambda: query.scalars("title"),
    ):
        with databases.atomic():
            assert end()
            assert locked()
    for end in (query.count, query.exists, query.explain, lambda: query.aggregate(n=func.count())):
        assert end()
        with databases.atomic():
            assert end()
            assert not locked()


def test_it_is_refused_outside_a_block_that_may_write(Book, shelf, databases):
    """When it is sent, and before anything is; on SQLite as well, where it would lock nothing."""
    query = shelf.for_update()
    ends = (query.all, query.get, query.first, query.last, query.values, lambda: next(query.iterate()))
    for end in ends:
        with pytest.raises(TransactionError, match=r"^for_update\(\) needs an open block, and none is open"):
            end()
    with databases.atomic("other"), pytest.raises(TransactionError, match="none is open on 'default'$"):
        query.all()
    with databases.atomic(readonly=True):
        for end in ends:
            with pytest.raises(
                TransactionError, match=r"^for_update\(\) needs a block that may write; that on 'default' is "
            ):
                end()
        assert Book.objects.count() == 5
    with databases.atomic():
        assert titles(query) == "abcde"
        assert titles(query[1:3]) == "bc"
        assert query.get(title="a").title == "a"


def test_what_a_database_cannot_do_is_an_error(Book, shelf, databases):
    """SQLite has no locks of rows; MariaDB cannot choose among tables."""
    dialect = databases.database("default").dialect
    for options in ({"nowait": True}, {"skip_locked": True}, {"of": [Book]}, {"of": ["title"]}):
        query = shelf.for_update(**options)
        refused = dialect == "sqlite" or (dialect != "postgresql" and "of" in options)
        with databases.atomic():
            if refused:
                with pytest.raises(TransactionError, match=r"^for_update\(\): 'default' "):
                    query.all()
            else:
                assert titles(query) == "abcde"
        assert Book.objects.count() == 5


@MEMORY
def test_wrong_arguments_are_told_at_the_call(Book):
    with pytest.raises(ValueError, match=r"^for_update\(\): nowait= cannot be combined with"):
        Book.objects.for_update(nowait=True, skip_locked=True)
    for of in ("title", Book, Book.title, 3):
        with pytest.raises(TypeError, match=r"^for_update\(\): of= must be a list, not "):
            Book.objects.for_update(of=of)
    with pytest.raises(FieldError, match="nearest: 'title'"):
        Book.objects.for_update(of=["titel"])
    with pytest.raises(FieldError, match="is an expression"):
        Book.objects.for_update(of=[func.lower(Book.title)])
    with pytest.raises(TypeError):
        Book.objects.for_update(of=[3])


@SERVERS
def test_rows_at_the_end_of_a_path_are_locked_where_they_are_named(Base, registry, databases):
    """Else, on PostgreSQL, the model's alone, whatever is joined: MariaDB locks them all."""

    class Author(Base):
        name: Field[str] = field(max_length=10)

    class Poem(Base):
        author: ForeignKey[Author] = foreign_key()
        editor: ForeignKey[Author | None] = foreign_key(default=None)

    registry.create_all("default")
    author = Author(name="a").save()
    poem = Poem(author=author).save()

    def free(model: Any) -> int:
        with databases.atomic():
            return len(model.objects.filter(id=1).for_update(skip_locked=True).all())

    assert author.id == poem.id == 1
    named = Poem.objects.filter(Poem.author.name == "a").order_by(Poem.editor.name)
    postgresql = databases.database("default").dialect == "postgresql"
    with databases.atomic():
        assert named.for_update().all() == [poem]
        assert Other(lambda: free(Poem)).wait() == 0
        assert Other(lambda: free(Author)).wait() == (1 if postgresql else 0)
    if postgresql:
        for of in ([Poem.author], [Poem.author.name]):
            with databases.atomic():
                assert Poem.objects.for_update(of=of).all() == [poem]
                assert Other(lambda: free(Poem)).wait() == 1
                assert Other(lambda: free(Author)).wait() == 0
        with databases.atomic():
            assert Poem.objects.for_update(of=[Poem, Poem.author, "author_id"]).get() == poem
            assert Other(lambda: free(Poem)).wait() == Other(lambda: free(Author)).wait() == 0
