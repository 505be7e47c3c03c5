"""What a query asks for: conditions, order, limits, and that nothing is sent before an end."""

from decimal import Decimal

import pytest
from sqlalchemy import Select, and_, func, or_, select

from microorm import Field, InvalidValue, Model, field
from tests.behaviour.shelves import titles


def test_filter_takes_expressions_and_equalities_together(Book, shelf):
    """All of them must be true; None means NULL."""
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
    """NULLs included; what filter leaves out is what exclude gives."""
    assert titles(shelf.exclude(Book.price > 2)) == "abd"
    assert titles(shelf.exclude(price=Decimal(2))) == "acde"
    assert titles(shelf.exclude(price=None)) == "bce"
    assert titles(shelf.exclude(Book.price > 2, title="c")) == "abde"
    assert titles(shelf.exclude(Book.price > 2).exclude(title="a")) == "bd"
    assert titles(shelf.filter(Book.pages > 1).exclude(Book.price > 2)) == "bd"
    assert titles(shelf.exclude()) == "abcde"


def test_order_is_as_asked_and_the_last_one_counts(Book, shelf):
    """Names or columns, `.desc()`, several, expressions; none takes the order away."""
    assert titles(Book.objects.order_by("pages")) == "abcde"
    assert titles(Book.objects.order_by(Book.pages.desc())) == "edcba"
    assert titles(Book.objects.order_by("title").order_by(Book.pages.desc())) == "edcba"
    assert titles(Book.objects.order_by(Book.pages % 2, Book.title.desc())) == "dbeca"
    assert "ORDER BY" not in str(Book.objects.order_by("title").order_by().statement)


def test_slices_limits_and_offsets_compose(Book, shelf):
    """A slice of a slice counts within it; limit and offset replace the earlier ones."""
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


def test_distinct_gives_each_row_once(Book, shelf):
    """A condition on another table does not repeat it."""
    assert titles(shelf.distinct()) == "abcde"


def test_nothing_is_sent_before_an_end(Book, shelf, wire):
    """Lazy; each end sends it again."""
    with wire.everything() as sent:
        query = (
            shelf.filter(Book.pages > 1).exclude(title="b").order_by("pages")[1:].using("default").limit(2)
        )
        assert repr(query).startswith("<Query of Book: SELECT ")
        assert isinstance(query.statement, Select)
    assert sent == []
    with wire.record() as sent:
        assert titles(query) == "de"
        assert titles(query.all()) == titles(list(query)) == "de"
    assert [each.split()[0] for each in sent] == ["SELECT"] * 3
    Book.objects.filter(title="d").delete()
    assert titles(query) == "e"


def test_a_query_is_never_changed(Book, shelf):
    """Each method gives a new one."""
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
    """The escape hatch."""
    statement = Book.objects.filter(Book.pages > 3, price=None).order_by("title").statement
    with databases.connection() as connection:
        assert [row.title for row in connection.execute(statement)] == ["d"]
        again = statement.where(Book.title == "z").with_only_columns(func.count())
        assert connection.execute(again.order_by(None)).scalar() == 0


def test_a_key_is_asked_for_as_pk_whatever_its_name(registry):
    """And a composite one as a tuple."""

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
        with pytest.raises(InvalidValue, match=r"^Pair\.pk must be a tuple of left, right, not "):
            Pair.objects.filter(pk=wrong)
    with pytest.raises(InvalidValue, match=r"^Pair\.left must be int"):
        Pair.objects.filter(pk=("a", 1))
