"""What the arguments of a query may be, and what they mean."""

from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, Literal
from uuid import UUID, uuid4

import pytest
from sqlalchemy import and_, exists, func, select, text

from microorm import Field, FieldError, ForeignKey, InvalidValue, Model, Related, field, foreign_key, related

MEMORY = pytest.mark.backends("sqlite-memory")


class Colour(Enum):
    """A field's type."""

    RED = "r"
    BLUE = "b"


@MEMORY
@pytest.mark.parametrize("given", ["title = 'a'", text("title = 'a'"), None, True, 3, lambda: None])
def test_only_column_expressions_reach_sql(Book, wire, given):
    """Strings never become SQL."""
    with wire.everything() as sent:
        for method in ("filter", "exclude", "get"):
            with pytest.raises(TypeError) as raised:
                getattr(Book.objects, method)(given)
            hint = "; the row with this key is found by pk=3" if given == 3 else ""
            assert str(raised.value) == f"{method}() takes column expressions, not {given!r}{hint}"
        if not isinstance(given, str):
            with pytest.raises(TypeError) as raised:
                Book.objects.order_by(given)
            assert str(raised.value) == f"order_by() takes column expressions, not {given!r}"
    assert sent == []


@MEMORY
@pytest.mark.parametrize(
    "name", ["titel", "title; DROP TABLE book", "title__foo", "book.title", "", "Title", "title "]
)
def test_an_unknown_name_is_an_error_with_the_nearest_match(Book, wire, name):
    """Hostile names included, and nothing is sent."""
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
        with pytest.raises(TypeError, match="has no argument"):
            Book.objects.create(**{name: 1, "title": "x"})
    assert sent == []


@MEMORY
def test_a_value_that_the_field_cannot_have_is_an_error(Book, wire):
    """Wrong types; a text that is too long just equals nothing."""
    with wire.everything() as sent:
        for name, value in {"title": 3, "pages": "3", "price": 1.5, "id": True, "tags": ("a",)}.items():
            for call in (Book.objects.filter, Book.objects.exclude, Book.objects.get):
                with pytest.raises(InvalidValue, match=rf"^Book\.{name} must be "):
                    call(**{name: value})
        for bad in ("a\0b", "\ud800"):
            with pytest.raises(InvalidValue):
                Book.objects.filter(title=bad)
    assert sent == []
    assert Book.objects.filter(title="x" * 41).count() == 0


@MEMORY
def test_bytes_that_are_too_long_equal_nothing(registry):
    """As with text."""

    class Blob(Model, registry=registry):
        data: Field[bytes] = field(max_length=2)

    registry.create_all("default")
    Blob(data=b"ab").save()
    assert Blob.objects.filter(data=b"abc").count() == 0
    assert Blob.objects.exclude(data=b"abc").count() == 1
    with pytest.raises(Blob.DoesNotExist, match=r"^no Blob with data=b'abc' in 'default'$"):
        Blob.objects.get(data=b"abc")


@MEMORY
@pytest.mark.parametrize("method", ["limit", "offset"])
def test_limit_and_offset_want_a_natural_number(Book, method):
    call = getattr(Book.objects, method)
    with pytest.raises(ValueError, match=rf"^{method}\(\) cannot be negative, not -1$"):
        call(-1)
    for wrong in (1.0, "1", None, True):
        with pytest.raises(TypeError) as raised:
            call(wrong)
        assert str(raised.value) == f"{method}() takes an int, not {wrong!r}"


@MEMORY
def test_a_slice_wants_natural_numbers_and_no_step(Book):
    objects = Book.objects
    for part in (slice(-1, None), slice(None, -1), slice(2, -1)):
        with pytest.raises(ValueError, match="^a slice cannot be negative, not -1$"):
            objects[part]
    with pytest.raises(ValueError, match="^an index cannot be negative, not -1$"):
        objects[-1]
    with pytest.raises(ValueError, match="^a slice of a query cannot have a step$"):
        objects[::2]
    for wrong in ("1", 1.0, None, True):
        with pytest.raises(TypeError, match="^an index takes an int, not "):
            objects[wrong]
    with pytest.raises(TypeError, match="^a slice takes an int, not '1'$"):
        objects["1":]


def test_hostile_values_are_values(Book, stored, backend):
    """Quotes, percent signs, colons, comments, other alphabets."""
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
    """Also those of the parameters and locals of what is generated, and SQL's words."""
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


def test_equalities_of_every_kind_of_value(registry):
    """The same on the prepared way, as an expression, and in get."""

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
        assert thing in Thing.objects.filter(**{name: value}).all(), name
        assert thing in Thing.objects.filter(getattr(Thing, name) == value).all(), name
        assert thing not in Thing.objects.exclude(**{name: value}).all(), name
    assert Thing.objects.get(**values) == thing
    assert vars(Thing.objects.get(**values)) == vars(Thing.objects.filter(Thing.size < 1)[0])
    assert Thing.objects.filter(size=2).count() == 0
    assert Thing.objects.filter(cost=Decimal("1.5")).count() == 2


def test_json_equals_json(Book):
    """As it is stored, on the prepared way and in an expression."""
    value = ["a", "b", "é\"'%"]
    book = Book(title="x", tags=value).save()
    Book(title="y", tags=["b", "a"]).save()
    assert Book.objects.get(tags=value) == book
    assert Book.objects.filter(tags=value).all() == [book]
    assert Book.objects.filter(Book.tags == value).all() == [book]
    assert Book.objects.filter(Book.title != "y", tags=value).all() == [book]
    assert [each.title for each in Book.objects.exclude(tags=value)] == ["y"]
    assert Book.objects.filter(tags=[]).count() == 0


@pytest.fixture
def Author(registry):
    """A model that is no part of a query of books."""

    class Author(Model, registry=registry):
        name: Field[str] = field(max_length=40)
        born: Field[int] = field(default=0)

    registry.create_all("default")
    return Author


def test_a_column_of_another_table_is_an_error(Book, shelf, Author, wire):
    """It would join every row of that table, and update or delete every row of this one."""
    Author(name="a").save()
    same = Book.title == Author.name
    with wire.everything() as sent:
        for call in (
            lambda: Book.objects.filter(same),
            lambda: Book.objects.filter(Book.pages > 1, and_(Book.pages < 9, func.lower(Author.name) == "a")),
            lambda: Book.objects.filter(title=Author.name),
            lambda: Book.objects.exclude(same),
            lambda: Book.objects.exclude(title=Author.name),
            lambda: Book.objects.get(same),
            lambda: Book.objects.order_by(Author.name),
            lambda: Book.objects.order_by("title", Author.name.desc()),
            lambda: Book.objects.update(title=Author.name),
            lambda: Book.objects.update(title=Book.title + Author.name),
            lambda: Book.objects.filter(same).update(pages=0),
            lambda: Book.objects.filter(same).delete(),
            lambda: Book.objects.exclude(same).delete(),
        ):
            with pytest.raises(FieldError) as raised:
                call()
            assert str(raised.value) == "Book: author.name is a column of another table"
    assert sent == []
    assert Book.objects.filter(title="a", pages=1).count() == 1


def test_a_sub_select_has_tables_of_its_own(Book, shelf, Author):
    """`in_`, `exists` and scalars, correlated or not, in conditions, in an order and as values."""
    Author(name="b", born=7).save()
    names = select(Author.name)
    born = select(Author.born).where(Author.name == Book.title).scalar_subquery()
    assert [each.title for each in Book.objects.filter(Book.title.in_(names))] == ["b"]
    assert [each.title for each in shelf.exclude(Book.title.in_(names))] == ["a", "c", "d", "e"]
    alike = exists().where(Author.name == Book.title)
    assert [each.title for each in Book.objects.filter(alike)] == ["b"]
    assert [each.title for each in shelf.filter(~alike)] == ["a", "c", "d", "e"]
    assert [each.title for each in Book.objects.filter(title=names.scalar_subquery())] == ["b"]
    assert Book.objects.filter(born == 7).count() == 1
    assert Book.objects.order_by(func.coalesce(born, 0).desc(), "title").first().title == "b"
    assert Book.objects.filter(title="b").update(pages=born) == 1
    assert Book.objects.get(pages=7).title == "b"
    assert Book.objects.filter(Book.title.in_(names.union(select(Author.name)))).delete()[0] == 1
    assert Book.objects.count() == 4


@pytest.fixture
def Shop(Base, registry) -> Any:
    """A model that rows with a key of two fields refer to."""

    class Shop(Base):
        name: Field[str] = field(max_length=10)
        shelves: Related["Shelf"] = related("shop")

    class Shelf(Base):
        row: Field[int] = field(primary_key=True)
        side: Field[str] = field(primary_key=True, max_length=5)
        shop: ForeignKey[Shop] = foreign_key()

    registry.create_all("default")
    return Shop


def test_a_relation_to_many_rows_is_compared_with_the_whole_key_of_one(Shop):
    here, there = Shop(name="here").save(), Shop(name="there").save()
    left = here.shelves.create(row=1, side="left")
    here.shelves.create(row=2, side="right")
    there.shelves.create(row=1, side="right")
    there.shelves.create(row=2, side="left")
    assert Shop.objects.filter(shelves=left).all() == [here]
    assert Shop.objects.exclude(shelves=left).all() == [there]
    assert Shop.objects.filter(shelves=(1, "right")).all() == [there]


@MEMORY
@pytest.mark.parametrize("value", [1, "1", (1,), (1, 2), (1.5, "left"), [1, "left"], object(), select(1)])
def test_a_relation_to_many_rows_is_compared_with_what_is_a_key(Shop, wire, value):
    """As any field is."""
    with wire.everything() as sent:
        for method in ("filter", "exclude", "get"):
            with pytest.raises(InvalidValue):
                getattr(Shop.objects, method)(shelves=value)
    assert sent == []
