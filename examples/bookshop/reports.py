"""Reports, each of which checks how many statements it sends."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import func

import microorm
from examples.bookshop.models import Author, Book, Line, Order, Tag
from microorm import Prefetch
from microorm.testing import count_statements, no_lazy_loads


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
    books, tags = deleted[Book.__schema__.label], deleted["bookshop.Book_tags"]
    print(f"deleted with Le Guin: {books} books and {tags} of their tags")
