"""The SQL of a save in each case, on every database and channel.

Each case is tried four times: with and without receivers, inside a block and outside. The SQL is always the same.
"""

from contextlib import nullcontext
from itertools import count, product
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from microorm import Field, FieldError, Model, UnsavedError, field
from microorm.signals import post_save, pre_save

INSERT, UPDATE, SELECT = "INSERT", "UPDATE", "SELECT"


class Trial:
    """Save instances in the four circumstances, and compare the results."""

    def __init__(self, databases: Any, wire: Any) -> None:
        self.databases = databases
        self.wire = wire

    def expect(self, make: Any, verbs: list[str], end: Any, **flags: Any) -> None:
        """Check that `make().save(**flags)` sends *verbs*; *end* is `created`, or the class of the error."""
        for told, inside in product((False, True), repeat=2):
            instance = make()
            heard: list[Any] = []

            def hear(
                signal: Any, created: bool | None = None, heard: list[Any] = heard, **kwargs: Any
            ) -> None:
                heard.append("before" if created is None else created)

            if told:
                pre_save.connect(hear, sender=type(instance), weak=False)
                post_save.connect(hear, sender=type(instance), weak=False)
            try:
                with self.wire.record() as sent, self.databases.atomic() if inside else nullcontext():
                    assert instance.save(**flags) is instance
                ended = None
            except Exception as error:  # noqa: BLE001 compared below
                ended = type(error)
            finally:
                pre_save.disconnect(hear, sender=type(instance))
                post_save.disconnect(hear, sender=type(instance))
            where = f"told={told} inside={inside}"
            assert [text.split()[0] for text in sent] == verbs, where
            if isinstance(end, bool):
                assert ended is None, where
                assert heard == (["before", end] if told else []), where
                assert instance._state.adding is False, where
                assert instance._state.db == "default", where
            else:
                assert ended is end, where
                assert heard == (["before"] if told and verbs else []), where


@pytest.fixture
def trial(databases, wire):
    return Trial(databases, wire)


@pytest.fixture
def models(registry):
    """`Book`: a generated key; `Token`: a key with a default; `Code`: a natural key; `Pair`: a composite key."""

    class Book(Model, registry=registry):
        title: Field[str]
        pages: Field[int] = field(default=1)

    class Token(Model[UUID], registry=registry):
        title: Field[str]

    class Code(Model, registry=registry):
        code: Field[str] = field(primary_key=True, max_length=40)
        title: Field[str] = field(default="")

    class Pair(Model, registry=registry):
        left: Field[int] = field(primary_key=True)
        right: Field[str] = field(primary_key=True, max_length=40)
        title: Field[str] = field(default="")

    registry.create_all("default")
    return {model.__name__: model for model in (Book, Token, Code, Pair)}


def with_key(instance: Any, key: Any) -> Any:
    instance.id = key
    return instance


@pytest.fixture
def numbers():
    """Keys that are not used yet."""
    return count(1000)


def test_without_a_key_it_inserts(trial, models):
    """And sets the key."""
    Book = models["Book"]
    trial.expect(lambda: Book(title="x"), [INSERT], True)
    assert Book.objects.count() == 4


def test_a_key_set_by_hand_updates_its_row_or_else_inserts_it(trial, models, numbers):
    """For generated, natural and composite keys; by two statements, never by an upsert."""
    Book, Code, Pair = models["Book"], models["Code"], models["Pair"]
    book = Book(title="x").save()
    Code(code="a").save()
    Pair(left=1, right="a").save()
    trial.expect(lambda: with_key(Book(title="y"), book.id), [UPDATE], False)
    trial.expect(lambda: with_key(Book(title="y"), next(numbers)), [UPDATE, INSERT], True)
    trial.expect(lambda: Code(code="a", title="y"), [UPDATE], False)
    trial.expect(lambda: Code(code=str(uuid4()), title="y"), [UPDATE, INSERT], True)
    trial.expect(lambda: Pair(left=1, right="a", title="y"), [UPDATE], False)
    trial.expect(lambda: Pair(left=1, right=str(uuid4()), title="y"), [UPDATE, INSERT], True)
    assert [each.title for each in (Book.objects.get(id=book.id), Code.objects.get(code="a"))] == ["y", "y"]
    assert Pair.objects.get(pk=(1, "a")).title == "y"


def test_a_loaded_row_is_updated_and_one_that_went_away_inserted_again(trial, models):
    """`created` reports what was done."""
    Book = models["Book"]
    book = Book(title="x").save()

    def gone():
        instance = Book(title="x").save()
        Book.objects.filter(id=instance.id).delete()
        return instance

    trial.expect(lambda: Book.objects.get(id=book.id), [UPDATE], False)
    trial.expect(gone, [UPDATE, INSERT], True)


def test_a_loaded_instance_with_another_key_is_another_row(trial, models, numbers):
    """The new key counts; the old row stays."""
    Book = models["Book"]
    book, other = Book(title="x").save(), Book(title="z").save()
    trial.expect(lambda: with_key(Book.objects.get(id=book.id), next(numbers)), [UPDATE, INSERT], True)
    trial.expect(lambda: with_key(Book.objects.get(id=book.id), other.id), [UPDATE], False)
    assert Book.objects.get(id=book.id).title == "x"
    assert Book.objects.get(id=other.id).title == "x"


def test_a_key_with_a_default_inserts_only(trial, models):
    """A duplicate is an IntegrityError, and the row is not overwritten; a loaded instance is updated."""
    Token = models["Token"]
    token = Token(title="x").save()
    trial.expect(lambda: Token(title="y"), [INSERT], True)
    trial.expect(lambda: with_key(Token(title="y"), token.id), [INSERT], IntegrityError)
    trial.expect(lambda: Token.objects.get(id=token.id), [UPDATE], False)
    assert Token.objects.get(id=token.id).title == "x"


def test_force_insert_inserts_only(trial, models, numbers):
    Book = models["Book"]
    book = Book(title="x").save()
    trial.expect(lambda: Book(title="y"), [INSERT], True, force_insert=True)
    trial.expect(lambda: with_key(Book(title="y"), next(numbers)), [INSERT], True, force_insert=True)
    trial.expect(lambda: with_key(Book(title="y"), book.id), [INSERT], IntegrityError, force_insert=True)
    trial.expect(lambda: Book.objects.get(id=book.id), [INSERT], IntegrityError, force_insert=True)


def test_force_update_updates_or_fails(trial, models, numbers):
    """Also for a new instance whose key has a default."""
    Book, Token = models["Book"], models["Token"]
    book, token = Book(title="x").save(), Token(title="x").save()
    trial.expect(lambda: with_key(Book(title="y"), book.id), [UPDATE], False, force_update=True)
    trial.expect(
        lambda: with_key(Book(title="y"), next(numbers)), [UPDATE], Book.NotUpdated, force_update=True
    )
    trial.expect(lambda: with_key(Token(title="y"), token.id), [UPDATE], False, force_update=True)
    trial.expect(lambda: Token(title="y"), [UPDATE], Token.NotUpdated, force_update=True)


@pytest.mark.backends("sqlite-memory")
def test_an_update_without_a_key_is_refused_before_anything(trial, models):
    """No signal and no SQL."""
    Book, Pair = models["Book"], models["Pair"]
    trial.expect(lambda: Book(title="x"), [], UnsavedError, force_update=True)
    trial.expect(lambda: Book(title="x"), [], UnsavedError, update_fields=["title"])
    trial.expect(lambda: Pair(left=1, right=None), [], UnsavedError, force_update=True)
    with pytest.raises(UnsavedError, match=r"^Book has no key yet, and an update needs one$"):
        Book(title="x").save(force_update=True)


def test_update_fields_updates_these_and_nothing_else(trial, models, numbers):
    """Other columns of the row stay; alone or with force_update."""
    Book = models["Book"]
    book = Book(title="x", pages=7).save()

    def changed():
        instance = Book.objects.get(id=book.id)
        instance.title, instance.pages = "y", 8
        return instance

    trial.expect(changed, [UPDATE], False, update_fields=["title"])
    trial.expect(changed, [UPDATE], False, update_fields={"title"}, force_update=True)
    row = Book.objects.get(id=book.id)
    assert (row.title, row.pages) == ("y", 7)
    absent = next(numbers)
    trial.expect(
        lambda: with_key(Book(title="y"), absent), [UPDATE], Book.NotUpdated, update_fields=["title"]
    )
    with pytest.raises(Book.NotUpdated, match=rf"^Book with id={absent} is not in 'default'$"):
        with_key(Book(title="y"), absent).save(update_fields=["title"])
    with pytest.raises(models["Pair"].NotUpdated, match=r"^Pair with left=3, right='x' is not in 'default'$"):
        models["Pair"](left=3, right="x").save(update_fields=["title"])


@pytest.mark.backends("sqlite-memory")
@pytest.mark.parametrize("empty", [[], (), set(), frozenset(), "generator"])
def test_no_update_fields_do_nothing(models, wire, listen, empty):
    """No SQL, no signal, no change of state; the instance is returned."""
    heard: list[Any] = []
    listen(pre_save, lambda **kwargs: heard.append(kwargs), sender=models["Book"])
    book = models["Book"](title="x")
    with wire.record() as sent:
        assert book.save(update_fields=iter(()) if empty == "generator" else empty) is book
    assert (sent, heard, book._state.adding, book._state.db) == ([], [], True, None)


@pytest.mark.backends("sqlite-memory")
def test_contradicting_flags_are_refused_before_anything(trial, models):
    """An empty update_fields contradicts force_insert, too."""
    Book = models["Book"]
    book = Book(title="x").save()
    for flags in (
        {"force_insert": True, "force_update": True},
        {"force_insert": True, "update_fields": ["title"]},
        {"force_insert": True, "update_fields": []},
    ):
        trial.expect(lambda: Book.objects.get(id=book.id), [], ValueError, **flags)


@pytest.mark.backends("sqlite-memory")
def test_what_is_no_plain_field_is_refused_in_update_fields(trial, models):
    """An unknown name, the key, a column of another model."""
    Book, Code = models["Book"], models["Code"]
    book = Book(title="x").save()
    for names in (["titel"], ["pk"], ["id"], [Book.id], [Code.title], [None], ["title", "titel"], [3]):
        trial.expect(lambda: book, [], FieldError, update_fields=names)


def test_raw_tries_the_row_first_although_the_key_has_a_default(trial, models):
    Token = models["Token"]
    token = Token(title="x").save()
    trial.expect(lambda: with_key(Token(title="y"), token.id), [UPDATE], False, raw=True)
    trial.expect(lambda: Token(title="y"), [UPDATE, INSERT], True, raw=True)
    trial.expect(lambda: Token(title="y"), [INSERT], True, raw=True, force_insert=True)


def test_a_model_that_is_all_key_is_looked_for_and_else_inserted(trial, registry, numbers):
    """There are no columns to update."""

    class Number(Model, registry=registry):
        pass

    class Link(Model, registry=registry):
        left: Field[int] = field(primary_key=True)
        right: Field[int] = field(primary_key=True)

    registry.create_all("default")
    number = Number().save()
    Link(left=1, right=1).save()
    trial.expect(Number, [INSERT], True)
    trial.expect(lambda: with_key(Number(), number.id), [SELECT], False)
    trial.expect(lambda: with_key(Number(), next(numbers)), [SELECT, INSERT], True)
    trial.expect(lambda: with_key(Number(), number.id), [SELECT], False, force_update=True)
    trial.expect(lambda: with_key(Number(), next(numbers)), [SELECT], Number.NotUpdated, force_update=True)
    trial.expect(lambda: Link(left=1, right=1), [SELECT], False)
    trial.expect(lambda: Link(left=1, right=next(numbers)), [SELECT, INSERT], True)


def test_a_key_that_the_database_makes_by_its_default_is_read_back(trial, registry, backend, stored):
    """A server default may generate a key of any type."""
    default = {"postgresql": "(gen_random_uuid()::text)", "mariadb": "(uuid())"}.get(
        backend, "(lower(hex(randomblob(16))))"
    )

    class Ticket(Model, registry=registry):
        code: Field[str] = field(primary_key=True, max_length=40, server_default=text(default))
        title: Field[str]

    registry.create_all("default")
    trial.expect(lambda: Ticket(title="x"), [INSERT], True)
    ticket = Ticket(title="y").save()
    assert ticket.code in stored(Ticket, "code")
    trial.expect(lambda: Ticket.objects.get(code=ticket.code), [UPDATE], False)
