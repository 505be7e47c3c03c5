"""Relations as mypy --strict and pyright refuse them: each marked line, by both, and no other line."""

from decimal import Decimal

from microorm import (
    Field,
    ForeignKey,
    ManyToMany,
    Model,
    Related,
    RelatedOne,
    field,
    foreign_key,
    many_to_many,
    related,
)


class Country(Model):
    name: Field[str]


class Author(Model):
    name: Field[str] = field(max_length=100, unique=True)
    country: ForeignKey[Country | None] = foreign_key(default=None)
    books: Related["Book"] = related("author")
    profile: RelatedOne["Profile"] = related("author")
    note: RelatedOne["Note | None"] = related("author")


class Profile(Model):
    author: ForeignKey[Author] = foreign_key(unique=True)


class Note(Model):
    author: ForeignKey[Author] = foreign_key(unique=True)


class Tag(Model):
    name: Field[str]
    books: Related["Book"] = related("tags")


class Book(Model, table="books"):
    title: Field[str]
    author: ForeignKey[Author] = foreign_key(on_delete="cascade")
    author_id: Field[int] = field(init=False)
    tags: ManyToMany[Tag] = many_to_many()
    price: Field[Decimal] = field(default=Decimal(0), max_digits=8, decimal_places=2)


class Loan(Model):
    book: ForeignKey[Book] = foreign_key(default=...)
    book_id: Field[int] = field(default=...)


class Node(Model):
    parent: ForeignKey["Node | None"] = foreign_key(default=None)
    children: Related["Node"] = related("parent")


def constructors(ursula: Author, lathe: Book) -> None:
    Book(title="x")  # error: mypy[call-arg] pyright[reportCallIssue]
    Book(title="x", author=None)  # error: mypy[arg-type] pyright[reportArgumentType]
    Book(title="x", author=lathe)  # error: mypy[arg-type] pyright[reportArgumentType]
    Book(title="x", author=3)  # error: mypy[arg-type] pyright[reportArgumentType]
    Book(title="x", author=ursula, tags=[])  # error: mypy[call-arg] pyright[reportCallIssue]
    Author(name="x", books=[])  # error: mypy[call-arg] pyright[reportCallIssue]


def keys(loan: Loan) -> None:
    Loan(book_id="x")  # error: mypy[arg-type] pyright[reportArgumentType]
    Loan(book=3)  # error: mypy[arg-type] pyright[reportArgumentType]
    loan.book_id = "x"  # error: mypy[assignment] pyright[reportAttributeAccessIssue]


def attributes(lathe: Book) -> None:
    lathe.author = None  # error: mypy[assignment] pyright[reportAttributeAccessIssue]
    lathe.author = lathe  # error: mypy[assignment] pyright[reportAttributeAccessIssue]


def reading(ursula: Author, lathe: Book, node: Node) -> None:
    lathe.author.nme  # error: mypy[attr-defined] pyright[reportAttributeAccessIssue]
    lathe.author.country.name  # error: mypy[union-attr] pyright[reportOptionalMemberAccess]
    ursula.note.id  # error: mypy[union-attr] pyright[reportOptionalMemberAccess]
    node.parent.id  # error: mypy[union-attr] pyright[reportOptionalMemberAccess]
    ursula.books.title  # error: mypy[attr-defined] pyright[reportAttributeAccessIssue]
    notes: list[Note] = ursula.books.all()  # error: mypy[assignment] pyright[reportAssignmentType]
    ursula.books = []  # error: mypy[assignment] pyright[reportAttributeAccessIssue]
    print(notes)


def paths(ursula: Author) -> None:
    Book.author.nme  # error: mypy[attr-defined] pyright[reportAttributeAccessIssue]
    Author.books.titel  # error: mypy[attr-defined] pyright[reportAttributeAccessIssue]
    Tag.books.author.nme  # error: mypy[attr-defined] pyright[reportAttributeAccessIssue]
    Book.objects.filter(Book.author.name)  # error: mypy[arg-type] pyright[reportArgumentType]
    Book.objects.filter(Book.author == ursula)  # error: mypy[arg-type] pyright[reportArgumentType]


def declarations() -> None:
    foreign_key(on_delete="explode")  # error: mypy[arg-type] pyright[reportArgumentType]
    foreign_key(ondelete="cascade")  # error: mypy[call-arg] pyright[reportCallIssue]
    related()  # error: mypy[call-arg] pyright[reportCallIssue]
    related(3)  # error: mypy[arg-type] pyright[reportArgumentType]
    many_to_many(trough=None)  # error: mypy[call-arg] pyright[reportCallIssue]
