"""Paths along relations: they join by themselves, share their joins, and never find a row twice."""

from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import and_, case, func, not_, or_, select

from microorm import (
    Field,
    FieldError,
    ForeignKey,
    ManyToMany,
    Related,
    RelatedOne,
    field,
    foreign_key,
    many_to_many,
    related,
)


@pytest.fixture
def library(Base: Any, registry: Any) -> Any:
    """Two countries, four authors, five books with tags; one author has no country, one no books."""

    class Country(Base):
        name: Field[str] = field(max_length=40)

    class Author(Base):
        name: Field[str] = field(max_length=40)
        country: ForeignKey[Country | None] = foreign_key(default=None)
        mentor: ForeignKey["Author | None"] = foreign_key(default=None)
        books: Related["Book"] = related("author")
        pupils: Related["Author"] = related("mentor")
        profile: RelatedOne["Profile | None"] = related("author")

    class Profile(Base):
        author: ForeignKey[Author] = foreign_key(unique=True)
        text: Field[str] = field(max_length=40)

    class Tag(Base):
        name: Field[str] = field(max_length=40)
        books: Related["Book"] = related("tags")

    class Book(Base):
        title: Field[str] = field(max_length=40)
        pages: Field[int] = field(default=0)
        author: ForeignKey[Author] = foreign_key()
        tags: ManyToMany[Tag] = many_to_many()

    registry.create_all("default")
    chile, peru = (Country(name=name).save() for name in ("Chile", "Peru"))
    neruda = Author(name="Neruda", country=chile).save()
    allende = Author(name="Allende", country=chile, mentor=neruda).save()
    llosa = Author(name="Llosa", country=peru, mentor=allende).save()
    Author(name="Nobody").save()
    Profile(author=neruda, text="poet").save()
    through = Book.__schema__.relations["tags"].through
    red, blue = Tag(name="red").save(), Tag(name="blue").save()
    for title, pages, author, tags in (
        ("Canto", 100, neruda, [red, blue]),
        ("Odas", 200, neruda, [red]),
        ("Espiritus", 300, allende, []),
        ("Perros", 400, llosa, [blue]),
        ("Fiesta", 500, llosa, []),
    ):
        book = Book(title=title, pages=pages, author=author).save()
        for tag in tags:
            through(book=book, tag=tag).save()
    return SimpleNamespace(
        Country=Country, Author=Author, Profile=Profile, Tag=Tag, Book=Book, through=through
    )


def titles(query: Any) -> list[str]:
    return sorted(book.title for book in query)


def names(query: Any) -> list[str]:
    return sorted(author.name for author in query)


def test_a_path_joins_what_lies_on_its_way(library, wire) -> None:
    Book = library.Book
    with wire.record() as sent:
        found = titles(Book.objects.filter(Book.author.country.name == "Chile"))
    assert found == ["Canto", "Espiritus", "Odas"]
    assert len(sent) == 1
    assert sent[0].count("JOIN") == 2


def test_conditions_and_order_along_one_path_share_its_join(library, wire) -> None:
    Book = library.Book
    query = Book.objects.filter(Book.author.name != "x").filter(
        or_(Book.author.name == "Llosa", Book.pages < 250)
    )
    with wire.record() as sent:
        found = [book.title for book in query.order_by(Book.author.name.desc(), Book.title)]
    assert found == ["Canto", "Odas", "Fiesta", "Perros"]
    assert sent[0].count("JOIN") == 1


def test_the_key_at_the_end_of_a_path_is_a_column_of_the_row_before_it(library, wire) -> None:
    Book, Author = library.Book, library.Author
    assert Book.author.id is Book.author_id
    assert Author.country.pk is Author.country_id
    neruda = Author.objects.get(name="Neruda")
    with wire.record() as sent:
        assert titles(Book.objects.filter(Book.author.id == neruda.id)) == ["Canto", "Odas"]
        assert Book.objects.filter(Book.author.country.id == neruda.country_id).count() == 3
    assert sent[0].count("JOIN") == 0
    assert sent[1].count("JOIN") == 1


def test_a_step_that_may_lead_nowhere_loses_no_row(library) -> None:
    Author = library.Author
    ordered = Author.objects.order_by(Author.country.name.is_(None), Author.country.name, Author.name)
    assert [author.name for author in ordered] == ["Allende", "Neruda", "Llosa", "Nobody"]
    assert names(Author.objects.filter(Author.country.name.is_(None))) == ["Nobody"]
    assert names(Author.objects.filter(Author.mentor.mentor.name == "Neruda")) == ["Llosa"]
    assert names(Author.objects.filter(Author.mentor.country.name == "Chile")) == ["Allende", "Llosa"]


def test_a_path_to_many_rows_finds_a_row_once(library) -> None:
    Author, Book, Tag = library.Author, library.Book, library.Tag
    assert names(Author.objects.filter(Author.books.pages > 0)) == ["Allende", "Llosa", "Neruda"]
    assert Author.objects.filter(Author.books.pages > 0).count() == 3
    assert titles(Book.objects.filter(Book.tags.name.in_(["red", "blue"]))) == ["Canto", "Odas", "Perros"]
    assert names(Author.objects.filter(Author.books.tags.name == "blue")) == ["Llosa", "Neruda"]
    assert sorted(t.name for t in Tag.objects.filter(Tag.books.author.country.name == "Peru")) == ["blue"]
    assert names(Author.objects.filter(Author.profile.text == "poet")) == ["Neruda"]
    assert names(Author.objects.filter(Author.pupils.name == "Llosa")) == ["Allende"]


def test_one_call_asks_for_one_related_row_and_two_calls_for_two(library) -> None:
    Author = library.Author
    first, second = Author.books.title == "Canto", Author.books.pages == 200
    assert names(Author.objects.filter(first, second)) == []
    assert names(Author.objects.filter(and_(first, second))) == []
    assert names(Author.objects.filter(first).filter(second)) == ["Neruda"]


def test_a_path_to_many_rows_is_right_within_or_and_not(library) -> None:
    Author = library.Author
    either = or_(Author.name == "Nobody", Author.books.title == "Fiesta")
    assert names(Author.objects.filter(either)) == ["Llosa", "Nobody"]
    assert names(Author.objects.filter(not_(Author.books.title == "Canto"))) == ["Allende", "Llosa", "Neruda"]
    assert names(Author.objects.filter(Author.books.title.is_(None))) == ["Nobody"]
    mixed = and_(Author.country.name == "Peru", Author.books.pages > 400)
    assert names(Author.objects.filter(mixed)) == ["Llosa"]


def test_exclude_is_the_complement_of_filter_along_any_path(library) -> None:
    Author, Book = library.Author, library.Book
    everyone = names(Author.objects)
    for condition in (
        Author.country.name == "Chile",
        Author.mentor.country.name != "Chile",
        Author.books.title == "Canto",
        Author.books.tags.name == "red",
        or_(Author.books.pages > 350, Author.country.name == "Chile"),
        Author.books.title.is_(None),
    ):
        kept, left = names(Author.objects.filter(condition)), names(Author.objects.exclude(condition))
        assert sorted(kept + left) == everyone
    assert titles(Book.objects.exclude(Book.tags.name == "red")) == ["Espiritus", "Fiesta", "Perros"]
    assert names(Author.objects.exclude(Author.books.pages > 0, Author.country.name == "Chile")) == [
        "Llosa",
        "Nobody",
    ]


def test_instances_and_keys_are_compared_by_the_names_of_relations(library) -> None:
    Author, Book, Tag = library.Author, library.Book, library.Tag
    neruda, red = Author.objects.get(name="Neruda"), Tag.objects.get(name="red")
    canto = Book.objects.get(title="Canto")
    assert titles(Book.objects.filter(author=neruda)) == ["Canto", "Odas"]
    assert titles(Book.objects.filter(author=neruda.id)) == ["Canto", "Odas"]
    assert titles(Book.objects.filter(tags=red)) == ["Canto", "Odas"]
    assert titles(Book.objects.exclude(author=neruda)) == ["Espiritus", "Fiesta", "Perros"]
    assert names(Author.objects.filter(books=canto)) == ["Neruda"]
    assert names(Author.objects.filter(country=None)) == ["Nobody"]
    assert names(Author.objects.filter(books=None)) == ["Nobody"]
    assert names(Author.objects.exclude(books=None)) == ["Allende", "Llosa", "Neruda"]


def test_paths_stand_in_every_kind_of_expression(library) -> None:
    Book = library.Book
    shown = case((Book.author.country.name == "Chile", "here"), else_="there")
    assert Book.objects.filter(shown == "here").count() == 3
    assert Book.objects.filter(func.length(Book.author.name) > 6).count() == 1
    assert Book.objects.filter(Book.author.name.in_(["Llosa"]), Book.pages.between(300, 450)).count() == 1
    assert Book.objects.filter((Book.author.name + "!") == "Llosa!").count() == 2


def test_updates_and_deletes_reach_exactly_the_rows_that_the_query_finds(library, stored) -> None:
    Book, Author = library.Book, library.Author
    assert Book.objects.filter(Book.author.country.name == "Chile", Book.pages > 100).update(pages=1) == 2
    assert stored(Book, "pages") == [100, 1, 1, 400, 500]
    assert Author.objects.filter(Author.books.tags.name == "blue").update(name="Blue") == 2
    assert Author.objects.exclude(Author.books.pages > 1).update(mentor=None) == 2
    assert library.through.objects.filter(library.through.book.author.name == "Blue").delete()[0] == 4
    assert stored(library.through) == []


def test_counts_and_slices_are_not_changed_by_joins(library) -> None:
    Book = library.Book
    query = Book.objects.filter(Book.author.name != "x").order_by(Book.author.name, Book.title)
    assert query.count() == 5
    assert query[1:3].count() == 2
    assert [book.title for book in query[1:3]] == ["Fiesta", "Perros"]
    assert query.exists()
    assert query.distinct().count() == 5
    assert query.distinct().all() == list(query.distinct().iterate()) == query.all()
    assert query.distinct()[1:3].all() == query[1:3].all()
    assert query.first().title == "Espiritus"


def test_a_sub_select_keeps_its_tables_and_may_name_a_path_of_the_query(library) -> None:
    Book, Author = library.Book, library.Author
    long = Book.objects.filter(Book.author.name == "Llosa").statement.with_only_columns(Book.pages)
    assert titles(Book.objects.filter(Book.pages.in_(long))) == ["Fiesta", "Perros"]
    other = Author.__table__.alias()
    same = (
        select(other.c.id).where(other.c.name == Book.author.name, other.c.country_id.is_not(None)).exists()
    )
    assert Book.objects.filter(same).count() == 5
    assert Book.objects.filter(not_(same), Book.author.name == "Llosa").count() == 0


def test_what_would_multiply_rows_is_refused(library) -> None:
    Author = library.Author
    for method in (Author.objects.order_by, Author.objects.group_by, Author.objects.having):
        with pytest.raises(FieldError, match=r"<path Author\.books> leads to many rows of Book"):
            method(Author.books.pages)


def test_a_path_of_another_model_is_refused(library) -> None:
    Author, Book = library.Author, library.Book
    with pytest.raises(FieldError, match=r"'name' of <path Author\.country> is a column of another table"):
        Book.objects.filter(Author.country.name == "Chile")
    with pytest.raises(FieldError, match="column of another table"):
        Book.objects.filter(Author.name == "Llosa")
    with pytest.raises(
        FieldError, match=r"Book: an expression to write cannot contain a column of <path Book\.author>"
    ):
        Book.objects.update(title=Book.author.name)
    book = Book.objects.get(title="Canto")
    book.title = Book.author.name + "!"
    with pytest.raises(
        FieldError, match=r"Book: an expression to write cannot contain a column of <path Book\.author>"
    ):
        book.save()


def test_a_path_says_what_it_is_and_has_not(library) -> None:
    Book = library.Book
    assert repr(Book.author.country) == "<path Book.author.country>"
    assert repr(Book.tags) == "<path Book.tags>"
    with pytest.raises(FieldError, match=r"<path Book\.author>: Author has no field 'nme'; nearest: 'name'"):
        _ = Book.author.nme
    with pytest.raises(TypeError, match=r"<path Book\.author> is a path to rows of Author, not the model"):
        Book.author(name="x")
    with pytest.raises(TypeError, match=r"<path Book\.author> cannot be compared"):
        _ = Book.author == library.Author.objects.get(name="Llosa")
    assert Book.author == Book.author
    assert Book.author != Book.tags
    assert not hasattr(Book.author, "_private")
    assert Book.author is Book.author


def test_statements_with_paths_are_cached_by_their_shape(library) -> None:
    Book = library.Book

    def key(name: str) -> Any:
        made = Book.objects.filter(Book.author.country.name == name).order_by(Book.author.name).statement
        return made._generate_cache_key().key

    assert key("Chile") == key("Peru")


def test_paths_work_with_keys_of_several_fields(Base, registry) -> None:
    class Building(Base):
        name: Field[str] = field(primary_key=True, max_length=10)
        windows: Related["Window"] = related("building")

    class Window(Base):
        x: Field[int] = field(primary_key=True)
        y: Field[int] = field(primary_key=True)
        building: ForeignKey[Building] = foreign_key()

    registry.create_all("default")
    for name in ("a", "b"):
        building = Building(name=name).save()
        Window(x=1, y=ord(name), building=building).save()
    assert Window.objects.filter(Window.building.name == "a").get().y == 97
    assert [each.name for each in Building.objects.filter(Building.windows.y == 98)] == ["b"]
    assert Window.objects.filter(Window.building.windows.x == 1).update(building="b") == 2
