"""What a class statement makes of a model, and what it refuses."""

import gc
import sys
import threading
import types
import warnings
import weakref
from collections.abc import Iterator
from typing import Any, ClassVar, Optional
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import CheckConstraint, Index, UniqueConstraint, inspect

import microorm
from microorm import Databases, Field, Model, ModelError, Registry, field
from microorm.mapping.definition import prepare, snake_case
from microorm.signals import class_prepared


@pytest.fixture
def databases() -> Iterator[Databases]:
    """One memory database: no statement of these tests depends on its kind."""
    with Databases({"default": "sqlite://", "other": "sqlite://"}) as databases:
        yield databases


@pytest.fixture
def prepared() -> Iterator[list[type]]:
    """The senders of `class_prepared`, in order."""
    heard: list[type] = []

    def hear(sender, **kwargs):
        assert kwargs.keys() == {"signal"}
        heard.append(sender)

    class_prepared.connect(hear)
    yield heard
    class_prepared.disconnect(hear)


def contents(registry: Registry) -> tuple[Any, ...]:
    """What a failed class statement has to leave alone."""
    tables = dict(registry.tables.tables)
    columns = {name: list(table.columns.keys()) for name, table in tables.items()}
    return dict(registry.models), columns, dict(registry._postponed)


def model_in(module: str, Base: type[Model], name: str = "Book", **keywords: Any) -> Any:
    """A model whose class statement stands in *module*."""
    body = {"__module__": module, "__qualname__": name, "__annotations__": {"title": Field[str]}}
    return types.new_class(name, (Base,), keywords, lambda namespace: namespace.update(body))


WRONG_KEYWORDS = [
    (
        {"tabel": "books"},
        "Book: no class keyword 'tabel'; known: abstract, app, database, managed, natural_key, read_only, registry, table, table_args; "
        "nearest: 'table'",
    ),
    (
        {"zzz": 1},
        "Book: no class keyword 'zzz'; known: abstract, app, database, managed, natural_key, read_only, registry, table, table_args",
    ),
    ({"table": ""}, "Book: table= must be a name, not ''"),
    ({"table": 3}, "Book: table= must be a name, not 3"),
    ({"app": ""}, "Book: app= must be a name, not ''"),
    ({"app": "my.shop"}, "Book: app= must be an identifier, not 'my.shop'"),
    ({"database": 7}, "Book: database= must be a name, not 7"),
    (
        {"database": "no such"},
        "Book: database= must be an alias (letters, digits, underscores), not 'no such'",
    ),
    ({"abstract": 1}, "Book: abstract= must be a bool, not 1"),
    ({"registry": "default"}, "Book: registry= must be a Registry, not 'default'"),
    ({"table_args": ["x"]}, "Book: table_args= must be a tuple, not ['x']"),
    ({"table_args": ("x",)}, "Book: table_args= must contain constraints and indexes, not 'x'"),
    ({"abstract": True, "table": "books"}, "Book: an abstract model cannot have table="),
]


@pytest.mark.parametrize(("keywords", "message"), WRONG_KEYWORDS, ids=lambda case: str(case)[:30])
def test_a_wrong_class_keyword_is_refused_and_leaves_nothing(Base, registry, keywords, message) -> None:
    before = contents(registry)
    with pytest.raises(ModelError) as caught:

        class Book(Base, **keywords):
            title: Field[str]

    assert str(caught.value) == message
    assert contents(registry) == before == ({}, {}, {})


def test_each_way_to_be_wrong_in_the_body_names_model_and_field(Base, registry) -> None:
    class Author(Base):
        name: Field[str]

    class Plain:
        note = field()

    def derived():
        class Novelist(Author):
            pass

    def taken():
        class Book(Base):
            save: Field[str]

    def taken_by_an_error():
        class Book(Base):
            DoesNotExist: Field[str]

    def underscore():
        class Book(Base):
            _title: Field[str]

    def no_identifier():
        types.new_class("Book", (Base,), {}, lambda body: body.update(__annotations__={"a b": Field[str]}))

    def unannotated():
        class Book(Base):
            title = field()

    def plain_default():
        class Book(Base):
            title: Field[str] = "none"

    def no_field():
        class Book(Base):
            title: str

    def no_field_as_text():
        class Book(Base):
            title: "str"

    def not_understood():
        class Book(Base):
            title: "Field[str"

    def plain_mixin():
        class Book(Plain, Base):
            title: Field[str]

    class Annotated:
        note: Field[str]

    def annotated_mixin():
        class Book(Annotated, Base):
            title: Field[str]

    class Texted:
        other: int
        note: "microorm.Field[str]"

    def texted_mixin():
        class Book(Texted, Base):
            title: Field[str]

    def overwritten():
        class Titled(Base, abstract=True):
            title: Field[str]

        class Book(Titled):
            title = "none"

    def id_without_key():
        class Book(Base):
            id: Field[int]

    def one_column():
        class Book(Base):
            title: Field[str] = field(column="name")
            name: Field[str]

    def one_table():
        class Book(Base, table="author"):
            title: Field[str]

    def no_such_column():
        class Book(Base, table_args=(UniqueConstraint("titel"),)):
            title: Field[str]

    def wrong_key():
        class Book(Model[str], registry=registry):
            title: Field[str]

    messages = {
        derived: "Novelist derives from Author, which has a table; only abstract models can be base classes",
        taken: "Book.save: the name is used by Model.save",
        taken_by_an_error: "Book.DoesNotExist: the name is used by Model.DoesNotExist",
        underscore: "Book._title: the name of a field must be an identifier without a leading underscore",
        no_identifier: "Book.a b: the name of a field must be an identifier without a leading underscore",
        unannotated: "Book.title: a field() without an annotation; annotate it as Field[...]",
        plain_default: "Book.title: 'none' is not a field(); write a default as field(default=...)",
        no_field: "Book.title: annotate it as Field[...], not 'str'",
        no_field_as_text: "Book.title: annotate it as Field[...], not 'str'",
        plain_mixin: "Book: Plain has fields but is not a model; declare it as class Plain(Model, abstract=True)",
        annotated_mixin: "Book: Annotated has fields but is not a model; "
        "declare it as class Annotated(Model, abstract=True)",
        texted_mixin: "Book: Texted has fields but is not a model; declare it as class Texted(Model, abstract=True)",
        overwritten: "Book.title: 'title' is an inherited field; only another field can replace it",
        id_without_key: "Book.id: without primary_key=True, but no other field is the primary key",
        one_column: "Book: title and name have the same column, 'name'",
        one_table: "Book: another model has the table 'author'",
        wrong_key: "Book: Model[str] has no implicit key; declare a field with primary_key=True",
    }
    starts = {
        not_understood: "Book.title: invalid annotation 'Field[str': ",
        no_such_column: "Book: invalid table 'book': ",
    }
    before = contents(registry)
    for state, message in (messages | starts).items():
        with pytest.raises(ModelError) as caught:
            state()
        text = str(caught.value)
        assert text == message if state in messages else text.startswith(message), text
        assert contents(registry) == before


def test_every_public_name_of_a_model_is_taken(Base) -> None:
    """A field named like a method is refused, and so are those that later parts of a model use."""
    for name in sorted(name for name in dir(Model) if not name.startswith("_") and name != "id"):
        with pytest.raises(ModelError, match=f"^Book.{name}: the name is used by Model.{name}$"):
            types.new_class(
                "Book", (Base,), {}, lambda body, name=name: body.update(__annotations__={name: Field[int]})
            )


def test_a_label_in_two_modules_is_an_error(Base, registry) -> None:
    first = model_in("shop.models", Base)
    with pytest.raises(ModelError) as caught:
        model_in("shop.more.models", Base, app="shop", table="more_books")
    assert str(caught.value) == (
        "two models are labelled 'shop.Book': in shop.models and in shop.more.models"
    )
    assert registry.models == {"shop.Book": first}
    assert list(registry.metadata.tables) == ["book"]


def test_a_model_defined_again_takes_the_place_with_a_warning_at_its_class_statement(Base, registry) -> None:
    """Reloads and notebooks."""

    class Book(Base):
        title: Field[str]

    first = Book
    with pytest.warns(RuntimeWarning) as told:

        class Book(Base):  # line of the warning
            name: Field[str]

    (warning,) = told
    assert str(warning.message) == "the model 'test_definition.Book' is defined again"
    with open(__file__) as source:
        assert "# line of the warning" in source.readlines()[warning.lineno - 1]
    assert registry.models == {"test_definition.Book": Book}
    assert Book is not first
    assert registry.metadata.tables["book"] is Book.__table__
    assert [column.name for column in Book.__table__.columns] == ["id", "name"]


def test_a_model_that_waits_for_a_name_warns_once_when_it_is_defined_again(Base, registry) -> None:
    class Book(Base):
        title: Field[str]

    with pytest.warns(RuntimeWarning, match="is defined again") as told:

        class Book(Base):
            pages: Field["Count"]

    assert len(told) == 1
    assert registry.models["test_definition.Book"] is not Book
    Count = int
    assert Book(pages=Count(3)).pages == 3
    assert registry.models == {"test_definition.Book": Book}


def test_a_class_statement_that_fails_leaves_the_model_it_would_replace(Base, registry) -> None:
    class Author(Base):
        name: Field[str]

    class Book(Base):
        title: Field[str]

    def wrong_type():
        class Book(Base):
            title: Field[object]

    def wrong_table():
        class Book(Base, table="author"):
            title: Field[str]

    def stopped():
        class Book(Base):
            name: Field[str]

    def stop(sender, **kwargs):
        raise OSError("stopped")

    before = contents(registry)
    with pytest.warns(RuntimeWarning), pytest.raises(ModelError, match=r"^Book\.title: no column type for"):
        wrong_type()
    assert registry.metadata.tables["book"] is Book.__table__
    with (
        pytest.warns(RuntimeWarning),
        pytest.raises(ModelError, match="another model has the table 'author'"),
    ):
        wrong_table()
    assert contents(registry) == before
    class_prepared.connect(stop)
    try:
        with pytest.warns(RuntimeWarning), pytest.raises(OSError, match="stopped"):
            stopped()
    finally:
        class_prepared.disconnect(stop)
    assert contents(registry) == before
    registry.create_all()
    assert Book(title="still there").save().pk == 1


def test_a_receiver_that_fails_takes_the_model_back(Base, registry) -> None:
    def stop(sender, **kwargs):
        raise OSError("stopped")

    def attempt():
        class Book(Base):
            title: Field[str]

        return Book

    class_prepared.connect(stop)
    try:
        with pytest.raises(OSError, match="stopped"):
            attempt()
    finally:
        class_prepared.disconnect(stop)
    assert contents(registry) == ({}, {}, {})
    assert registry.models == {"test_definition.Book": attempt()}


def test_a_function_that_waits_and_fails_takes_the_model_back_and_waits_on(Base, registry) -> None:
    """What ran already is not run again."""
    ran: list[str] = []
    failing = [True]

    def fails(model):
        if failing:
            failing.clear()
            raise OSError("stopped")
        ran.append("second")

    def attempt():
        class Book(Base):
            title: Field[str]

        return Book

    registry.when_defined("test_definition.Book", lambda model: ran.append("first"))
    registry.when_defined("test_definition.Book", fails)
    registry.when_defined("test_definition.Book", lambda model: ran.append("third"))
    with pytest.raises(OSError, match="stopped"):
        attempt()
    assert contents(registry) == ({}, {}, {})
    assert ran == ["first"]
    attempt()
    assert ran == ["first", "second", "third"]


def test_class_prepared_is_sent_once_for_each_concrete_model(Base, registry, prepared) -> None:
    """Never for an abstract one; when it is sent, the model is complete."""
    seen: list[Any] = []

    def look(sender, **kwargs):
        seen.append((registry.models.get("test_definition." + sender.__name__), sender.__table__.name))

    class_prepared.connect(look)
    try:

        class Titled(Base, abstract=True):
            title: Field[str]

        class Book(Titled):
            pass

        class Paper(Titled):
            pages: Field["Count"]

        assert prepared == [Book]
        Count = int
        Paper(title="x", pages=Count(1))
        Paper(title="y", pages=2)
        _ = registry.metadata
    finally:
        class_prepared.disconnect(look)
    assert prepared == [Book, Paper]
    assert seen == [(Book, "book"), (Paper, "paper")]


def test_abstract_bases_hand_down_what_they_have(databases) -> None:
    """Fields, database, app, registry and table_args, what the nearest base states itself counts."""
    registry, elsewhere = Registry(databases), Registry(databases)

    class Base(Model, registry=registry, app="library", database="other", abstract=True):
        created: Field[int]

    class Titled(
        Base,
        abstract=True,
        table_args=(CheckConstraint("title <> ''", name="title"), Index(None, "title")),
    ):
        title: Field[str] = field(max_length=50)

    class Priced(Base, app="shop", abstract=True, table_args=(CheckConstraint("price >= 0", name="price"),)):
        price: Field[int] = field(default=0)

    class Book(Titled, Priced, table_args=(UniqueConstraint("title", "price"),)):
        pages: Field[int] = field(default=1)

    class Paper(Titled, table="papers", database="default"):
        pass

    class Own(Titled, registry=elsewhere):
        title: Field[str] = field(max_length=5)

    assert Book.__schema__.names == ("id", "created", "price", "title", "pages")
    assert (Book.__schema__.label, Book.__schema__.home) == ("shop.Book", "other")
    assert (Paper.__schema__.label, Paper.__schema__.home) == ("library.Paper", "default")
    assert registry.models == {"shop.Book": Book, "library.Paper": Paper}
    assert elsewhere.models == {"library.Own": Own}
    assert Own.__table__.columns["title"].type.length == 5
    assert Own.__table__.metadata is elsewhere.metadata

    def names(model: Any) -> set[Any]:
        items = [*model.__table__.constraints, *model.__table__.indexes]
        assert all(item.table is model.__table__ for item in items)
        return {item.name for item in items}

    assert names(Book) == {
        "pk_book",
        "ck_book_title",
        "ck_book_price",
        "uq_book_title_price",
        "ix_book_title",
    }
    assert names(Paper) == {"pk_papers", "ck_papers_title", "ix_papers_title"}
    registry.create_all("other")
    with databases.connection("other") as connection:
        assert inspect(connection).get_indexes("papers")[0]["name"] == "ix_papers_title"


def test_mixins_give_their_fields_to_each_model_separately(Base) -> None:
    class Titled(Model, abstract=True):
        title: Field[str]
        shelf: ClassVar[str] = "A"

        def shout(self) -> str:
            return self.title.upper()

    class Book(Titled, Base):
        pass

    class Paper(Titled, Base):
        title: Field[str | None] = field(default=None)

    assert Book.title is not Paper.title
    assert (Book.title.table.name, Paper.title.table.name) == ("book", "paper")
    assert (Book.title.nullable, Paper.title.nullable) == (False, True)
    assert Book(title="lathe").shout() == "LATHE"
    assert Paper(title="x").shelf == "A"
    assert Book.__schema__.names == ("id", "title")
    with pytest.raises(AttributeError, match="^Titled is abstract and has no schema$"):
        _ = Titled.title


def test_a_plain_mixin_without_fields_gives_its_methods(Base) -> None:
    class Shouting:
        volume: int = 3
        note: "str"

        def shout(self) -> str:
            return self.title.upper() + "!" * self.volume

    class Book(Shouting, Base):
        title: Field[str]

    assert Book(title="t").shout() == "T!!!"
    assert Book.__schema__.names == ("id", "title")


def test_a_base_may_have_class_keywords_of_its_own(Base) -> None:
    class Tracked(Base, abstract=True):
        colour: ClassVar[str | None] = None

        def __init_subclass__(cls, colour: str | None = None, **keywords: Any) -> None:
            super().__init_subclass__(**keywords)
            cls.colour = colour

    class Book(Tracked, colour="red", table="books"):
        title: Field[str]

    assert (Book.colour, Book.__table__.name) == ("red", "books")


def test_one_field_object_may_be_written_twice(Base) -> None:
    one = field(max_length=9)

    class Book(Base):
        title: Field[str] = one
        name: Field[str] = one

    assert Book.__schema__.names == ("id", "title", "name")
    assert [column.name for column in Book.__table__.columns] == ["id", "title", "name"]


def test_the_key_is_what_the_model_or_its_bases_say(Base, registry) -> None:
    class Named(Model[UUID], registry=registry, abstract=True):
        name: Field[str]

    class Author(Named):
        pass

    class Book(Base):
        title: Field[str]

    class Line(Base):
        book: Field[int] = field(primary_key=True)
        number: Field[int] = field(primary_key=True)

    assert isinstance(Author(name="x").id, UUID)
    assert Author(name="x").id != Author(name="x").id
    assert Book(title="x").id is None
    assert Line.__schema__.key_names == ("book", "number")
    assert not hasattr(Line, "id")
    with pytest.raises(AttributeError, match="^Line has no field 'id'$"):
        _ = Line(book=1, number=2).id


def doors(model: Any, registry: Registry) -> dict[str, Any]:
    """Every way by which a model that waits for a name is first used."""
    return {
        "objects": lambda: model.objects.filter(size=1).statement,
        "constructor": lambda: model(size=1),
        "field": lambda: model.size,
        "key": lambda: model.id,
        "__table__": lambda: model.__table__,
        "__schema__": lambda: model.__schema__,
        "metadata": lambda: registry.metadata,
        "create_all": registry.create_all,
        "drop_all": registry.drop_all,
    }


@pytest.mark.parametrize("door", doors(Model, Registry()))
def test_a_name_defined_later_is_found_at_the_first_use(Base, registry, prepared, door) -> None:
    """Through each door; until then the name is missing, the error says which, and nothing is there."""

    class Book(Base):
        size: Field["Later"]

    assert prepared == []
    assert registry.models == {}
    for _ in range(2):
        with pytest.raises(ModelError) as caught:
            doors(Book, registry)[door]()
        assert str(caught.value) == "Book: name 'Later' is not defined"
    assert registry.models == {}
    assert list(registry.tables.tables) == []
    Later = int
    doors(Book, registry)[door]()
    assert prepared == [Book]
    assert registry.models == {"test_definition.Book": Book}
    assert Book.__schema__.field("size").python_type is Later
    assert registry.metadata.tables["book"] is Book.__table__


def test_a_model_of_one_name_waits_for_another_without_an_id(Base) -> None:
    class Book(Base):
        isbn: Field["Later"] = field(primary_key=True)

    Later = int
    assert not hasattr(Book, "id")


def test_an_abstract_base_may_wait_for_a_name(Base, registry) -> None:
    class Sized(Base, abstract=True):
        size: Field["Later | None"] = field(default=None)

    class Book(Sized):
        title: Field[str]

    class Paper(Sized):
        title: Field[str]

    assert registry.models == {}
    Later = int
    assert Book(title="x", size=Later(2)).size == 2
    assert Paper.__schema__.field("size").nullable
    assert list(registry.models.values()) == [Book, Paper]


def test_no_frame_lives_on_once_a_model_is_defined(Base, registry) -> None:
    """What the function around a class statement held goes when it returns."""

    class Thing:
        pass

    def define(pending: bool) -> tuple[Any, weakref.ref[Thing]]:
        thing = Thing()

        class Local(Base, table=f"local_{pending}"):
            size: Field["int"]
            count: Field["Later"] if pending else Field[int]

        if pending:
            Later = int
            Local(size=1, count=2)
        return Local, weakref.ref(thing)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for pending in (False, True):
            model, thing = define(pending)
            gc.collect()
            assert thing() is None
            assert model.__schema__.names == ("id", "size", "count")


POSTPONED = """
from __future__ import annotations
import typing
from typing import ClassVar
from datetime import date
from microorm import Field, Model, Registry, field
import enum

registry = Registry()

class Base(Model, registry=registry, abstract=True):
    pass

class Book(Base):
    class Shelf(enum.Enum):
        A = 1
    limit: ClassVar[int] = 3
    other: typing.ClassVar = 4
    title: Field[str]
    date: Field[date] = field(default=date(2020, 1, 2))
    shelf: Field[Shelf | None] = field(default=None)
    mood: Field[Mood] = field(max_length=3)

def make():
    Local = int
    class Inner(Base):
        number: Field[Local]
        again: Field[typing.Optional[Local]] = field(default=None)
    return Inner

Mood = str
"""


def test_annotations_may_be_text(monkeypatch) -> None:
    """`from __future__ import annotations`: module, class and function names, and a field called as its type."""
    module = types.ModuleType("late_annotations")
    monkeypatch.setitem(sys.modules, "late_annotations", module)
    exec(POSTPONED, vars(module))
    Book, Inner = module.Book, module.make()
    assert [each.name for each in Book.__schema__.fields] == ["id", "title", "date", "shelf", "mood"]
    assert Book.__schema__.field("date").python_type is module.date
    assert Book.__schema__.field("shelf").python_type is Book.Shelf
    assert Book.__schema__.field("mood").python_type is str
    assert Inner.__schema__.field("number").python_type is int
    assert Inner.__schema__.field("again").nullable
    assert set(module.registry.models) == {"late_annotations.Book", "late_annotations.Inner"}


def test_a_model_in_a_function_sees_the_functions_around_it(Base) -> None:
    Size = int

    def outer():
        Weight = float

        def inner():
            class Book(Base):
                size: Field["Size"]
                weight: Field[Optional["Weight"]]

            assert (Size, Weight) == (int, float)
            return Book

        return inner()

    schema = outer().__schema__
    assert schema.field("size").python_type is int
    assert (schema.field("weight").python_type, schema.field("weight").nullable) == (float, True)


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("Book", "book"),
        ("HTTPLogEntry", "http_log_entry"),
        ("LogHTTP", "log_http"),
        ("Iso3166Code", "iso3166_code"),
        ("B", "b"),
        ("ABTest", "ab_test"),
        ("book", "book"),
        ("Already_Snake", "already_snake"),
    ],
)
def test_a_table_is_called_as_its_model_in_snake_case(Base, name, table) -> None:
    model = model_in("shop.models", Base, name)
    assert model.__table__.name == table
    assert model.__schema__.name == name


@given(st.lists(st.from_regex(r"[A-Z][a-z]{1,5}", fullmatch=True), min_size=1, max_size=4))
def test_words_become_snake_case(words) -> None:
    assert snake_case("".join(words)) == "_".join(word.lower() for word in words)


def test_the_documented_attributes_of_a_model(Base, registry) -> None:
    class Book(Base, table="books", database="other"):
        title: Field[str]

    assert Book.__table__ is registry.metadata.tables["books"]
    assert Book.__schema__.model is Book
    assert Book.__schema__.registry is registry
    assert repr(Book.__schema__) == "<Schema test_definition.Book: id, title>"
    assert Book.title is Book.__table__.columns["title"]
    with pytest.raises(AttributeError):
        Book.__schema__.label = "other"
    for door in ("__schema__", "__table__"):
        with pytest.raises(AttributeError, match="^Base is abstract and has no schema$"):
            getattr(Base, door)
    with pytest.raises(AttributeError, match="^Base has no field 'id'$"):
        _ = Base.id
    assert issubclass(Book, microorm.Model)


def test_threads_that_use_a_model_first_prepare_it_once(Base, registry, prepared) -> None:
    """A model that waited for a name is made by one of them, and all get the same."""

    class Book(Base):
        size: Field["Later"]

    Later = int
    start = threading.Barrier(6)
    found: list[Any] = []

    def use() -> None:
        start.wait(timeout=200)
        found.append((Book.__schema__, Book(size=Later(1)).size))

    threads = [threading.Thread(target=use) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [(Book.__schema__, 1)] * 6
    assert prepared == [Book]
    assert prepare(Book) is Book.__schema__
    assert prepared == [Book]


def test_a_superseded_model_that_still_waits_takes_no_place_from_the_newer(Base, registry) -> None:
    """The newer one is there once its names are."""

    class Book(Base):
        size: Field["Later"]

    first = Book
    with pytest.warns(RuntimeWarning, match="is defined again"):

        class Book(Base):
            size: Field["Later"]
            more: Field[int]

    Later = int
    with pytest.warns(RuntimeWarning, match="is defined again"):
        assert first(size=Later(1)).size == 1
    assert Book(size=1, more=2).more == 2
    assert registry.models == {"test_definition.Book": Book}
    assert registry.metadata.tables["book"] is Book.__table__


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (
            {"__tablename__": "x"},
            r"^Book: __tablename__ in the class body has no effect; .* table= instead of",
        ),
        ({"__table_args__": ()}, r"table_args= instead of __table_args__$"),
        ({"__abstract__": True}, r"abstract=True instead of __abstract__$"),
        (
            {"Meta": type("Meta", (), {"db_table": "x", "app_label": "a"})},
            r"^Book: Meta in the class body .*: table= instead of Meta\.db_table, app= instead of Meta\.app_label$",
        ),
        (
            {"Meta": type("Meta", (), {"ordering": ["a"]})},
            r"order_by\(\) of a query instead of Meta\.ordering$",
        ),
        (
            {"Meta": type("Meta", (), {})},
            r"known: abstract, app, database, managed, natural_key, read_only, registry, table, table_args$",
        ),
    ],
)
def test_options_of_other_orms_name_the_class_keyword(body: dict[str, Any], told: str) -> None:
    class Base(Model, registry=Registry(), abstract=True):
        pass

    mixin = type("Mixin", (), body)
    for bases, own in (((Base,), body), ((mixin, Base), {})):
        with pytest.raises(ModelError, match=told.replace("Book", "(Book|Mixin)")):
            type(Base)("Book", bases, {"__module__": __name__, **own})
    assert Base.__options__.registry.known() == {}
