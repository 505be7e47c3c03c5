"""The ends of a query that give columns and numbers, on every database."""

from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Row, case, func, literal, null, select

from microorm import Field, FieldError, ForeignKey, Related, field, foreign_key, related

MEMORY = pytest.mark.backends("sqlite-memory")
HOSTILE = (
    'a"b',
    "a'b",
    "a`b",
    "a;--",
    "%s",
    ":x",
    "a b",
    "",
    "a\\b",
    "select",
    "ü",
    "x" * 300,
    "a\0b",
    "\ud800",
)


@pytest.fixture
def Line(Base: Any, registry: Any) -> Any:
    """Six lines of two orders, one of which has no customer."""

    class Customer(Base):
        name: Field[str] = field(max_length=40)

    class Order(Base):
        customer: ForeignKey[Customer | None] = foreign_key(default=None)
        lines: Related["Line"] = related("order")

    class Line(Base):
        order: ForeignKey[Order] = foreign_key()
        price: Field[Decimal] = field(max_digits=8, decimal_places=2)
        previous: ForeignKey["Line | None"] = foreign_key(default=None)
        note: Field[str] = field(column="remark", max_length=10, default="")

    registry.create_all("default")
    orders = [Order(customer=Customer(name="Ann").save()).save(), Order().save()]
    previous = None
    for place, price in enumerate(("1.50", "2.25", "3", "4", "5", "6.75")):
        previous = Line(
            order=orders[place % 2], price=Decimal(price), note=f"n{place}", previous=previous
        ).save()
    return Line


def tuples(rows: Any) -> list[Any]:
    return [tuple(row) for row in rows]


def test_count_and_exists_see_what_all_would_give(Book, shelf, wire):
    """Limits and slices included; one statement, no row is fetched."""
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


def test_values_gives_rows_of_columns(Book, shelf, wire):
    """By column, name or expression; SQLAlchemy's rows, with the fields' names; one statement."""
    with wire.record() as sent:
        rows = shelf.values(Book.title, Book.pages, Book.price)
    assert len(sent) == 1
    assert tuples(rows[:2]) == [("a", 1, None), ("b", 2, Decimal(2))]
    assert isinstance(rows[0], Row)
    assert (rows[1].title, rows[1].pages, rows[1].price) == ("b", 2, Decimal(2))
    assert tuples(shelf.values("title", Book.pages)) == tuples(shelf.values(Book.title, "pages"))
    assert tuples(shelf[1:3].values("title")) == [("b",), ("c",)]
    assert tuples(shelf.exclude(price=None).values(Book.title)) == [("b",), ("c",), ("e",)]
    every = shelf.values()[1]
    assert every._fields == ("id", "title", "pages", "price", "tags")
    assert tuple(every[1:]) == ("b", 2, Decimal(2), [])
    doubled = (Book.pages * 2).label("doubled")
    assert [row.doubled for row in shelf.values(Book.title, doubled)] == [2, 4, 6, 8, 10]
    assert [row.doubled for row in Book.objects.values(doubled)] == [2, 4, 6, 8, 10]
    assert tuples(shelf.values(func.upper(Book.title), literal(1), null()))[0] == ("A", 1, None)
    assert tuples(shelf.values(*["pages"] * 10))[0] == (1,) * 10
    assert shelf.filter(title="z").values("title") == []


def test_scalars_gives_a_list(Book, shelf, wire):
    """Of one column."""
    with wire.record() as sent:
        assert shelf.scalars(Book.price) == [None, 2, 3, None, 5]
        assert shelf.scalars("title") == list("abcde")
        assert shelf[3:].scalars(Book.pages * 2) == [8, 10]
        assert shelf.filter(title="b").scalars(Book.price)[0].__class__ is Decimal
    assert len(sent) == 4


def test_distinct_limit_and_order_hold_for_columns(Book, shelf):
    """Distinct means the columns that are asked for."""
    parity = (Book.pages % 2).label("parity")
    assert sorted(Book.objects.distinct().scalars(parity)) == [0, 1]
    assert Book.objects.order_by(parity).distinct().scalars(parity) == [0, 1]
    assert Book.objects.order_by(parity.desc()).distinct().limit(1).scalars(parity) == [1]
    assert Book.objects.order_by(Book.pages.desc()).limit(2).scalars(Book.title) == ["e", "d"]


def test_groups_are_counted_summed_and_chosen(Book, shelf):
    """`group_by` and `having`; count and exists are about the groups."""
    parity = (Book.pages % 2).label("parity")
    groups = Book.objects.group_by(parity).order_by(parity)
    assert tuples(groups.values(parity, func.count(), func.sum(Book.pages))) == [(0, 2, 6), (1, 3, 9)]
    assert groups.having(func.count() > 2).scalars(parity) == [1]
    assert groups.having(func.count() > 1).having(func.sum(Book.pages) < 7).scalars(parity) == [0]
    assert groups.filter(Book.pages < 2).scalars(parity) == [1]
    assert groups[1:].scalars(parity) == [1]
    assert tuples(
        groups.group_by("price").order_by("price").filter(price=None).values("price", func.count())
    ) == [(None, 2)]
    assert Book.objects.having(func.count() > 4).scalars(func.max(Book.title)) == ["e"]
    assert [
        groups.count(),
        groups.having(func.count() > 2).count(),
        groups[1:].count(),
        groups[2:].count(),
    ] == [
        2,
        1,
        1,
        0,
    ]
    assert [groups.exists(), groups.having(func.count() > 3).exists(), groups[2:].exists()] == [
        True,
        False,
        False,
    ]
    assert groups.distinct().count() == 2
    whole = Book.objects.having(func.count() > 4)
    assert [whole.count(), whole.exists(), whole.having(func.count() > 5).count()] == [1, True, 0]


def test_sums_of_decimals_are_exact(Base, registry):
    """SQLite adds them as floats: 1.1 + 2.2 is 3.3000000000000003 there."""

    class Account(Base):
        lines: Related["Entry"] = related("account")

    class Entry(Base):
        amount: Field[Decimal] = field(max_digits=8, decimal_places=2)
        account: ForeignKey[Account] = foreign_key()

    registry.create_all("default")
    first, second = Account().save(), Account().save()
    amounts = [(first, "1.10"), (first, "2.20"), (second, "3.30")]
    Entry.objects.bulk_create([Entry(account=each, amount=Decimal(amount)) for each, amount in amounts])
    whole, total, along = Decimal("3.30"), func.sum(Entry.amount), func.sum(Account.lines.amount)
    grouped = Entry.objects.group_by(Entry.account_id).order_by(Entry.account_id)
    for condition in (
        total == whole,
        total <= whole,
        total.filter(Entry.amount > 0) == whole,
        total * 2 == whole * 2,
    ):
        assert grouped.having(condition).scalars(Entry.account_id) == [first.id, second.id]
    for summed in (
        Entry.amount + literal(Decimal("0.00")),
        case(
            (Entry.amount == whole, Decimal("3.30")),
            (Entry.amount > 2, Decimal("2.20")),
            else_=Decimal("1.10"),
        ),
    ):
        assert grouped.having(func.sum(summed) == whole).scalars(Entry.account_id) == [first.id, second.id]
    assert Account.objects.filter(along == whole).exclude(along > whole).count() == 2
    assert tuples(Account.objects.group_by(along).values(along, func.count())) == [(whole, 2)]
    running = total.over(partition_by=Entry.account_id)
    assert Entry.objects.filter(running == whole).count() == 3
    positive = total.filter(Entry.amount > 0).over(partition_by=Entry.account_id)
    assert Entry.objects.scalars(positive) == [whole] * 3
    assert (
        tuples(grouped.values(func.rank().over(order_by=total), func.sum(total).over()))
        == [(1, 2 * whole)] * 2
    )


def test_columns_along_paths_are_joined(Line):
    """Outer where a step may lead nowhere; in values, scalars, groups and aggregates."""
    name, by_id = Line.order.customer.name, Line.objects.order_by("id")
    assert by_id.scalars(name) == ["Ann", None] * 3
    assert tuples(by_id.values(Line.note, name))[:2] == [("n0", "Ann"), ("n1", None)]
    assert by_id.values("note")[0].note == by_id.values(Line.note)[0].note == "n0"
    assert by_id.values(Line.previous.note)[1]._fields == ("note",)
    assert by_id.scalars(Line.previous.note)[:3] == [None, "n0", "n1"]
    assert by_id.values()[0]._fields == ("id", "order_id", "price", "previous_id", "note")
    sums = Line.objects.group_by(name).order_by(func.count(name)).values(name, func.sum(Line.price))
    assert tuples(sums) == [(None, Decimal("13")), ("Ann", Decimal("9.5"))]
    assert Line.objects.aggregate(customers=func.count(name), lines=func.count())._mapping == {
        "customers": 3,
        "lines": 6,
    }
    part = Line.objects.filter(Line.price > 2).order_by(name.is_(None).desc(), "id")[:3]
    assert part.aggregate(n=func.count(name), total=func.sum(Line.price))._mapping == {
        "n": 0,
        "total": Decimal("13"),
    }
    order = Line.__schema__.relations["order"].target
    with pytest.raises(FieldError, match="leads to many rows of Line; aggregate them"):
        order.objects.values(order.lines.price)


def test_aggregate_gives_one_row_with_the_names_given(Book, shelf, wire):
    """Over all rows, over none, over those of a condition."""
    with wire.record() as sent:
        row = Book.objects.aggregate(
            n=func.count(), most=func.max(Book.price), total=func.sum(Book.pages), first=func.min(Book.title)
        )
    assert len(sent) == 1
    assert isinstance(row, Row)
    assert (row.n, row.most, row.total, row.first) == (5, Decimal(5), 15, "a")
    assert row._fields == ("n", "most", "total", "first")
    assert shelf.filter(Book.pages > 3).aggregate(n=func.count(Book.price)).n == 1
    nothing = Book.objects.filter(title="z").aggregate(n=func.count(), most=func.max(Book.pages))
    assert tuple(nothing) == (0, None)
    odd = func.sum(case((Book.pages % 2 == 1, Book.pages), else_=0))
    assert Book.objects.aggregate(odd=odd, twice=func.sum(Book.pages) * 2)._mapping == {"odd": 9, "twice": 30}


def test_aggregate_of_a_part_is_about_its_rows(Book, shelf, wire):
    """Limits, slices and distinct; one statement."""
    with wire.record() as sent:
        assert shelf[1:4].aggregate(total=func.sum(Book.pages)).total == 9
        assert shelf.limit(2).aggregate(most=func.max(Book.title)).most == "b"
        assert shelf.offset(4).aggregate(n=func.count()).n == 1
        assert shelf.limit(0).aggregate(n=func.count()).n == 0
        assert shelf.distinct().aggregate(n=func.count()).n == 5
        assert shelf.filter(Book.pages > 1)[:2].aggregate(total=func.sum(Book.pages)).total == 5
        assert Book.objects.order_by(Book.price.desc(), "title").filter(Book.price > 0)[:2].aggregate(
            total=func.sum(Book.price)
        ).total == Decimal(8)
    assert len(sent) == 7


def test_an_aggregate_is_about_all_rows_at_once(Book, shelf):
    """What gives a row for each of them is no aggregate, however many there are."""
    for query in (shelf, shelf.filter(title="z")):
        with pytest.raises(TypeError, match=r"^aggregate\(\) needs expressions that result in one row, not "):
            query.aggregate(pages=Book.pages)


def test_a_name_of_an_aggregate_is_only_a_name(Book, shelf, wire):
    """It never is a part of the SQL."""
    with wire.record() as sent:
        row = Book.objects.aggregate(**{name: func.count() + place for place, name in enumerate(HOSTILE)})
    assert row._mapping == {name: 5 + place for place, name in enumerate(HOSTILE)}
    assert not [name for name in HOSTILE if len(name) > 5 and name in sent[0] and name != "select"]


@MEMORY
def test_what_is_no_expression_is_refused(Book, shelf):
    """Strings are names of fields or nothing; before anything is sent."""
    for call in (
        lambda: shelf.values("titel"),
        lambda: shelf.scalars("title; DROP TABLE book"),
        lambda: shelf.values("title", "book.title"),
        lambda: shelf.group_by("titel"),
        lambda: shelf.values("*"),
    ):
        with pytest.raises(FieldError, match=r"^Book has no field "):
            call()
    with pytest.raises(TypeError, match=r"^aggregate\(\) needs at least one expression, "):
        shelf.aggregate()
    for wrong in (3, None, "title", "count(*)", select(Book.id), Book):
        with pytest.raises(TypeError, match=r"^aggregate\(\) takes column expressions, not "):
            shelf.aggregate(n=wrong)
    for wrong in (3, None, Book, select(Book.id)):
        with pytest.raises(TypeError, match=r"^(values|scalars)\(\) takes column expressions, not "):
            shelf.values(wrong)
        with pytest.raises(TypeError, match=r"^(values|scalars)\(\) takes column expressions, not "):
            shelf.scalars(wrong)


def test_a_column_of_another_table_is_refused(Book, shelf, Line):
    """It would give every row of that table."""
    for call in (
        lambda: shelf.values(Line.price),
        lambda: shelf.scalars(func.max(Line.price)),
        lambda: shelf.aggregate(n=func.count(Line.id)),
        lambda: shelf.group_by(Line.price),
    ):
        with pytest.raises(FieldError, match="is a column of another table"):
            call()
