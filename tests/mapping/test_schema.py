"""A class body is read once, into a frozen description and a table that the databases have as it says."""

import uuid
from decimal import Decimal
from enum import Enum
from typing import Any, Generic, Literal, NewType
from uuid import UUID

import pytest
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    MetaData,
    SmallInteger,
    Table,
    UniqueConstraint,
    func,
    inspect,
    text,
)
from sqlalchemy.exc import DBAPIError
from typing_extensions import TypeVar

from microorm import Databases, Field, FieldError, InvalidValue, Model, ModelError, Registry, field
from microorm.mapping.schema import key_type, new_uuid

K = TypeVar("K", default=int)
T = TypeVar("T")


class Colour(Enum):
    RED = "red"


@pytest.fixture
def Plain() -> type[Model]:
    """What models derive from that need no database."""

    class Plain(Model, registry=Registry(), abstract=True):
        pass

    return Plain


def test_a_schema_says_what_a_model_holds(Plain) -> None:
    class Book(Plain, table="books", database="archive"):
        title: Field[str] = field(max_length=9, column="name")
        tags: Field[list[str]] = field(default_factory=list)
        made: Field[int] = field(server_default="7")
        changed: Field[int] = field(on_update=lambda: 1)

    schema = Book.__schema__
    assert repr(schema) == "<Schema test_schema.Book: id, title, tags, made, changed>"
    assert (schema.model, schema.name, schema.label, schema.home) == (
        Book,
        "Book",
        "test_schema.Book",
        "archive",
    )
    assert schema.table is Book.__table__
    assert [column.name for column in schema.table.columns] == ["id", "name", "tags", "made", "changed"]
    assert schema.names == ("id", "title", "tags", "made", "changed")
    assert (schema.key_names, schema.generated) == (("id",), schema.field("id"))
    assert schema.plain_names == ("title", "tags", "made", "changed")
    assert schema.written_names == ("title", "tags", "made", "changed", "id")
    assert (schema.server_made, [each.name for each in schema.updating]) == (("made",), ["changed"])
    assert (schema.mutable, schema.key_has_default) == (True, False)
    with pytest.raises(AttributeError, match="is read-only$"):
        schema.label = "other"


def test_a_field_is_found_by_name_or_column(Plain) -> None:
    class Book(Plain):
        title: Field[str] = field(column="name")

    class Other(Plain):
        title: Field[str]

    schema = Book.__schema__
    title = schema.field("title")
    assert schema.field(Book.title) is title
    assert schema.field(Book.__table__.c.name) is title
    for wrong, message in [
        ("titel", "Book has no field 'titel'; nearest: 'title'"),
        ("name", "Book has no field 'name'"),
        (Other.title, "Book has no field other.title"),
        (5, "Book has no field 5"),
        (func.lower(Book.title), "Book has no field lower(book.name)"),
    ]:
        with pytest.raises(FieldError) as error:
            schema.field(wrong)
        assert str(error.value) == message


def test_a_collector_takes_the_values_of_some_fields(Plain) -> None:
    class Pair(Plain):
        one: Field[int]
        two: Field[str | None]

    collect = Pair.__schema__.collector(("two", "one"))
    assert collect({"one": 1, "two": None}) == (None, 1)
    assert Pair.__schema__.collector(("two", "one")) is collect
    with pytest.raises(InvalidValue) as error:
        collect({"one": "1", "two": 2})
    assert str(error.value) == "Pair.two must be str, not int 2; Pair.one must be int, not str '1'"
    assert error.value.problems == {"two": "must be str, not int 2", "one": "must be int, not str '1'"}


def test_without_a_key_there_is_id(Plain) -> None:
    class Book(Plain):
        title: Field[str]

    key = Book.__schema__.field("id")
    assert (key.python_type, key.init, key.generated, key.nullable) == (int, True, True, False)
    assert isinstance(key.column.type, BigInteger)
    assert Book.__table__.autoincrement_column is key.column


def test_a_uuid_key_is_made_here() -> None:
    registry = Registry()

    class Base(Model[K], Generic[K], registry=registry, abstract=True):
        pass

    class Token(Base[UUID]):
        pass

    key = Token.__schema__.field("id")
    assert (key.python_type, key.init, key.generated) == (UUID, True, False)
    assert Token.__schema__.key_has_default
    assert new_uuid is getattr(uuid, "uuid7", uuid.uuid4)
    one, two = Token(), Token()
    assert isinstance(one.id, UUID)
    assert one.id != two.id
    assert Token(id=one.id).id == one.id

    class Other(Base[NewType("OtherId", UUID)]):
        pass

    assert isinstance(Other().id, UUID)


def test_the_key_is_what_the_bases_say() -> None:
    registry = Registry()

    class Base(Model[K], Generic[K], registry=registry, abstract=True):
        pass

    class Swapped(Base[K], Generic[T, K], abstract=True):
        pass

    class Boxed(Model, Generic[T], registry=registry, abstract=True):
        pass

    class One(Base[UUID], abstract=True):
        pass

    class Two(Swapped[str, UUID], abstract=True):
        pass

    class Three(Boxed[str], abstract=True):
        pass

    class Four(Base, abstract=True):  # type: ignore[type-arg]
        pass

    class Five(Model[Any], registry=registry, abstract=True):
        pass

    class Six(Boxed[str], Base[UUID], abstract=True):
        pass

    class Mixin:
        pass

    class Seven(Mixin, One, abstract=True):
        pass

    assert [key_type(each) for each in (Model, One, Two, Three, Four, Five, Seven)] == [
        int,
        UUID,
        UUID,
        int,
        int,
        int,
        UUID,
    ]
    assert key_type(Six) is UUID


def test_a_key_of_a_type_that_nobody_makes_is_declared() -> None:
    registry = Registry()
    with pytest.raises(
        ModelError, match=r"^Word: Model\[str\] has no implicit key; declare a field with primary_key=True$"
    ):

        class Word(Model[str], registry=registry):
            text: Field[str]

    class Term(Model[str], registry=registry):
        text: Field[str] = field(primary_key=True, max_length=9)

    assert Term.__schema__.key_names == ("text",)


@pytest.mark.parametrize(
    ("annotation", "options", "generated"),
    [
        (int, {"init": False}, True),
        (int, {"init": False, "type_": SmallInteger}, True),
        (int, {}, False),
        (int, {"init": False, "default": 5}, False),
        (int, {"init": False, "default_factory": int}, False),
        (int, {"server_default": text("5")}, False),
        (str, {"init": False, "max_length": 5}, False),
    ],
)
def test_the_database_makes_a_key_that_nobody_else_makes(Plain, annotation, options, generated) -> None:
    class Thing(Plain):
        code: Field[annotation] = field(primary_key=True, **options)

    assert Thing.__schema__.field("code").generated is generated
    assert (Thing.__table__.autoincrement_column is not None) is generated


def test_several_fields_make_a_composite_key(Plain) -> None:
    class Place(Plain):
        row: Field[int] = field(primary_key=True, init=False)
        note: Field[str]
        seat: Field[str] = field(primary_key=True, max_length=2)

    schema = Place.__schema__
    assert (schema.key_names, schema.generated) == (("row", "seat"), None)
    assert schema.written_names == ("note", "row", "seat")
    assert [column.name for column in Place.__table__.primary_key] == ["row", "seat"]


def test_an_id_that_is_not_the_key_says_so(Plain) -> None:
    with pytest.raises(
        ModelError, match=r"^Book\.id: without primary_key=True, but no other field is the primary key$"
    ):

        class Book(Plain):
            id: Field[int]

    class Coded(Plain):
        id: Field[int]
        code: Field[int] = field(primary_key=True)

    assert Coded.__schema__.key_names == ("code",)


WRONG_TABLES: list[tuple[dict[str, Any], str]] = [
    ({"table": "books"}, "Second: another model has the table 'books'"),
    ({"table": "BOOKS"}, "Second: another model has the table 'BOOKS'"),
    ({"table_args": ("x",)}, "Second: table_args= must contain constraints and indexes, not 'x'"),
    ({"table_args": (UniqueConstraint("titel"),)}, "Second: invalid table 'second': "),
    ({"table_args": (Index("i", "titel"),)}, "Second: invalid table 'second': "),
    ({"table_args": ({"sqlite_nothing": 1},)}, "Second: invalid table 'second': "),
    ({"table_args": (Column("x"), Column("x"))}, "Second: invalid table 'second': "),
]


@pytest.mark.parametrize(
    ("keywords", "message"), WRONG_TABLES, ids=[str(number) for number in range(len(WRONG_TABLES))]
)
def test_a_table_that_cannot_be_made_leaves_no_trace(Plain, keywords, message) -> None:
    class Book(Plain, table="books"):
        title: Field[str]

    registry = Plain.__options__.registry
    with pytest.raises(ModelError) as error:

        class Second(Plain, **keywords):
            title: Field[str]

    assert str(error.value).startswith(message)
    assert list(registry.metadata.tables) == ["books"]
    assert list(registry.models.values()) == [Book]

    class Second(Plain):
        title: Field[str]

    assert list(registry.metadata.tables) == ["books", "second"]


def test_two_fields_have_two_columns(Plain) -> None:
    """SQLite and MariaDB do not tell capitals in a column's name."""
    with pytest.raises(ModelError, match=r"^Book: title and name have the same column, 'title'$"):

        class Book(Plain):
            title: Field[str]
            name: Field[str] = field(column="title")

    with pytest.raises(ModelError, match=r"^Paper: title and TITLE have the same column, 'TITLE'$"):

        class Paper(Plain):
            title: Field[str]
            TITLE: Field[str]


def test_constraints_and_indexes_are_in_the_database(Base, registry) -> None:
    """Under names that follow one convention, each base's own copied to every model that derives from it."""

    class Slugged(Base, abstract=True, table_args=(UniqueConstraint("slug"),)):
        slug: Field[str] = field(max_length=20)

    class Priced(
        Base, abstract=True, table_args=(CheckConstraint("price >= 0", name="not_negative"), {"comment": "p"})
    ):
        price: Field[Decimal] = field(max_digits=8, decimal_places=2, default=Decimal(1))

    class Shop(Slugged):
        code: Field[str] = field(max_length=5, unique=True)

    class Book(
        Slugged,
        Priced,
        table_args=(
            Index(None, "title", "slug"),
            Index("by_price", "price", unique=True),
            ForeignKeyConstraint(["shop"], ["shop.id"], ondelete="CASCADE"),
            UniqueConstraint("title", "price", name="once"),
        ),
    ):
        title: Field[str] = field(max_length=20, index=True)
        shop: Field[int | None] = field(default=None)
        colour: Field[Colour] = field(default=Colour.RED)

    registry.create_all()
    found = inspect(registry.databases.engine("default"))
    assert {"shop", "book"} <= set(found.get_table_names())
    indexes = {
        each["name"]: (each["column_names"], bool(each["unique"])) for each in found.get_indexes("book")
    }
    assert indexes["ix_book_title_slug"] == (["title", "slug"], False)
    assert indexes["ix_book_title"] == (["title"], False)
    assert indexes["by_price"] == (["price"], True)
    unique = {each["name"]: each["column_names"] for each in found.get_unique_constraints("book")}
    assert unique["uq_book_slug"] == ["slug"]
    assert unique["once"] == ["title", "price"]
    assert {each["name"] for each in found.get_unique_constraints("shop")} == {"uq_shop_slug", "uq_shop_code"}
    assert {each["name"] for each in found.get_check_constraints("book")} >= {
        "ck_book_not_negative",
        "ck_book_colour",
    }
    (foreign,) = found.get_foreign_keys("book")
    assert (foreign["name"], foreign["referred_table"], foreign["constrained_columns"]) == (
        "fk_book_shop",
        "shop",
        ["shop"],
    )
    assert found.get_pk_constraint("book")["constrained_columns"] == ["id"]
    assert Book.__table__.comment == "p"
    Book(slug="a", title="t").save()
    for wrong in (Book(slug="a", title="u", price=Decimal(2)), Book(slug="b", title="v", price=Decimal(-1))):
        with pytest.raises(DBAPIError):
            wrong.save()
    assert Book.objects.count() == 1
    registry.drop_all()
    inspect(registry.databases.engine("default")).clear_cache()
    assert not inspect(registry.databases.engine("default")).has_table("book")


ODD = [
    "select",
    "a b%c",
    '"q"',
    "a%(b)s",
    "a:b",
    "a.b",
    "ü🎉"[0],
    "Order",
    "?x",
    "it's",
    "a`b",
    "x\\y",
    "_v0",
    "a,b;--",
]


def test_a_column_may_be_called_anything(Base, registry) -> None:
    """Reserved words and odd characters are quoted, in every statement that microorm writes."""
    names = [f"field{place}" for place in range(len(ODD))]
    body = {name: field(column=column) for name, column in zip(names, ODD, strict=True)}
    body |= {
        "listed": field(column="a%b 'c'", default="x"),
        "made": field(column="made %s", server_default="5"),
    }
    notes = dict.fromkeys(names, Field[int]) | {"listed": Field[Literal["x", "y%"]], "made": Field[int]}
    Odd = type(
        "Odd", (Base,), {**body, "__annotations__": notes, "__module__": __name__}, table="group %s: by"
    )
    registry.create_all()
    values = {name: -place for place, name in enumerate(names)}
    odd = Odd(**values).save()
    assert odd.made == 5
    assert Odd.objects.get(**values).changes() == {}
    many = Odd.objects.bulk_create([Odd(**dict.fromkeys(names, number), listed="y%") for number in (7, 8)])
    assert [each.made for each in many] == [5, 5]
    for name in names:
        assert Odd.objects.filter(getattr(Odd, name) == 8).update(**{name: getattr(Odd, name) + 1}) == 1
        setattr(many[0], name, getattr(Odd, name) + 1)
        many[0].save(update_fields=[name])
        assert getattr(many[0], name) == 8
        found = Odd.objects.order_by(name)[2]
        assert (found.id, getattr(found, name), found.listed) == (many[1].id, 9, "y%")
        found.refresh_from_db(fields=[name])
    assert many[1].delete() == (1, {"test_schema.Odd": 1})


def test_the_options_of_a_table_are_handed_on(Plain) -> None:
    class Book(
        Plain, table_args=({"info": {"a": 1}, "mysql_engine": "Aria", "sqlite_autoincrement": False},)
    ):
        title: Field[str]

    table = Book.__table__
    assert (table.info, table.kwargs["mysql_engine"]) == ({"a": 1}, "Aria")
    assert (table.kwargs["mysql_charset"], table.kwargs["sqlite_autoincrement"]) == ("utf8mb4", False)


def test_a_constraint_stays_its_owner_s_alone(Plain) -> None:
    """The object that was written down belongs to no table, and serves the next model."""
    shared = UniqueConstraint("title")

    class One(Plain, table_args=(shared,)):
        title: Field[str] = field(max_length=5)

    class Two(Plain, table_args=(shared,)):
        title: Field[str] = field(max_length=5)

    for model in (One, Two):
        (found,) = [each for each in model.__table__.constraints if isinstance(each, UniqueConstraint)]
        assert found is not shared
        assert [column.table for column in found.columns] == [model.__table__]


def test_the_tables_are_the_registry_s() -> None:
    with Databases({"default": "sqlite://"}) as databases:
        registry = Registry(databases)

        class Book(Model, registry=registry):
            title: Field[str]

        assert isinstance(registry.metadata, MetaData)
        assert isinstance(Book.__table__, Table)
        assert registry.metadata.tables["book"] is Book.__table__


def test_a_model_may_be_all_key(Base, registry) -> None:
    """Nothing but a generated key, or nothing but a key that is given."""

    class Ticket(Base):
        pass

    class Seat(Base):
        row: Field[int] = field(primary_key=True)
        letter: Field[str] = field(primary_key=True, max_length=1)

    registry.create_all()
    first, second = Ticket().save(), Ticket().save()
    assert second.id > first.id
    assert first.save().changes() == {}
    assert [each.id for each in Ticket.objects.order_by("id")] == [first.id, second.id]
    assert len({each.id for each in Ticket.objects.bulk_create([Ticket(), Ticket()])}) == 2
    assert Ticket.objects.count() == 4
    seat = Seat(row=1, letter="a").save().save()
    assert Seat.objects.get(pk=(1, "a")) == seat
    assert (first.delete()[0], seat.delete()[0]) == (1, 1)


@pytest.mark.parametrize("item", [Index("by_title", "title"), UniqueConstraint("title", name="by_title")])
def test_a_name_in_an_abstract_model_is_refused_at_its_second_table(Plain, item) -> None:
    class Titled(Plain, abstract=True, table_args=(item, CheckConstraint("title <> ''", name="filled"))):
        title: Field[str]

    class Book(Titled):
        pass

    registry = Plain.__options__.registry
    with pytest.raises(
        ModelError, match="Film: the table 'book' has an index or constraint named 'by_title', too"
    ):

        class Film(Titled):
            pass

    assert list(registry.metadata.tables) == ["book"]
    with pytest.warns(RuntimeWarning, match="defined again"):

        class Book(Titled):
            pages: Field[int]


def test_names_that_are_made_from_the_table_are_never_refused(Plain) -> None:
    class Titled(Plain, abstract=True, table_args=(Index(None, "title"), UniqueConstraint("title"))):
        title: Field[str] = field(max_length=40)

    class Book(Titled):
        pass

    class Film(Titled):
        pass

    assert len(Plain.__options__.registry.metadata.tables) == 2
