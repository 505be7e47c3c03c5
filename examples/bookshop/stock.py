"""Fill the shop."""

from decimal import Decimal

from examples.bookshop.models import Author, Book, Country, Order, Tag
from microorm import atomic


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
