"""`get_or_create` and `update_or_create`, also in many threads at once."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import UniqueConstraint
from sqlalchemy.exc import IntegrityError

from microorm import (
    AfterCommitError,
    Databases,
    Field,
    FieldError,
    ForeignKey,
    InvalidValue,
    Model,
    Registry,
    Related,
    TransactionError,
    field,
    foreign_key,
    related,
)
from microorm.signals import post_save, pre_save

MEMORY = pytest.mark.backends("sqlite-memory")
THREADS = 8


class Broken(Exception):
    """The error of failing receivers."""


@pytest.fixture
def Word(Base, registry):
    """A model with a generated key and a unique field."""

    class Word(Base):
        text: Field[str] = field(max_length=9, unique=True)
        code: Field[int | None] = field(default=None, unique=True)
        count: Field[int] = field(default=0)
        stamp: Field[int] = field(on_update=lambda: 5)

    registry.create_all("default")
    return Word


@pytest.fixture
def at_once() -> Iterator[Callable[..., list[Any]]]:
    """Return a function that runs another in many threads at once, and returns their results."""
    with ThreadPoolExecutor(THREADS) as pool:

        def at_once(function: Callable[[int], Any]) -> list[Any]:
            barrier = Barrier(THREADS)

            def run(number: int) -> Any:
                barrier.wait()
                return function(number)

            return list(pool.map(run, range(THREADS)))

        yield at_once


def test_a_row_is_got_or_else_created(Word, stored):
    """From the looked-up values and the defaults; callable defaults are called only for a new row."""
    calls = []

    def count() -> int:
        calls.append(1)
        return 3

    word, created = Word.objects.get_or_create(text="a", defaults={"count": count})
    assert (word.text, word.count, created, word.changes()) == ("a", 3, True, {})
    again, created = Word.objects.get_or_create({"count": count}, text="a")
    assert (again, created, calls) == (word, False, [1])
    assert stored(Word, "text", "count", "stamp") == [("a", 3, 5)]
    keyed, created = Word.objects.get_or_create(pk=70, defaults={"text": "b"})
    assert (keyed.id, created) == (70, True)
    assert Word.objects.get_or_create(id=70) == (keyed, False)
    assert Word.objects.filter(Word.count > 2).get_or_create({}, text="a") == (word, False)


def test_a_row_is_updated_or_else_created(Word, stored):
    """Expressions are computed by the database; `create_defaults` replace `defaults`."""
    word, created = Word.objects.update_or_create(text="a", defaults={"count": 1})
    assert (word.count, created) == (1, True)
    again, created = Word.objects.update_or_create({"count": Word.count + 1, "code": lambda: 4}, text="a")
    assert (again, again.count, again.code, again.changes(), created) == (word, 2, 4, {}, False)
    other, created = Word.objects.update_or_create(
        text="b", defaults={"count": Word.count + 1}, create_defaults={"code": 8}
    )
    assert (other.count, other.code, created) == (0, 8, True)
    assert Word.objects.update_or_create(text="b") == (other, False)
    assert sorted(stored(Word, "text", "count", "code")) == [("a", 2, 4), ("b", 0, 8)]


def test_a_row_is_looked_for_by_one_value_and_gets_another(Word, stored):
    """As in Django: a row that is there is renamed, a new one has the new name from the start."""
    word, created = Word.objects.update_or_create(text="a", defaults={"text": "b", "count": 1})
    assert (word.text, word.count, created) == ("b", 1, True)
    again, created = Word.objects.update_or_create(text="b", defaults={"text": "c"})
    assert (again, again.text, again.changes(), created) == (word, "c", {}, False)
    other, created = Word.objects.update_or_create(
        text="x", defaults={"text": "z"}, create_defaults={"text": "y"}
    )
    assert (other.text, created) == ("y", True)
    keyed, created = Word.objects.update_or_create(pk=70, create_defaults={"id": 71, "text": "k"})
    assert (keyed.id, created) == (71, True)
    assert sorted(stored(Word, "text")) == ["c", "k", "y"]


def test_a_rename_to_what_is_taken_is_the_error_of_the_database(Word, databases, stored):
    """Whether the row is there or is to be made; nothing is written, and the block around lives on."""
    Word(text="a").save()
    Word(text="b").save()
    with databases.atomic():
        for text in ("a", "x"):
            with pytest.raises(IntegrityError):
                Word.objects.update_or_create(text=text, defaults={"text": "b", "count": 5})
        Word(text="c").save()
    assert sorted(stored(Word, "text", "count")) == [("a", 0), ("b", 0), ("c", 0)]


def test_a_relation_is_looked_for_under_one_name_and_set_under_the_other(Base, registry, stored):
    class Author(Base):
        name: Field[str] = field(max_length=9)

    class Essay(Base):
        author: ForeignKey[Author] = foreign_key()

    class Pair(Base):
        left: Field[int] = field(primary_key=True)
        right: Field[int] = field(primary_key=True)

    registry.create_all("default")
    author, other = Author(name="a").save(), Author(name="b").save()
    essay, created = Essay.objects.update_or_create(author=author, defaults={"author_id": other.id})
    assert (essay.author, created) == (other, True)
    again, created = Essay.objects.update_or_create(author_id=other.id, defaults={"author": author})
    assert (again, again.author, created) == (essay, author, False)
    pair, created = Pair.objects.update_or_create(pk=(1, 2), create_defaults={"right": 3})
    assert (pair.pk, created) == ((1, 3), True)
    assert (stored(Essay, "author_id"), stored(Pair, "left", "right")) == ([author.id], [(1, 3)])


@pytest.mark.parametrize("inside", [False, True])
def test_of_many_that_get_or_create_at_once_one_creates(Word, databases, at_once, stored, inside):
    """There is no IntegrityError, and all get the same row."""

    def ask(number: int) -> list[tuple[int, bool]]:
        found = []
        for text in "abc":
            if inside:
                with databases.atomic():
                    word, created = Word.objects.get_or_create(text=text, defaults={"count": number})
            else:
                word, created = Word.objects.get_or_create(text=text, defaults={"count": number})
            found.append((word.id, created))
        return found

    answers = at_once(ask)
    for place in range(3):
        assert len({answer[place][0] for answer in answers}) == 1
        assert sum(answer[place][1] for answer in answers) == 1
    assert sorted(stored(Word, "text")) == ["a", "b", "c"]


def test_of_many_that_update_or_create_at_once_none_is_lost(Word, at_once, stored):
    """One creates the row, and each of the others updates the result of the one before."""

    def ask(number: int) -> list[bool]:
        created = []
        for text in "abc":
            created.append(Word.objects.update_or_create({"count": Word.count + 1}, {}, text=text)[1])
            word, _ = Word.objects.update_or_create({"code": lambda: None}, text=text)
            assert word.count < THREADS
        return created

    answers = at_once(ask)
    assert [sum(answer[place] for answer in answers) for place in range(3)] == [1, 1, 1]
    assert sorted(stored(Word, "text", "count")) == [(text, THREADS - 1) for text in "abc"]


def test_a_row_that_is_updated_is_locked_first(Word, at_once, databases, stored, listen):
    """A receiver never computes a value from a stale instance."""
    Word(text="a").save()

    def count(instance: Any, **kwargs: Any) -> None:
        before, _ = instance.changes()["count"]
        instance.count = before + 1

    listen(pre_save, count, sender=Word)
    for _ in range(3):
        at_once(lambda number: Word.objects.update_or_create({"count": -1}, text="a"))
    assert stored(Word, "count") == [3 * THREADS]


@pytest.mark.servers_only  # SQLite allows no other writer while a block is open
def test_the_guard_dooms_no_block_around(Word, databases, listen, stored):
    """If another insert was faster, its row is found, even in a transaction that began before it."""
    faster = Word(text="a")

    def overtake(**kwargs: Any) -> None:
        pre_save.disconnect(overtake, sender=Word)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(lambda: faster.save()).result()

    for method in ("get_or_create", "update_or_create"):
        with databases.atomic():
            assert Word.objects.filter(text="a").count() == 0
            listen(pre_save, overtake, sender=Word)
            word, created = getattr(Word.objects, method)(text="a", defaults={"count": 3})
            assert (word.id, created) == (faster.id, False)
            Word(text=method[:3]).save()
        faster.delete()
    assert sorted(stored(Word, "text")) == ["get", "upd"]


def test_an_error_of_another_reason_is_raised(Word, databases, stored):
    """For another unique field and for an invalid value; the open block stays usable."""
    Word(text="a", code=1).save()
    Word(text="b", code=2).save()
    with databases.atomic():
        for method in ("get_or_create", "update_or_create"):
            ask = getattr(Word.objects, method)
            with pytest.raises(IntegrityError):
                ask(text="c", defaults={"code": 1})
            with pytest.raises(InvalidValue):
                ask(text="c", defaults={"count": "many"})
            with pytest.raises(InvalidValue):
                ask(text="x" * 10)
        with pytest.raises(IntegrityError):
            Word.objects.update_or_create(text="b", defaults={"code": 1})
        Word(text="d").save()
    assert stored(Word, "text", "code") == [("a", 1), ("b", 2), ("d", None)]


def test_an_error_in_a_receiver_undoes_all_of_it(Word, databases, listen, stored):
    """The signals are sent inside a block."""

    def fail(**kwargs: Any) -> None:
        raise Broken

    Word(text="a").save()
    listen(post_save, fail, sender=Word)
    with databases.atomic():
        for text in "ab":
            with pytest.raises(Broken):
                Word.objects.update_or_create(text=text, defaults={"count": 3})
        with pytest.raises(Broken):
            Word.objects.get_or_create(text="b")
        assert Word.objects.count() == 1
    assert stored(Word, "text", "count") == [("a", 0)]


@MEMORY
def test_the_signals_are_those_of_a_save(Word, listen):
    """For an existing row, `update_fields` holds the defaults and the `on_update` fields."""
    heard = []

    def hear(signal: Any, created: Any = None, *, update_fields: Any, using: str, **kwargs: Any) -> None:
        heard.append((signal, created, update_fields, using))

    listen(pre_save, hear, sender=Word)
    listen(post_save, hear, sender=Word)
    Word.objects.get_or_create(text="a")
    Word.objects.get_or_create(text="a")
    assert heard == [
        (pre_save, None, None, "default"),
        (post_save, True, None, "default"),
    ]
    heard.clear()
    Word.objects.update_or_create(text="a", defaults={"count": 3})
    names = frozenset({"count", "stamp"})
    assert heard == [
        (pre_save, None, names, "default"),
        (post_save, False, names, "default"),
    ]
    heard.clear()
    Word.objects.update_or_create(text="a")
    assert [each[2] for each in heard] == [frozenset({"stamp"})] * 2


@MEMORY
def test_no_defaults_and_nothing_that_fills_itself_save_nothing(Base, registry, listen):

    class Tag(Base):
        name: Field[str] = field(max_length=9, unique=True)

    registry.create_all("default")
    tag = Tag(name="a").save()
    heard = []
    listen(pre_save, lambda **kwargs: heard.append(1), sender=Tag)
    assert Tag.objects.update_or_create(name="a") == (tag, False)
    assert heard == []


@MEMORY
def test_reads_go_where_rows_are_written(url, other_url):
    """The replica, which may lack the row, is not read; the router is asked once."""
    asked = []

    class Replica:
        def db_for_read(self, model: Any, **hints: Any) -> str:
            asked.append("read")
            return "other"

        def db_for_write(self, model: Any, **hints: Any) -> str:
            asked.append("write")
            return "default"

    with Databases({"default": url, "other": other_url}, routers=[Replica()]) as databases:

        class Tag(Model, registry=Registry(databases)):
            name: Field[str] = field(max_length=9, unique=True)
            count: Field[int] = field(default=0)

        Tag.__schema__.registry.create_all()
        tag = Tag(name="a").save(using="default")
        asked.clear()
        assert Tag.objects.get_or_create(name="a") == (tag, False)
        assert asked == ["write"]
        assert Tag.objects.update_or_create(name="a", defaults={"count": 1}) == (tag, False)
        assert Tag.objects.get_or_create(name="b")[0]._state.db == "default"
        assert Tag.objects.using("other").get_or_create(name="b")[0]._state.db == "other"
        assert "read" not in asked


@MEMORY
def test_wrong_arguments_are_errors_whether_a_row_is_there_or_not(Word, wire, databases):
    """Nothing is written."""
    Word(text="a").save()
    with wire.record() as sent:
        for text in "ab":
            for ask in (Word.objects.get_or_create, Word.objects.update_or_create):
                with pytest.raises(FieldError, match="^Word has no field 'cuont'; nearest: 'count'$"):
                    ask(text=text, defaults={"cuont": 3})
                with pytest.raises(FieldError, match="^Word has no field 'txt'; nearest: 'text'$"):
                    ask(txt=text)
                with pytest.raises(TypeError, match="^defaults= must be a dictionary of values, not 3$"):
                    ask(3, text=text)
            with pytest.raises(TypeError, match=r"^Word\.text is asked for, and defaults= has it, too$"):
                Word.objects.get_or_create(text=text, defaults={"text": "c"})
            with pytest.raises(TypeError, match=r"^Word\.id is asked for, and defaults= has it, too$"):
                Word.objects.get_or_create(pk=3, defaults={"id": 4})
            with pytest.raises(FieldError, match="^Word has no field 'txet'; nearest: 'text'$"):
                Word.objects.update_or_create(text=text, create_defaults={"txet": "c"})
            with pytest.raises(TypeError, match="^create_defaults= must be a dictionary of values, not 3$"):
                Word.objects.update_or_create(text=text, create_defaults=3)
            for name in ("id", "pk"):
                with pytest.raises(FieldError, match="is the primary key, which an update does not change$"):
                    Word.objects.update_or_create(text=text, defaults={name: 3})
        for query in (Word.objects[:3], Word.objects.distinct()):
            for method in ("get_or_create", "update_or_create"):
                with pytest.raises(TypeError, match=f"^{method}\\(\\) cannot be used on a query"):
                    getattr(query, method)(text="b")
    assert sent == []
    Word(text="b", count=0).save()
    for ask in (Word.objects.get_or_create, Word.objects.update_or_create):
        with pytest.raises(Word.MultipleObjectsReturned):
            ask(count=0)


@MEMORY
def test_in_a_block_for_reading_a_row_is_got_and_none_created(Word, databases):
    word = Word(text="a").save()
    with databases.atomic(readonly=True):
        assert Word.objects.get_or_create(text="a") == (word, False)
        with pytest.raises(TransactionError, match="read-only"):
            Word.objects.get_or_create(text="b")


def test_relations_are_asked_for_and_set_by_instances(Base, registry, stored):
    """By both names of the relation, and from its other side."""

    class Author(Base):
        name: Field[str] = field(max_length=9)
        essays: Related["Essay"] = related("author")

    class Essay(Base, table_args=(UniqueConstraint("author_id", "title"),)):
        title: Field[str] = field(max_length=9)
        author: ForeignKey[Author] = foreign_key()
        editor: ForeignKey[Author | None] = foreign_key(default=None)

    registry.create_all("default")
    author, other = Author(name="a").save(), Author(name="b").save()
    essay, created = Essay.objects.get_or_create({"editor": other}, author=author, title="x")
    assert (essay.author, essay.editor, created) == (author, other, True)
    assert Essay.objects.get_or_create({"editor": author}, author_id=author.id, title="x") == (essay, False)
    again, created = Essay.objects.update_or_create({"editor": author}, author=author, title="x")
    assert (again, again.editor, created) == (essay, author, False)
    assert Essay.objects.update_or_create({"editor_id": None}, author=author, title="x") == (essay, False)
    assert stored(Essay, "author_id", "editor_id") == [(author.id, None)]
    mine, created = other.essays.get_or_create(title="x")
    assert (mine.author, created) == (other, True)
    assert other.essays.get_or_create(title="x") == (mine, False)
    assert other.essays.update_or_create({"editor": other}, title="x") == (mine, False)
    assert author.essays.get_or_create(title="x") == (essay, False)
    with pytest.raises(TypeError, match=r"^Essay\.author is asked for, and defaults= has it, too$"):
        Essay.objects.get_or_create({"author_id": 3}, author=author)


def test_an_error_after_the_commit_is_raised_and_nothing_is_saved_twice(Word, databases, listen, stored):
    """Its cause looks like the error of a lost race, but the row is there because this call has created it."""
    taken = Word(text="taken").save()
    saves = []

    def fail(instance: Any, created: bool, **kwargs: Any) -> None:
        saves.append((instance.text, created))
        if instance.text != "taken":
            Word(text=taken.text).save()

    listen(post_save, fail, sender=Word, delivery="on_commit")
    with pytest.raises(AfterCommitError) as caught:
        Word.objects.get_or_create(text="a")
    assert isinstance(caught.value.__cause__, IntegrityError)
    with pytest.raises(AfterCommitError):
        Word.objects.update_or_create(text="b", defaults={"count": 1})
    assert saves == [("a", True), ("b", True)]
    assert stored(Word, "text", "count") == [("taken", 0), ("a", 0), ("b", 1)]


@MEMORY
def test_a_new_instance_is_returned_whatever_an_overridden_save_returns(Base, registry):

    class Note(Base):
        text: Field[str] = field(max_length=9)

        def save(self, **options: Any) -> None:
            super().save(**options)

    registry.create_all("default")
    made = Note.objects.create(text="a")
    found, created = Note.objects.get_or_create(text="b")
    updated, _ = Note.objects.update_or_create(text="b", defaults={"text": "c"})
    assert (made.text, found.text, created, updated.text) == ("a", "b", True, "c")
