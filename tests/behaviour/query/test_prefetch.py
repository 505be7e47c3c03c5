"""`prefetch_related` and `prefetch`: how many statements, what they load, and who knows whom then."""

from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import String, event, func, insert

from microorm import (
    Field,
    FieldError,
    ForeignKey,
    LazyLoadError,
    ManyToMany,
    Prefetch,
    Related,
    field,
    foreign_key,
    many_to_many,
    prefetch,
    related,
)
from microorm.signals import post_init
from microorm.sql.batches import MAX_PARAMETERS
from microorm.testing import no_lazy_loads
from tests.behaviour.library import fill, library

MEMORY = pytest.mark.backends("sqlite-memory")

BOOKS = {"isabel": "abc", "mario": "de", "nobody": ""}
TAGS = {"a": ["new", "old"], "b": ["old"], "c": [], "d": ["red"], "e": ["new", "red"]}


@pytest.fixture
def shop(Base, registry) -> Any:
    """The models of a library, and its rows on `default`."""
    models = library(Base)
    registry.create_all()
    fill(models)
    return models


def titles(books: Any) -> str:
    return "".join(sorted(book.title for book in books))


def names(tags: Any) -> list[str]:
    return sorted(tag.name for tag in tags)


def test_many_rows_take_one_statement_and_know_their_parent(shop, wire):
    with wire.record() as sent, no_lazy_loads():
        authors = shop.Author.objects.prefetch_related("books").all()
        assert {each.name: titles(each.books) for each in authors} == BOOKS
        assert {each.name: each.books.count() for each in authors} == {"isabel": 3, "mario": 2, "nobody": 0}
        assert [each.books.exists() for each in authors] == [True, True, False]
        assert all(book.author is author for author in authors for book in author.books)
    assert len(sent) == 2
    book = authors[0].books.all()[0]
    assert (book._state.db, book._state.adding, book.changes()) == ("default", False, {})


def test_one_row_takes_one_statement_and_is_shared(shop, wire):
    with wire.record() as sent, no_lazy_loads():
        books = shop.Book.objects.order_by("title").prefetch_related(shop.Book.author.country, "editor").all()
        assert [book.author.name for book in books] == ["isabel"] * 3 + ["mario"] * 2
        assert [book.author.country.code for book in books] == ["cl"] * 3 + ["pe"] * 2
        assert [book.editor and book.editor.name for book in books] == [
            None,
            "mario",
            "isabel",
            None,
            "isabel",
        ]
        assert books[0].author is books[2].author
    assert len(sent) == 4  # books, authors, their countries, editors


def test_many_to_many_takes_one_statement_from_either_side(shop, wire):
    with wire.record() as sent, no_lazy_loads():
        books = shop.Book.objects.prefetch_related(shop.Book.tags).all()
        assert {book.title: names(book.tags) for book in books} == TAGS
        old = {id(tag) for book in books for tag in book.tags if tag.name == "old"}
        assert len(old) == 1  # one row, one instance
    assert len(sent) == 2
    with wire.record() as sent, no_lazy_loads():
        tags = shop.Tag.objects.prefetch_related("books.author").order_by("name").all()
        assert [titles(tag.books) for tag in tags] == ["ae", "ab", "de", ""]
        assert tags[2].books.all()[0].author.name == "mario"
    assert len(sent) == 3


def test_each_level_takes_one_statement(shop, wire):
    """However the paths to it are written, and however many share it."""
    Author = shop.Author
    for paths in (
        ["books.tags", "profile"],
        ["books", Author.books.tags, "profile", "books"],
        [Author.profile, Author.books.tags, Prefetch("books", shop.Book.objects.order_by("title"))],
    ):
        with wire.record() as sent, no_lazy_loads():
            authors = Author.objects.prefetch_related(*paths).all()
            found = {book.title: names(book.tags) for author in authors for book in author.books}
            assert found == TAGS
            assert [each.profile and each.profile.author is each for each in authors] == [True, None, None]
        assert len(sent) == 4


def test_nothing_is_sent_for_nothing(shop, wire):
    with wire.record() as sent:
        assert shop.Author.objects.filter(name="x").prefetch_related("books.tags").all() == []
    assert len(sent) == 1
    with wire.record() as sent:
        (nobody,) = shop.Author.objects.filter(name="nobody").prefetch_related("books.tags", "country").all()
    assert len(sent) == 2  # no books, so no tags; no country
    with no_lazy_loads():
        assert (nobody.books.all(), nobody.country) == ([], None)


def test_what_is_known_is_not_loaded_again(shop, wire):
    Book = shop.Book
    with wire.record() as sent, no_lazy_loads():
        books = Book.objects.select_related("author").prefetch_related("author.books", "author.country").all()
        assert titles(books[0].author.books) == "abc"
        assert books[0].author.country.code == "cl"
    assert len(sent) == 3
    with wire.record() as sent:
        prefetch(books, "author.books", Book.author.country)
    assert sent == []
    with wire.record() as sent:
        prefetch(books, "author.books.tags")
    assert len(sent) == 1


def test_keys_are_sent_once(shop, wire, databases):
    seen: list[Any] = []
    event.listen(
        databases.engine("default"),
        "before_cursor_execute",
        lambda c, cursor, s, parameters, *_: seen.append(parameters),
    )
    shop.Book.objects.prefetch_related("author").all()
    assert sorted(seen[-1].values() if isinstance(seen[-1], dict) else seen[-1]) == [1, 2]


def test_every_end_prefetches(shop):
    query = shop.Author.objects.prefetch_related("books", "country")
    found = [
        query.get(name="isabel"),
        query.filter(name="isabel").first(),
        query.order_by("name").first(),
        query.order_by("name").last(),
        query.filter(id=1).one_or_none(),
        *query.order_by("name")[:2].all(),
        query.order_by("name")[1],
        *query.only("name").all(),
        *query.only("name").filter(name="mario").all(),
        *query.defer("country", "name").all(),
        *query.distinct().all(),
        *query.in_bulk([1, 2]).values(),
        *query.iterate(chunk=2),
    ]
    with no_lazy_loads():
        assert len(found) == 23
        for each in found:
            assert titles(each.books) == BOOKS[{1: "isabel", 2: "mario", 3: "nobody"}[each.id]]
            assert each.country is None or len(each.country.code) == 2


def test_a_stream_prefetches_chunk_by_chunk(shop, wire, databases):
    query = shop.Book.objects.order_by("title").prefetch_related("tags", "author")
    for inside in (False, True):
        with databases.atomic() if inside else no_lazy_loads():
            with wire.record() as sent:
                found = {book.title: (names(book.tags), book.author.name) for book in query.iterate(chunk=2)}
            assert {title: tags for title, (tags, _) in found.items()} == TAGS
            assert sum("book_tags" in each for each in sent) == 3


def test_a_query_of_its_own_filters_orders_and_goes_on(shop, wire):
    Author, Book, Tag = shop.Author, shop.Book, shop.Tag
    books = (
        Book.objects.filter(Book.title != "b")
        .order_by(Book.title.desc())
        .select_related("editor")
        .only("title")
    )
    tags = Tag.objects.filter(Tag.name != "old").order_by("name")
    with wire.record() as sent, no_lazy_loads():
        authors = Author.objects.order_by("name").prefetch_related(
            Prefetch(Author.books, books.prefetch_related(Prefetch("tags", tags)))
        )
        isabel, mario, nobody = authors
        assert ["".join(book.title for book in each.books) for each in (isabel, mario, nobody)] == [
            "ca",
            "ed",
            "",
        ]
        assert isabel.books.all()[0].editor.name == "isabel"
        assert names(isabel.books.all()[1].tags) == ["new"]
        assert [tag.name for tag in mario.books.all()[0].tags] == ["new", "red"]
        assert isabel.books.all()[0].author is isabel
    assert len(sent) == 3
    assert set(vars(isabel.books.all()[0])) >= {"title", "author_id"}
    assert "log" not in vars(isabel.books.all()[0])


def test_a_query_of_its_own_may_be_along_paths_and_distinct(shop):
    Author, Book, Tag = shop.Author, shop.Book, shop.Tag
    red = Book.objects.filter(Book.tags.name == "red", Book.author.country.code == "pe").order_by(
        Book.author.name
    )
    tags = Tag.objects.filter(Tag.books.title == "e").order_by(func.lower(Tag.name))
    with no_lazy_loads():
        mario = Author.objects.prefetch_related(Prefetch("books", red)).get(name="mario")
        assert titles(mario.books) == "de"
        books = Book.objects.prefetch_related(Prefetch("tags", tags.select_related())).order_by("title").all()
        assert [[tag.name for tag in book.tags] for book in books] == [
            ["new"],
            [],
            [],
            ["red"],
            ["new", "red"],
        ]
        books = Book.objects.prefetch_related(Prefetch("tags", Tag.objects.distinct().defer("name"))).all()
        assert sum(len(book.tags.all()) for book in books) == 6


def test_a_single_row_that_its_query_leaves_out_is_loaded_when_asked_for(shop, wire):
    Author, Book = shop.Author, shop.Book
    query = Prefetch("author", Author.objects.filter(name="isabel").select_related("country"))
    books = Book.objects.order_by("title").prefetch_related(query).all()
    with wire.record() as sent:
        assert books[0].author.country.code == "cl"
    assert sent == []
    with wire.record() as sent:
        assert books[4].author.name == "mario"
    assert len(sent) == 1


def test_what_a_level_needs_is_loaded_though_its_query_leaves_it_out(shop, wire):
    Author, Book = shop.Author, shop.Book
    books = Prefetch("books", Book.objects.only("title"))
    with wire.record() as sent, no_lazy_loads():
        authors = Author.objects.prefetch_related(books, "books.editor").all()
        assert {book.title: book.editor and book.editor.name for a in authors for book in a.books} == {
            "a": None,
            "b": "mario",
            "c": "isabel",
            "d": None,
            "e": "isabel",
        }
    assert len(sent) == 3


def test_instances_that_one_has(shop, wire):
    authors = list(shop.Author.objects.order_by("name"))
    again = shop.Author.objects.get(name="isabel")
    with wire.record() as sent:
        assert prefetch([*authors, again], shop.Author.books.tags, "country") is None
    assert len(sent) == 3
    with no_lazy_loads():
        assert {each.name: titles(each.books) for each in authors} == BOOKS
        assert titles(again.books) == "abc"
        again.books.all().clear()
        assert titles(again.books) == titles(authors[0].books) == "abc"  # a list of one's own
    with wire.record() as sent:
        prefetch(authors, Prefetch("books", shop.Book.objects.filter(title="a")))
    assert len(sent) == 1
    assert [titles(each.books) for each in authors] == ["a", "", ""]
    prefetch([], "whatever")


def test_instances_without_a_key_have_nothing_to_prefetch(shop, wire):
    new = shop.Author(name="x")
    with wire.record() as sent:
        prefetch([new], "books", "profile", "country")
    assert sent == []
    book = shop.Book(title="x", author_id=1)
    prefetch([book], "author", "tags")
    with no_lazy_loads():
        assert book.author.name == "isabel"


def test_rows_that_are_not_there(Base, registry, wire):
    class Plane(Base):
        code: Field[str] = field(primary_key=True, max_length=5)
        flights: Related["Flight"] = related("plane")

    class Flight(Base):
        plane: ForeignKey[Plane | None] = foreign_key(constraint=False)
        spare: ForeignKey[Plane] = foreign_key(constraint=False)

    registry.create_all("default")
    Plane(code="A").save()
    Flight(plane_id="A", spare_id="B").save()
    Flight(plane_id="C", spare_id="A").save()
    Flight(plane_id=None, spare_id="A").save()
    with wire.record() as sent, no_lazy_loads():
        first, second, third = Flight.objects.order_by("id").prefetch_related("plane", "spare").all()
        assert (first.plane.code, second.plane, third.plane) == ("A", None, None)
        with pytest.raises(Plane.DoesNotExist, match="no Plane with code='B'"):
            _ = first.spare
    assert len(sent) == 3


def test_a_model_that_refers_to_itself(Base, registry, wire):
    class Node(Base):
        name: Field[str]
        parent: ForeignKey["Node | None"] = foreign_key(default=None)
        children: Related["Node"] = related("parent")

    registry.create_all("default")
    root = Node(name="r").save()
    for name in "ab":
        child = Node(name=name, parent=root).save()
        for number in "12":
            Node(name=name + number, parent=child).save()
    with wire.record() as sent, no_lazy_loads():
        top = Node.objects.prefetch_related("children.children").get(parent=None)
        shown = {child.name: sorted(each.name for each in child.children) for child in top.children}
        assert shown == {"a": ["a1", "a2"], "b": ["b1", "b2"]}
        assert top.children.all()[0].children.all()[0].parent.parent is top
    assert len(sent) == 3


@pytest.mark.backends("sqlite-memory", "mariadb")
def test_keys_that_the_collation_holds_for_equal_find_each_other(Base, registry, databases, wire):
    """As they do without a prefetch, and by one statement more for all of them."""
    dialect = databases.database("default").dialect
    collation = {"sqlite": "NOCASE"}.get(dialect, "utf8mb4_general_ci")

    class Place(Base):
        name: Field[str] = field(unique=True, type_=String(10, collation=collation))
        events: Related["Event"] = related("place")
        visits: Related["Visit"] = related("places")

    class Event(Base):
        place: ForeignKey[Place] = foreign_key(to_field="name")

    class Visit(Base):
        places: ManyToMany[Place] = many_to_many(through="Stop")

    class Stop(Base):
        visit: ForeignKey[Visit] = foreign_key()
        place: ForeignKey[Place] = foreign_key(to_field="name")

    registry.create_all("default")
    Place(name="Rome").save()
    Place(name="Oslo").save()
    events = [Event(place_id=name).save() for name in ("ROME", "Rome", "rome", "oslo")]
    visit = Visit().save()
    Stop(visit=visit, place_id="rome").save()
    with wire.record() as sent, no_lazy_loads():
        query = Prefetch("events", Event.objects.order_by(Event.id.desc()))
        rome = Place.objects.prefetch_related(query, "visits").get(id=1)
        assert (rome.events.all(), rome.visits.all()) == (events[2::-1], [visit])
        assert {event.place for event in rome.events} == {rome}
    assert len(sent) == 5
    with wire.record() as sent, no_lazy_loads():
        found = Event.objects.order_by("id").prefetch_related("place").all()
        assert [event.place.name for event in found] == ["Rome", "Rome", "Rome", "Oslo"]
    assert len(sent) == 3
    filtered = Prefetch("place", Place.objects.filter(name="Rome"))
    found = Event.objects.order_by("id").prefetch_related(filtered).all()
    assert [bool(event._related) for event in found] == [True, True, True, False]
    assert [event.place.name for event in Event.objects.order_by("id").select_related("place")] == [
        "Rome"
    ] * 3 + ["Oslo"]
    assert Visit.objects.prefetch_related("places").get().places.all() == [rome]


def test_through_rows_that_repeat_themselves_count_once(Base, registry):
    class Tag(Base):
        name: Field[str]

    class Post(Base):
        tags: ManyToMany[Tag] = many_to_many(through="Tagging")
        taggings: Related["Tagging"] = related("post")

    class Tagging(Base):
        post: ForeignKey[Post] = foreign_key()
        tag: ForeignKey[Tag] = foreign_key()

    registry.create_all("default")
    post, tag = Post().save(), Tag(name="x").save()
    Tagging(post=post, tag=tag).save()
    Tagging(post=post, tag=tag).save()
    with no_lazy_loads():
        assert Post.objects.prefetch_related(Post.tags).get().tags.all() == [tag]
        both = Post.objects.prefetch_related(Post.taggings, "taggings.tag").get()
        assert [each.tag for each in both.taggings] == [tag, tag]


# Where


def test_from_the_alias_of_the_instances(shop, databases):
    fill(shop, "other")
    shop.Book.objects.using("other").update(title="o")
    here, there = shop.Author.objects.get(id=1), shop.Author.objects.using("other").get(id=1)
    prefetch([here, there], "books.tags", "country")
    with no_lazy_loads():
        assert [titles(each.books) for each in (here, there)] == ["abc", "ooo"]
        for alias, each in (("default", here), ("other", there)):
            found = [each.country, *each.books, *(tag for book in each.books for tag in book.tags)]
            assert {one._state.db for one in found} == {alias}
    author = shop.Author.objects.using("other").prefetch_related("books").get(id=1)
    assert titles(author.books) == "ooo"
    author = shop.Author.objects.prefetch_related(Prefetch("books", shop.Book.objects.using("other"))).get(
        id=1
    )
    assert (titles(author.books), author._state.db) == ("ooo", "default")


def test_inside_the_block_that_the_instances_were_read_in(shop, undone):
    with undone():
        shop.Book(title="f", author_id=1).save()
        author = shop.Author.objects.prefetch_related("books").get(id=1)
        assert titles(author.books) == "abcf"
    assert titles(shop.Author.objects.prefetch_related("books").get(id=1).books) == "abc"


def test_routers_are_asked_with_an_instance_as_for_a_lazy_load(Base, registry, databases):
    asked: list[Any] = []

    class Router:
        def db_for_read(self, model: Any, **hints: Any) -> str | None:
            asked.append((model.__name__, hints.get("instance")))
            return "other" if model.__name__ == "Book" else None

    models = library(Base)
    registry.create_all()
    fill(models)
    fill(models, "other")
    models.Book.objects.using("other").update(title="o")
    databases.routers = (Router(),)
    author = models.Author.objects.prefetch_related("books", "country").get(id=1)
    assert asked == [("Author", None), ("Book", author), ("Country", author)]
    assert (titles(author.books), author.country._state.db) == ("ooo", "default")
    author = models.Author.objects.using("default").prefetch_related("books").get(id=1)
    assert titles(author.books) == "abc"  # where the query was told to read, no router is asked


def test_the_making_of_prefetched_instances_is_told(shop, listen):
    told: list[str] = []
    listen(post_init, lambda instance, **_: told.append(f"{type(instance).__name__}(id={instance.id!r})"))
    shop.Author.objects.filter(id=2).prefetch_related("books.tags").all()
    assert told[:3] == ["Author(id=2)", "Book(id=4)", "Book(id=5)"]
    assert sorted(told[3:]) == ["Tag(id=1)", "Tag(id=3)"]


# What becomes of it later


def test_another_key_has_other_rows(shop, wire):
    author = shop.Author.objects.prefetch_related("books", "profile", "country").get(id=1)
    author.id, author.country_id = 2, "pe"
    assert (titles(author.books), author.profile, author.country.code) == ("de", None, "pe")
    author.id = 1
    assert titles(author.books) == "abc"


def test_a_refined_query_asks_anew(shop):
    author = shop.Author.objects.prefetch_related("books").get(id=1)
    shop.Book(title="z", author_id=1).save()
    assert titles(author.books) == "abc"
    assert titles(author.books.filter(shop.Book.title > "b")) == "cz"
    author.refresh_from_db()
    assert titles(author.books) == "abcz"


def test_unknown_rows_are_refused_where_lazy_loads_are(shop):
    """Those that a prefetch would have found: a query that says more is the user's own."""
    author, book = shop.Author.objects.get(id=1), shop.Book.objects.get(title="a")
    with no_lazy_loads():
        for ask in (
            author.books.all,
            author.books.count,
            author.books.exists,
            lambda: list(author.books),
            book.tags.all,
            lambda: list(book.tags),
        ):
            with pytest.raises(LazyLoadError, match=r"(Author.books|Book.tags) of .* is not loaded"):
                ask()
        assert titles(author.books.filter(title="a")) == "a"
        assert author.books.create(title="n").author is author
        prefetch([book], "tags")
        assert names(book.tags) == ["new", "old"]


# How many


def rows(shop: Any, databases: Any, authors: int, each: int) -> None:
    """Rows of *authors* authors, each of whom has *each* books."""
    books = [{"title": "t", "author_id": n % authors + 1} for n in range(authors * each)]
    with databases.connection() as connection:
        connection.execute(insert(shop.Author.__table__), [{"name": f"a{n}"} for n in range(authors)])
        connection.execute(insert(shop.Book.__table__), books)


@pytest.fixture
def empty(Base, registry) -> SimpleNamespace:
    """Authors, books and tags of few fields, and no rows."""

    class Author(Base):
        name: Field[str]
        books: Related["Book"] = related("author")

    class Tag(Base):
        name: Field[str]

    class Book(Base):
        title: Field[str]
        author: ForeignKey[Author] = foreign_key()
        tags: ManyToMany[Tag] = many_to_many()

    registry.create_all("default")
    return SimpleNamespace(Author=Author, Tag=Tag, Book=Book)


@pytest.mark.backends("sqlite-memory", "postgresql", "mariadb")
@pytest.mark.parametrize("way", ["driver"])  # many rows, which take time
def test_thousands_of_rows_and_what_belongs_to_them_take_two_statements(empty, wire, databases):
    rows(empty, databases, 3_000, 1)
    with wire.record() as sent:
        authors = empty.Author.objects.prefetch_related("books").all()
    assert len(sent) == 2
    with no_lazy_loads():
        assert [len(author.books.all()) for author in authors] == [1] * 3_000


@pytest.mark.backends("sqlite-memory", "postgresql", "mariadb")
def test_more_keys_than_a_statement_takes_are_sent_in_parts(empty, wire, databases, monkeypatch):
    """A limit of the database counts all parameters, those of the query's own conditions, too."""
    for dialect in list(MAX_PARAMETERS):
        monkeypatch.setitem(MAX_PARAMETERS, dialect, 10)
    monkeypatch.setattr("microorm.query.prefetch.MAX_BYTES", 10 * 4)
    rows(empty, databases, 25, 2)
    tag = empty.Tag(name="x").save()
    pair = empty.Book.__schema__.relations["tags"].through
    pair.objects.bulk_create([pair(book=book, tag=tag) for book in empty.Book.objects.all()], batch_size=3)
    Book = empty.Book
    query = Book.objects.filter(Book.title != "x", Book.title != "y").order_by(Book.id.desc())
    with wire.record() as sent, no_lazy_loads():
        authors = empty.Author.objects.prefetch_related(Prefetch("books", query), "books.tags").all()
        assert [len(author.books.all()) for author in authors] == [2] * 25
        assert all(a.books.all()[0].id > a.books.all()[1].id for a in authors)
        assert len({id(tag) for a in authors for book in a.books for tag in book.tags}) == 1
    assert len([each for each in sent if " IN (" in each]) == {"mariadb": 3 + 5}.get(
        databases.database("default").dialect, 4 + 5
    )


# What is refused


@MEMORY
@pytest.mark.parametrize(
    ("paths", "error", "message"),
    [
        (["boks"], FieldError, "prefetch_related\\(\\): Author.boks does not exist; nearest: 'books'"),
        (["books.tag"], FieldError, "Book.tag does not exist; nearest: 'tags'"),
        (["name"], FieldError, "Author.name is not a relation"),
        ([1], TypeError, "takes paths or dotted names, not 1"),
        ([["books"]], TypeError, "takes paths"),
    ],
)
def test_what_is_no_path_is_refused(shop, paths, error, message):
    with pytest.raises(error, match=message):
        shop.Author.objects.prefetch_related(*paths)
    with pytest.raises(error, match=message):
        prefetch([shop.Author.objects.get(id=1)], *paths)


@MEMORY
def test_queries_that_cannot_be_shared_are_refused(shop):
    Author, Book = shop.Author, shop.Book
    for limited in (Book.objects[:3], Book.objects.limit(1), Book.objects.offset(1)):
        with pytest.raises(TypeError, match="uses one query for all instances, so it cannot be limited"):
            Prefetch("books", limited)
    with pytest.raises(TypeError, match="this query is grouped"):
        Prefetch("books", Book.objects.group_by("title"))
    with pytest.raises(TypeError, match="takes a query"):
        Prefetch("books", [Book(title="x", author_id=1)])
    with pytest.raises(TypeError, match="takes a query of Book, not <Query of Tag>"):
        Author.objects.prefetch_related(Prefetch("books", shop.Tag.objects))
    twice = Author.objects.prefetch_related(Prefetch("books", Book.objects.filter(title="a")))
    with pytest.raises(ValueError, match="two queries for 'books'"):
        twice.prefetch_related(Prefetch(Author.books, Book.objects))
    assert repr(Prefetch("books", Book.objects)) == f"Prefetch('books', {Book.objects!r})"


@MEMORY
def test_instances_of_several_models_are_refused(shop):
    author, tag = shop.Author.objects.get(id=1), shop.Tag.objects.get(id=1)
    with pytest.raises(TypeError, match="takes instances of one model, not Author.* and Tag"):
        prefetch([author, tag], "books")
    with pytest.raises(TypeError, match="takes instances of a model, not 3"):
        prefetch([3], "books")
