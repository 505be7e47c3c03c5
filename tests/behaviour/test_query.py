"""How rows are read, and written where a condition names them (DESIGN 6, as far as it goes), on every database."""

from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, Literal
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Select, and_, func, or_, select, text
from sqlalchemy.exc import DBAPIError

from microorm import Field, FieldError, InvalidValue, Model, TransactionError, UnknownAlias, field
from microorm.errors import MultipleObjectsReturned, ObjectDoesNotExist
from microorm.signals import post_update, pre_update

MEMORY = pytest.mark.backends("sqlite-memory")


class Broken(Exception):
    """What the failing receivers raise."""


@pytest.fixture
def shelf(Book):
    """Five books; two have no price."""
    for title, pages, price in (
        ("a", 1, None),
        ("b", 2, Decimal(2)),
        ("c", 3, Decimal(3)),
        ("d", 4, None),
        ("e", 5, Decimal(5)),
    ):
        Book(title=title, pages=pages, price=price).save()
    return Book.objects.order_by("title")


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
        (lambda: Book.objects.get(Book.pages > 9), "no Book with book.pages > :pages_1 in 'default'"),
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


@MEMORY
@pytest.mark.parametrize("given", ["title = 'a'", text("title = 'a'"), None, True, 3, lambda: None])
def test_only_column_expressions_reach_sql(Book, wire, given):
    """DESIGN 6: strings never become SQL."""
    with wire.everything() as sent:
        for method in ("filter", "exclude", "get"):
            with pytest.raises(TypeError) as raised:
                getattr(Book.objects, method)(given)
            named = "filter" if method == "get" else method
            assert str(raised.value) == f"{named}() wants column expressions, not {given!r}"
        if not isinstance(given, str):
            with pytest.raises(TypeError) as raised:
                Book.objects.order_by(given)
            assert str(raised.value) == f"order_by() wants column expressions, not {given!r}"
    assert sent == []


@MEMORY
@pytest.mark.parametrize(
    "name", ["titel", "title; DROP TABLE book", "title__gt", "-title", "book.title", "", "Title", "title "]
)
def test_an_unknown_name_is_an_error_with_the_nearest_match(Book, wire, name):
    """DESIGN 6: hostile names included, and nothing is sent."""
    near = "" if name in ("", "title; DROP TABLE book") else "; nearest: 'title'"
    with wire.everything() as sent:
        for call in (
            lambda: Book.objects.filter(**{name: 1}),
            lambda: Book.objects.exclude(**{name: 1}),
            lambda: Book.objects.get(**{name: 1}),
            lambda: Book.objects.order_by(name),
            lambda: Book.objects.update(**{name: 1}),
        ):
            with pytest.raises(FieldError) as raised:
                call()
            assert str(raised.value) == f"Book has no field {name!r}{near}"
        with pytest.raises(TypeError, match="has no field"):
            Book.objects.create(**{name: 1, "title": "x"})
    assert sent == []


def test_hostile_values_are_values(Book, stored, backend):
    """DESIGN 6: quotes, percent signs, colons, comments, other alphabets."""
    hostile = [
        "'; DROP TABLE book; --",
        '"',
        "%s %(title)s :title ?",
        "\\",
        "\\'",
        "é中😀\u200d",
        "",
        " ",
        "NULL",
        "{0}",
    ]
    for title in hostile:
        Book.objects.create(title=title)
    Book.objects.bulk_create([Book(title=title) for title in hostile])
    for title in hostile:
        assert Book.objects.filter(title=title).count() == 2
        assert Book.objects.filter(Book.title == title).update(title=title) == 2
        assert len(Book.objects.raw("SELECT * FROM book WHERE title = :t", {"t": title})) == 2
        assert Book.objects.exclude(title=title).count() == 2 * len(hostile) - 2
        with pytest.raises(Book.MultipleObjectsReturned):
            Book.objects.get(title=title)
    assert stored(Book, "title") == hostile * 2


def test_fields_may_have_any_name(registry, stored):
    """DESIGN 3, 6: also those of the parameters and locals of what is generated, and SQL's words."""
    hostile = [
        "self",
        "model",
        "cls",
        "row",
        "rows",
        "origin",
        "values",
        "new",
        "append",
        "instance",
        "careful",
        "v0",
        "select",
        "order",
        "group",
    ]
    namespace: dict[str, Any] = {"__annotations__": dict.fromkeys(hostile, Field[int])}
    Odd: Any = type("Odd", (Model,), namespace, registry=registry)
    registry.create_all("default")
    numbers = dict(zip(hostile, range(100), strict=False))
    odd = Odd(**numbers).save()
    assert Odd.objects.create(**numbers).id == odd.id + 1
    assert Odd.objects.filter(**numbers).count() == 2
    assert Odd.objects.get(pk=odd.id, **numbers) == odd
    assert Odd.objects.exclude(**numbers).count() == 0
    assert Odd.objects.filter(id=odd.id).update(**{name: number + 1 for name, number in numbers.items()}) == 1
    odd.refresh_from_db()
    assert [getattr(odd, name) for name in hostile] == [number + 1 for number in numbers.values()]
    assert len(Odd.objects.raw("SELECT * FROM odd")) == 2
    assert [each.pk for each in Odd.objects.bulk_create([Odd(**numbers)])] == [odd.id + 2]
    for name in hostile:
        odd.save(update_fields=[name])
        assert Odd.objects.order_by(getattr(Odd, name).desc()).first() == odd


class Colour(Enum):
    """A field's type."""

    RED = "r"
    BLUE = "b"


def test_equalities_of_every_kind_of_value(registry):
    """DESIGN 3, 6: the same on the prepared way, as an expression, and in get."""

    class Thing(Model, registry=registry):
        colour: Field[Colour]
        kind: Field[Literal["x", "y"]]
        at: Field[datetime]
        day: Field[date]
        done: Field[bool]
        size: Field[float]
        cost: Field[Decimal] = field(max_digits=6, decimal_places=2)
        code: Field[UUID] = field(default_factory=uuid4)
        blob: Field[bytes] = field(default=b"\0x")

    registry.create_all("default")
    values = {
        "colour": Colour.RED,
        "kind": "x",
        "at": datetime(2024, 2, 29, 12, 30, 1, 999999, tzinfo=UTC),
        "day": date(2024, 2, 29),
        "done": True,
        "size": 0.1,
        "cost": Decimal("1.50"),
    }
    thing = Thing(**values).save()
    Thing(**{**values, "colour": Colour.BLUE, "kind": "y", "done": False, "size": 2.5}).save()
    values |= {"code": thing.code, "blob": b"\0x"}
    for name, value in values.items():
        assert thing in Thing.objects.filter(**{name: value}), name
        assert thing in Thing.objects.filter(getattr(Thing, name) == value), name
        assert thing not in Thing.objects.exclude(**{name: value}), name
    assert Thing.objects.get(**values) == thing
    assert vars(Thing.objects.get(**values)) == vars(Thing.objects.filter(Thing.size < 1)[0])
    assert Thing.objects.filter(size=2).count() == 0
    assert Thing.objects.filter(cost=Decimal("1.5")).count() == 2


@MEMORY
def test_a_value_that_the_field_cannot_have_is_an_error(Book, wire):
    """DESIGN 3, 6: wrong types; a text that is too long just equals nothing."""
    with wire.everything() as sent:
        for name, value in {"title": 3, "pages": "3", "price": 1.5, "id": True, "tags": ("a",)}.items():
            for call in (Book.objects.filter, Book.objects.exclude, Book.objects.get):
                with pytest.raises(InvalidValue, match=rf"^Book\.{name} wants "):
                    call(**{name: value})
        for bad in ("a\0b", "\ud800"):
            with pytest.raises(InvalidValue):
                Book.objects.filter(title=bad)
    assert sent == []
    assert Book.objects.filter(title="x" * 41).count() == 0


@MEMORY
@pytest.mark.parametrize("method", ["limit", "offset"])
def test_limit_and_offset_want_a_natural_number(Book, method):
    """DESIGN 6."""
    call = getattr(Book.objects, method)
    with pytest.raises(ValueError, match=rf"^{method}\(\) wants no negative number, not -1$"):
        call(-1)
    for wrong in (1.0, "1", None, True):
        with pytest.raises(TypeError) as raised:
            call(wrong)
        assert str(raised.value) == f"{method}() wants an int, not {wrong!r}"


@MEMORY
def test_a_slice_wants_natural_numbers_and_no_step(Book):
    """DESIGN 6."""
    objects = Book.objects
    for part in (slice(-1, None), slice(None, -1), slice(2, -1)):
        with pytest.raises(ValueError, match="^a slice wants no negative number, not -1$"):
            objects[part]
    with pytest.raises(ValueError, match="^an index wants no negative number, not -1$"):
        objects[-1]
    with pytest.raises(ValueError, match="^a query is sliced without a step$"):
        objects[::2]
    for wrong in ("1", 1.0, None, True):
        with pytest.raises(TypeError, match="^an index wants an int, not "):
            objects[wrong]
    with pytest.raises(TypeError, match="^a slice wants an int, not '1'$"):
        objects["1":]


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


def test_raw_sql_gives_instances(Book, shelf, databases, backend):
    """DESIGN 6: in any order of columns; parameters by name; nothing counts as changed."""
    found = Book.objects.raw(
        "SELECT tags, price, id, title, pages FROM book WHERE pages > :least AND title LIKE '%' ORDER BY pages",
        {"least": 2},
    )
    assert titles(found) == "cde"
    assert found == Book.objects.filter(Book.pages > 2).order_by("title").all()
    assert [vars(each) for each in found] == [vars(each) for each in Book.objects.filter(Book.pages > 2)]
    found[0].tags.append("x")
    assert found[0].changes() == {"tags": ([], ["x"])}
    found[0].save()
    assert Book.objects.get(title="c").tags == ["x"]
    with databases.atomic(readonly=True):
        assert len(Book.objects.raw("SELECT * FROM book")) == 5
    for sql, message in (
        ("SELECT id, title FROM book", "the SQL for Book lacks the column 'pages'"),
        (
            "SELECT book.*, 1 AS odd FROM book",
            "the SQL for Book selects the column 'odd', which is not its own",
        ),
    ):
        with pytest.raises(FieldError) as raised:
            Book.objects.raw(sql)
        assert str(raised.value) == message
    with pytest.raises(DBAPIError):
        Book.objects.raw("SELECT * FROM nowhere")


def test_raw_sql_takes_values_as_fields_do(registry):
    """DESIGN 6: moments, days, UUIDs and members, as they are stored."""

    class Thing(Model[UUID], registry=registry):
        at: Field[datetime]
        local: Field[datetime] = field(timezone=False)
        day: Field[date]
        colour: Field[Colour]

    registry.create_all("default")
    moment = datetime(2024, 2, 29, 12, 30, 1, 5, tzinfo=UTC)
    thing = Thing(
        at=moment, local=moment.replace(tzinfo=None), day=date(2024, 2, 29), colour=Colour.RED
    ).save()
    early = moment.replace(year=2020)
    Thing(at=early, local=early.replace(tzinfo=None), day=early.date(), colour=Colour.BLUE).save()
    for name in ("id", "at", "local", "day", "colour"):
        found = Thing.objects.raw(
            f"SELECT * FROM thing WHERE {name} = :value", {"value": getattr(thing, name)}
        )
        assert found == [thing], name


def test_raw_sql_that_writes_is_committed(Book, stored):
    """DESIGN 6: what the SQL does is its own affair; with nothing open it commits by itself."""
    (book,) = Book.objects.raw(
        "INSERT INTO book (title, pages, tags) VALUES ('new', 9, :tags) RETURNING *", {"tags": "[]"}
    )
    assert (book.title, book.tags, stored(Book, "title")[-1]) == ("new", [], "new")


@MEMORY
def test_iteration_goes_through_a_fixed_list(Book, shelf):
    """DESIGN 6: deleting while going through is safe."""
    for book in shelf:
        book.delete()
    assert Book.objects.count() == 0
