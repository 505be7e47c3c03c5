"""`select_related`: what one statement loads, and how the instances know each other."""

from typing import Any

import pytest

from microorm import Field, FieldError, ForeignKey, Model, Related, RelatedOne, field, foreign_key, related
from microorm.signals import post_init, pre_init
from microorm.testing import no_lazy_loads
from tests.behaviour.library import fill, library

MEMORY = pytest.mark.backends("sqlite-memory")


@pytest.fixture
def shop(Base, registry) -> Any:
    """The models of a library, and its rows on both aliases."""
    models = library(Base)
    registry.create_all()
    fill(models)
    return models


def test_one_statement_loads_all_on_the_way(shop, wire):
    query = shop.Book.objects.select_related(shop.Book.author.country, "editor").order_by("title")
    with wire.record() as sent, no_lazy_loads():
        found = query.all()
        assert [book.author.name for book in found] == ["isabel"] * 3 + ["mario"] * 2
        assert [book.author.country.code for book in found] == ["cl"] * 3 + ["pe"] * 2
        assert [book.editor and book.editor.name for book in found] == [
            None,
            "mario",
            "isabel",
            None,
            "isabel",
        ]
    assert len(sent) == 1
    author = found[0].author
    assert (author._state.db, author._state.adding, author.changes()) == ("default", False, {})
    assert (vars(found[0])["author_id"], found[0].changes()) == (author.id, {})


def test_rows_that_are_related_to_one_row_share_its_instance(shop):
    a, b, c, d, e = shop.Book.objects.select_related("author", "editor").order_by("title")
    assert a.author is b.author is c.author is c.editor is e.editor
    assert b.editor is d.author
    assert a.author is not d.author


def test_every_end_loads_what_is_related(shop):
    query = shop.Book.objects.select_related("author.country")
    found = [
        query.get(title="b"),
        query.filter(title="b").first(),
        query.order_by("title").last(),
        query.filter(title="b").one_or_none(),
        *query.order_by("title")[1:3].all(),
        query.order_by("title")[1],
        *query.order_by("title").limit(2).offset(1).all(),
        *query.distinct().all(),
        *query.only("title").all(),
        *query.defer("author", "title").all(),
        *query.using("default").all(),
        *query.in_bulk().values(),
        *query.iterate(chunk=2),
        *query,
    ]
    with no_lazy_loads():
        assert len(found) > 40
        assert {book.author.country.code for book in found} == {"cl", "pe"}


def test_only_and_defer_load_the_key_that_it_is_found_by(shop, wire):
    """Whichever comes first; of what is related all fields are loaded."""
    Book = shop.Book
    for query in (
        Book.objects.only("title").select_related("author"),
        Book.objects.select_related("author").only("title"),
        Book.objects.select_related("author").defer("author", "editor", "log"),
    ):
        book = query.filter(title="a").get()
        with no_lazy_loads():
            assert book.author.name == "isabel"
        assert set(vars(book)) == {"id", "title", "author_id"}
        assert book.log == []  # loaded late


def test_joins_are_shared_with_conditions_and_order(shop, wire):
    Book = shop.Book
    query = Book.objects.filter(Book.author.country.code == "cl").order_by(Book.author.name, Book.title)
    with wire.record() as sent:
        assert [book.author.name for book in query.select_related(Book.author.country)] == ["isabel"] * 3
    assert len(sent) == 1
    assert sent[0].count("JOIN") == 2


def test_what_may_be_missing_is_joined_outer_and_found_missing(shop, wire):
    Author = shop.Author
    query = Author.objects.select_related(Author.profile, Author.country).order_by("name")
    with wire.record() as sent, no_lazy_loads():
        isabel, mario, nobody = query
        assert [each.profile and each.profile.text for each in (isabel, mario, nobody)] == [
            "born in Lima",
            None,
            None,
        ]
        assert nobody.country is None
    assert len(sent) == 1


def test_one_to_one_relations_are_known_from_both_sides(shop):
    with no_lazy_loads():
        isabel = shop.Author.objects.select_related("profile").get(name="isabel")
        assert isabel.profile.author is isabel
        profile = shop.Profile.objects.select_related("author").get()
        assert profile.author.profile is profile


def test_a_row_that_is_not_there_is_noticed(Base, registry, wire):
    """Of loose data: its key is in the row that refers to it, and nothing else is."""

    class Plane(Base):
        code: Field[str] = field(primary_key=True, max_length=5)

    class Flight(Base):
        plane: ForeignKey[Plane | None] = foreign_key(constraint=False)
        spare: ForeignKey[Plane] = foreign_key(constraint=False)

    registry.create_all("default")
    Plane(code="A").save()
    Flight(plane_id="A", spare_id="B").save()
    Flight(plane_id="C", spare_id="A").save()
    Flight(plane_id=None, spare_id="A").save()
    with no_lazy_loads():
        first, second, third = Flight.objects.select_related("plane", "spare").order_by("id")
        assert (first.plane.code, second.plane, third.plane) == ("A", None, None)
        with pytest.raises(Plane.DoesNotExist, match="no Plane with code='B'"):
            _ = first.spare
        assert first.plane is second.spare is third.spare


def test_composite_and_natural_keys(Base, registry):
    class Shelf(Base):
        room: Field[int] = field(primary_key=True)
        number: Field[int] = field(primary_key=True)
        mark: Field[str] = field(max_length=5, unique=True)
        label: RelatedOne["Label | None"] = related("shelf")

    class Label(Base):
        shelf: ForeignKey[Shelf | None] = foreign_key(to_field="mark", unique=True, default=None)

    registry.create_all("default")
    shelf = Shelf(room=1, number=2, mark="x").save()
    Label(shelf=shelf).save()
    Label().save()
    with no_lazy_loads():
        one, none = Label.objects.select_related("shelf").order_by("id")
        assert (one.shelf.pk, one.shelf.label, none.shelf) == ((1, 2), one, None)
        assert one.shelf.label is one
        assert Shelf.objects.select_related("label").get().label.shelf.mark == "x"


def test_a_row_of_its_own_model(Base, registry):
    class Node(Base):
        name: Field[str]
        parent: ForeignKey["Node | None"] = foreign_key(default=None)
        children: Related["Node"] = related("parent")

    registry.create_all("default")
    a = Node(name="a").save()
    b = Node(name="b", parent=a).save()
    Node(name="c", parent=b).save()
    with no_lazy_loads():
        one, two, three = Node.objects.select_related("parent.parent").order_by("name").only("name")
        assert (one.parent, two.parent.name, two.parent.parent) == (None, "a", None)
        assert (three.parent.name, three.parent.parent.name) == ("b", "a")


def test_locks_are_of_the_rows_themselves(shop, databases, wire):
    """What may be missing cannot be locked; PostgreSQL would refuse."""
    with databases.atomic():
        found = shop.Author.objects.select_related("country").for_update().order_by("name").all()
        assert [each.country and each.country.code for each in found] == ["cl", "pe", None]


def test_on_the_alias_that_is_asked(shop):
    fill(shop, "other")
    book = shop.Book.objects.using("other").select_related("author").get(title="a")
    assert (book._state.db, book.author._state.db) == ("other", "other")


@MEMORY
def test_the_making_of_related_instances_is_told(shop, listen):
    told: list[Any] = []
    listen(pre_init, lambda sender, kwargs, **_: told.append((sender.__name__, set(kwargs))))
    listen(post_init, lambda instance, **_: told.append(f"{type(instance).__name__}(id={instance.id!r})"))
    books = shop.Book.objects.filter(author_id=1).select_related("author.profile").all()
    assert [each for each in told if isinstance(each, str)] == [
        "Book(id=1)",
        "Book(id=2)",
        "Book(id=3)",
        "Author(id=1)",
        "Profile(id=1)",
    ]
    assert ("Author", {"id", "name", "country_id"}) in told
    assert books[2].author.profile.text == "born in Lima"


@MEMORY
def test_the_statement_shows_what_is_loaded(shop):
    Book = shop.Book
    query = Book.objects.select_related("author")
    assert len(query.statement.selected_columns) == len(Book.__table__.c) + len(shop.Author.__table__.c)
    assert query.count() == 5
    assert query.exists()
    assert sorted(query.scalars("title")) == list("abcde")
    assert len(Book.objects.select_related().all()) == 5


@MEMORY
def test_mutable_values_of_related_rows_are_watched(shop):
    tagged = shop.Book(title="z", author_id=1, log=["x"]).save()

    class Note(Model, registry=shop.Book.__schema__.registry):
        book: ForeignKey[shop.Book] = foreign_key()

    Note.__schema__.registry.create_all("default")
    Note(book=tagged).save()
    book = Note.objects.select_related("book").get().book
    book.log.append("y")
    assert book.changes() == {"log": (["x"], ["x", "y"])}


NO_PATHS = [
    (["autor"], FieldError, "Book.autor does not exist; nearest: 'author'"),
    (["author.contry"], FieldError, "Author.contry does not exist; nearest: 'country'"),
    (["author_id"], FieldError, "Book.author_id is not a relation"),
    (["author.name"], FieldError, "Author.name is not a relation"),
    (["author."], FieldError, "Author. does not exist"),
    ([""], FieldError, "Book. does not exist"),
    (["tags"], FieldError, "Book.tags leads to many rows; use prefetch_related"),
    (["author.books"], FieldError, "Author.books leads to many rows"),
    ([3], TypeError, "takes paths or dotted names, not 3"),
    ([None], TypeError, "not None"),
    ([["author"]], TypeError, "takes paths"),
]


@MEMORY
def test_what_is_no_path_to_one_row_is_refused(shop):
    for paths, error, message in NO_PATHS:
        with pytest.raises(error, match=message):
            shop.Book.objects.select_related(*paths)


@MEMORY
def test_paths_of_other_models_are_refused(shop):
    for path in (shop.Author.country, shop.Profile.author):
        with pytest.raises(FieldError, match="does not start at Book"):
            shop.Book.objects.select_related(path)
    for path in (shop.Book.author.name, shop.Book.title, shop.Book.author.id):
        with pytest.raises(FieldError, match="is a column"):
            shop.Book.objects.select_related(path)
    with pytest.raises(TypeError, match="takes paths"):
        shop.Book.objects.select_related(shop.Author)
    with pytest.raises(FieldError, match="leads to many rows"):
        shop.Book.objects.select_related(shop.Book.tags)
