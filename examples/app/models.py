"""Models: the books of a library, and who has borrowed them."""

from microorm import Field, Model, field


class Book(Model):
    """A book, and the number of copies on the shelf."""

    title: Field[str] = field(max_length=100, unique=True)
    copies: Field[int] = field(default=1)


class Loan(Model):
    """A copy of a book that a reader has borrowed."""

    book_id: Field[int]
    reader: Field[str]


class Reminder(Model):
    """A note to order more copies, written when the last one is lent."""

    text: Field[str]
