"""Changes: one of each kind that a model can go through, and what becomes of the rows that are there.

`docs/migrations.md` has the table of them; test_changes.py holds both against the databases.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, Literal

from sqlalchemy import CheckConstraint, Index, UniqueConstraint, func

from microorm import Field, ForeignKey, ManyToMany, Related, foreign_key, many_to_many, related
from microorm import field as column

ALL = ("sqlite", "postgresql", "mariadb")
Models = Callable[[Any], None]


@dataclass(frozen=True)
class Change:
    """*before* and *after* define models on a base. *rows*: of the table `book`, as dictionaries.

    *expected*: what the rows have in columns that are new or were changed. *seen*: where it is detected.
    """

    title: str
    before: Models
    after: Models
    rows: tuple[dict[str, Any], ...] = ({"id": 1, "title": "Dune"}, {"id": 2, "title": "Emma"})
    expected: dict[str, Any] = field(default_factory=dict)
    renames: tuple[str, ...] = ()
    seen: tuple[str, ...] = ALL
    table: str = "book"
    returns: tuple[str, ...] = ()  # columns that come back as such that may be NULL
    note: str = ""


class Size(Enum):
    """A size, before there was a large one."""

    S = "s"
    M = "m"


class Stars(Enum):
    """How good it is."""

    ONE = 1
    TWO = 2


class MoreSizes(Enum):
    """A size, now that there is a large one."""

    S = "s"
    M = "m"
    L = "large"


def book(**fields: Any) -> Models:
    """A model `Book` with a title and *fields*: name → annotation, or a pair of annotation and `field()`."""

    def define(base: Any) -> None:
        made("Book", base, {"title": (Field[str], column(max_length=40)), **fields})

    return define


def made(name: str, base: Any, fields: dict[str, Any], **keywords: Any) -> Any:
    """A model made from data."""
    body: dict[str, Any] = {"__annotations__": {}, "__module__": __name__}
    for each, declared in fields.items():
        annotation, value = declared if isinstance(declared, tuple) else (declared, None)
        body["__annotations__"][each] = annotation
        if value is not None:
            body[each] = value
    return type(base)(name, (base,), body, **keywords)


def with_args(*table_args: Any, **fields: Any) -> Models:
    """The same with constraints and indexes of the table."""

    def define(base: Any) -> None:
        title = (Field[str], column(max_length=40))
        made(
            "Book",
            base,
            {"title": title, "pages": (Field[int], column(default=0)), **fields},
            table_args=table_args,
        )

    return define


def with_author(on_book: Any = None, *, name: str = "Author") -> Models:
    """Books and authors; *on_book*: the field by which a book has one."""

    def define(base: Any) -> None:
        author = made(name, base, {"name": (Field[str], column(max_length=40))})
        fields: dict[str, Any] = {"title": (Field[str], column(max_length=40))}
        if on_book is not None:
            fields["author"] = (ForeignKey[author | None], on_book())
        made("Book", base, fields)

    return define


def authors_alone(base: Any) -> None:
    """Authors, and no books."""
    made("Author", base, {"name": (Field[str], column(max_length=40))})


def with_tags(base: Any) -> None:
    """Books and tags, many to many."""
    tag = made("Tag", base, {"name": (Field[str], column(max_length=40))})
    made(
        "Book",
        base,
        {"title": (Field[str], column(max_length=40)), "tags": (ManyToMany[tag], many_to_many())},
    )


def in_a_circle(base: Any) -> None:
    """Two models that refer to each other."""

    class Book(base):
        title: Field[str] = column(max_length=40)
        best: ForeignKey["Review | None"] = foreign_key(default=None)
        reviews: Related["Review"] = related("book")

    class Review(base):
        book: ForeignKey[Book] = foreign_key()
        text: Field[str]


PLAIN = book()
PAGES = {"id": 1, "title": "Dune", "pages": 412}, {"id": 2, "title": "Emma", "pages": 0}

CHANGES = (
    Change("a new table", lambda base: None, PLAIN, rows=()),
    Change("a table that goes", with_author(), PLAIN),
    Change("a new table that refers to one that is there", PLAIN, with_author()),
    Change("a new table between two (many-to-many)", PLAIN, with_tags),
    Change("two new tables that refer to each other", lambda base: None, in_a_circle, rows=()),
    Change(
        "a table renamed",
        PLAIN,
        lambda base: made("Volume", base, {"title": (Field[str], column(max_length=40))}),
        renames=("book:volume",),
        note="where it is told",
    ),
    Change(
        "a column that may be NULL",
        PLAIN,
        book(pages=(Field[int | None], column(default=None))),
        expected={"pages": None},
    ),
    Change(
        "a column with a default in Python",
        PLAIN,
        book(pages=(Field[int], column(default=7))),
        expected={"pages": 7},
        note="the rows get the default",
    ),
    Change(
        "a column with a default of JSON",
        PLAIN,
        book(tags=(Field[list[str]], column(default_factory=list))),
        expected={"tags": []},
        note="the rows get the default",
    ),
    Change(
        "a column with a default of the server",
        PLAIN,
        book(pages=(Field[int], column(server_default="5"))),
        expected={"pages": 5},
    ),
    Change(
        "a column with a moment as default of the server",
        PLAIN,
        book(at=(Field[datetime], column(server_default=func.now()))),
        expected={"at": lambda value: abs((datetime.now(UTC) - value).total_seconds()) < 3600},
    ),
    Change("a column that goes", book(pages=(Field[int], column(default=0))), PLAIN, rows=PAGES),
    Change(
        "a column renamed",
        book(pages=(Field[int], column(default=0))),
        book(length=(Field[int], column(default=0))),
        rows=PAGES,
        renames=("book.pages:length",),
        expected={"length": lambda value: value in (412, 0)},
        note="where it is told",
    ),
    Change(
        "a column renamed that has an index",
        book(pages=(Field[int], column(default=0, index=True))),
        book(length=(Field[int], column(default=0, index=True))),
        rows=PAGES,
        renames=("book.pages:book.length",),
        expected={"length": lambda value: value in (412, 0)},
        note="where it is told",
    ),
    Change(
        "a longer string",
        PLAIN,
        lambda base: made("Book", base, {"title": (Field[str], column(max_length=80))}),
    ),
    Change("a string without a limit", PLAIN, lambda base: made("Book", base, {"title": Field[str]})),
    Change(
        "more digits",
        book(price=(Field[Decimal], column(max_digits=6, decimal_places=2))),
        book(price=(Field[Decimal], column(max_digits=9, decimal_places=3))),
        rows=({"id": 1, "title": "Dune", "price": Decimal("9.50")},),
    ),
    Change(
        "another type (int to float)",
        book(pages=Field[int]),
        book(pages=Field[float]),
        rows=PAGES,
        expected={"pages": lambda value: value in (412.0, 0.0)},
    ),
    Change(
        "a column that may be NULL now", book(pages=Field[int]), book(pages=Field[int | None]), rows=PAGES
    ),
    Change(
        "a column that may no longer be NULL",
        book(pages=(Field[int | None], column(default=None))),
        book(pages=(Field[int], column(default=3))),
        rows=({"id": 1, "title": "Dune", "pages": 412}, {"id": 2, "title": "Emma", "pages": None}),
        expected={"pages": lambda value: value in (412, 3)},
        note="NULLs get the default",
    ),
    Change(
        "a default of the server, new",
        book(pages=Field[int]),
        book(pages=(Field[int], column(server_default="5"))),
        rows=PAGES,
    ),
    Change(
        "a default of the server, another",
        book(pages=(Field[int], column(server_default="5"))),
        book(pages=(Field[int], column(server_default="6"))),
        rows=PAGES,
    ),
    Change(
        "a default of the server that goes",
        book(pages=(Field[int], column(server_default="5"))),
        book(pages=Field[int]),
        rows=PAGES,
    ),
    Change("an index", book(pages=Field[int]), book(pages=(Field[int], column(index=True))), rows=PAGES),
    Change(
        "an index that goes", book(pages=(Field[int], column(index=True))), book(pages=Field[int]), rows=PAGES
    ),
    Change(
        "an index of several columns", with_args(), with_args(Index("ix_both", "title", "pages")), rows=PAGES
    ),
    Change(
        "a unique column",
        PLAIN,
        lambda base: made("Book", base, {"title": (Field[str], column(max_length=40, unique=True))}),
    ),
    Change(
        "a unique constraint that goes",
        with_args(UniqueConstraint("title", "pages")),
        with_args(),
        rows=PAGES,
    ),
    Change("a CHECK", with_args(), with_args(CheckConstraint("pages >= 0", name="pages")), rows=PAGES),
    Change(
        "a CHECK that says something else",
        with_args(CheckConstraint("pages >= 0", name="pages")),
        with_args(CheckConstraint("pages >= 0 AND pages < 5000", name="pages")),
        rows=PAGES,
    ),
    Change(
        "a CHECK that goes", with_args(CheckConstraint("pages >= 0", name="pages")), with_args(), rows=PAGES
    ),
    Change(
        "an Enum with another member",
        book(size=(Field[Size], column(default=Size.S))),
        book(size=(Field[MoreSizes], column(default=MoreSizes.S))),
        rows=({"id": 1, "title": "Dune", "size": Size.M},),
        expected={"size": MoreSizes.M},
    ),
    Change(
        "a Literal with another value",
        book(size=(Field[Literal["s", "m"]], column(default="s"))),
        book(size=(Field[Literal["s", "m", "l"]], column(default="s"))),
        rows=({"id": 1, "title": "Dune", "size": "m"},),
    ),
    Change(
        "a foreign key",
        with_author(),
        with_author(lambda: foreign_key(default=None)),
        expected={"author_id": None},
    ),
    Change(
        "a foreign key that goes",
        with_author(lambda: foreign_key(default=None)),
        with_author(),
        rows=({"id": 1, "title": "Dune", "author_id": None},),
    ),
    Change(
        "a foreign key that is no constraint any more",
        with_author(lambda: foreign_key(default=None)),
        with_author(lambda: foreign_key(default=None, constraint=False)),
        rows=({"id": 1, "title": "Dune", "author_id": None},),
    ),
    Change(
        "a foreign key that is unique now",
        with_author(lambda: foreign_key(default=None)),
        with_author(lambda: foreign_key(default=None, unique=True)),
        rows=({"id": 1, "title": "Dune", "author_id": None},),
    ),
    Change(
        "a comment of a table",
        with_args(),
        with_args({"comment": "What we lend"}),
        rows=PAGES,
        seen=("postgresql", "mariadb"),
        note="SQLite has no comments",
    ),
    Change(
        "a table that goes and refers to one that stays",
        with_author(lambda: foreign_key(default=None)),
        authors_alone,
        rows=(),
    ),
    Change(
        "an Enum of numbers",
        PLAIN,
        book(stars=(Field[Stars], column(default=Stars.TWO))),
        expected={"stars": Stars.TWO},
        note="the rows get the default",
    ),
    Change(
        "an Enum that goes",
        book(size=(Field[Size], column(default=Size.S))),
        PLAIN,
        rows=({"id": 1, "title": "Dune", "size": Size.M},),
        returns=("size",),
        note="comes back as one that may be NULL",
    ),
    Change(
        "a unique column that goes",
        book(code=(Field[int], column(unique=True))),
        PLAIN,
        rows=({"id": 1, "title": "Dune", "code": 4}, {"id": 2, "title": "Emma", "code": 5}),
        returns=("code",),
        note="comes back as one that may be NULL",
    ),
    Change(
        "another type and no NULL at once",
        book(note=(Field[str | None], column(default=None, max_length=5))),
        book(note=(Field[str], column(default="none", max_length=15))),
        rows=({"id": 1, "title": "Dune", "note": "good"}, {"id": 2, "title": "Emma", "note": None}),
        expected={"note": lambda value: value in ("good", "none")},
        note="NULLs get the default",
    ),
)
