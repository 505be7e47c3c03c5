"""One statement for many rows, and who is told of it (DESIGN 6, CONTRACT M1)."""

from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from microorm import FieldError, InvalidValue, TransactionError
from microorm.signals import post_update, pre_update

MEMORY = pytest.mark.backends("sqlite-memory")


class Broken(Exception):
    """What the failing receivers raise."""


def test_update_sets_values_and_expressions_in_all_rows_of_the_query(Book, shelf, wire, stored):
    """DESIGN 6, M1: one statement; the number of rows, changed or not."""
    with wire.record() as sent:
        assert Book.objects.filter(Book.pages > 3).update(title="z", price=None) == 2
        assert Book.objects.filter(title="z").update(title="z") == 2
        assert Book.objects.exclude(price=None).update(pages=Book.pages * 10, tags=["t"]) == 2
        assert Book.objects.filter(title="nobody").update(pages=0) == 0
        assert Book.objects.order_by("title").update(price=Decimal("1.5")) == 5
    assert [each.split()[0] for each in sent] == ["UPDATE"] * 5
    assert stored(Book, "title", "pages") == [("a", 1), ("b", 20), ("c", 30), ("z", 4), ("z", 5)]
    assert Book.objects.get(title="b").tags == ["t"]


@MEMORY
def test_update_refuses_what_it_cannot_do(Book, wire):
    """DESIGN 6: before anything is sent."""
    with wire.everything() as sent:
        for query in (Book.objects[:1], Book.objects[1:], Book.objects.limit(3), Book.objects.distinct()):
            for method, end in (("update", lambda q: q.update(pages=1)), ("delete", lambda q: q.delete())):
                with pytest.raises(TypeError) as raised:
                    end(query)
                assert str(raised.value) == (
                    f"{method}() is for whole queries, and this one is limited or distinct"
                )
        with pytest.raises(TypeError, match=r"^update\(\) wants at least one value$"):
            Book.objects.update()
        with pytest.raises(InvalidValue) as wrong:
            Book.objects.update(pages="many", title=None, price=Decimal(1))
        assert set(wrong.value.problems) == {"pages", "title"}
        with pytest.raises(
            FieldError, match=r"^Book\.id is the primary key, which an update does not change$"
        ):
            Book.objects.update(id=3)
        with pytest.raises(FieldError, match="^Book has no field 'pk'"):
            Book.objects.update(pk=3)
    assert sent == []


@MEMORY
def test_an_update_of_many_tells_its_own_signals(Book, shelf, listen, databases):
    """DESIGN 6, M1: query, values, alias; after it, the count; all one transaction."""
    heard: list[dict[str, Any]] = []
    listen(pre_update, lambda **kwargs: heard.append(kwargs), sender=Book)
    listen(post_update, lambda **kwargs: heard.append(kwargs), sender=Book)
    query = Book.objects.filter(Book.pages > 3)
    assert query.update(pages=9) == 2
    told = {"sender": Book, "query": query, "values": {"pages": 9}, "using": "default"}
    assert heard == [{"signal": pre_update, **told}, {"signal": post_update, **told, "count": 2}]

    def fail(**kwargs):
        raise Broken

    for signal in (pre_update, post_update):
        listen(signal, fail, sender=Book)
        with pytest.raises(Broken):
            query.update(pages=10)
        with pytest.raises(TransactionError), databases.atomic(), pytest.raises(Broken):
            query.update(pages=10)
        signal.disconnect(fail, sender=Book)
    assert Book.objects.filter(pages=9).count() == 2


@MEMORY
def test_a_receiver_that_hides_an_error_updates_nothing(Book, shelf, listen, databases):
    """O5."""

    def hide(**kwargs):
        with pytest.raises(DBAPIError), databases.connection() as connection:
            connection.execute(text("SELECT * FROM nowhere"))

    told = []
    listen(pre_update, hide, sender=Book)
    listen(post_update, lambda **kwargs: told.append(1), sender=Book)
    with pytest.raises(TransactionError, match="is doomed"):
        Book.objects.update(pages=9)
    pre_update.disconnect(hide, sender=Book)
    listen(post_update, hide, sender=Book)
    with pytest.raises(TransactionError, match="was rolled back"):
        Book.objects.update(pages=9)
    assert (told, Book.objects.filter(pages=9).count()) == ([1], 0)


@MEMORY
def test_a_receiver_changes_neither_the_update_nor_what_others_are_told(Book, shelf, listen):
    """DESIGN 6, M1: the values told are a copy for each signal."""
    told = []

    def change(values, **kwargs):
        told.append(dict(values))
        values.clear()

    listen(pre_update, change, sender=Book)
    listen(post_update, change, sender=Book)
    assert Book.objects.filter(title="a").update(pages=9) == 1
    assert told == [{"pages": 9}] * 2
    assert Book.objects.get(title="a").pages == 9
