"""Annotations: aggregates along paths are numbers of each row, whatever else the query does."""

import copy
import pickle
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import BigInteger, Float, and_, cast, func

from microorm import (
    Annotation,
    Field,
    FieldError,
    ForeignKey,
    InvalidValue,
    ManyToMany,
    ModelError,
    Prefetch,
    Related,
    RelatedOne,
    annotation,
    field,
    foreign_key,
    many_to_many,
    related,
)


@pytest.fixture
def shop(Base: Any, registry: Any) -> Any:
    """Author A has two books, three awards and two pupils, B has one book, C has nothing."""

    class Country(Base):
        name: Field[str] = field(max_length=20)
        tax: Field[int] = field(default=0)
        authors: Related["Author"] = related("country")

    class Author(Base):
        name: Field[str] = field(max_length=20)
        country: ForeignKey[Country | None] = foreign_key(default=None)
        mentor: ForeignKey["Author | None"] = foreign_key(default=None)
        books_written: Annotation[int] = annotation()
        pupils: Related["Author"] = related("mentor")
        books: Related["Book"] = related("author")
        awards: Related["Award"] = related("author")

    class Award(Base):
        author: ForeignKey[Author] = foreign_key()
        year: Field[int]

    class Tag(Base):
        name: Field[str] = field(max_length=20)
        books: Related["Book"] = related("tags")

    class Book(Base):
        title: Field[str] = field(max_length=20)
        price: Field[int]
        author: ForeignKey[Author] = foreign_key()
        tags: ManyToMany[Tag] = many_to_many()
        reviews: Related["Review"] = related("book")
        cover: RelatedOne["Cover | None"] = related("book")

    class Cover(Base):
        book: ForeignKey[Book] = foreign_key(unique=True)
        colour: Field[str] = field(max_length=20)

    class Review(Base):
        book: ForeignKey[Book] = foreign_key()
        stars: Field[int]

    registry.create_all("default")
    a = Author(name="A", country=Country(name="Chile", tax=3).save()).save()
    b, _ = Author(name="B", mentor=a).save(), Author(name="C", mentor=a).save()
    Award.objects.bulk_create([Award(author=a, year=year) for year in (1, 2, 3)])
    b1, b2 = Book(title="b1", price=5, author=a).save(), Book(title="b2", price=7, author=a).save()
    b3 = Book(title="b3", price=9, author=b).save()
    Cover(book=b1, colour="red").save()
    x, y = Tag(name="x").save(), Tag(name="y").save()
    b1.tags.add(x, y)
    b2.tags.add(x)
    Review.objects.bulk_create(
        [Review(book=book, stars=stars) for book, stars in ((b1, 5), (b1, 2), (b3, 4))]
    )
    return SimpleNamespace(
        **{each.__name__: each for each in (Country, Author, Award, Tag, Book, Cover, Review)}
    )


def total(column: Any) -> Any:
    """The sum of *column* as an int on every database."""
    return cast(func.sum(column), BigInteger)


def by_name(query: Any, *expressions: Any) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in query.order_by("name").values("name", *expressions)]


def names(query: Any) -> list[str]:
    return [each.name for each in query.order_by("name")]


def test_two_annotations_never_multiply_each_other(shop: Any) -> None:
    Author = shop.Author
    query = Author.objects.annotate(
        n=func.count(Author.books.id),
        awarded=func.count(Author.awards.id),
        spent=total(Author.books.price),
        stars=total(Author.books.reviews.stars),
        best=func.max(Author.books.price),
        mean=cast(func.avg(Author.books.price), Float),
    )
    found = [(e.n, e.awarded, e.spent, e.stars, e.best, e.mean) for e in query.order_by("id")]
    assert found == [(2, 3, 12, 7, 7, 6.0), (1, 0, 9, 4, 9, 9.0), (0, 0, None, None, None, None)]


def test_numbers_are_known_by_expression_and_by_name(shop: Any) -> None:
    Author = shop.Author
    count = func.count(Author.books.id)
    counted = Author.objects.annotate(n=count)
    assert names(Author.objects.filter(count > 1)) == names(counted.filter(n=2)) == ["A"]
    assert names(Author.objects.exclude(count > 1)) == names(counted.exclude(n=2)) == ["B", "C"]
    assert [each.name for each in counted.order_by("n", "name")] == ["C", "B", "A"]
    assert [each.name for each in counted.order_by(count.desc(), "name")] == ["A", "B", "C"]
    assert counted.order_by("n", "name").last().name == "A"
    assert counted.get(n=0).n == 0
    assert counted.order_by("id").scalars("n") == [2, 1, 0]
    assert counted.order_by("id").values("name", "n")[0].n == 2
    assert counted.order_by("id").values()[0]._mapping["n"] == 2
    spent = Author.objects.annotate(spent=func.sum(Author.books.price))
    assert names(spent.filter(spent=None)) == ["C"]
    assert names(counted.annotate(n=count + 1).filter(n=1)) == ["C"]  # the later one counts
    with pytest.raises(FieldError, match="no field 'm'"):
        counted.order_by("m")
    with pytest.raises(InvalidValue):
        counted.filter(n="two")


def test_many_to_many_distinct_and_texts(shop: Any) -> None:
    Author, tags = shop.Author, shop.Author.books.tags
    counts = by_name(Author.objects, func.count(tags.id), func.count(tags.id.distinct()))
    assert counts == [("A", 3, 2), ("B", 0, 0), ("C", 0, 0)]
    texts = Author.objects.order_by("name").scalars(func.aggregate_strings(shop.Author.books.title, "/"))
    assert sorted(texts[0].split("/")) == ["b1", "b2"]
    assert texts[1:] == ["b3", None]
    assert by_name(shop.Tag.objects, func.count(shop.Tag.books.reviews.id)) == [("x", 2), ("y", 2)]


def test_conditions_inside_aggregates(shop: Any) -> None:
    Author, Book = shop.Author, shop.Book
    books = Author.books
    dear = books.price > 5
    assert by_name(Author.objects, func.count(books.id).filter(dear), func.count().filter(dear)) == [
        ("A", 1, 1),
        ("B", 1, 1),
        ("C", 0, 0),
    ]
    covered = func.count(books.id).filter(books.cover.colour.is_(None))  # a left join inside
    assert [row[1] for row in by_name(Author.objects, covered)] == [1, 1, 0]
    reviewed = func.count(books.id.distinct()).filter(books.reviews.stars > 1)
    assert [row[1] for row in by_name(Author.objects, reviewed)] == [1, 1, 0]
    found = Book.objects.aggregate(
        n=func.count(Book.id).filter(Book.price > 5),
        all=func.count().filter(Book.price > 5),
        none=func.sum(Book.price).filter(Book.price > 100),
        authors=func.count(Book.author_id.distinct()).filter(Book.price < 9),
    )
    assert tuple(found) == (2, 2, None, 1)


def test_what_an_aggregate_can_not_be_of(shop: Any) -> None:
    Author, books = shop.Author, shop.Author.books
    for expression, text in (
        (func.count(books.id).filter(Author.awards.year > 1), "along one path, not along both"),
        (func.count(books.id).filter(books.reviews.stars > 1), "would repeat a row at <path Author.books>"),
        (func.count(Author.id).filter(books.price > 1), "is no column of the rows at <path Author.books>"),
        (func.lower(books.title), "leads to many rows of Book; aggregate them"),
        (func.count(books.id).over(), "leads to many rows of Book"),
    ):
        with pytest.raises(FieldError, match=text):
            Author.objects.annotate(n=expression)
    with pytest.raises(
        TypeError, match=r"^<path Author\.books> is a path to rows.*, such as Author\.books\.id$"
    ):
        func.count(books)
    for rows in (Author, Author.objects.get(name="A")):
        for expression in (func.count(rows), func.max(rows)):
            with pytest.raises(
                TypeError, match="an expression takes columns and values, not .*; name a column of it"
            ):
                Author.objects.aggregate(n=expression)
    with pytest.raises(FieldError, match="a window function is of rows of Author"):
        Author.objects.filter(func.count(books.id).over() > 1)


def test_an_aggregate_of_all_rows_is_no_number_of_each(shop: Any) -> None:
    """SQLite and MariaDB would return one row, with values of any: an instance would be there, and the others not."""
    Author, Book = shop.Author, shop.Book
    for number in (
        func.count(Author.id),
        func.count(),
        func.coalesce(func.sum(Author.country.tax), 0) + 1,
        total(func.count(Author.books.id)),
        func.count().filter(Author.name == "A"),
        Author.id + func.max(Author.id),
    ):
        for query in (
            lambda number=number: Author.objects.annotate(n=number).all(),
            lambda number=number: Author.objects.annotate(n=number).values("n", "name"),
            lambda number=number: Author.objects.order_by(number).all(),
            lambda number=number: Author.objects.order_by(number).scalars("name"),
        ):
            with pytest.raises(
                FieldError, match="is one value of all rows of the query, and .* has one in each; use"
            ):
                query()
    with pytest.raises(FieldError, match="is one value of all rows of the query"):
        Author.objects.having(func.count() > 1).scalars("name")
    with pytest.raises(FieldError, match=r"^count\(book\.author_id\) is one value of all rows"):
        Book.objects.annotate(n=func.count(Book.author.id)).first()
    assert tuple(Author.objects.values(func.count(), func.max(Author.name))[0]) == (3, "C")
    assert [tuple(row) for row in Author.objects.order_by("id").values("name", func.count().over())] == [
        ("A", 3),
        ("B", 3),
        ("C", 3),
    ]
    groups = (
        Author.objects.annotate(n=func.count(Author.id)).group_by("mentor_id").order_by(func.count(Author.id))
    )
    assert [row.n for row in groups.values("mentor_id", "n")] == [1, 2]


def test_paths_to_one_row_inside_around_and_before(shop: Any) -> None:
    Author, Book = shop.Author, shop.Book
    taxed = total(Author.books.price * Author.country.tax)
    assert by_name(Author.objects, taxed) == [("A", 36), ("B", None), ("C", None)]
    weighted = total(Author.books.price * Author.books.reviews.stars)
    assert by_name(Author.objects, weighted) == [("A", 35), ("B", 36), ("C", None)]
    beside = func.count(Book.author.books.id), func.count(Book.author.country.authors.id)
    assert [tuple(row) for row in Book.objects.order_by("id").values(*beside)] == [(2, 1), (2, 1), (1, 0)]
    own = func.count(Author.pupils.id), func.count(Author.pupils.books.id)
    assert by_name(Author.objects, *own) == [("A", 2, 1), ("B", 0, 0), ("C", 0, 0)]


def test_a_condition_is_whether_one_of_the_rows_fulfils_it(shop: Any) -> None:
    Author = shop.Author
    query = Author.objects.annotate(dear=Author.books.price > 6)
    assert [(each.name, each.dear) for each in query.order_by("id")] == [
        ("A", True),
        ("B", True),
        ("C", False),
    ]
    assert names(query.filter(dear=False)) == ["C"]
    assert [each.name for each in query.order_by("dear", "name")] == ["C", "A", "B"]
    assert names(Author.objects.filter(and_(Author.books.price > 6, func.count(Author.books.id) > 1))) == [
        "A"
    ]


def test_plain_expressions_and_windows(shop: Any) -> None:
    Book = shop.Book
    place = func.row_number().over(partition_by=Book.author_id, order_by=Book.price.desc())
    query = Book.objects.annotate(double=Book.price * 2, place=place, country=Book.author.country.name)
    assert [(each.double, each.place, each.country) for each in query.order_by("id")] == [
        (10, 2, "Chile"),
        (14, 1, "Chile"),
        (18, 1, None),
    ]
    assert [each.title for each in query.filter(place=1).order_by("id")] == ["b2", "b3"]
    assert Book.objects.exclude(place == 1).scalars("title") == ["b1"]
    assert Book.objects.filter(place == 1, Book.price < 7).scalars("title") == ["b1"]
    assert Book.objects.filter(Book.price < 7).filter(place == 1).scalars("title") == ["b1"]
    assert Book.objects.filter(place == 1).filter(Book.price < 7).scalars("title") == []
    assert Book.objects.filter(place == 1).update(price=Book.price + 1) == 2
    rank = func.rank().over(order_by=func.count(shop.Author.books.id).desc())
    assert names(shop.Author.objects.filter(rank == 1)) == ["A"]


def histogram_of(Author: Any, number: Any) -> Any:
    return Author.objects.group_by(number).order_by(number)


def test_groups_and_aggregates_of_numbers(shop: Any) -> None:
    Author = shop.Author
    count = func.count(Author.books.id)
    dear = count.filter(Author.books.price > 5)
    histogram = Author.objects.annotate(n=dear).group_by("n").order_by("n").values("n", func.count())
    assert [tuple(row) for row in histogram] == [(0, 1), (1, 2)]
    again = Author.objects.order_by(dear).group_by(dear).values(dear, func.count())
    assert [tuple(row) for row in again] == [(0, 1), (1, 2)]
    grouped = Author.objects.group_by(Author.country.name).order_by(total(count))
    assert [tuple(row) for row in grouped.values(Author.country.name, total(count))] == [
        (None, 1),
        ("Chile", 2),
    ]
    for chosen in (
        histogram_of(Author, dear).having(dear > 0),
        histogram_of(Author, dear).having(func.count() > 1),
    ):
        assert [tuple(row) for row in chosen.values(dear, func.count())] == [(1, 2)]
    with pytest.raises(FieldError, match="a group has several rows"):
        grouped.values(Author.country.name, count)
    with pytest.raises(FieldError, match="a group has several rows"):
        grouped.having(count > 0).values(Author.country.name)
    found = Author.objects.aggregate(books=total(count), mean=cast(func.avg(count), Float))
    assert tuple(found) == (3, 1.0)
    assert Author.objects.order_by(count.desc())[:1].aggregate(n=total(count)).n == 2
    with pytest.raises(FieldError, match="is a number of each row; aggregate these"):
        Author.objects.aggregate(n=count)


def test_the_other_methods_of_a_query(shop: Any, databases: Any) -> None:
    Author, Book, Tag = shop.Author, shop.Book, shop.Tag
    count = func.count(Author.books.id)
    query = Author.objects.annotate(n=count).order_by("id")
    assert (query.count(), query.filter(n=9).exists(), query[1:].count(), query.distinct().count()) == (
        3,
        False,
        2,
        3,
    )
    assert [each.n for each in query.iterate(2)] == [2, 1, 0]
    assert [each.n for each in query[1:]] == [1, 0]
    assert query.in_bulk([1])[1].n == query.first().n == query[0].n == 2
    related_too = query.select_related(Author.country)
    assert [(e.n, e.country and e.country.name) for e in related_too] == [(2, "Chile"), (1, None), (0, None)]
    assert [(e.n, e.name) for e in query.only("name")] == [(2, "A"), (1, "B"), (0, "C")]
    assert [(e.n, len(e.books.all())) for e in query.prefetch_related(Author.books)] == [
        (2, 2),
        (1, 1),
        (0, 0),
    ]
    rated = Book.objects.annotate(n=func.count(Book.reviews.id)).order_by("id")
    loaded = Author.objects.prefetch_related(Prefetch(Author.books, rated)).order_by("id")
    assert [[book.n for book in each.books] for each in loaded] == [[2, 0], [1], []]
    tagged = Prefetch(Book.tags, Tag.objects.annotate(n=func.count(Tag.books.id)).order_by("name"))
    assert [(tag.name, tag.n) for tag in Book.objects.prefetch_related(tagged).get(pk=1).tags] == [
        ("x", 2),
        ("y", 1),
    ]
    assert [each.n for each in query[0].books.annotate(n=func.count(Book.reviews.id)).order_by("id")] == [
        2,
        0,
    ]
    with databases.atomic():
        assert [each.n for each in query.for_update()] == [2, 1, 0]
    union = query.filter(n=1).order_by().statement.union_all(query.filter(n=2).order_by().statement)
    assert len(union.selected_columns) == len(Author.__table__.c) + 1
    assert Book.objects.filter(Book.author_id.in_(query.order_by().filter(n=2))).count() == 2
    assert query.filter(n=1).explain()


def test_a_missing_row_is_described_by_the_condition_that_was_sent(shop: Any) -> None:
    """On one line, and with the sub-select of the row itself."""
    books = func.count(shop.Author.books.id)
    with pytest.raises(shop.Author.DoesNotExist) as caught:
        shop.Author.objects.annotate(books_written=books).get(books_written=9)
    assert str(caught.value).startswith(
        "no Author with (SELECT count(book_1.id) AS count_1 FROM book AS book_1 WHERE book_1.author_id = author.id) = :param_1"
    )


def test_writes_by_numbers(shop: Any) -> None:
    Author, Book, Tag = shop.Author, shop.Book, shop.Tag
    assert Author.objects.annotate(n=func.count(Author.pupils.id)).filter(n=2).update(name="AA") == 1
    assert shop.Country.objects.update(tax=func.count(shop.Country.authors.id)) == 1
    assert shop.Country.objects.scalars("tax") == [1]
    assert shop.Award.objects.update(year=func.count(shop.Award.author.awards.id)) == 3
    assert {*shop.Award.objects.scalars("year")} == {3}
    with pytest.raises(FieldError, match="cannot contain a column of"):
        Author.objects.update(name=Author.books.title)
    assert Tag.objects.annotate(n=func.count(Tag.books.id)).filter(n=1).delete()[0] == 2
    assert shop.Review.objects.filter(func.count(shop.Review.book.reviews.id) == 1).delete()[0] == 1
    assert (
        Book.objects.annotate(n=func.count(Book.id))
        .create(title="t", price=1, author=Author.objects.get(pk=1))
        .pk
        == 4
    )


def test_annotations_are_data_that_is_only_read(shop: Any) -> None:
    Author = shop.Author
    author = Author.objects.annotate(books_written=func.count(Author.books.id)).get(pk=1)
    assert author.books_written == 2
    with pytest.raises(AttributeError, match="is an annotation, which is only read"):
        author.books_written = 3
    author.name = "Z"
    assert author.changed_fields == {"name"}
    author.save()
    assert author.books_written == 2
    author.refresh_from_db()
    assert author.books_written == 2
    assert "books_written" not in {*author.to_dict()}
    unpickled = object.__new__(Author)
    unpickled.__setstate__(pickle.loads(pickle.dumps(author.__getstate__())))
    for twin in (unpickled, copy.copy(author), copy.deepcopy(author)):
        assert twin.books_written == 2
    with pytest.raises(AttributeError, match=r"the query needs annotate\(books_written=…\)"):
        _ = Author.objects.get(pk=1).books_written
    with pytest.raises(TypeError, match="books_written"):
        Author(name="n", books_written=1)


def test_names_that_an_annotation_cannot_have(shop: Any, Base: Any) -> None:
    Author = shop.Author
    for name, text in (
        ("name", "Author has a field of this name"),
        ("country_id", "Author has a field of this name"),
        ("books", "Author has a relation of this name"),
        ("save", "the name of Author.save"),
        ("pk", "the name of Author.pk"),
        ("_n", "without a leading underscore"),
        ("a b", "must be an identifier"),
    ):
        with pytest.raises(FieldError, match=text):
            Author.objects.annotate(**{name: func.count(Author.books.id)})
    for wrong in ("name", 3, Author.country):
        with pytest.raises(TypeError, match="takes column expressions"):
            Author.objects.annotate(n=wrong)
    with pytest.raises(TypeError, match="annotate\\(\\) takes expressions by name"):
        Author.objects.annotate(func.count(Author.books.id))
    with pytest.raises(FieldError, match="is a column of another table"):
        Author.objects.annotate(n=shop.Book.price)
    with pytest.raises(ModelError, match=r"write n: Annotation\[\.\.\.\] = annotation\(\)"):

        class Wrong(Base):
            n: Annotation[int]

    with pytest.raises(ModelError, match=r"write n: Annotation\[\.\.\.\] = annotation\(\)"):

        class Other(Base):
            n: Field[int] = annotation()
