"""The ends of a query that give instances, on every database (DESIGN 6)."""

import pytest

from microorm.errors import MultipleObjectsReturned, ObjectDoesNotExist
from tests.behaviour.shelves import titles

MEMORY = pytest.mark.backends("sqlite-memory")


def test_an_index_gives_an_instance(Book, shelf, wire):
    """DESIGN 6: one row is fetched; IndexError where there is none."""
    with wire.record() as sent:
        assert shelf[3].title == "d"
    assert len(sent) == 1
    assert shelf[1:][1].title == "c"
    for query, index in ((shelf, 5), (shelf[1:3], 2), (shelf.limit(0), 0)):
        with pytest.raises(IndexError, match=rf"^the query has no row {index}$"):
            query[index]


def test_get_gives_the_one(Book, shelf, wire):
    """DESIGN 6: by key, equality, expression, on a filtered query; one statement each."""
    book = shelf[0]
    with wire.record() as sent:
        assert Book.objects.get(pk=book.id) == book
        assert Book.objects.get(id=book.id) == book
        assert Book.objects.get(title="a", pages=1) == book
        assert Book.objects.get(Book.pages < 2) == book
        assert Book.objects.filter(title="a").get() == book
        assert shelf.get(Book.pages < 2, title="a") == book
        assert Book.objects.filter(Book.pages < 3).get(price=None) == book
        assert shelf[2:3].get().title == "c"
        assert shelf[:1].get().title == "a"
    assert [each.split()[0] for each in sent] == ["SELECT"] * 9
    assert vars(Book.objects.get(pk=book.id)) == vars(book)


def test_get_says_what_it_did_not_find(Book, shelf):
    """DESIGN 6: none, or more than one; the model's own errors."""
    for call, message in (
        (lambda: Book.objects.get(id=0), "no Book with id=0 in 'default'"),
        (lambda: Book.objects.get(title="z", pages=9), "no Book with title='z', pages=9 in 'default'"),
        (lambda: Book.objects.get(Book.pages > 9), "no Book with book.pages > :pages_1 ({'pages_1': 9}) in"),
        (
            lambda: Book.objects.filter(title="z").get(price=None),
            "no Book with title='z', book.price IS NULL",
        ),
        (lambda: shelf[7:].get(), "no Book in 'default'"),
        (
            lambda: Book.objects.filter(id=0).delete() and Book.objects.using("default").get(pk=-1),
            "no Book with",
        ),
    ):
        with pytest.raises(Book.DoesNotExist) as raised:
            call()
        assert str(raised.value).startswith(message)
        assert isinstance(raised.value, ObjectDoesNotExist)
    for call, message in (
        (lambda: Book.objects.get(price=None), "more than one Book with book.price IS NULL in 'default'"),
        (Book.objects.get, "more than one Book in 'default'"),
        (Book.objects.one_or_none, "more than one Book in 'default'"),
        (lambda: shelf[1:3].get(), "more than one Book in 'default'"),
        (lambda: Book.objects.filter(Book.pages > 1).one_or_none(), "more than one Book with book.pages > "),
    ):
        with pytest.raises(Book.MultipleObjectsReturned) as raised:
            call()
        assert str(raised.value).startswith(message)
        assert isinstance(raised.value, MultipleObjectsReturned)


def test_first_and_one_or_none(Book, shelf):
    """DESIGN 6: in the query's order, else in the key's; None where there is none."""
    assert Book.objects.first().title == "a"
    assert Book.objects.order_by(Book.title.desc()).first().title == "e"
    assert shelf[2:].first().title == "c"
    assert shelf.limit(3).first().title == "a"
    assert shelf.limit(0).first() is None
    assert Book.objects.filter(title="z").first() is None
    assert Book.objects.filter(title="b").one_or_none().title == "b"
    assert Book.objects.filter(title="z").one_or_none() is None
    assert Book.objects.filter(Book.pages > 9).one_or_none() is None
    assert shelf.limit(1).one_or_none().title == "a"
    assert shelf.limit(0).one_or_none() is None


@MEMORY
def test_a_query_has_neither_truth_nor_length(Book, shelf):
    """DESIGN 6: the errors name what to call; `list` and `in` work all the same."""
    with pytest.raises(TypeError, match=r"^a query has no truth value; exists\(\) asks the database$"):
        bool(shelf)
    with pytest.raises(TypeError, match=r"^a query has no length; count\(\) asks the database$"):
        len(shelf)
    assert titles(list(shelf)) == titles(tuple(shelf)) == "abcde"
    first, *rest = shelf
    assert first in shelf
    assert len(rest) == 4


@MEMORY
def test_iteration_goes_through_a_fixed_list(Book, shelf):
    """DESIGN 6: deleting while going through is safe."""
    for book in shelf:
        book.delete()
    assert Book.objects.count() == 0


@MEMORY
def test_what_was_asked_is_told_with_its_values(Book):
    """DESIGN 6: of expressions too."""
    with pytest.raises(Book.DoesNotExist) as raised:
        Book.objects.get(Book.pages > 5, Book.price.is_(None), Book.title.in_(["x", "y"]), title="z")
    assert str(raised.value) == (
        "no Book with title='z', book.pages > :pages_1 ({'pages_1': 5}), book.price IS NULL, "
        "book.title IN (__[POSTCOMPILE_title_1]) ({'title_1': ['x', 'y']}) in 'default'"
    )
