"""Testing: statements are counted on whatever way they go, and lazy loads are refused where they should be."""

import asyncio
import contextvars
import threading
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import text

from microorm import (
    Databases,
    Field,
    ForeignKey,
    LazyLoadError,
    Model,
    Registry,
    Related,
    UnknownAlias,
    default_databases,
    field,
    foreign_key,
    related,
)
from microorm.signals import post_save
from microorm.testing import Statements, count_statements, no_lazy_loads

MEMORY = pytest.mark.backends("sqlite-memory")


def in_thread(function: Any) -> None:
    """Run *function* in a thread of its own, and raise what it raised."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as error:  # noqa: BLE001 raised below, in the thread that asked
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def everything(Book: Any, databases: Databases) -> None:
    """Read and write in every way there is."""
    book = Book(title="x", pages=1).save()
    book.pages = 2
    book.save()
    Book.objects.get(title="x").refresh_from_db()
    Book.objects.bulk_create([Book(title="y"), Book(title="z")])
    Book.objects.filter(Book.pages > 1).update(price=Decimal(1))
    Book.objects.order_by("title").all()
    assert Book.objects.count() == 3
    assert Book.objects.only("title").get(title="x").pages == 2
    with databases.atomic(), databases.atomic():
        book.delete()
    with databases.connection() as connection:
        connection.execute(text("SELECT count(*) FROM book"))
    Book.objects.delete()


# Counting


def test_the_count_is_what_was_sent(Book, databases, wire):
    """On both ways, in blocks and outside, microorm's statements and the user's own."""
    with wire.record() as sent, count_statements("default", databases) as counted:
        everything(Book, databases)
    with databases.atomic(), wire.record() as inside, count_statements("default", databases) as within:
        everything(Book, databases)
    with wire.record() as uncounted:
        everything(Book, databases)
    as_sent = [each.removeprefix("many ").split()[0] for each in sent]
    assert [each.split()[0] for each in counted.statements] == as_sent
    assert counted.count == len(counted) == len(sent) == len(uncounted)
    assert [each.split()[0] for each in within.statements] == [
        each.removeprefix("many ").split()[0] for each in inside
    ]
    assert len(inside) == len(sent)


def test_a_count_begins_and_ends_with_its_block(Book, databases):
    Book(title="a").save()
    with count_statements("default", databases) as counted:
        Book(title="b").save()
        assert (counted.count, len(counted)) == (1, 1)
        assert counted.statements[0].startswith("INSERT INTO book")
    Book(title="c").save()
    assert counted.count == 1
    with pytest.raises(ZeroDivisionError), count_statements("default", databases) as failed:
        Book.objects.count()
        raise ZeroDivisionError
    Book.objects.count()
    assert failed.count == 1
    assert repr(counted) == f"<1 statements>\n{counted.statements[0]}"


def test_counts_nest_and_each_counts_all(Book, databases):
    with count_statements("default", databases) as outer:
        Book(title="a").save()
        with count_statements("default", databases) as inner:
            Book(title="b").save()
        Book(title="c").save()
    assert (outer.count, inner.count) == (3, 1)


def test_what_begins_and_ends_blocks_does_not_count(Book, databases):
    with count_statements("default", databases) as counted:
        with databases.atomic(), databases.atomic():
            Book(title="a").save()
        with databases.atomic(readonly=True):
            Book.objects.all()
    assert [each.split()[0] for each in counted.statements] == ["INSERT", "SELECT"]


def test_a_block_that_was_open_before_is_counted_from_then_on(Book, databases, undone):
    """With a savepoint that was set before, and one that is set meanwhile; what they undo is undone."""
    with databases.atomic():
        Book(title="a").save()
        with undone():
            Book(title="b").save()
            with count_statements("default", databases) as counted:
                Book(title="c").save()
                with undone():
                    Book(title="d").save()
                Book.objects.bulk_create([Book(title="e"), Book(title="f")])
            Book(title="g").save()
        with databases.atomic():
            Book(title="h").save()
    assert [each.title for each in Book.objects.order_by("id")] == ["a", "h"]
    assert {each.split()[0] for each in counted.statements} <= {"INSERT", "SELECT"}
    assert counted.statements[0].startswith("INSERT")
    assert counted.count >= 3


def test_errors_are_the_same_in_a_block_that_was_open_before(Book, databases):
    from_before = []
    for counting in (False, True):
        with pytest.raises(Exception, match="book") as caught:
            with databases.atomic():
                book = Book(title="a").save()
                if not counting:
                    Book.objects.create(id=book.id, title="b")
                with count_statements("default", databases):
                    Book.objects.create(id=book.id, title="b")
        from_before.append((type(caught.value), caught.value.statement))
    assert from_before[0] == from_before[1]
    assert Book.objects.count() == 0


def test_a_receiver_may_count_what_follows_in_the_save(Book, databases, listen):
    """The channel of the save was open before the count."""
    counts = []

    def note(instance, created, **kwargs):
        with count_statements("default", databases) as counted:
            Book.objects.get(title="a")
            if instance.title == "a":
                Book(title="b").save()
        counts.append(counted.count)

    listen(post_save, note, sender=Book)
    Book(title="a").save()
    assert counts == [1, 3]


@pytest.mark.backends("sqlite-file", "postgresql", "mariadb")
def test_statements_of_other_threads_count(Book, databases):
    """Those in a block that the thread had opened before, too."""
    ready, counting, done = threading.Event(), threading.Event(), threading.Event()

    def read_in_a_block() -> None:
        with databases.atomic(readonly=True):
            Book.objects.all()
            ready.set()
            assert counting.wait(200)
            Book.objects.all()

    thread = threading.Thread(target=lambda: (read_in_a_block(), done.set()))
    thread.start()
    assert ready.wait(200)
    with count_statements("default", databases) as counted:
        counting.set()
        thread.join()
        assert done.is_set()
        in_thread(lambda: Book.objects.all())
        in_thread(lambda: Book(title="x").save())
    assert [each.split()[0] for each in counted.statements] == ["SELECT", "SELECT", "INSERT"]


@pytest.mark.backends("sqlite-file")
def test_connections_kept_between_statements_are_counted(Book, databases, way):
    database = databases.database("default")
    Book(title="a").save()
    spare = database.idle_connections.take()
    assert (spare is None) == (way == "listened")
    if spare is not None:
        assert database.idle_connections.keep(*spare)
    with count_statements("default", databases) as counted:
        Book(title="b").save()
    assert counted.count == 1


def test_only_the_alias_that_was_named_is_counted(Book, registry, databases):
    registry.create_all("other")
    with (
        count_statements(using="other", databases=databases) as counted,
        count_statements(databases=databases) as default,
    ):
        Book(title="a").save()
        Book(title="b").save(using="other")
        with databases.using("other"), count_statements(databases=databases) as current:
            Book.objects.count()
    assert (counted.count, default.count, current.count) == (2, 1, 1)


@MEMORY
def test_a_wrong_alias_is_said(databases):
    with pytest.raises(UnknownAlias, match="'defautl'; configured: 'default', 'other'; nearest: 'default'"):
        with count_statements("defautl", databases):
            pass


def test_the_questions_that_sqlalchemy_asks_of_a_new_database_do_not_count(fresh_url):
    with Databases({"default": fresh_url()}) as databases:
        with count_statements("default", databases) as counted, databases.connection() as connection:
            connection.execute(text("SELECT 1"))
        assert counted.statements == ["SELECT 1"]


@MEMORY
def test_after_a_count_statements_go_the_way_they_went_before(Book, databases, way):
    """They do meanwhile, too: the listener that stays is not one of the program."""
    database = databases.database("default")
    with count_statements("default", databases):
        assert database.listened() is (way == "listened")
        with databases.atomic():
            assert (databases.transaction(database).cursor is None) is (way == "listened")
    assert database.listened() is (way == "listened")
    with databases.atomic():
        assert (databases.transaction(database).cursor is None) is (way == "listened")


@MEMORY
def test_a_count_outlives_the_databases_it_counts(url):
    databases = Databases({"default": url})
    with count_statements("default", databases) as counted:
        databases.close()
    assert counted.count == 0
    databases.configure(url)
    with databases, databases.connection() as connection:
        with count_statements("default", databases) as again:
            connection.execute(text("SELECT 1"))
    assert again.count == 1


@MEMORY
def test_without_databases_the_default_ones_are_counted():
    default_databases.configure("sqlite://")
    try:
        with count_statements() as counted, default_databases.connection() as connection:
            connection.execute(text("SELECT 1"))
        assert isinstance(counted, Statements)
        assert counted.statements == ["SELECT 1"]
    finally:
        default_databases.close()


# Refusing lazy loads


@pytest.fixture
def lazy(Book):
    """A book whose pages would be loaded lazily."""
    Book(title="x", pages=7).save()
    return Book.objects.only("title").get()


@MEMORY
def test_no_lazy_load_happens_inside_and_any_may_after(lazy, wire):
    with wire.record() as sent:
        with no_lazy_loads(), no_lazy_loads():
            pass
        with pytest.raises(LazyLoadError) as caught, no_lazy_loads():
            with no_lazy_loads():
                pass
            assert lazy.pages
    assert sent == []
    assert str(caught.value) == f"Book.pages of Book(id={lazy.id}) is not loaded, and no_lazy_loads() is on"
    assert lazy.pages == 7


@MEMORY
def test_what_a_write_loads_is_no_lazy_load(Book, lazy, registry, stored):
    registry.create_all("other")
    with no_lazy_loads():
        lazy.refresh_from_db()
        lazy.save(using="other")
    assert stored(Book, alias="other") == stored(Book)


@MEMORY
def test_a_function_can_be_decorated(lazy):
    @no_lazy_loads()
    def read() -> Any:
        return lazy.pages

    for _ in range(2):
        with pytest.raises(LazyLoadError):
            read()
    assert lazy.pages == 7


@MEMORY
@pytest.mark.sync_only("calls without await, on a loop of its own")
def test_other_threads_and_tasks_are_let_alone(Book, lazy):
    other = Book.objects.only("title").get()
    with no_lazy_loads():
        contextvars.Context().run(lambda: lazy.pages)
        in_thread(lambda: other.tags)

    async def refuse(inside: asyncio.Event, done: asyncio.Event) -> None:
        with no_lazy_loads():
            inside.set()
            await done.wait()
            with pytest.raises(LazyLoadError):
                assert other.pages

    async def main() -> None:
        inside, done = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(refuse(inside, done))
        await inside.wait()
        assert other.price is None
        done.set()
        await task

    asyncio.run(main())


@MEMORY
def test_blocks_and_using_go_on_inside(Book, databases):
    with no_lazy_loads(), databases.using("default"), databases.atomic():
        with no_lazy_loads():
            Book(title="x").save()
        assert Book.objects.get(title="x").pages == 0


def test_a_related_object_is_a_lazy_load(registry, Base, wire):
    class Author(Base):
        name: Field[str] = field(max_length=20)
        stories: Related["Story"] = related("author")

    class Story(Base):
        title: Field[str]
        author: ForeignKey[Author] = foreign_key()

    registry.create_all("default")
    Story(title="t", author=Author(name="a").save()).save()
    story = Story.objects.get()
    with no_lazy_loads():
        with wire.record() as sent, pytest.raises(LazyLoadError, match=r"Story\.author of Story\(id=\d+\)"):
            assert story.author
        assert sent == []
        assert story.author_id is not None
    with count_statements("default", registry.databases) as counted:
        assert story.author.name == "a"
    assert counted.count == 1
    with no_lazy_loads():
        assert story.author.name == "a"
        with pytest.raises(LazyLoadError, match=r"Story\.author_id"):
            assert Story.objects.defer("author").get().author_id
    with no_lazy_loads():
        author = Author.objects.get()
        for ask in (lambda: author.stories.all(), lambda: list(author.stories), author.stories.count):
            with (
                wire.record() as sent,
                pytest.raises(LazyLoadError, match=r"Author\.stories of Author\(id=\d+\)"),
            ):
                ask()
            assert sent == []
        with pytest.raises(LazyLoadError):
            author.stories.exists()
        assert [each.title for each in author.stories.limit(1)] == ["t"]
        assert author.stories.filter(title="x").count() == 0
    assert author.stories.count() == 1
    late = Story.objects.defer("author").order_by("id").first()
    assert (late.author.name, late.changes()) == ("a", {})
    assert issubclass(Story, Model)
    assert isinstance(registry, Registry)
