"""A rename is what it says, or an error; and what only follows a rename is no change."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import CheckConstraint, text

import microorm
from microorm import Field, ForeignKey, Model, field, foreign_key
from microorm.errors import MigrationError
from microorm.migrations import Migrations
from microorm.migrations.compare import Rename, columns_of, read_rename, tables_of

Anew = Callable[[], type[Model]]


@pytest.mark.parametrize(
    ("given", "rename"),
    [
        ("book:volume", Rename(None, "book", "volume")),
        ("book.pages:length", Rename("book", "pages", "length")),
        ("book.pages:book.length", Rename("book", "pages", "length")),
    ],
)
def test_a_rename_is_read(given: str, rename: Rename) -> None:
    assert read_rename(given) == rename


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("book", "a rename is 'old:new' of a table or 'table.old:new' of a column, not 'book'"),
        ("a:b:c", "a rename is"),
        ("book.pages:shelf.pages", "a column stays in its table, and 'book.pages:shelf.pages' names two"),
        ("book:shelf.pages", "names two"),
        ("book:book", "changes nothing"),
    ],
)
def test_what_is_no_rename_is_refused(given: str, told: str) -> None:
    with pytest.raises(MigrationError, match=told):
        read_rename(given)


def test_renames_are_found_by_what_they_are_of() -> None:
    renames = [Rename("book", "a", "b"), Rename(None, "c", "d")]
    assert columns_of(renames, "book") == {"b": "a"}
    assert columns_of(renames, "shelf") == {}
    assert tables_of(renames) == {"d": "c"}


def authors(base: Any, name: str) -> Any:
    person = type(base)(
        name,
        (base,),
        {
            "__annotations__": {"name": Field[str]},
            "name": field(max_length=40),
            "__module__": __name__,
        },
    )

    class Book(base):
        title: Field[str] = field(max_length=40)
        author: ForeignKey[person] = foreign_key(column="author_id")

    return person, Book


@pytest.mark.backends("sqlite-file", "postgresql", "mariadb")
def test_keys_follow_a_renamed_table(anew: Anew, migrations: Any, databases: microorm.Databases) -> None:
    old, new = anew(), anew()
    author, book = authors(old, "Author")
    history: Migrations = migrations(old)
    history.make("first")
    history.migrate()
    ursula = author(name="Le Guin").save()
    book(title="The Dispossessed", author=ursula).save()
    writer, book = authors(new, "Writer")
    history = migrations(new)
    made = history.make("writers", renames=["author:writer"])
    assert made is not None
    text = made.read_text()
    assert "op.rename_table('author', 'writer')" in text
    assert "create_foreign_key" not in text
    assert "create_table" not in text
    history.migrate()
    assert history.check() == []
    assert writer(name="Lem").save().pk == 2  # the key is made as before
    assert [each.author.name for each in book.objects] == ["Le Guin"]
    history.migrate("0001")
    assert migrations(old).compare() == []


@pytest.mark.backends("sqlite-file")
@pytest.mark.parametrize(
    "rename", ["bok:volume", "book:volum", "book.pags:length", "book.pages:lenght", "nothing.a:b"]
)
def test_a_rename_of_what_is_not_there_writes_nothing(anew: Anew, migrations: Any, rename: str) -> None:
    old: Any = anew()

    class Book(old):
        pages: Field[int]

    history: Migrations = migrations(old)
    history.make("first")
    history.migrate()
    new: Any = anew()

    class Tome(new, table="book" if "." in rename else "volume"):
        length: Field[int]

    history = migrations(new)
    with pytest.raises(MigrationError, match="there is no"):
        history.make("second", renames=[rename])
    assert len(history.show()) == 1


def coded(base: Any, name: str, *table_args: Any) -> None:
    type(base)(
        "Book",
        (base,),
        {
            "__annotations__": {name: Field[str]},
            name: field(max_length=40, unique=True),
            "__module__": __name__,
        },
        table_args=table_args,
    )


@pytest.mark.backends("postgresql", "mariadb")
def test_a_rename_over_several_dialects_goes_there_and_back(
    url: str, sqlite_url: str, folder: Any, backend: str
) -> None:
    """MariaDB tells of a unique column as of an index, so that what each needs differs around the rename."""

    def base_of() -> Any:
        class Base(microorm.Model, registry=microorm.Registry(databases), app="shop", abstract=True):
            pass

        return Base

    with microorm.Databases({"default": sqlite_url, "server": url}) as databases:
        old, new = base_of(), base_of()
        coded(old, "code", CheckConstraint("code <> ''", name="filled"))
        coded(new, "sign", CheckConstraint("sign <> ''", name="filled"))
        history = Migrations(folder, old.__options__.registry)
        history.make("first")
        history.migrate()
        for alias in databases.aliases:
            with databases.connection(alias) as connection:
                connection.execute(text("INSERT INTO book (code) VALUES ('a')"))
                connection.commit()
        later = Migrations(folder, new.__options__.registry)
        later.make("second", renames=["book.code:sign"])
        later.migrate()
        assert later.check() == []
        later.migrate("-1")
        assert history.compare() == []
        for alias in databases.aliases:
            with databases.connection(alias) as connection:
                assert connection.execute(text("SELECT code FROM book")).scalars().all() == ["a"]
