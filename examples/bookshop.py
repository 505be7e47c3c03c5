"""A bookshop with authors, books, tags and orders. Each report takes two statements, however many rows there are.

    python examples/bookshop.py

A path such as `Line.book.author.name` adds the joins it needs. `select_related` loads the row that a row refers to, in
the same statement. `prefetch_related` loads the rows that refer to a row, in one more statement. The program checks
how many statements it sends: a report that sent one per row (N+1) would end in an error.

Prints:
    Orders
      Ada     2 x The Dispossessed (Le Guin), 1 x Kindred (Butler)         38.50
      Grace   1 x Solaris (Lem)                                             9.00
      Ada     1 x The Left Hand of Darkness (Le Guin)                      11.00
      3 orders in 2 statements
    Best sellers
      Le Guin   3 sold, 34.00
      Butler    1 sold, 15.50
      Lem       1 sold, 9.00
      2 countries, 5 sold, 58.50 in total: 2 statements
    Tags
      classic: Solaris, The Dispossessed, The Left Hand of Darkness
      time travel: Kindred
      utopia: The Dispossessed
      3 tags in 2 statements
    Ada bought from Butler, Le Guin
    not sold: The Lathe of Heaven, which has no tag
    Solaris cannot be deleted while an order refers to it:
      Author cannot be deleted while 1 row of main.Line refers to Book by 'book': 3
    deleted with Le Guin: 3 books and 3 of their tags
"""

from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal

from sqlalchemy import func

import microorm
from microorm import (
    Field,
    ForeignKey,
    ManyToMany,
    Model,
    Prefetch,
    Related,
    atomic,
    field,
    foreign_key,
    many_to_many,
    related,
)
from microorm.testing import count_statements, no_lazy_loads


class Country(Model):
    name: Field[str] = field(max_length=40, unique=True)


class Author(Model):
    name: Field[str] = field(max_length=40, unique=True)
    country: ForeignKey[Country | None] = foreign_key(default=None, on_delete="set_null")
    books: Related["Book"] = related("author")


class Tag(Model):
    name: Field[str] = field(max_length=20, unique=True)
    books: Related["Book"] = related("tags")


class Book(Model):
    title: Field[str] = field(max_length=80)
    price: Field[Decimal] = field(max_digits=8, decimal_places=2)
    author: ForeignKey[Author] = foreign_key(on_delete="cascade")
    tags: ManyToMany[Tag] = many_to_many()
    lines: Related["Line"] = related("book")


class Order(Model):
    customer: Field[str] = field(max_length=40)
    lines: Related["Line"] = related("order")


class Line(Model):
    order: ForeignKey[Order] = foreign_key(on_delete="cascade")
    book: ForeignKey[Book] = foreign_key(on_delete="restrict")
    price: Field[Decimal] = field(max_digits=8, decimal_places=2)
    number: Field[int] = field(default=1)


@atomic
def fill() -> None:
    """Insert some authors, books, tags and orders."""
    america, poland = Country(name="USA").save(), Country(name="Poland").save()
    tags = {name: Tag(name=name).save() for name in ("classic", "utopia", "time travel")}
    for author, country, books in (
        (
            "Le Guin",
            america,
            {"The Dispossessed": "11.50", "The Left Hand of Darkness": "11", "The Lathe of Heaven": "8"},
        ),
        ("Lem", poland, {"Solaris": "9"}),
        ("Butler", america, {"Kindred": "15.50"}),
    ):
        writer = Author(name=author, country=country).save()
        for title, price in books.items():
            writer.books.create(title=title, price=Decimal(price))
    for title, names in (
        ("The Dispossessed", ["classic", "utopia"]),
        ("The Left Hand of Darkness", ["classic"]),
        ("Solaris", ["classic"]),
        ("Kindred", ["time travel"]),
    ):
        Book.objects.get(title=title).tags.add(*[tags[name] for name in names])
    for customer, wanted in (
        ("Ada", {"The Dispossessed": 2, "Kindred": 1}),
        ("Grace", {"Solaris": 1}),
        ("Ada", {"The Left Hand of Darkness": 1}),
    ):
        order = Order(customer=customer).save()
        for title, number in wanted.items():
            book = Book.objects.get(title=title)
            order.lines.create(book=book, price=book.price, number=number)


@contextmanager
def statements(wanted: int) -> Iterator[None]:
    """Fail if the block does not send exactly *wanted* statements, or if an attribute is loaded lazily."""
    with count_statements() as sent, no_lazy_loads():
        yield
    assert sent.count == wanted, sent


def orders() -> None:
    """List the orders with their lines, books and authors."""
    print("Orders")
    lines = Prefetch(Order.lines, Line.objects.select_related(Line.book.author).order_by(Line.id))
    with statements(2):
        found = Order.objects.order_by(Order.id).prefetch_related(lines).all()
        for order in found:
            bought = order.lines.all()
            text = ", ".join(
                f"{line.number} x {line.book.title} ({line.book.author.name})" for line in bought
            )
            print(f"  {order.customer:7} {text:58} {sum(line.number * line.price for line in bought):>7.2f}")
    print(f"  {len(found)} orders in 2 statements")


def best_sellers() -> None:
    """Add up the sales of each author, and of all authors."""
    print("Best sellers")
    author, number, value = Line.book.author, func.sum(Line.number), func.sum(Line.number * Line.price)
    with statements(2):
        for name, sold, earned in (
            Line.objects.group_by(author.id, author.name)
            .order_by(value.desc())
            .values(author.name, number, value)
        ):
            print(f"  {name:9} {sold} sold, {earned:.2f}")
        countries = func.count(author.country.id.distinct())
        total = Line.objects.aggregate(countries=countries, number=number, value=value)
    print(f"  {total.countries} countries, {total.number} sold, {total.value:.2f} in total: 2 statements")


def tags() -> None:
    """List the tags with their books."""
    print("Tags")
    with statements(2):
        found = Tag.objects.order_by(Tag.name).prefetch_related(Tag.books).all()
        for tag in found:
            print(f"  {tag.name}: {', '.join(sorted(book.title for book in tag.books))}")
    print(f"  {len(found)} tags in 2 statements")


def questions() -> None:
    """Use paths to many rows in conditions."""
    bought = Author.objects.filter(Author.books.lines.order.customer == "Ada").order_by("name")
    print("Ada bought from", ", ".join(bought.scalars(Author.name)))
    (book,) = Book.objects.filter(lines=None)
    print(f"not sold: {book.title}, which has {'a' if book.tags.exists() else 'no'} tag")


def deletions() -> None:
    """Delete an author whose book is in an order, and one whose orders were deleted before."""
    try:
        Author.objects.get(name="Lem").delete()
    except microorm.RestrictedError as error:
        print(f"Solaris cannot be deleted while an order refers to it:\n  {error}")
    Order.objects.filter(Order.lines.book.author.name == "Le Guin").delete()
    _, deleted = Author.objects.get(name="Le Guin").delete()
    books, tags = deleted[Book.__schema__.label], deleted["main.Book_tags"]
    print(f"deleted with Le Guin: {books} books and {tags} of their tags")


if __name__ == "__main__":
    microorm.configure("sqlite://")
    microorm.create_all()
    fill()
    orders()
    best_sellers()
    tags()
    questions()
    deletions()
    microorm.close()
