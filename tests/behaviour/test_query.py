"""How rows are read, and written where a condition names them (DESIGN 6, as far as it goes), on every database."""

from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Select, and_, func, or_, select
from sqlalchemy.exc import DBAPIError

from microorm import Field, InvalidValue, Model, UnknownAlias, field
from microorm.errors import MultipleObjectsReturned, ObjectDoesNotExist

MEMORY = pytest.mark.backends("sqlite-memory")


def titles(found: Any) -> str:
    return "".join(book.title for book in found)


def test_filter_takes_expressions_and_equalities_together(Book, shelf):
    """DESIGN 6: all of them must be true; None means NULL."""
    assert titles(shelf.filter(Book.pages > 2)) == "cde"
    assert titles(shelf.filter(Book.pages > 1, Book.pages < 5, price=Decimal(3))) == "c"
    assert titles(shelf.filter(Book.pages > 1).filter(Book.title < "e").filter(price=None)) == "d"
    assert titles(shelf.filter(price=None)) == "ad"
    assert titles(shelf.filter(or_(Book.title == "a", and_(Book.pages == 5, Book.price > 4)))) == "ae"
    assert titles(shelf.filter(title="a", pages=2)) == ""
    assert titles(shelf.filter(title="a").filter(title="b")) == ""
    assert titles(shelf.filter()) == "abcde"
    assert titles(shelf.filter(pages=Book.id)) == "abcde"
    assert titles(shelf.filter(Book.title.in_(["a", "e", "z"]))) == "ae"
    assert titles(shelf.filter(Book.id.in_(select(Book.id).where(Book.price > 2)))) == "ce"


def test_exclude_is_the_complement_of_filter(Book, shelf):
    """DESIGN 6: NULLs included; what filter leaves out is what exclude gives."""
    assert titles(shelf.exclude(Book.price > 2)) == "abd"
    assert titles(shelf.exclude(price=Decimal(2))) == "acde"
    assert titles(shelf.exclude(price=None)) == "bce"
    assert titles(shelf.exclude(Book.price > 2, title="c")) == "abde"
    assert titles(shelf.exclude(Book.price > 2).exclude(title="a")) == "bd"
    assert titles(shelf.filter(Book.pages > 1).exclude(Book.price > 2)) == "bd"
    assert titles(shelf.exclude()) == "abcde"


def test_order_is_as_asked_and_the_last_one_counts(Book, shelf):
    """DESIGN 6: names or columns, `.desc()`, several, expressions; none takes the order away."""
    assert titles(Book.objects.order_by("pages")) == "abcde"
    assert titles(Book.objects.order_by(Book.pages.desc())) == "edcba"
    assert titles(Book.objects.order_by("title").order_by(Book.pages.desc())) == "edcba"
    assert titles(Book.objects.order_by(Book.pages % 2, Book.title.desc())) == "dbeca"
    assert "ORDER BY" not in str(Book.objects.order_by("title").order_by().statement)


def test_slices_limits_and_offsets_compose(Book, shelf):
    """DESIGN 6: a slice of a slice counts within it; limit and offset replace the earlier ones."""
    assert titles(shelf[1:3]) == "bc"
    assert titles(shelf[2:]) == "cde"
    assert titles(shelf[:2]) == "ab"
    assert titles(shelf[:]) == "abcde"
    assert titles(shelf[1:4][1:]) == "cd"
    assert titles(shelf[1:4][1:2]) == "c"
    assert titles(shelf[1:4][:99]) == "bcd"
    assert titles(shelf[1:4][5:9]) == ""
    assert titles(shelf[3:1]) == ""
    assert titles(shelf[1:][1:][1:]) == "de"
    assert titles(shelf[:0]) == ""
    assert titles(shelf.limit(2)) == "ab"
    assert titles(shelf.limit(2).limit(4)) == "abcd"
    assert titles(shelf.offset(3)) == "de"
    assert titles(shelf.offset(3).offset(1)) == "bcde"
    assert titles(shelf.offset(1).limit(2)) == "bc"
    assert titles(shelf.limit(3)[1:]) == "bc"
    assert titles(shelf.offset(1)[1:3]) == "cd"
    assert titles(shelf.limit(0)) == ""


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


def test_count_and_exists_see_what_all_would_give(Book, shelf, wire):
    """DESIGN 6: limits and slices included; one statement, no row is fetched."""
    with wire.record() as sent:
        assert [shelf.count(), shelf.filter(price=None).count(), shelf.filter(Book.pages > 9).count()] == [
            5,
            2,
            0,
        ]
        assert [shelf[1:3].count(), shelf[4:].count(), shelf.limit(2).count(), shelf.offset(9).count()] == [
            2,
            1,
            2,
            0,
        ]
        assert shelf.distinct().count() == 5
        assert [shelf.exists(), shelf.filter(title="z").exists(), shelf.exclude(price=None).exists()] == [
            True,
            False,
            True,
        ]
        assert [shelf[4:].exists(), shelf[5:].exists(), shelf.limit(0).exists()] == [True, False, False]
    assert len(sent) == 14
    assert type(shelf.exists()) is bool
    assert type(shelf.count()) is int


def test_distinct_gives_each_row_once(Book, shelf):
    """DESIGN 6: a condition on another table does not repeat it."""
    assert titles(shelf.distinct()) == "abcde"


def test_nothing_is_sent_before_an_end(Book, shelf, wire):
    """DESIGN 6: lazy; each end sends it again."""
    with wire.everything() as sent:
        query = (
            shelf.filter(Book.pages > 1).exclude(title="b").order_by("pages")[1:].using("default").limit(2)
        )
        assert repr(query) == "<Query of Book>"
        assert isinstance(query.statement, Select)
    assert sent == []
    with wire.record() as sent:
        assert titles(query) == "de"
        assert titles(query.all()) == titles(list(query)) == "de"
    assert [each.split()[0] for each in sent] == ["SELECT"] * 3
    Book.objects.filter(title="d").delete()
    assert titles(query) == "e"


def test_a_query_is_never_changed(Book, shelf):
    """DESIGN 6: each method gives a new one."""
    base = Book.objects.filter(Book.pages > 1)
    for derived in (
        base.filter(title="b"),
        base.exclude(title="b"),
        base.order_by("title"),
        base.limit(1),
        base.offset(1),
        base[1:2],
        base.distinct(),
        base.using("default"),
    ):
        assert derived is not base
    assert (titles(base.order_by("title")), base.count()) == ("bcde", 4)
    base.get(title="b")
    base.first()
    assert "LIMIT" not in str(base.statement)


def test_the_statement_is_plain_sqlalchemy(Book, shelf, databases):
    """DESIGN 6: the escape hatch."""
    statement = Book.objects.filter(Book.pages > 3, price=None).order_by("title").statement
    with databases.connection() as connection:
        assert [row.title for row in connection.execute(statement)] == ["d"]
        again = statement.where(Book.title == "z").with_only_columns(func.count())
        assert connection.execute(again.order_by(None)).scalar() == 0


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


def test_a_key_is_asked_for_as_pk_whatever_its_name(registry):
    """DESIGN 6: and a composite one as a tuple."""

    class Pair(Model, registry=registry):
        left: Field[int] = field(primary_key=True)
        right: Field[str] = field(primary_key=True, max_length=5)

    registry.create_all("default")
    pairs = [Pair(left=1, right="a").save(), Pair(left=1, right="b").save(), Pair(left=2, right="a").save()]
    assert Pair.objects.get(pk=(1, "b")) == pairs[1]
    assert Pair.objects.exclude(pk=(1, "b")).count() == 2
    assert Pair.objects.create(pk=(3, "c")).pk == (3, "c")
    assert Pair.objects.first() == pairs[0]
    with pytest.raises(Pair.DoesNotExist, match=r"^no Pair with left=2, right='b' in 'default'$"):
        Pair.objects.get(pk=(2, "b"))
    for wrong in (1, (1,), (1, "a", 2), [1, "a"], "1a"):
        with pytest.raises(InvalidValue, match=r"^Pair\.pk wants a tuple of left, right, not "):
            Pair.objects.filter(pk=wrong)
    with pytest.raises(InvalidValue, match=r"^Pair\.left wants int"):
        Pair.objects.filter(pk=("a", 1))


def test_create_inserts_with_any_key(Book, wire, stored):
    """DESIGN 3, H19: `id=5` or `pk=5`; what is there already is an error."""
    with wire.record() as sent:
        assert Book.objects.create(title="a").id == 1
        assert Book.objects.create(title="b", id=5).id == 5
        assert Book.objects.create(title="c", pk=6)._state.db == "default"
    assert [each.split()[0] for each in sent] == ["INSERT"] * 3
    with pytest.raises(DBAPIError):
        Book.objects.create(title="d", id=5)
    assert stored(Book, "id", "title") == [(1, "a"), (5, "b"), (6, "c")]
    with pytest.raises(TypeError, match=r"^Book\(\) lacks 'title'"):
        Book.objects.create(pages=3)
    with pytest.raises(InvalidValue):
        Book.objects.create(title=3)


def test_using_reads_and_writes_there(Book, registry, stored):
    """DESIGN 6, N8: all ends; a later one wins; an unknown alias is an error at the end."""
    registry.create_all("other")
    there = Book.objects.using("other")
    assert there.create(title="a")._state.db == "other"
    there.bulk_create([Book(title="b"), Book(title="c")])
    assert (there.count(), there.exists(), Book.objects.count()) == (3, True, 0)
    assert [each._state.db for each in there.order_by("title")] == ["other"] * 3
    assert there.get(title="a")._state.db == there.filter(Book.title == "a")[0]._state.db == "other"
    assert there.filter(title="a").update(pages=3) == 1
    assert there.raw("SELECT * FROM book WHERE pages = 3")[0]._state.db == "other"
    assert there.filter(title="b").delete()[0] == 1
    assert there.using("default").count() == 0
    assert stored(Book, "title", alias="other") == ["a", "c"]
    lost = Book.objects.using("nowhere")
    for end in (lost.all, lost.count, lost.exists, lost.first, lost.delete, lambda: lost.update(pages=1)):
        with pytest.raises(UnknownAlias):
            end()
    with pytest.raises(Book.DoesNotExist, match="in 'other'$"):
        there.get(title="z")


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
