"""One change of each kind that models go through, and what becomes of the existing rows.

`docs/migrations.md` has the table of them, and test_migrations_changes.py tries them on the databases.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, Literal

from sqlalchemy import CheckConstraint, Index, UniqueConstraint, func

from microorm import (
    Field,
    ForeignKey,
    ManyToMany,
    Related,
    foreign_key,
    many_to_many,
    related,
    version_field,
)
from microorm import field as column
from tests.migrations.shop import define

ALL = ("sqlite", "postgresql", "mariadb")
Models = Callable[[Any], None]


@dataclass(frozen=True)
class Change:
    """One change: *before* and *after* define models on a base; *rows* are those of *table* before it.

    *expected* are the values of new or changed columns after it, or functions that check them. *seen* are the dialects
    on which the change is found. *renames* are of a column of a table, or of a table.
    """

    title: str
    before: Models
    after: Models
    rows: tuple[dict[str, Any], ...] = ({"id": 1, "title": "Dune"}, {"id": 2, "title": "Emma"})
    expected: dict[str, Any] = field(default_factory=dict)
    renames: tuple[tuple[str | None, str, str], ...] = ()  # table, old name, new name
    seen: tuple[str, ...] = ALL
    table: str = "book"
    returns: tuple[str, ...] = ()  # columns that come back as nullable
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
    """A model `Book` with a title and *fields*, as `define` takes them."""
    return lambda base: define(base, "Book", {"title": TITLE, **fields})


def with_args(*table_args: Any, **fields: Any) -> Models:
    """The same with pages, and constraints and indexes of the table."""
    pages = (Field[int], column(default=0))
    return lambda base: define(
        base, "Book", {"title": TITLE, "pages": pages, **fields}, table_args=table_args
    )


def with_author(on_book: Any = None) -> Models:
    """Books and authors; *on_book* returns the `foreign_key()` of a book's author."""

    def models(base: Any) -> None:
        author = define(base, "Author", {"name": TITLE})
        fields = {} if on_book is None else {"author": (ForeignKey[author | None], on_book())}
        define(base, "Book", {"title": TITLE, **fields})

    return models


def coded_authors(length: int) -> Models:
    """Authors with a text as their key, and their books."""

    def models(base: Any) -> None:
        code = (Field[str], column(primary_key=True, max_length=length))
        author = define(base, "Author", {"code": code})
        define(base, "Book", {"title": TITLE, "author": (ForeignKey[author], foreign_key())})

    return models


def with_tags(base: Any) -> None:
    """Books and tags, many to many."""
    tag = define(base, "Tag", {"name": TITLE})
    define(base, "Book", {"title": TITLE, "tags": (ManyToMany[tag], many_to_many())})


def in_a_circle(base: Any) -> None:
    """Two models that refer to each other."""

    class Book(base):
        title: Field[str] = column(max_length=40)
        best: ForeignKey["Review | None"] = foreign_key(default=None)
        reviews: Related["Review"] = related("book")

    class Review(base):
        book: ForeignKey[Book] = foreign_key()
        text: Field[str]


TITLE = (Field[str], column(max_length=40))
PLAIN = book()
PAGES = {"id": 1, "title": "Dune", "pages": 412}, {"id": 2, "title": "Emma", "pages": 0}

CHANGES = (
    Change("a new table", lambda base: None, PLAIN, rows=()),
    Change("a dropped table", with_author(), PLAIN),
    Change("a new table that refers to an existing one", PLAIN, with_author()),
    Change("a new table between two (many-to-many)", PLAIN, with_tags),
    Change("two new tables that refer to each other", lambda base: None, in_a_circle, rows=()),
    Change("two dropped tables that refer to each other", in_a_circle, lambda base: None, rows=()),
    Change(
        "a renamed table",
        PLAIN,
        lambda base: define(base, "Volume", {"title": TITLE}),
        renames=((None, "book", "volume"),),
        note="with `--rename`",
    ),
    Change(
        "a new nullable column",
        PLAIN,
        book(pages=(Field[int | None], column(default=None))),
        expected={"pages": None},
    ),
    Change(
        "a new column with a default in Python",
        PLAIN,
        book(pages=(Field[int], column(default=7))),
        expected={"pages": 7},
        note="existing rows get the default",
    ),
    Change(
        "a new column with a JSON default",
        PLAIN,
        book(tags=(Field[list[str]], column(default_factory=list))),
        expected={"tags": []},
        note="existing rows get the default",
    ),
    Change(
        "a new column with a server default",
        PLAIN,
        book(pages=(Field[int], column(server_default="5"))),
        expected={"pages": 5},
    ),
    Change(
        "a new version",
        PLAIN,
        book(version=(Field[int], version_field(start=3))),
        expected={"version": 3},
        note="existing rows get the first version",
    ),
    Change(
        "a new column with a timestamp as server default",
        PLAIN,
        book(at=(Field[datetime], column(server_default=func.now()))),
        expected={"at": lambda value: abs((datetime.now(UTC) - value).total_seconds()) < 3600},
    ),
    Change("a dropped column", book(pages=(Field[int], column(default=0))), PLAIN, rows=PAGES),
    Change(
        "a renamed column",
        book(pages=(Field[int], column(default=0))),
        book(length=(Field[int], column(default=0))),
        rows=PAGES,
        renames=(("book", "pages", "length"),),
        expected={"length": lambda value: value in (412, 0)},
        note="with `--rename`",
    ),
    Change(
        "a renamed column with an index",
        book(pages=(Field[int], column(default=0, index=True))),
        book(length=(Field[int], column(default=0, index=True))),
        rows=PAGES,
        renames=(("book", "pages", "length"),),
        expected={"length": lambda value: value in (412, 0)},
        note="with `--rename`",
    ),
    Change(
        "a renamed table with new, renamed, altered and dropped columns",
        book(pages=(Field[int], column(default=0)), note=(Field[int | None], column(default=None))),
        lambda base: define(
            base,
            "Volume",
            {
                "title": (Field[str], column(max_length=80)),
                "length": (Field[int], column(default=0)),
                "price": (Field[int], column(default=3)),
            },
        ),
        rows=tuple({**row, "note": None} for row in PAGES),
        renames=((None, "book", "volume"), ("volume", "pages", "length")),
        expected={"length": lambda value: value in (412, 0), "price": 3},
        note="with `--rename`",
    ),
    Change(
        "a longer string",
        PLAIN,
        lambda base: define(base, "Book", {"title": (Field[str], column(max_length=80))}),
    ),
    Change("a string without a limit", PLAIN, lambda base: define(base, "Book", {"title": Field[str]})),
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
        "another type (date to moment)",
        book(day=(Field[date], column())),
        book(day=(Field[datetime], column(timezone=False))),
        rows=({"id": 1, "title": "Dune", "day": date(1965, 8, 1)},),
        expected={"day": datetime(1965, 8, 1)},  # noqa: DTZ001 without a time zone
    ),
    Change(
        "a key that is referred to (a longer string)",
        coded_authors(3),
        coded_authors(9),
        rows=(),
    ),
    Change(
        "a column that becomes nullable", book(pages=Field[int]), book(pages=Field[int | None]), rows=PAGES
    ),
    Change(
        "a column that becomes NOT NULL",
        book(pages=(Field[int | None], column(default=None))),
        book(pages=(Field[int], column(default=3))),
        rows=({"id": 1, "title": "Dune", "pages": 412}, {"id": 2, "title": "Emma", "pages": None}),
        expected={"pages": lambda value: value in (412, 3)},
        note="NULLs get the default",
    ),
    Change(
        "a column with a server default that becomes NOT NULL",
        book(pages=(Field[int | None], column(default=3, server_default="5"))),
        book(pages=(Field[int], column(default=3, server_default="5"))),
        rows=({"id": 1, "title": "Dune", "pages": 412}, {"id": 2, "title": "Emma", "pages": None}),
        expected={"pages": lambda value: value in (412, 3)},
        note="NULLs get the default",
    ),
    Change(
        "a new server default",
        book(pages=Field[int]),
        book(pages=(Field[int], column(server_default="5"))),
        rows=PAGES,
    ),
    Change(
        "another server default",
        book(pages=(Field[int], column(server_default="5"))),
        book(pages=(Field[int], column(server_default="6"))),
        rows=PAGES,
    ),
    Change(
        "a dropped server default",
        book(pages=(Field[int], column(server_default="5"))),
        book(pages=Field[int]),
        rows=PAGES,
    ),
    Change("an index", book(pages=Field[int]), book(pages=(Field[int], column(index=True))), rows=PAGES),
    Change(
        "a dropped index", book(pages=(Field[int], column(index=True))), book(pages=Field[int]), rows=PAGES
    ),
    Change(
        "an index on several columns", with_args(), with_args(Index("ix_both", "title", "pages")), rows=PAGES
    ),
    Change(
        "a unique column",
        PLAIN,
        lambda base: define(base, "Book", {"title": (Field[str], column(max_length=40, unique=True))}),
    ),
    Change(
        "a dropped unique constraint",
        with_args(UniqueConstraint("title", "pages")),
        with_args(),
        rows=PAGES,
    ),
    Change("a CHECK", with_args(), with_args(CheckConstraint("pages >= 0", name="pages")), rows=PAGES),
    Change(
        "a CHECK with another condition",
        with_args(CheckConstraint("pages >= 0", name="pages")),
        with_args(CheckConstraint("pages >= 0 AND pages < 5000", name="pages")),
        rows=PAGES,
    ),
    Change(
        "a dropped CHECK", with_args(CheckConstraint("pages >= 0", name="pages")), with_args(), rows=PAGES
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
        "a dropped foreign key",
        with_author(lambda: foreign_key(default=None)),
        with_author(),
        rows=({"id": 1, "title": "Dune", "author_id": None},),
    ),
    Change(
        "a foreign key without a constraint",
        with_author(lambda: foreign_key(default=None)),
        with_author(lambda: foreign_key(default=None, constraint=False)),
        rows=({"id": 1, "title": "Dune", "author_id": None},),
    ),
    Change(
        "a foreign key that becomes unique",
        with_author(lambda: foreign_key(default=None)),
        with_author(lambda: foreign_key(default=None, unique=True)),
        rows=({"id": 1, "title": "Dune", "author_id": None},),
    ),
    Change(
        "a table comment",
        with_args(),
        with_args({"comment": "What we lend"}),
        rows=PAGES,
        seen=("postgresql", "mariadb"),
        note="SQLite has no comments",
    ),
    Change(
        "a dropped table that refers to an existing one",
        with_author(lambda: foreign_key(default=None)),
        lambda base: define(base, "Author", {"name": TITLE}),
        rows=(),
    ),
    Change(
        "a new Enum of numbers",
        PLAIN,
        book(stars=(Field[Stars], column(default=Stars.TWO))),
        expected={"stars": Stars.TWO},
        note="existing rows get the default",
    ),
    Change(
        "a dropped Enum",
        book(size=(Field[Size], column(default=Size.S))),
        PLAIN,
        rows=({"id": 1, "title": "Dune", "size": Size.M},),
        returns=("size",),
        note="comes back as nullable",
    ),
    Change(
        "a dropped unique column",
        book(code=(Field[int], column(unique=True))),
        PLAIN,
        rows=({"id": 1, "title": "Dune", "code": 4}, {"id": 2, "title": "Emma", "code": 5}),
        returns=("code",),
        note="comes back as nullable",
    ),
    Change(
        "another type and NOT NULL at once",
        book(note=(Field[str | None], column(default=None, max_length=5))),
        book(note=(Field[str], column(default="none", max_length=15))),
        rows=({"id": 1, "title": "Dune", "note": "good"}, {"id": 2, "title": "Emma", "note": None}),
        expected={"note": lambda value: value in ("good", "none")},
        note="NULLs get the default",
    ),
)
