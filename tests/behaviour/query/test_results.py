"""The ends of a query that give instances, on every database."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import asc, bindparam, func, or_

from microorm import Field, ForeignKey, InvalidValue, Model, field, foreign_key
from microorm.errors import MultipleObjectsReturned, ObjectDoesNotExist
from microorm.query import results
from microorm.sql.batches import MAX_PARAMETERS
from tests.behaviour.shelves import titles

MEMORY = pytest.mark.backends("sqlite-memory")


def test_an_index_gives_an_instance(Book, shelf, wire):
    """One row is fetched; IndexError where there is none."""
    with wire.record() as sent:
        assert shelf[3].title == "d"
    assert len(sent) == 1
    assert shelf[1:][1].title == "c"
    for query, index in ((shelf, 5), (shelf[1:3], 2), (shelf.limit(0), 0)):
        with pytest.raises(IndexError, match=rf"^the query has no row {index}$"):
            query[index]


def test_get_gives_the_one(Book, shelf, wire):
    """By key, equality, expression, on a filtered query; one statement each."""
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
    """None, or more than one; the model's own errors."""
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
    """In the query's order, else in the key's; None where there is none."""
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
    """The errors name what to call; `list` works all the same."""
    with pytest.raises(TypeError, match=r"^a query has no truth value; use exists\(\)$"):
        bool(shelf)
    with pytest.raises(TypeError, match=r"^a query has no length; use count\(\)$"):
        len(shelf)
    assert titles(list(shelf)) == titles(tuple(shelf)) == "abcde"
    first, *rest = shelf
    assert first in list(shelf)
    assert len(rest) == 4


@MEMORY
def test_iteration_goes_through_a_fixed_list(Book, shelf):
    """Deleting while going through is safe."""
    for book in shelf:
        book.delete()
    assert Book.objects.count() == 0


@MEMORY
def test_what_was_asked_is_told_with_its_values(Book):
    """Of expressions too."""
    with pytest.raises(Book.DoesNotExist) as raised:
        Book.objects.get(Book.pages > 5, Book.price.is_(None), Book.title.in_(["x", "y"]), title="z")
    assert str(raised.value) == (
        "no Book with title='z', book.pages > :pages_1 ({'pages_1': 5}), book.price IS NULL, "
        "book.title IN (__[POSTCOMPILE_title_1]) ({'title_1': ['x', 'y']}) in 'default'"
    )


def test_last_is_first_the_other_way_around(Book, shelf, wire):
    """In the query's order, else in the key's, of the part of a sliced query; one statement."""
    with wire.record() as sent:
        assert Book.objects.last().title == "e"
        assert Book.objects.order_by(Book.title.desc()).last().title == "a"
        assert Book.objects.order_by(asc("title")).last().title == "e"
        assert Book.objects.order_by(Book.pages % 2, Book.title.desc()).last().title == "a"
        assert Book.objects.order_by(func.lower(Book.title).desc(), "id").last().title == "a"
        assert shelf.filter(Book.pages < 3).last().title == "b"
        assert shelf[1:3].last().title == "c"
        assert shelf[2:].last().title == "e"
        assert Book.objects.limit(2).order_by(Book.title.desc()).last().title == "d"
        assert shelf.distinct().last().title == "e"
    assert len(sent) == 10
    assert shelf.filter(title="z").last() is None
    assert shelf.limit(0).last() is None
    assert shelf[9:].last() is None


def test_last_leaves_nulls_where_the_database_has_them(Book, shelf, databases):
    """The order is turned around whole: what came first comes last."""
    by_price = Book.objects.order_by("price", "title")
    assert by_price.last() == by_price.all()[-1]
    falling = Book.objects.order_by(Book.price.desc(), Book.title.desc())
    assert falling.last() == falling.all()[-1] == by_price.first()
    if databases.database("default").dialect not in ("mysql", "mariadb"):
        for order in (
            Book.price.asc().nulls_first(),
            Book.price.desc().nulls_first(),
            Book.price.asc().nulls_last(),
            Book.price.nulls_last(),
        ):
            query = Book.objects.order_by(order, "title")
            assert query.last() == query.all()[-1]


def test_in_bulk_gives_instances_by_key(Book, shelf, wire):
    """Those that there are, each once, of those that the query finds; one statement."""
    a, b, *_, e = shelf
    with wire.record() as sent:
        assert Book.objects.in_bulk([a.id, e.id, 0, a.id]) == {a.id: a, e.id: e}
        assert shelf.filter(Book.pages > 1).in_bulk(key for key in (a.id, b.id)) == {b.id: b}
        assert list(shelf.in_bulk().values()) == shelf.all()
        assert list(shelf[1:2].in_bulk()) == [b.id]
    assert len(sent) == 5
    with wire.record() as sent:
        assert Book.objects.in_bulk([]) == {}
    assert sent == []
    for wrong in ("x", None, 1.5, (1,), [1]):
        with pytest.raises(InvalidValue, match=r"^Book\.id "):
            Book.objects.in_bulk([wrong])
    for strings in ("12", b"12"):
        with pytest.raises(TypeError, match=r"^in_bulk\(\) takes a list of keys, not "):
            Book.objects.in_bulk(strings)
    for limited in (shelf[:2], shelf[2:], shelf.distinct()):
        with pytest.raises(TypeError, match=r"^in_bulk\(\) cannot look up keys in a query that is limited"):
            limited.in_bulk([a.id])


def test_in_bulk_takes_many_keys_in_parts(Book, wire, monkeypatch):
    """Several statements, none of which has more parameters than a database takes."""
    assert min(MAX_PARAMETERS.values()) > results.MAX_VALUES
    monkeypatch.setattr(results, "MAX_VALUES", 100)
    made = Book.objects.bulk_create([Book(title="x") for _ in range(250)])
    keys = [book.id for book in made]
    with wire.record() as sent:
        found = Book.objects.filter(Book.title == "x").in_bulk([*keys, *range(10**9, 10**9 + 250)])
    assert sorted(found) == sorted(keys)
    assert len(sent) == 5


def test_in_bulk_takes_composite_and_converted_keys(registry):
    """Composite ones as tuples; a UUID is a UUID."""

    class Pair(Model, registry=registry):
        left: Field[int] = field(primary_key=True)
        right: Field[UUID] = field(primary_key=True)

    class Token(Model[UUID], registry=registry):
        text: Field[str]

    registry.create_all("default")
    one, two = uuid4(), uuid4()
    pairs = [Pair(left=left, right=right).save() for left in (1, 2) for right in (one, two)]
    assert Pair.objects.in_bulk([(1, one), (2, two), (3, one)]) == {(1, one): pairs[0], (2, two): pairs[3]}
    assert len(Pair.objects.in_bulk()) == 4
    tokens = [Token(text=text).save() for text in "ab"]
    assert Token.objects.in_bulk([each.id for each in tokens]) == {each.id: each for each in tokens}
    for wrong in (1, (1,), ("a", one), (1, None)):
        with pytest.raises(InvalidValue, match=r"^Pair\."):
            Pair.objects.in_bulk([wrong])


def test_a_grouped_query_gives_no_instances(Book, shelf):
    """Its ends are `values` and `scalars`; nothing is sent."""
    grouped = Book.objects.group_by("pages")
    for name, end in {
        "all": grouped.all,
        "last": grouped.last,
        "iterate": grouped.iterate,
        "update": lambda: grouped.update(pages=1),
        "delete": grouped.delete,
        "aggregate": lambda: grouped.aggregate(n=func.count()),
    }.items():
        with pytest.raises(TypeError, match=rf"^{name}\(\) needs rows, and this query is grouped"):
            end()
    for end in (
        grouped.get,
        grouped.first,
        grouped.one_or_none,
        grouped.in_bulk,
        lambda: list(grouped),
        lambda: grouped[0],
        Book.objects.having(func.count() > 1).all,
    ):
        with pytest.raises(TypeError, match="this query is grouped"):
            end()


def test_a_parameter_that_stands_twice_is_no_shape_for_others(shelf: Any, Book: Any) -> None:
    """An expression that is used twice is one parameter in the SQL, and two expressions are two."""
    same = Book.pages == 3
    assert [book.title for book in Book.objects.filter(same, same)] == ["c"]
    assert Book.objects.filter(Book.pages == 1, Book.pages == 2).all() == []
    either = or_(same, Book.title == "a")
    assert len(Book.objects.filter(or_(either, either)).all()) == 2
    found = Book.objects.filter(
        or_(or_(Book.pages == 1, Book.title == "b"), or_(Book.pages == 4, Book.title == "e"))
    )
    assert [book.title for book in found.order_by("title")] == ["a", "b", "d", "e"]


def test_an_order_that_was_replaced_joins_nothing(Base: Any, registry: Any) -> None:
    class Author(Base):
        name: Field[str] = field(max_length=9)

    class Work(Base):
        title: Field[str] = field(max_length=9)
        author: ForeignKey[Author] = foreign_key(constraint=False)
        again: ForeignKey[Author] = foreign_key()

    registry.create_all("default")
    ursula = Author(name="a").save()
    Work(title="x", author=ursula, again=ursula).save()
    replaced = Work.objects.order_by(Work.again.name).order_by("title")
    assert "JOIN" not in str(replaced.statement)
    assert len(replaced.all()) == len(Work.objects.order_by("title").all()) == replaced.count() == 1


def test_a_value_that_is_to_stand_in_the_sql_is_left_to_sqlalchemy(shelf: Any, Book: Any) -> None:
    literal = bindparam(None, 3, type_=Book.pages.type, unique=True, literal_execute=True)
    assert [book.title for book in Book.objects.filter(Book.pages == literal)] == ["c"]
