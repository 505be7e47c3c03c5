"""Models: what a library lends, and to whom."""

from microorm import Field, Model, field


class Book(Model):
    """A book, and how many copies of it are on the shelf."""

    title: Field[str] = field(max_length=100, unique=True)
    copies: Field[int] = field(default=1)


class Loan(Model):
    """One copy of a book that somebody has at home."""

    book_id: Field[int]
    reader: Field[str]


class Reminder(Model):
    """What the last copy of a book leaves behind."""

    text: Field[str]
