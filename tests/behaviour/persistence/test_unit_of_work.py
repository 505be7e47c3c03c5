"""Units of work: several writes happen together or not at all."""

import gc
from typing import Any

import pytest
from sqlalchemy import event

from microorm import Field, TransactionError, field
from microorm.db.atomic import unit_of_work
from microorm.mapping.state import keep_related, kept_related

MEMORY = pytest.mark.backends("sqlite-memory")


class Broken(Exception):
    """The error that ends a unit."""


@pytest.fixture(name="Word")
def word_model(Base: Any, registry: Any) -> Any:
    class Word(Base):
        text: Field[str] = field(max_length=20)

    registry.create_all()
    return Word


def test_a_unit_alone_is_a_transaction(Word, databases, stored):
    with unit_of_work(databases, databases.database("default")):
        Word(text="a").save()
        Word(text="b").save()
    with pytest.raises(Broken), unit_of_work(databases, databases.database("default")):
        Word(text="c").save()
        raise Broken
    assert stored(Word, "text") == ["a", "b"]


@MEMORY
def test_a_unit_in_a_block_dooms_it_once_it_is_dirty(Word, databases, stored):
    database = databases.database("default")
    with databases.atomic():
        with pytest.raises(Broken), unit_of_work(databases, database):
            raise Broken
        Word(text="a").save()
    with pytest.raises(TransactionError), databases.atomic():
        with pytest.raises(Broken), unit_of_work(databases, database) as whole:
            whole.dirty = True
            raise Broken
        with pytest.raises(TransactionError, match="is doomed"):
            whole.check()
    assert stored(Word, "text") == ["a"]


@MEMORY
def test_what_a_unit_changed_in_instances_is_put_back(Word, databases, undone):
    database = databases.database("default")
    word = Word(text="a")
    keep_related(word, "known", (1, [1]))

    def change(whole: Any) -> None:
        whole.change(word, {"text": "b"})
        whole.change(word, {"text": "c", "new": 1})
        whole.forget(word, ["known", "unknown"])
        assert (word.text, word.new, kept_related(word, "known")) == ("c", 1, None)

    with pytest.raises(Broken), unit_of_work(databases, database) as whole:
        change(whole)
        raise Broken
    assert (word.text, hasattr(word, "new"), kept_related(word, "known")) == ("a", False, (1, [1]))
    with undone(), unit_of_work(databases, database) as whole:
        change(whole)
    assert (word.text, hasattr(word, "new"), kept_related(word, "known")) == ("a", False, (1, [1]))
    with unit_of_work(databases, database) as whole:
        change(whole)
    assert (word.text, word.new, kept_related(word, "known")) == ("c", 1, None)


@pytest.mark.sync_only("an interrupt inside a task ends its event loop")
def test_an_interrupted_commit_leaves_no_transaction_open_on_the_connection(Book, shelf, databases, stored):
    """The next block would commit what was rolled back, or could not begin."""
    engine = databases.engine()

    def interrupt(connection: Any) -> None:
        raise KeyboardInterrupt

    try:
        with pytest.raises(KeyboardInterrupt), databases.atomic():
            event.listen(engine, "commit", interrupt)  # after BEGIN, so that the connection will be kept
            shelf.update(pages=Book.pages + 10)
    finally:
        event.remove(engine, "commit", interrupt)
    for _ in range(2):
        with databases.atomic():
            Book.objects.filter(title="a").update(price=7)
    assert stored(Book, "pages") == [1, 2, 3, 4, 5]
    assert stored(Book, "price")[0] == 7


@pytest.mark.sync_only("only an event loop can close a connection of its own, the garbage collector cannot")
def test_an_idle_connection_that_an_interrupt_has_lost_can_be_used_again(Word, databases, stored):
    """It returns to the pool as it was, in autocommit on a server."""
    Word(text="a").save()
    lost = databases.database("default").idle_connections.take()
    del lost
    gc.collect()
    for text in ("b", "c"):
        with databases.atomic():
            Word(text=text).save()
        Word(text=text * 2).save()
    assert stored(Word, "text") == ["a", "b", "bb", "c", "cc"]
